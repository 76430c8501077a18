"""Where a connection really goes: addresses that are never read, and those that must be allowed.

A name is judged when a connection is made, by the address of its other end. Redirects, odd
spellings (`0xa9fea9fe`) and DNS names of private addresses are all covered, because each of them
ends in a connection.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from scenebeam.errors import ReadError

_METADATA = {
    ip_address("100.100.100.200"),  # Alibaba Cloud
    ip_address("168.63.129.16"),  # Azure
    ip_address("fd00:ec2::254"),  # Amazon EC2 over IPv6; over IPv4 it is link-local, as elsewhere
}
_METADATA_NAMES = {"metadata", "metadata.google.internal"}
_NAT64 = ip_network("64:ff9b::/96")
"""IPv4 addresses translated for IPv6-only networks (RFC 6052)."""
_COMPATIBLE = ip_network("::/96")
"""IPv4 addresses as IPv6 once had them (RFC 4291 section 2.5.5.1)."""
_HEADER_SECONDS = 60.0
"""After which an answer's headers must have come."""

Address = IPv4Address | IPv6Address


def is_metadata(host: str) -> bool:
    """Whether a host, by its name or address, is a cloud's metadata server or any other link-local
    address.

    A metadata server gives every process of its machine the token of the machine's account.
    """
    if host.rstrip(".").lower() in _METADATA_NAMES:
        return True
    return any(_is_forbidden(address) for address in _unwrapped(host))


def is_private(host: str) -> bool:
    """Whether a host, by its name or address, is on this machine or in a private network."""
    found = [address for text in _resolve(host) for address in _unwrapped(text)]
    # A name that also leads to the public is one of the public's.
    return bool(found) and all(_is_private(address) for address in found)


def check_address(host: str, address: str, *, private: bool) -> None:
    """Raise ReadError where `address`, to which the name `host` leads, must not be read.

    Metadata servers and link-local addresses never are. Loopback and private addresses are where
    `private`.
    """
    where = host if host == address else f"{host}, at {address},"
    for one in _unwrapped(address):
        if _is_forbidden(one):
            raise ReadError(
                f"{where} is no place for images: at such an address a machine in the cloud finds its own keys; refused"
            )
        if _is_private(one) and not private:
            raise ReadError(
                f"{where} is in a private network, and the catalog is a public one; refused. If the files are meant "
                "to be there, set limits.private_addresses: true"
            )


def _unwrapped(address: str) -> list[Address]:
    """An address, and the IPv4 address inside it where it is one in IPv6's clothes; none for a
    name.
    """
    try:
        found = ip_address(address.partition("%")[0].rstrip(".").strip("[]"))
    except ValueError:
        return []
    if isinstance(found, IPv4Address):
        return [found]
    inner = [found.ipv4_mapped, found.sixtofour, *(found.teredo or ())]
    if found in _NAT64 or found in _COMPATIBLE:
        inner.append(IPv4Address(int(found) & 0xFFFFFFFF))
    return [found, *(one for one in inner if one is not None)]


def _is_forbidden(address: Address) -> bool:
    return address.is_link_local or address.is_multicast or address in _METADATA


def _is_private(address: Address) -> bool:
    # The IPv6 forms of IPv4 addresses are judged by what is inside them.
    return not address.is_global and not (isinstance(address, IPv6Address) and address.ipv4_mapped)


def _check_name(host: str, *, private: bool) -> None:
    """Raise ReadError where none of the addresses that a name leads to may be read."""
    refused: ReadError | None = None
    for address in _resolve(host):
        try:
            check_address(host, address, private=private)
        except ReadError as error:
            refused = error
        else:
            return
    if refused is not None:
        raise refused


def _resolve(host: str) -> list[str]:
    """Return the addresses of a name; none where it cannot be resolved."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(end[0]) for *_, end in found]


class _Checked:
    """What a connection class of urllib3 needs so that it connects to no other address than
    `check_address` lets it.
    """

    private = False
    """Whether loopback and private addresses may be connected to."""

    def _new_conn(self) -> socket.socket:
        if is_metadata(self._dns_host):  # type: ignore[attr-defined]
            check_address(self.host, "169.254.169.254", private=True)  # type: ignore[attr-defined]
        # Not even a connection is made to where nothing may be read.
        _check_name(self._dns_host, private=self.private)  # type: ignore[attr-defined]
        connection: socket.socket = super()._new_conn()  # type: ignore[misc]
        try:
            check_address(self.host, str(connection.getpeername()[0]), private=self.private)  # type: ignore[attr-defined]
        except BaseException:
            connection.close()
            raise
        return connection

    def getresponse(self) -> Any:
        """The answer's status and headers. A server that drips them is hung up on: the socket's
        timeout starts anew with each byte.
        """
        timer = threading.Timer(_HEADER_SECONDS, _hang_up, [self.sock])  # type: ignore[attr-defined]
        timer.daemon = True
        timer.start()
        try:
            return super().getresponse()  # type: ignore[misc]
        finally:
            timer.cancel()


def _hang_up(connection: socket.socket | None) -> None:
    with suppress(OSError, AttributeError):
        connection.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]


@cache
def pool_classes(private: bool) -> dict[str, Any]:
    """urllib3's connection pools by scheme, whose connections are checked: for
    `PoolManager.pool_classes_by_scheme`.
    """

    class Plain(_Checked, HTTPConnection):
        pass

    class Secure(_Checked, HTTPSConnection):
        pass

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Secure

    Plain.private = Secure.private = private
    return {"http": PlainPool, "https": SecurePool}
