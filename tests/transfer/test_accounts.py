"""Credentials come from Secret Manager by reference, and stay out of everything that is written."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from conftest import write_served_items
from scenebeam.cloud.guard import authorize
from scenebeam.cloud.settings import CloudSettings
from scenebeam.errors import ReadError, RequestError
from scenebeam.execution.driver import run
from scenebeam.requestfile import validate_request
from scenebeam.sandbox.server import SandboxServer
from scenebeam.transfer.signing import accounts, earthdata, sign

TOKEN = "t0ken-of-the-user"
REFERENCE = "secret:projects/p/secrets/earthdata/versions/latest"


class Secrets:
    """A stand-in for Secret Manager, and for a service that issues temporary keys."""

    def __init__(self) -> None:
        self.url = ""
        self.values = {"projects/p/secrets/earthdata/versions/latest": f"{TOKEN}\n"}
        self.asked: list[str] = []


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Secrets]:
    served = Secrets()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(self.path)
            if self.path == "/s3credentials":
                allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
                later = datetime.now(UTC) + timedelta(hours=1)
                keys = {
                    "accessKeyId": "AKIA",
                    "secretAccessKey": "s3cret",
                    "sessionToken": "session",
                    "expiration": f"{later:%Y-%m-%d %H:%M:%S}+00:00",
                }
                self.answer(200 if allowed else 401, keys)
                return
            name = self.path.removeprefix("/v1/").removesuffix(":access")
            value = served.values.get(name)
            data = base64.b64encode((value or "").encode()).decode()
            self.answer(403 if value is None else 200, {"payload": {"data": data}})

        def answer(self, status: int, document: Any) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("SECRET_MANAGER_EMULATOR_HOST", served.url)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    accounts._fetch.cache_clear()
    earthdata._keys.cache_clear()
    yield served
    server.shutdown()
    accounts.use_accounts({})
    accounts._fetch.cache_clear()
    earthdata._keys.cache_clear()


def test_an_earthdata_token_goes_to_earthdata_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARTHDATA_TOKEN", TOKEN)
    places = ("evil.example", "earthdatacloud.nasa.gov.evil.example", "notearthdata.nasa.gov")
    hrefs = [f"https://{host}/a.tif" for host in places]
    for href in (*hrefs, "http://data.lpdaac.earthdatacloud.nasa.gov/a.tif"):
        found = sign(href, "earthdata")
        assert found is not None
        assert found.headers == {}
    real = sign("https://data.lpdaac.earthdatacloud.nasa.gov/a.tif", "earthdata")
    assert real is not None
    assert real.headers == {"Authorization": f"Bearer {TOKEN}"}


def test_without_a_token_the_message_says_where_to_get_one() -> None:
    with pytest.raises(ReadError, match=r"urs.earthdata.nasa.gov, and set EARTHDATA_TOKEN"):
        sign("https://data.lpdaac.earthdatacloud.nasa.gov/a.tif", "earthdata")
    assert earthdata.preferred_schemes() == ()


def test_temporary_keys_open_protected_buckets(
    secrets: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EARTHDATA_TOKEN", TOKEN)
    monkeypatch.setattr(earthdata, "KEY_SERVICES", {"lp-prod-": f"{secrets.url}/s3credentials"})
    for _ in range(2):
        signed = sign("s3://lp-prod-protected/HLS/a b.tif", "earthdata")
        assert signed is not None
        assert signed.url == "https://lp-prod-protected.s3.us-west-2.amazonaws.com/HLS/a%20b.tif"
        assert signed.headers["X-Amz-Security-Token"] == "session"
        assert "AKIA/" in signed.headers["Authorization"]
        assert "/us-west-2/s3/" in signed.headers["Authorization"]
    assert secrets.asked == ["/s3credentials"]
    with pytest.raises(ReadError, match="no service of Earthdata"):
        sign("s3://someone-else/a.tif", "earthdata")
    assert earthdata.preferred_schemes() == ("https", "http")
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    assert earthdata.preferred_schemes() == ("s3", "https")


def test_a_token_that_is_refused_says_so(secrets: Secrets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARTHDATA_TOKEN", "old")
    monkeypatch.setattr(earthdata, "KEY_SERVICES", {"lp-prod-": f"{secrets.url}/s3credentials"})
    with pytest.raises(ReadError, match="returned 401: is EARTHDATA_TOKEN still valid"):
        sign("s3://lp-prod-protected/a.tif", "earthdata")


def test_a_secret_is_fetched_once_and_written_nowhere(
    secrets: Secrets, server: SandboxServer, sandbox: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(earthdata, "EARTHDATA_HOSTS", ("127.0.0.1",))
    monkeypatch.setattr(earthdata, "TOKEN_SCHEMES", ("http",))

    def guard(path: str, headers: Any) -> int | None:
        return None if headers.get("Authorization") == f"Bearer {TOKEN}" else 401

    items = write_served_items(sandbox, server.url, tmp_path / "items.json")
    server.guard = guard
    record = {
        "id": "sentinel-2-l2a", "dtype": "uint16", "nodata": 0, "signing": "earthdata",
        "bands": {"red": {"asset": "red", "resolution": 10}},
    }  # fmt: skip
    request = validate_request(
        {
            "run": "secret", "catalog": str(items), "collections": [record],
            "area": {"bbox": [23.96, 40.58, 23.99, 40.6]}, "dates": "2021",
            "product": {"kind": "mosaic", "bands": ["red"]},
            "accounts": {"EARTHDATA_TOKEN": REFERENCE},
            "output": str(tmp_path / "out"), "runner": "serial",
        }
    )  # fmt: skip
    status = run(request)
    assert (status.state, status.incomplete) == ("succeeded", 0), status.message
    assert len(secrets.asked) == 1
    for path in (tmp_path / "out").rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path
    assert REFERENCE in (tmp_path / "out" / "run.json").read_text()


def test_a_secret_that_cannot_be_read_names_the_role(secrets: Secrets) -> None:
    accounts.use_accounts({"EARTHDATA_TOKEN": REFERENCE.replace("earthdata", "other")})
    with pytest.raises(ReadError, match="secretAccessor") as caught:
        accounts.credential("EARTHDATA_TOKEN")
    assert caught.value.permanent


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"EARTHDATA_TOKEN": TOKEN}, "accounts.EARTHDATA_TOKEN"),
        ({"EARTHDATA_TOKN": REFERENCE}, "did you mean 'EARTHDATA_TOKEN'"),
        ({"PATH": REFERENCE}, "is not known"),
    ],
)
def test_a_request_holds_references_alone(given: dict[str, str], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        validate_request({**REQUEST, "accounts": given})


REQUEST: dict[str, Any] = {
    "catalog": "earth-search", "collections": ["sentinel-2-l2a"], "area": {"bbox": [1, 2, 3, 4]},
    "dates": "2023", "product": {"kind": "mosaic", "bands": ["red"]}, "output": "gs://products/x",
}  # fmt: skip


def test_a_message_gets_the_accounts_of_the_deployment_and_no_others() -> None:
    environment = {
        "SCENEBEAM_STATE": "gs://s", "SCENEBEAM_OUTPUTS": "gs://products",
        "SCENEBEAM_ACCOUNTS": json.dumps({"EARTHDATA_TOKEN": REFERENCE}),
    }  # fmt: skip
    settings = CloudSettings.from_environment(environment)
    asked = {"CDSE_PASSWORD": REFERENCE.replace("earthdata", "anything")}
    request = authorize(json.dumps({**REQUEST, "accounts": asked}).encode(), settings)
    assert request.accounts == {"EARTHDATA_TOKEN": REFERENCE}
    with pytest.raises(RequestError, match="SCENEBEAM_ACCOUNTS"):
        CloudSettings.from_environment({**environment, "SCENEBEAM_ACCOUNTS": "{"})
