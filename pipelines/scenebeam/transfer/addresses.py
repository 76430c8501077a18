"""Which addresses a connection may go to: guards against server-side request forgery.

Hrefs come from catalogs, so they could point to a cloud's metadata server or into a private
network. The check is made when a connection is opened, by the address of its other end. That covers
redirects, unusual spellings (`0xa9fea9fe`) and DNS names of private addresses, since each of them
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
    ip_address("fd00:ec2::254"),  # Amazon EC2 over IPv6; over IPv4 it is link-local, like others
}
_METADATA_NAMES = {"metadata", "metadata.google.internal"}
_LINK_LOCAL = "169.254.169.254"
"""The metadata server of Amazon, Google and Azure."""
_NAT64 = ip_network("64:ff9b::/96")
"""IPv4 addresses translated for IPv6-only networks (RFC 6052)."""
_COMPATIBLE = ip_network("::/96")
"""IPv4-compatible IPv6 addresses, now deprecated (RFC 4291 section 2.5.5.1)."""
_HEADER_SECONDS = 60.0
"""Maximum duration until the headers of a response are complete."""

Address = IPv4Address | IPv6Address


def is_metadata(host: str) -> bool:
    """Return whether a host is a cloud's metadata server, or any other link-local address.

    A metadata server gives every process on its machine the credentials of the machine's account.

    Args:
        host: Name or address. Names are not resolved.
    """
    if host.rstrip(".").lower() in _METADATA_NAMES:
        return True
    return any(map(_is_forbidden, _parse(host)))


def is_private(host: str) -> bool:
    """Return whether a host is this machine or in a private network.

    Args:
        host: Name or address. A name is private only if all of its addresses are.
    """
    addresses: list[Address] = []
    for text in _resolve(host):
        addresses += _parse(text)
    return bool(addresses) and all(map(_is_private, addresses))


def check_address(host: str, address: str, *, private: bool) -> None:
    """Check that an address may be read from.

    Metadata servers and other link-local addresses are always refused.

    Args:
        host: The name that led to the address, for messages.
        address: The address of the connection.
        private: Whether loopback and private addresses are allowed.

    Raises:
        ReadError: The address is refused.
    """
    where = host if host == address else f"{host} (at {address})"
    for candidate in _parse(address):
        if _is_forbidden(candidate):
            raise ReadError(
                f"{where} is a link-local or cloud metadata address, where machines obtain their "
                "own credentials: refused"
            )
        if _is_private(candidate) and not private:
            raise ReadError(
                f"{where} is in a private network, but the catalog is public: refused. If the "
                "files are meant to be there, set limits.private_addresses: true"
            )


def _parse(address: str) -> list[Address]:
    """Parse an address, and all IPv4 addresses that are embedded in it; none for a name."""
    try:
        parsed = ip_address(address.partition("%")[0].rstrip(".").strip("[]"))
    except ValueError:
        return []
    if isinstance(parsed, IPv4Address):
        return [parsed]
    # Gateways and operating systems may unwrap an IPv4 address that is written as IPv6, so both
    # of them are checked.
    embedded = [parsed.ipv4_mapped, parsed.sixtofour, *(parsed.teredo or ())]
    if parsed in _NAT64 or parsed in _COMPATIBLE:
        embedded.append(IPv4Address(int(parsed) & 0xFFFFFFFF))
    return [parsed, *filter(None, embedded)]


def _is_forbidden(address: Address) -> bool:
    return address.is_link_local or address.is_multicast or address in _METADATA


def _is_private(address: Address) -> bool:
    # An IPv4-mapped address is never global itself; the address embedded in it decides.
    return not address.is_global and not (isinstance(address, IPv6Address) and address.ipv4_mapped)


def _check_name(host: str, *, private: bool) -> None:
    """Raise ReadError if none of the addresses of a name may be read from."""
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
    """Return the addresses of a name; none if it cannot be resolved."""
    try:
        results = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(socket_address[0]) for *_, socket_address in results]


class _CheckedConnection:
    """Mixin for urllib3's connection classes that applies `check_address` to each connection."""

    private = False
    """Whether loopback and private addresses are allowed."""

    def _new_conn(self) -> socket.socket:
        if is_metadata(self._dns_host):  # type: ignore[attr-defined]
            check_address(self.host, _LINK_LOCAL, private=True)  # type: ignore[attr-defined]
        # Check the name first, so that no connection is made to an address that is refused.
        _check_name(self._dns_host, private=self.private)  # type: ignore[attr-defined]
        connection: socket.socket = super()._new_conn()  # type: ignore[misc]
        # Check again, since the name may resolve to another address by now (DNS rebinding).
        try:
            peer = str(connection.getpeername()[0])
            check_address(self.host, peer, private=self.private)  # type: ignore[attr-defined]
        except BaseException:
            connection.close()
            raise
        return connection

    def getresponse(self) -> Any:
        """Read the status and headers of the response, within `_HEADER_SECONDS`.

        The socket's timeout alone does not bound this: it starts anew with each byte received.
        """
        connection = self.sock  # type: ignore[attr-defined]
        timer = threading.Timer(_HEADER_SECONDS, _shut_down, [connection])
        timer.daemon = True
        timer.start()
        try:
            return super().getresponse()  # type: ignore[misc]
        finally:
            timer.cancel()


def _shut_down(connection: socket.socket | None) -> None:
    with suppress(OSError, AttributeError):
        connection.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]


@cache
def pool_classes(private: bool) -> dict[str, Any]:
    """Create urllib3 connection pools whose connections are checked.

    Args:
        private: Whether loopback and private addresses are allowed.

    Returns:
        Scheme → pool class, for `PoolManager.pool_classes_by_scheme`.
    """

    class CheckedHTTPConnection(_CheckedConnection, HTTPConnection):
        pass

    class CheckedHTTPSConnection(_CheckedConnection, HTTPSConnection):
        pass

    class CheckedHTTPPool(urllib3.HTTPConnectionPool):
        ConnectionCls = CheckedHTTPConnection

    class CheckedHTTPSPool(urllib3.HTTPSConnectionPool):
        ConnectionCls = CheckedHTTPSConnection

    CheckedHTTPConnection.private = CheckedHTTPSConnection.private = private
    return {"http": CheckedHTTPPool, "https": CheckedHTTPSPool}
