"""Where raw files come to lie: the four storage modes, on a real storage server, and a crash at the worst moment."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from scenebeam.errors import ReadError, RequestError
from scenebeam.execution.driver import run
from scenebeam.request import RunRequest
from scenebeam.requestfile import validate_request
from scenebeam.sandbox.scenes import AREA, COLLECTION
from scenebeam.sandbox.server import Fault, SandboxServer
from scenebeam.storage import gcs, open_store
from scenebeam.storage.local import LocalStore
from scenebeam.transfer.download import download
from scenebeam.transfer.http import CHUNK
from scenebeam.transfer.retry import Budget

Ask = Callable[..., RunRequest]


@pytest.fixture
def ask(served_items: Path, tmp_path: Path) -> Ask:
    def make(
        mode: str | None,
        gcs: str | None = None,
        output: str | None = None,
        runner: str = "serial",
        **product: Any,
    ) -> RunRequest:
        named = {"raw_storage_mode": mode, "gcs": gcs, "download_n": 2, **product}
        return validate_request(
            {
                "catalog": str(served_items),
                "collections": [COLLECTION],
                "area": {"bbox": list(AREA)},
                "product": {
                    "kind": "assets",
                    **{key: value for key, value in named.items() if value is not None},
                },
                "output": output or str(tmp_path / "out"),
                "runner": runner,
            }
        )

    return make


def manifest(request: RunRequest) -> list[dict[str, str]]:
    content = open_store(request.output).read("assets_manifest_selected.csv")
    assert content is not None
    return list(csv.DictReader(content.decode().splitlines()))[:2]


def raw(request: RunRequest) -> set[str]:
    """Raw files under the output."""
    return {name for name in open_store(request.output).list("raw/") if not name.endswith(".json")}


def item(request: RunRequest, row: dict[str, str]) -> dict[str, Any]:
    content = open_store(request.output).read(f"raw/{row['scene_id']}/{row['scene_id']}.json")
    assert content is not None
    found: dict[str, Any] = json.loads(content)
    return found


def served(sandbox: Path, row: dict[str, str], band: str) -> bytes:
    return (sandbox / row["scene_id"] / f"{band}.tif").read_bytes()


def test_url_to_local(ask: Ask, sandbox: Path) -> None:
    request = ask("url_to_local")
    assert run(request).state == "succeeded"
    for row in manifest(request):
        assert Path(row["local_b08"]).read_bytes() == served(sandbox, row, "nir")
        assert "gcs_b08" not in row


def test_url_to_gcs_keep_local(ask: Ask, prefix: str, sandbox: Path) -> None:
    request = ask("url_to_gcs_keep_local", prefix)
    assert run(request).state == "succeeded"
    for row in manifest(request):
        assert row["gcs_b08"] == f"{prefix}/{row['scene_id']}/B08.tif"
        content = open_store(prefix).read(f"{row['scene_id']}/B08.tif")
        assert content == Path(row["local_b08"]).read_bytes() == served(sandbox, row, "nir")


def test_url_to_gcs_drop_local_streams_and_leaves_nothing_here(
    ask: Ask, prefix: str, sandbox: Path
) -> None:
    request = ask("url_to_gcs_drop_local", prefix)
    assert run(request).state == "succeeded"
    assert raw(request) == set()
    for row in manifest(request):
        assert open_store(prefix).read(f"{row['scene_id']}/SCL.tif") == served(sandbox, row, "scl")
        asset = item(request, row)["assets"]["SCL"]
        assert asset["href"] == row["gcs_scl"]
        assert open_store(prefix).checksum(f"{row['scene_id']}/SCL.tif") == (
            asset["file:size"],
            asset["file:checksum"],
        )
    assert len(open_store(prefix).list()) == 6, "nothing but the files"


def test_gcs_to_local_asks_nobody_else(
    ask: Ask, prefix: str, server: SandboxServer, sandbox: Path, tmp_path: Path
) -> None:
    run(ask("url_to_gcs_drop_local", prefix))
    server.reset_counts()
    request = ask("gcs_to_local", prefix, output=str(tmp_path / "back"))
    assert run(request).state == "succeeded"
    assert server.requests.total() == 0
    for row in manifest(request):
        assert Path(row["local_b04"]).read_bytes() == served(sandbox, row, "red")


def test_gcs_to_local_of_what_was_never_there_is_told(ask: Ask, prefix: str) -> None:
    request = ask("gcs_to_local", prefix)
    status = run(request)
    assert status.state == "failed"
    assert f"{prefix}/" in status.message
    assert "404" in status.message


@pytest.mark.parametrize("runner", ["serial", "direct"])
def test_a_gs_output_streams_by_itself(
    ask: Ask, prefix: str, server: SandboxServer, sandbox: Path, runner: str
) -> None:
    request = ask(None, output=prefix, runner=runner)
    assert run(request).state == "succeeded"
    for row in manifest(request):
        assert open_store(prefix).read(f"raw/{row['scene_id']}/B04.tif") == served(
            sandbox, row, "red"
        )
        assert row["gcs_b04"] == f"{prefix}/raw/{row['scene_id']}/B04.tif"
    server.reset_counts()
    assert run(request).state == "succeeded"
    assert server.requests.total() == 0


def test_drop_local_sends_what_is_already_here_instead_of_fetching_it(
    ask: Ask, prefix: str, server: SandboxServer
) -> None:
    request = ask("url_to_local")
    run(request)
    server.reset_counts()
    moved = ask("url_to_gcs_drop_local", prefix)
    assert run(moved).state == "succeeded"
    assert len(open_store(prefix).list()) == 6
    assert server.requests.total() == 0
    assert raw(moved) == set()


def _run_and_crash(request: str) -> None:
    """Dies between the upload and the deletion of the first local file."""
    delete = LocalStore.delete

    def die(self: LocalStore, keys: Iterable[str]) -> None:
        keys = list(keys)
        if any(key.endswith(".tif") for key in keys):
            os._exit(9)
        delete(self, keys)

    with patch.object(LocalStore, "delete", die):
        run(RunRequest.model_validate_json(request))


def test_a_crash_between_upload_and_deletion_loses_nothing(
    ask: Ask, prefix: str, server: SandboxServer, sandbox: Path
) -> None:
    local = ask("url_to_local", download_n=1)
    run(local)
    before = {path: path.read_bytes() for path in Path(local.output).rglob("raw/*/*.tif")}
    server.reset_counts()
    request = ask("url_to_gcs_drop_local", prefix, download_n=1)
    process = multiprocessing.get_context("spawn").Process(
        target=_run_and_crash, args=(request.model_dump_json(),)
    )
    process.start()
    process.join()
    assert process.exitcode == 9
    assert {path: path.read_bytes() for path in before} == before, "all of it is still here"
    assert open_store(prefix).list(), "and some of it there"
    assert run(request).state == "succeeded"
    assert raw(request) == set()
    row = manifest(request)[0]
    for label, band in (("B04", "red"), ("B08", "nir"), ("SCL", "scl")):
        assert open_store(prefix).read(f"{row['scene_id']}/{label}.tif") == served(
            sandbox, row, band
        )
    assert server.requests.total() == 0, "nothing was fetched again"


def test_a_local_file_stays_while_the_object_is_another(
    ask: Ask, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ask("url_to_gcs_keep_local", prefix, download_n=1)
    run(request)
    names = raw(request)
    monkeypatch.setattr(gcs.GcsStore, "matches", lambda self, name, path: False)
    status = run(ask("url_to_gcs_drop_local", prefix, download_n=1))
    assert "the checksum of gs:" in status.message
    assert raw(request) == names


def test_a_stream_that_breaks_off_goes_on_in_the_same_object(
    prefix: str, server: SandboxServer
) -> None:
    content = os.urandom(3 * CHUNK + 5)
    (server.folder / "long.bin").write_bytes(content)
    server.faults.append(Fault("long", cut=CHUNK + 9, times=2))
    store = open_store(prefix)
    with store.open_download("a/long.bin", "x") as arrival:
        download(f"{server.url}/long.bin", arrival, Budget(private=True, first_wait=0.01))
        assert store.list("a/") == set()
        arrival.finish()
        arrival.publish()
    assert store.read("a/long.bin") == content
    assert server.bytes_sent == len(content)
    assert store.list() == {"a/long.bin"}


def test_an_upload_that_is_given_up_leaves_no_object(prefix: str, server: SandboxServer) -> None:
    (server.folder / "long.bin").write_bytes(os.urandom(3 * CHUNK))
    server.faults += [Fault("long", cut=CHUNK, times=1), Fault("long", status=404)]
    store = open_store(prefix)
    with pytest.raises(ReadError), store.open_download("a/long.bin", "x") as arrival:
        download(f"{server.url}/long.bin", arrival, Budget(private=True, first_wait=0.01))
    assert store.list() == set()


def test_what_is_no_image_is_not_kept_in_the_bucket(
    ask: Ask, prefix: str, server: SandboxServer
) -> None:
    (server.folder / "page.html").write_text("<html>log in</html>")
    server.faults.append(Fault("nir", status=302, location="/page.html"))
    request = ask("url_to_gcs_drop_local", prefix, download_n=1)
    assert run(request).state == "failed"
    assert {name.rpartition("/")[2] for name in open_store(prefix).list()} == {"B04.tif", "SCL.tif"}


@pytest.mark.parametrize(
    ("mode", "gcs", "output", "told"),
    [
        ("url_to_gcs_keep_local", None, None, "product.gcs: url_to_gcs_keep_local needs"),
        ("gcs_to_local", "gs://bucket/x", "gs://bucket/y", "keeps files on this machine"),
        ("url_to_local", "gs://bucket/x", None, "has no effect"),
        ("url_to_local", "/tmp/x", None, "product.gcs"),
    ],
)
def test_a_mode_that_does_not_fit_is_told(
    ask: Ask, mode: str, gcs: str | None, output: str | None, told: str
) -> None:
    with pytest.raises(RequestError, match=told):
        ask(mode, gcs, output)
