"""Keys, tokens and signatures against stand-ins on loopback that check them, and no secret in anything written."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import rasterio

from scenebeam.errors import ReadError
from scenebeam.execution.driver import run
from scenebeam.raster.reader import open_source
from scenebeam.raster.source import read_window
from scenebeam.request import RunRequest
from scenebeam.requestfile import validate_request
from scenebeam.sandbox.scenes import AREA, SCENES
from scenebeam.sandbox.server import Fault, SandboxServer
from scenebeam.transfer.ranges import read_range
from scenebeam.transfer.retry import Budget
from scenebeam.transfer.signing import cdse, preferred_href, redact_url, s3, sign

SECRET = "s3cr3t-of-the-user"
SCENE = SCENES[0].id


def test_an_href_is_shown_without_its_signature() -> None:
    assert redact_url(f"https://user:{SECRET}@host/a.tif?sig={SECRET}#x") == "https://host/a.tif"
    assert redact_url("/data/a?b.tif") == "/data/a?b.tif"


def test_an_access_has_no_text_form() -> None:
    found = sign(f"https://host/a.tif?sig={SECRET}")
    assert found is not None
    assert SECRET not in f"{found!r} {found}"


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(ReadError, match="not ftp"):
        sign("ftp://host/a.tif")


# --- Planetary Computer


def test_planetary_computer_tokens_are_asked_of_its_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import planetary_computer.sas
    from planetary_computer.settings import Settings

    from scenebeam.sandbox.server import serve

    token = {"token": f"sig={SECRET}", "msft:expiry": "2999-01-01T00:00:00Z"}
    (tmp_path / "token" / "account").mkdir(parents=True)
    (tmp_path / "token" / "account" / "container").write_text(json.dumps(token))
    with serve(tmp_path) as service:
        monkeypatch.setenv("PC_SDK_SAS_URL", f"{service.url}/token")
        Settings.get.cache_clear()
        planetary_computer.sas.TOKEN_CACHE.clear()
        href = "https://account.blob.core.windows.net/container/a.tif"
        found = sign(href, "planetary-computer")
        assert sign(href, "planetary-computer") == found
    Settings.get.cache_clear()
    assert found is not None
    assert found.url == f"{href}?sig={SECRET}"
    assert service.requests.total() == 1, "a token serves until it ends"


@pytest.fixture
def signed(server: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> SandboxServer:
    """The sandbox behind signatures, as the Planetary Computer's storage is."""
    import planetary_computer

    monkeypatch.setattr(planetary_computer, "sign_url", lambda url: f"{url}?sig={SECRET}")

    def guard(path: str, headers: Mapping[str, str]) -> int | None:
        return None if parse_qs(urlsplit(path).query).get("sig") == [SECRET] else 403

    server.guard = guard
    return server


@pytest.fixture
def ask(server: SandboxServer, tmp_path: Path) -> Callable[..., RunRequest]:
    """A request on the server's files, opened as `signing` says."""

    def make(
        signing: str, product: dict[str, Any], edit: Callable[[dict[str, Any]], None] | None = None
    ) -> RunRequest:
        items = [scene.item(server.url) for scene in SCENES]
        for item in items:
            if edit is not None:
                edit(item)
        path = tmp_path / "items.json"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
        bands = {
            "red": {"asset": "red", "resolution": 10},
            "scl": {"asset": "scl", "resolution": 20, "dtype": "uint8", "categorical": True},
        }
        record = {
            "id": "sentinel-2-l2a",
            "dtype": "uint16",
            "nodata": 0,
            "signing": signing,
            "bands": bands,
        }
        return validate_request(
            {
                "catalog": str(path),
                "collections": [record],
                "area": {"bbox": list(AREA)},
                "product": product,
                "output": str(tmp_path / "out"),
                "runner": "serial",
            }
        )

    return make


PRODUCTS = [
    {"kind": "mosaic", "bands": ["red", "scl"]},
    {"kind": "assets", "bands": ["red", "scl"]},
]


@pytest.mark.parametrize("product", PRODUCTS, ids=["mosaic", "assets"])
def test_secrets_reach_no_file_and_no_log(
    ask: Callable[..., RunRequest],
    signed: SandboxServer,
    caplog: pytest.LogCaptureFixture,
    product: dict[str, Any],
) -> None:
    caplog.set_level(logging.DEBUG)
    signed.faults += [
        Fault(f"{SCENE}/red", status=404),
        Fault(f"{SCENES[1].id}/scl", cut=10, times=2),
    ]
    request = ask("planetary-computer", product)
    status = run(request)
    assert status.done, "the signed files were read"
    assert SECRET not in caplog.text
    for path in Path(request.output).rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


def test_a_file_that_gdal_opens_is_signed_too_and_its_faults_show_no_secret(
    signed: SandboxServer,
) -> None:
    pixels = write_jp2(signed.folder / "B08.jp2")
    source = open_source(f"{signed.url}/B08.jp2", 1, Budget(private=True), "planetary-computer")
    assert (read_window(source, 0, 0, 256, 256) == pixels).all()
    source.close()
    (signed.folder / "no.jp2").write_text("no image")
    for name in ("no.jp2", "missing.jp2"):
        with pytest.raises(ReadError) as fault:
            open_source(f"{signed.url}/{name}", 1, Budget(private=True), "planetary-computer")
        assert SECRET not in str(fault.value)
        assert name in str(fault.value)


def write_jp2(path: Path) -> np.ndarray:
    pixels = np.arange(256 * 256, dtype=np.uint16).reshape(256, 256)
    profile = {
        "driver": "JP2OpenJPEG",
        "width": 256,
        "height": 256,
        "count": 1,
        "dtype": "uint16",
        "crs": "EPSG:32634",
    }
    transform = rasterio.Affine(10, 0, 600000, 0, -10, 4500000)
    with rasterio.open(
        path, "w", **profile, transform=transform, QUALITY="100", REVERSIBLE="YES"
    ) as file:
        file.write(pixels, 1)
    return pixels


# --- Copernicus Data Space


@pytest.fixture
def bearer(server: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> SandboxServer:
    """The sandbox behind a bearer token."""
    monkeypatch.setattr(cdse, "CDSE_HOST", "127.0.0.1")

    def guard(path: str, headers: Mapping[str, str]) -> int | None:
        return None if headers.get("Authorization") == f"Bearer {SECRET}" else 401

    server.guard = guard
    return server


def with_alternate(item: dict[str, Any]) -> None:
    """As CDSE writes it: the href is s3://eodata, an alternate is https."""
    for asset in item["assets"].values():
        asset["alternate"] = {"https": {"href": asset["href"]}}
        asset["href"] = f"s3://eodata/{urlsplit(asset['href']).path.lstrip('/')}"


def test_a_cdse_token_opens_the_https_alternates(
    ask: Callable[..., RunRequest], bearer: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDSE_ACCESS_TOKEN", SECRET)
    request = ask("cdse", PRODUCTS[1], with_alternate)
    assert run(request).state == "succeeded"
    assert SECRET not in (Path(request.output) / "assets_manifest_selected.csv").read_text()
    write_jp2(bearer.folder / "B08.jp2")
    source = open_source(f"{bearer.url}/B08.jp2", 1, Budget(private=True), "cdse")
    assert read_window(source, 0, 0, 1, 2).tolist() == [[0, 1]]
    source.close()


def test_a_cdse_token_goes_to_no_other_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDSE_ACCESS_TOKEN", SECRET)
    for host in (
        "evil.example",
        "dataspace.copernicus.eu.evil.example",
        "notdataspace.copernicus.eu",
    ):
        found = sign(f"https://{host}/a.jp2", "cdse")
        assert found is not None
        assert found.headers == {}
    real = sign("https://zipper.dataspace.copernicus.eu/odata/v1/a.jp2", "cdse")
    assert real is not None
    assert real.headers == {"Authorization": f"Bearer {SECRET}"}


def test_without_an_account_the_message_says_what_to_set(
    ask: Callable[..., RunRequest], bearer: SandboxServer
) -> None:
    with pytest.raises(ReadError, match="set CDSE_USERNAME and CDSE_PASSWORD"):
        sign(f"{bearer.url}/a.tif", "cdse")
    with pytest.raises(ReadError, match="CDSE_S3_ACCESS_KEY and CDSE_S3_SECRET_KEY"):
        sign("s3://eodata/a.jp2", "cdse")


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, list[str]]]]:
    """An identity service that gives a new token each time; what it was asked."""
    asked: list[dict[str, list[str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            asked.append(form)
            body = json.dumps({"access_token": f"token-{len(asked)}", "expires_in": 61}).encode()
            self.send_response(200 if form["password"] == [SECRET] else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    httpd = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    monkeypatch.setattr(cdse, "CDSE_TOKENS", f"http://127.0.0.1:{httpd.server_address[1]}/token")
    cdse._login.cache_clear()
    yield asked
    httpd.shutdown()
    httpd.server_close()
    cdse._login.cache_clear()


def test_a_login_fetches_tokens_and_renews_them_before_they_end(
    login: list[dict[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDSE_USERNAME", "somebody")
    monkeypatch.setenv("CDSE_PASSWORD", SECRET)
    href = "https://zipper.dataspace.copernicus.eu/a.jp2"
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    first, second = sign(href, "cdse"), sign(href, "cdse")
    clock[0] += 2
    third = sign(href, "cdse")
    assert first == second
    assert [found.headers["Authorization"] for found in (first, third) if found] == [
        "Bearer token-1",
        "Bearer token-2",
    ]
    assert (len(login), login[0]["username"], login[0]["client_id"]) == (
        2,
        ["somebody"],
        ["cdse-public"],
    )


def test_a_wrong_password_is_told_without_it(
    login: list[dict[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDSE_USERNAME", "somebody")
    monkeypatch.setenv("CDSE_PASSWORD", "wrong-and-s3cr3t")
    with pytest.raises(ReadError, match="returned 401") as fault:
        sign("https://zipper.dataspace.copernicus.eu/a.jp2", "cdse")
    assert fault.value.permanent
    assert "wrong" not in str(fault.value)


def test_the_place_is_chosen_by_the_keys_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    hrefs = ["s3://eodata/a.jp2", "https://zipper.dataspace.copernicus.eu/a.jp2"]
    assert preferred_href(hrefs, "cdse") == hrefs[0]
    monkeypatch.setenv("CDSE_ACCESS_TOKEN", "x")
    assert preferred_href(hrefs, "cdse") == hrefs[1]
    monkeypatch.setenv("CDSE_S3_ACCESS_KEY", "x")
    monkeypatch.setenv("CDSE_S3_SECRET_KEY", "x")
    assert preferred_href(hrefs, "cdse") == hrefs[0]
    assert preferred_href(hrefs[::-1], "none") == hrefs[1]


# --- S3


def signature(path: str, headers: Mapping[str, str], region: str, secret: str) -> str:
    """AWS signature version 4 of a GET, worked out by the letter of its specification."""
    lower = {name.lower(): value for name, value in headers.items()}
    names = lower["authorization"].split("SignedHeaders=")[1].split(",")[0]
    lines = "".join(f"{name}:{lower[name].strip()}\n" for name in names.split(";"))
    canonical = "\n".join(["GET", path, "", lines, names, lower["x-amz-content-sha256"]])
    day = lower["x-amz-date"][:8]
    scope = f"{day}/{region}/s3/aws4_request"
    text = "\n".join(
        [
            "AWS4-HMAC-SHA256",
            lower["x-amz-date"],
            scope,
            hashlib.sha256(canonical.encode()).hexdigest(),
        ]
    )
    key = f"AWS4{secret}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def s3_guard(region: str, *, pays: bool) -> Callable[[str, Mapping[str, str]], int | None]:
    def guard(path: str, headers: Mapping[str, str]) -> int | None:
        told = headers.get("Authorization", "")
        if not told.endswith(
            f"Signature={signature(path, headers, region, SECRET)}" if told else "-"
        ):
            return 403
        return None if not pays or headers.get("x-amz-request-payer") == "requester" else 403

    return guard


def test_cdse_keys_open_its_s3(
    ask: Callable[..., RunRequest], server: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cdse, "CDSE_S3", f"{server.url}")
    monkeypatch.setenv("CDSE_S3_ACCESS_KEY", "key")
    monkeypatch.setenv("CDSE_S3_SECRET_KEY", SECRET)
    server.guard = s3_guard("default", pays=False)
    (server.folder / "eodata").symlink_to(".")
    try:
        request = ask("cdse", PRODUCTS[1], with_alternate)
        assert run(request).state == "succeeded"
        assert all(path.startswith("/eodata/") for path in server.requests)
        monkeypatch.setenv("CDSE_S3_SECRET_KEY", "another")
        with pytest.raises(ReadError, match="403"):
            read_range(f"s3://eodata/{SCENE}/red.tif", 0, 10, Budget(private=True), "cdse")
    finally:
        (server.folder / "eodata").unlink()


@pytest.fixture
def bucket(server: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxServer]:
    """An S3 that speaks plain paths: bucket `landsat`."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    s3._session.cache_clear()
    (server.folder / "landsat").symlink_to(".")
    yield server
    (server.folder / "landsat").unlink()
    s3._session.cache_clear()


def test_requester_pays_is_signed_and_said(
    bucket: SandboxServer, sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    bucket.guard = s3_guard("us-west-2", pays=True)
    href = f"s3://landsat/{SCENE}/red.tif"
    assert (
        read_range(href, 0, 100, Budget(private=True), "s3-requester-pays")
        == (sandbox / SCENE / "red.tif").read_bytes()[:100]
    )
    with pytest.raises(ReadError, match="403"):
        read_range(href, 0, 100, Budget(private=True), "s3")


def test_a_public_bucket_needs_no_keys(
    bucket: SandboxServer, sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.guard = lambda path, headers: 403 if "Authorization" in headers else None
    assert read_range(f"s3://landsat/{SCENE}/red.tif", 0, 4, Budget(private=True)) == b"II*\0"


def test_signing_without_keys_says_what_to_set(
    bucket: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ReadError, match="AWS_ACCESS_KEY_ID"):
        sign("s3://landsat/a.tif", "s3-requester-pays")


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "metadata.google.internal",
        "METADATA.google.internal.",
        "[fd00:ec2::254]",
        "[::ffff:169.254.169.254]",
    ],
)
def test_a_machines_own_keys_are_no_image(host: str) -> None:
    with pytest.raises(ReadError, match="metadata address"):
        sign(f"http://{host}/computeMetadata/v1/instance/service-accounts/default/token")
