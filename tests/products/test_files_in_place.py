"""Raw files of the assets product that lie where they are to be: intact ones stay, damaged ones come again."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import changed
from scenebeam.execution.driver import run
from scenebeam.request import RunRequest
from scenebeam.requestfile import validate_request
from scenebeam.sandbox.scenes import COLLECTION, SCENES
from scenebeam.sandbox.server import Fault, SandboxServer
from scenebeam.storage import open_store

SCENE = SCENES[0]
Ask = Callable[..., RunRequest]


@pytest.fixture
def ask(server: SandboxServer, tmp_path: Path) -> Ask:
    """A request for the files of one scene; `checksums` says whether its catalog knows them."""

    def make(checksums: bool = False, **changes: Any) -> RunRequest:
        item = SCENE.item(server.url)
        for band, asset in item["assets"].items():
            asset.pop("file:checksum", None)
            if checksums:
                content = (server.folder / SCENE.id / f"{band}.tif").read_bytes()
                asset["file:checksum"] = f"multihash:1220{hashlib.sha256(content).hexdigest()}"
        path = tmp_path / "catalog.json"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": [item]}))
        document: dict[str, Any] = {
            "catalog": str(path),
            "collections": [COLLECTION],
            "product": {"kind": "assets"},
            "output": str(tmp_path / "out"),
            "runner": "serial",
            "limits": {"retry_wait": 0.01, "max_attempts": 2},
        }
        return validate_request(changed(document, changes))

    return make


def row(request: RunRequest) -> dict[str, str]:
    content = open_store(request.output).read("assets_download_status.csv")
    assert content is not None
    (found,) = csv.DictReader(content.decode().splitlines())
    return found


def half_done(request: RunRequest, server: SandboxServer) -> Path:
    """Fetch all of a scene but its classes; gives the folder."""
    server.faults.append(Fault("scl", status=503))
    assert run(request).state == "failed"
    server.faults.clear()
    server.reset_counts()
    return Path(request.output) / "raw" / SCENE.id


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [cut, flip, empty])
@pytest.mark.parametrize("checksums", [True, False])
def test_a_damaged_file_in_place_is_fetched_again_with_a_warning(
    ask: Ask,
    server: SandboxServer,
    sandbox: Path,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path], None],
    checksums: bool,
) -> None:
    request = ask(checksums)
    folder = half_done(request, server)
    spoil(folder / "B08.tif")
    assert run(request).state == "succeeded"
    assert (folder / "B08.tif").read_bytes() == (sandbox / SCENE.id / "nir.tif").read_bytes()
    assert {name.rpartition("/")[2] for name in server.requests} == {"nir.tif", "scl.tif"}
    told = f"raw/{SCENE.id}/B08.tif existed but was damaged, and was downloaded again: "
    assert told in caplog.text
    assert row(request)["message"].startswith(f"B08: {told}")
    assert row(request)["status"] == "success"


@pytest.mark.parametrize("checksums", [True, False])
def test_intact_files_in_place_are_not_asked_for(
    ask: Ask,
    server: SandboxServer,
    checksums: bool,
) -> None:
    request = ask(checksums)
    half_done(request, server)
    assert run(request).state == "succeeded"
    assert {name.rpartition("/")[2] for name in server.requests} == {"scl.tif"}
    assert row(request)["message"] == ""


def test_a_damaged_local_file_is_not_sent_into_the_bucket(
    ask: Ask, server: SandboxServer, sandbox: Path, prefix: str
) -> None:
    """It would take the place of the good one, and be deleted here."""
    request = ask()
    assert run(request).state == "succeeded"
    cut(Path(request.output) / "raw" / SCENE.id / "B08.tif")
    server.reset_counts()
    moved = ask(**{"product.raw_storage_mode": "url_to_gcs_drop_local", "product.gcs": prefix})
    assert run(moved).state == "succeeded"
    assert (
        open_store(prefix).read(f"{SCENE.id}/B08.tif")
        == (sandbox / SCENE.id / "nir.tif").read_bytes()
    )
    assert {name.rpartition("/")[2] for name in server.requests} == {"nir.tif"}


@pytest.mark.parametrize("checksums", [True, False])
def test_objects_in_the_bucket_are_held_against_the_catalog(
    ask: Ask, server: SandboxServer, sandbox: Path, prefix: str, checksums: bool
) -> None:
    """By the digest that they were published with; where the catalog has none, they must be images."""
    request = ask(
        checksums, **{"product.raw_storage_mode": "url_to_gcs_drop_local", "product.gcs": prefix}
    )
    server.faults.append(Fault("scl", status=503))
    assert run(request).state == "failed"
    server.faults.clear()
    server.reset_counts()
    open_store(prefix).write(f"{SCENE.id}/B04.tif", b"another file")
    assert run(request).state == "succeeded"
    assert {name.rpartition("/")[2] for name in server.requests} == {"red.tif", "scl.tif"}
    assert (
        open_store(prefix).read(f"{SCENE.id}/B04.tif")
        == (sandbox / SCENE.id / "red.tif").read_bytes()
    )


def test_each_band_tells_its_seconds_bytes_and_retries(
    ask: Ask, server: SandboxServer, sandbox: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults += [Fault("nir", status=503, times=1)]
    request = ask(**{"limits.max_attempts": 4})
    with caplog.at_level(logging.INFO, "scenebeam.progress"):
        assert run(request).state == "succeeded"
    found = row(request)
    assert {name: found[f"retries_{name}"] for name in ("b04", "b08", "scl")} == {
        "b04": "0",
        "b08": "1",
        "scl": "0",
    }
    assert int(found["bytes_b08"]) == (sandbox / SCENE.id / "nir.tif").stat().st_size
    assert float(found["seconds_b08"]) > 0
    assert f"{SCENE.id}: B08: retry 1: the server returned 503; try 2 in " in caplog.text
    assert f"{SCENE.id}: B04: downloading " in caplog.text
    assert f"{SCENE.id}: SCL is done" in caplog.text


def test_an_unknown_checksum_is_told_in_the_table_and_the_item(ask: Ask) -> None:
    request = ask()
    catalog = request.catalog
    assert isinstance(catalog, str)
    document = json.loads(Path(catalog).read_text())
    document["features"][0]["assets"]["nir"]["file:checksum"] = "blake3:00"
    Path(catalog).write_text(json.dumps(document))
    assert run(request).state == "succeeded"
    told = "B08: the catalog's checksum 'blake3:00' is malformed or unknown, and was not checked"
    assert row(request)["message"] == told
    item = json.loads((Path(request.output) / "raw" / SCENE.id / f"{SCENE.id}.json").read_text())
    assert item["properties"]["scenebeam:warnings"] == [told]
