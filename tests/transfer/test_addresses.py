"""Addresses that are never read, however they are spelled, redirected to or named in the DNS."""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostile import serve_hostile
from scenebeam.catalog.search import search_items
from scenebeam.errors import CatalogError, ReadError
from scenebeam.request import RunRequest
from scenebeam.sandbox.server import Fault, SandboxServer, serve
from scenebeam.storage import open_store
from scenebeam.transfer import addresses
from scenebeam.transfer.addresses import check_address, is_metadata, is_private
from scenebeam.transfer.download import download
from scenebeam.transfer.ranges import local_copy, read_range
from scenebeam.transfer.retry import Budget
from scenebeam.transfer.signing import effective_limits, sign

METADATA = int(ipaddress.ip_address("169.254.169.254"))
SPELLINGS = [
    "169.254.169.254",
    "169.254.169.254.",
    "2852039166",
    "0xa9fea9fe",
    "0XA9FEA9FE",
    "025177524776",
    "169.254.43518",
    "169.16689662",
    "0251.0376.0251.0376",
    "0xa9.0xfe.0xa9.0xfe",
    "169.0376.0xa9fe",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[::169.254.169.254]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::]",
    "[fe80::1]",
    "[fd00:ec2::254]",
    "100.100.100.200",
    "168.63.129.16",
    "metadata",
    "metadata.google.internal",
    "Metadata.Google.Internal.",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"]
PRIVATE = [
    "127.0.0.1",
    "10.0.0.1",
    "172.16.5.4",
    "192.168.1.1",
    "100.64.0.1",
    "0.0.0.0",
    "::1",
    "fc00::1",
    "::ffff:10.0.0.1",
]


def quick(*, private: bool = False) -> Budget:
    return Budget(private=private, first_wait=0.01, attempts=2)


@pytest.fixture
def no_connection(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Fail where a connection is made at all; gives what was connected to."""
    made: list[Any] = []

    def connect(self: socket.socket, where: Any) -> None:
        made.append(where)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", connect)
    return made


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("host", SPELLINGS)
def test_no_spelling_leads_to_a_metadata_server(
    host: str,
    private: bool,
    no_connection: list[Any],
) -> None:
    with pytest.raises(ReadError, match="metadata address") as fault:
        read_range(f"http://{host}/computeMetadata/v1/", 0, 10, quick(private=private))
    assert fault.value.permanent
    assert no_connection == []


@pytest.mark.parametrize("host", SPELLINGS)
def test_downloads_lead_to_no_metadata_server_either(
    host: str,
    no_connection: list[Any],
    tmp_path: Path,
) -> None:
    url = f"http://{host}/latest/meta-data/"
    with open_store(str(tmp_path)).open_download("a.tif", url) as arrival:
        with pytest.raises(ReadError, match="metadata address"):
            download(url, arrival, quick(private=True))
    assert no_connection == []


@given(st.integers(0, 2**32 - 1))
def test_link_local_addresses_are_refused_in_every_dress(number: int) -> None:
    plain = ipaddress.IPv4Address(number)
    dresses = [
        str(plain),
        str(ipaddress.IPv6Address(0xFFFF << 32 | number)),
        str(ipaddress.IPv6Address((0x64FF9B << 96) | number)),
        str(ipaddress.IPv6Address((0x2002 << 112) | (number << 80))),
    ]
    forbidden = {is_metadata(dress) for dress in dresses}
    assert len(forbidden) == 1, "all dresses of one address are judged alike"
    if plain.is_link_local:
        assert forbidden == {True}


@given(st.ip_addresses())
def test_what_is_not_global_is_never_read_for_a_public_catalog(address: Any) -> None:
    if not address.is_global and getattr(address, "ipv4_mapped", None) is None:
        with pytest.raises(ReadError, match="refused"):
            check_address("somewhere.example", str(address), private=False)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_read(address: str) -> None:
    check_address("somewhere.example", address, private=False)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_read_where_they_are_allowed(address: str) -> None:
    with pytest.raises(ReadError, match=r"private network.*limits.private_addresses"):
        check_address("somewhere.example", address, private=False)
    check_address("somewhere.example", address, private=True)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "0"],
)
def test_this_machine_is_refused_in_every_spelling(host: str, no_connection: list[Any]) -> None:
    with pytest.raises(ReadError, match="private network"):
        read_range(f"http://{host}:9/a.tif", 0, 10, quick())
    assert no_connection == []


# --- names


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """A DNS of our own: name → addresses."""
    known: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in known:
            return real(host, port, *args, **kwargs)
        ends = []
        for address in known[host]:
            ends += real(address, port, *args, **kwargs)
        return ends

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return known


@pytest.mark.parametrize("address", [*PRIVATE, "169.254.169.254", "fe80::1"])
def test_a_name_of_a_private_address_is_refused(
    names: dict[str, list[str]], no_connection: list[Any], address: str
) -> None:
    names["innocent.example"] = [address]
    with pytest.raises(ReadError, match=r"innocent.example \(at .*refused"):
        read_range("https://innocent.example/a.tif", 0, 10, quick())
    assert no_connection == []


def test_a_name_that_changes_between_two_questions_is_refused(
    names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The address of the connection is judged, whatever the name led to before."""
    (tmp_path / "a.tif").write_bytes(b"secret")
    with serve(tmp_path) as server:
        port = server.url.rpartition(":")[2]
        names["rebound.example"] = ["8.8.8.8"]
        resolve = socket.getaddrinfo

        def rebind(host: Any, *args: Any, **kwargs: Any) -> Any:
            found = resolve(host, *args, **kwargs)
            names["rebound.example"] = ["127.0.0.1"]
            return found

        monkeypatch.setattr(socket, "getaddrinfo", rebind)
        with pytest.raises(ReadError, match="private network"):
            read_range(f"http://rebound.example:{port}/a.tif", 0, 10, quick())
        assert server.requests.total() == 0


def test_a_catalog_is_private_where_all_its_addresses_are(
    names: dict[str, list[str]], make_request: Callable[..., RunRequest]
) -> None:
    names |= {"inside.example": ["10.0.0.1", "fc00::1"], "outside.example": ["10.0.0.1", "8.8.8.8"]}
    assert is_private("inside.example")
    assert not is_private("outside.example")
    assert not is_private("no-such-name.invalid")
    for host, private in (("inside.example", True), ("outside.example", False)):
        request = make_request(catalog=f"https://{host}/stac")
        assert effective_limits(request).private_addresses is private


# --- redirects


@pytest.fixture
def servers(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[SandboxServer, SandboxServer]]:
    """A server that counts as public, and a private one that it redirects to."""
    outside = ipaddress.ip_address("127.0.0.1")
    real = addresses._is_private
    monkeypatch.setattr(addresses, "_is_private", lambda one: one != outside and real(one))
    for name in ("outside", "inside"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.tif").write_bytes(b"some bytes" * 10)
        (tmp_path / name / "items.parquet").write_bytes(b"PAR1" * 10)
    with serve(tmp_path / "outside") as public:
        with serve_hostile(tmp_path / "inside", "127.0.0.2") as private:
            yield public, private


def test_a_redirect_to_a_private_address_is_not_followed(
    servers: tuple[SandboxServer, SandboxServer],
    tmp_path: Path,
) -> None:
    public, private = servers
    assert read_range(f"{public.url}/a.tif", 0, 4, quick()) == b"some"
    public.faults.append(Fault("", status=302, location=f"{private.url}/a.tif"))
    with pytest.raises(ReadError, match=r"127.0.0.2 is in a private network") as fault:
        read_range(f"{public.url}/a.tif", 0, 4, quick())
    assert fault.value.permanent
    with open_store(str(tmp_path / "out")).open_download("a.tif", "a") as arrival:
        with pytest.raises(ReadError, match="private network"):
            download(f"{public.url}/a.tif", arrival, quick())
    assert private.requests.total() == 0


@pytest.mark.parametrize(
    "location",
    ["http://169.254.169.254/", "http://0xa9fea9fe/", "http://[::ffff:a9fe:a9fe]/"],
)
def test_a_redirect_to_a_metadata_server_is_not_followed(
    servers: tuple[SandboxServer, SandboxServer],
    location: str,
) -> None:
    public, _ = servers
    public.faults.append(Fault("", status=302, location=location))
    with pytest.raises(ReadError, match="metadata address"):
        read_range(f"{public.url}/a.tif", 0, 4, quick(private=True))


@pytest.mark.parametrize("name", ["items.parquet", "stac"])
def test_a_catalog_that_redirects_to_a_private_address_is_not_followed(
    servers: tuple[SandboxServer, SandboxServer], make_request: Callable[..., RunRequest], name: str
) -> None:
    public, private = servers
    public.faults.append(Fault("", status=302, location=f"{private.url}/{name}"))
    request = make_request(catalog=f"{public.url}/{name}")
    with pytest.raises(CatalogError, match="private network"):
        search_items(request, [])
    assert private.requests.total() == 0


def test_a_link_of_a_catalog_to_a_private_address_is_not_followed(
    servers: tuple[SandboxServer, SandboxServer], make_request: Callable[..., RunRequest]
) -> None:
    public, private = servers
    links = [{"rel": "item", "href": f"{private.url}/item.json"}]
    root = {
        "type": "Catalog",
        "stac_version": "1.0.0",
        "id": "x",
        "description": "x",
        "links": links,
    }
    (public.folder / "catalog.json").write_text(json.dumps(root))
    with pytest.raises(CatalogError, match="cannot read"):
        search_items(make_request(catalog=f"{public.url}/catalog.json"), [])
    assert private.requests.total() == 0


def test_a_table_is_not_read_from_a_private_address(
    servers: tuple[SandboxServer, SandboxServer],
) -> None:
    _, private = servers
    with (
        pytest.raises(ReadError, match="private network"),
        local_copy(f"{private.url}/items.parquet", quick(), 1000),
    ):
        pass
    assert private.requests.total() == 0


def test_a_server_that_this_machine_names_itself_may_be_private(
    servers: tuple[SandboxServer, SandboxServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, private = servers
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", private.url)
    where = sign("gs://bucket/a.tif")
    assert where is not None
    assert where.trusted
    (private.folder / "bucket").mkdir()
    (private.folder / "bucket" / "a.tif").write_bytes(b"mine")
    assert read_range("gs://bucket/a.tif", 0, 4, quick()) == b"mine"


@pytest.mark.parametrize("signing", ["none", "cdse", "s3"])
@pytest.mark.parametrize(
    "href",
    [
        r"https://evil.example\@zipper.dataspace.copernicus.eu/a.jp2",
        r"https://127.0.0.2\zipper.dataspace.copernicus.eu/a.jp2",
        r"s3://127.0.0.2\@bucket/a.tif",
    ],
)
def test_a_host_that_two_parsers_read_differently_gets_no_keys(
    monkeypatch: pytest.MonkeyPatch, no_connection: list[Any], href: str, signing: str
) -> None:
    monkeypatch.setenv("CDSE_ACCESS_TOKEN", "s3cr3t")
    with pytest.raises(ReadError, match="backslash"):
        sign(href, signing)
    assert no_connection == []


@pytest.mark.parametrize("href", ["http://[::1/x", "http://a:b:c/", "http://a:99999999/"])
def test_what_is_not_a_url_is_told(href: str, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="is not a valid URL"):
        read_range(href, 0, 10, quick())
    with open_store(str(tmp_path)).open_download("a.tif", href) as arrival:
        with pytest.raises(ReadError, match="is not a valid URL"):
            download(href, arrival, quick())
    with pytest.raises(ReadError, match="is not a valid URL"), local_copy(href, quick(), 1000):
        pass
