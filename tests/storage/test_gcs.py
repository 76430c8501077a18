"""Google Cloud Storage, against the fake-gcs-server emulator on loopback: whole runs with gs:// outputs."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from google.cloud import storage

from conftest import OF_ITS_TIME, tree
from known import check
from scenebeam.cli import main
from scenebeam.errors import StorageError
from scenebeam.execution.driver import run
from scenebeam.request import RunRequest
from scenebeam.sandbox.scenes import SCENES
from scenebeam.storage import open_store
from scenebeam.storage.gcs import GcsStore

Make = Callable[..., RunRequest]


def test_an_object_appears_whole(prefix: str) -> None:
    store = open_store(prefix)
    assert store.read("a/x") is None
    with store.open_write("a/x") as file:
        file.write(b"one ")
        file.write(b"two")
        assert store.list() == set()
    assert store.read("a/x") == b"one two"
    assert (store.list("a/"), file.size) == ({"a/x"}, 7)
    with store.local_copy("a/x") as path:
        assert path.read_bytes() == b"one two"
    store.write("a/x", b"three")
    assert store.read("a/x") == b"three"
    store.delete(["a/x", "a/not-there"])
    assert store.list() == set()


def test_a_packed_object_is_not_unpacked(prefix: str) -> None:
    packed = gzip.compress(bytes(2**20))
    store = open_store(prefix)
    bucket, _, folder = prefix.removeprefix("gs://").partition("/")
    blob = (
        storage.Client(project="test").bucket(bucket).blob(f"{folder}/bomb" if folder else "bomb")
    )
    blob.content_encoding = "gzip"
    blob.upload_from_string(packed, content_type="application/json")
    assert store.read("bomb") == packed


def test_a_copy_keeps_its_checksum(prefix: str) -> None:
    store = open_store(prefix)
    store.write("a/x", b"one")
    store.write("b/y", b"before")
    store.copy("a/x", "b/y")
    assert store.read("b/y") == b"one"
    assert store.checksum("b/y") == store.checksum("a/x")
    with pytest.raises(StorageError, match="does not exist"):
        store.copy("a/not", "b/not")
    assert store.free_space() is None


def test_an_object_that_fails_halfway_never_appears(prefix: str) -> None:
    store = open_store(prefix)
    with pytest.raises(RuntimeError), store.open_write("x") as file:
        file.write(b"half")
        raise RuntimeError
    assert store.list() == set()


def test_a_download_is_not_listed_before_it_is_published(prefix: str) -> None:
    store = open_store(prefix)
    with store.open_download("x", "https://source") as download:
        download.write(b"whole")
        download.finish()
        assert store.list() == set()
        assert store.list_modified("") == {}
        download.publish()
    assert store.list() == {"x"}


def test_one_that_another_worker_published_first_stands(prefix: str) -> None:
    store, other = open_store(prefix), open_store(prefix)
    assert isinstance(store, GcsStore)
    bucket = store._bucket
    look = bucket.get_blob
    looked: list[str] = []

    def look_then_lose_the_race(name: str) -> object:
        found = look(name)
        if not looked:
            looked.append(name)
            other.write("x", b"the same bytes")
        return found

    bucket.get_blob = look_then_lose_the_race
    store.write("x", b"the same bytes")
    assert looked
    assert store.read("x") == b"the same bytes"


def test_a_bucket_that_is_not_there_is_named(emulator: str) -> None:
    with pytest.raises(StorageError, match="gs://nowhere"):
        open_store("gs://nowhere/x").write("a", b"")


@pytest.mark.parametrize("runner", ["serial", "direct"])
def test_a_run_in_a_bucket_gives_the_bytes_of_a_local_run(
    make_request: Make, prefix: str, tmp_path: Path, runner: str
) -> None:
    local = make_request(output=str(tmp_path / "local"), **{"limits.memory": "100MB"})
    run(local)
    status = run(make_request(output=prefix, runner=runner, **{"limits.memory": "100MB"}))
    assert status.state == "succeeded"
    store = open_store(prefix)
    there = {name: store.read(name) for name in store.list() if not name.endswith(OF_ITS_TIME)}
    assert there == tree(tmp_path / "local")
    again = run(make_request(output=prefix, **{"limits.memory": "100MB"}))
    assert (again.state, again.requests) == ("succeeded", 0)


def test_the_command_that_a_failure_names_resumes_a_run_in_a_bucket(
    make_request: Make, prefix: str
) -> None:
    run(make_request(output=prefix))
    open_store(prefix).delete(["mosaics/20210610T092031Z/red.tif"])
    done = CliRunner().invoke(main, ["run", f"{prefix}/run.json"])
    assert done.exit_code == 0, done.output
    assert "2 of 2 tasks done" in done.output
    assert open_store(prefix).size("mosaics/20210610T092031Z/red.tif")
    done = CliRunner().invoke(main, ["run", f"{prefix}/none.json"])
    assert done.exit_code == 2
    assert "does not exist" in done.output


def test_inputs_may_lie_in_a_bucket_too(
    make_request: Make, prefix: str, sandbox: Path, tmp_path: Path
) -> None:
    scene = SCENES[0]
    store = open_store(prefix)
    for file in (sandbox / scene.id).glob("*.tif"):
        store.write(f"{scene.id}/{file.name}", file.read_bytes())
    catalog = tmp_path / "items.json"
    catalog.write_text(json.dumps({"type": "FeatureCollection", "features": [scene.item(prefix)]}))
    request = make_request(catalog=str(catalog), **{"grid.crs": "EPSG:32634"})
    assert run(request).incomplete == 0
    check(Path(request.output) / "mosaics/20210610T092031Z/red.tif", [scene], "red")


@pytest.mark.parametrize(
    "product",
    [{"kind": "stack"}, {"kind": "stack", "format": "vrt"}, {"kind": "index", "index": "ndvi"}],
)
def test_other_products_in_a_bucket_are_those_of_a_folder(
    make_request: Make, served_items: Path, prefix: str, tmp_path: Path, product: dict[str, str]
) -> None:
    same = {
        "catalog": str(served_items),
        "product": product,
        "checks": {"max_nodata_percent": 100, "screenshot": True},
    }
    folder = {"stack": "stacks/", "index": "indices/"}[product["kind"]]
    assert run(make_request(output=str(tmp_path / "local"), **same)).state == "succeeded"
    ended = run(make_request(output=prefix, **same))
    assert ended.state == "succeeded", ended.message
    store = open_store(prefix)
    there = {name: store.read(name) for name in store.list(folder)}
    assert there == {
        name: data for name, data in tree(tmp_path / "local").items() if name.startswith(folder)
    }
    assert there


def test_times_are_the_buckets(prefix: str) -> None:
    store = open_store(prefix)
    assert store.modified("x") is None
    store.create("x", b"one")
    first, version = store.modified("x"), store.read_version("x")
    assert first is not None
    assert version is not None
    assert store.replace("x", b"two", version[1])
    store.write("y", b"")
    assert first <= (store.modified("x") or 0) <= (store.modified("y") or 0)
