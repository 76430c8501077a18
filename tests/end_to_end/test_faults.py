"""Missing, broken and unwell tiles: a real server misbehaves, and nothing is ever blank in silence."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from known import check, read
from scenebeam.execution.driver import run
from scenebeam.request import RunRequest
from scenebeam.sandbox.scenes import SCENES, SandboxScene
from scenebeam.sandbox.server import Fault, SandboxServer

Make = Callable[..., RunRequest]
STAMP = "20210610T092031Z"
BEST = "S2A_34TGL_20210610_1_L2A"


def scenes(*without: str) -> list[SandboxScene]:
    taken = [s for s in SCENES if s.acquired.year == 2021 and s.id not in without]
    return sorted(taken, key=lambda s: s.cloud_cover)


def rows(request: RunRequest, name: str) -> list[dict[str, str]]:
    with open(Path(request.output) / name, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def remote(make_request: Make, served_items: Path) -> Make:
    def make(**changes: object) -> RunRequest:
        return make_request(
            catalog=str(served_items), dates="2021", **{"grid.crs": "EPSG:32634"}, **changes
        )

    return make


BROKEN = {
    "404": (Fault(f"{BEST}/red", status=404), "404"),
    "403": (Fault(f"{BEST}/red", status=403), "403"),
    "corrupt": (Fault(f"{BEST}/red", corrupt=True), "corrupt"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_tile_is_left_out_and_named(
    remote: Make, server: SandboxServer, name: str
) -> None:
    fault, told = BROKEN[name]
    server.faults.append(fault)
    request = remote()
    status = run(request)
    assert (status.state, status.incomplete) == ("succeeded", 1)
    folder = Path(request.output) / "mosaics" / STAMP
    check(folder / "red.tif", scenes(BEST), "red")
    check(folder / "scl.tif", scenes(), "scl")
    item = json.loads((folder / f"{STAMP}.json").read_text())
    assert item["properties"]["scenebeam:complete"] is False
    (missing,) = item["assets"]["red"]["scenebeam:missing"]
    assert missing["scene"] == BEST
    assert told in missing["reason"]
    red, scl = rows(request, "timestamps_aggregation_band_report.csv")
    assert list(red) == ["timestamp", "band", "status", "input_files", "output_path", "message"]
    assert told in red["message"]
    assert BEST not in red["input_files"]
    assert (scl["message"], scl["status"]) == ("", "success")
    (summary,) = rows(request, "timestamps_aggregation_summary.csv")
    assert list(summary) == [
        "timestamp",
        "success",
        "failed_bands",
        "missing_files",
        "error_message",
        "output_folder",
    ]
    assert summary["missing_files"] == f"{BEST}/red"
    assert summary["success"] == "True"


@pytest.mark.parametrize(
    ("policy", "state", "failed"), [("fail", "failed", 1), ("skip", "skipped", 0)]
)
def test_the_policy_decides_whether_a_missing_tile_fails(
    remote: Make, server: SandboxServer, policy: str, state: str, failed: int
) -> None:
    server.faults.append(BROKEN["404"][0])
    request = remote(**{"product.on_missing": policy})
    status = run(request)
    assert (status.state, status.failed, status.skipped) == ("failed", failed, 1 - failed)
    assert rows(request, "timestamps_aggregation_status.csv") == [
        {"timestamp": STAMP, "status": "failed_missing_inputs"}
    ]
    assert [row["state"] for row in rows(request, "failures.csv")] == [state]
    assert not list(Path(request.output).glob("mosaics/*/*"))
    server.faults.clear()
    assert run(request).state == "succeeded", "the next run makes what this one did not"
    assert rows(request, "timestamps_aggregation_status.csv") == [
        {"timestamp": STAMP, "status": "success"}
    ]


def test_no_readable_tile_at_all_fails(remote: Make, server: SandboxServer) -> None:
    server.faults.append(Fault("red.tif", status=404))
    request = remote()
    status = run(request)
    assert status.state == "failed"
    assert "no readable file of red" in status.message
    (failure,) = rows(request, "failures.csv")
    assert failure["kind"] == "failed_missing_inputs"
    assert "run.json" in failure["retry"]


def test_an_unwell_server_fails_the_task_and_never_the_tile(
    remote: Make, server: SandboxServer
) -> None:
    """What may be read later is not a missing tile: nothing is published without it."""
    server.faults.append(Fault(f"{BEST}/red", status=503))
    request = remote()
    status = run(request)
    assert status.state == "failed"
    assert "503" in status.message
    assert not list(Path(request.output).glob("mosaics/*/*"))
    server.faults.clear()
    assert run(request).state == "succeeded"
    check(Path(request.output) / "mosaics" / STAMP / "red.tif", scenes(), "red")


def test_passing_faults_change_no_byte(remote: Make, server: SandboxServer, tmp_path: Path) -> None:
    calm = remote(output=str(tmp_path / "calm"))
    run(calm)
    server.faults += [
        Fault("red.tif", times=3, status=503),
        Fault("scl.tif", times=2, status=429, retry_after="0"),
        Fault("35TKF", times=2, cut=1000),
    ]
    stormy = remote(output=str(tmp_path / "stormy"))
    assert run(stormy).state == "succeeded"
    for path in Path(calm.output).glob("mosaics/*/*"):
        assert (
            path.read_bytes() == (Path(stormy.output) / path.relative_to(calm.output)).read_bytes()
        )


def test_a_slow_server_gives_the_same(remote: Make, server: SandboxServer) -> None:
    server.latency = 0.05
    assert run(remote()).state == "succeeded"


def test_blocks_that_better_tiles_cover_are_not_fetched(
    remote: Make, server: SandboxServer
) -> None:
    inside = {"area.bbox": [23.91, 40.585, 23.95, 40.61], "product.bands": ["red"]}
    request = remote(**inside)
    assert run(request).state == "succeeded"
    fetched = {path for path, start, _ in server.ranges if start > 0}
    assert fetched == {f"/{BEST}/red.tif"}, "one tile covers all of it"


def spoiled(
    make_request: Make, sandbox: Path, tmp_path: Path, spoil: Callable[[Path], object]
) -> RunRequest:
    """A catalogue of two scenes, the best of them with a red band that `spoil` has rewritten."""
    import shutil

    items = []
    for scene in (s for s in SCENES if s.acquired.year == 2021 and s.epsg == 32634):
        shutil.copytree(sandbox / scene.id, tmp_path / "scenes" / scene.id)
        items.append(scene.item(str(tmp_path / "scenes")))
    spoil(tmp_path / "scenes" / BEST / "red.tif")
    catalog = tmp_path / "items.json"
    catalog.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return make_request(
        catalog=str(catalog), **{"product.bands": ["red"], "grid.crs": "EPSG:32634"}
    )


def rewrite(
    path: Path, pixels: Callable[[np.ndarray], np.ndarray] = lambda p: p, **changes: object
) -> None:
    with rasterio.open(path) as file:
        old, profile = file.read(), file.profile
    profile.update(driver="GTiff", **changes)
    for key in [key for key, value in changes.items() if value is None]:
        profile[key] = None
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels(old))


SPOILS: dict[str, tuple[Callable[[Path], object], str]] = {
    "other nodata": (lambda p: rewrite(p, nodata=65535), "declares nodata 65535"),
    "no crs": (lambda p: rewrite(p, crs=None), "no CRS"),
    "blank": (lambda p: rewrite(p, lambda pixels: pixels * 0), "blank"),
    "stuck": (
        lambda p: rewrite(p, lambda pixels: pixels * 0 + 700),
        "its numbers spread no more than 0 around 700",
    ),
    "stuck but for the lowest bit": (
        lambda p: rewrite(p, lambda pixels: pixels % 2 + 700),
        "spread no more than 0.5",
    ),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), "truncated"),
    "empty": (lambda p: p.write_bytes(b""), "empty"),
    "html": (lambda p: p.write_text("<html>moved</html>"), "cannot be opened"),
    "gone": (lambda p: p.unlink(), "No such file"),
}


@pytest.mark.parametrize("name", SPOILS)
def test_a_file_that_is_not_fit_to_use(
    make_request: Make, sandbox: Path, tmp_path: Path, name: str
) -> None:
    spoil, told = SPOILS[name]
    request = spoiled(make_request, sandbox, tmp_path, spoil)
    status = run(request)
    assert (status.state, status.incomplete) == ("succeeded", 1)
    item = json.loads((Path(request.output) / "mosaics" / STAMP / f"{STAMP}.json").read_text())
    (missing,) = item["assets"]["red"]["scenebeam:missing"]
    assert missing["scene"] == BEST
    assert told in missing["reason"]
    check(
        Path(request.output) / "mosaics" / STAMP / "red.tif",
        [s for s in scenes(BEST) if s.epsg == 32634],
        "red",
    )


def test_when_a_band_is_blank_is_the_requests_to_say(
    make_request: Make, sandbox: Path, tmp_path: Path
) -> None:
    request = spoiled(
        make_request, sandbox, tmp_path, lambda path: rewrite(path, lambda p: p % 2 + 700)
    )
    calm = request.model_copy(
        update={
            "checks": request.checks.model_copy(
                update={"optical": request.checks.optical.model_copy(update={"min_std_dev": 0.1})}
            )
        }
    )
    assert run(calm).incomplete == 0


def test_a_file_without_nodata_gets_its_collections(
    make_request: Make, sandbox: Path, tmp_path: Path
) -> None:
    request = spoiled(make_request, sandbox, tmp_path, lambda path: rewrite(path, nodata=None))
    assert run(request).incomplete == 0
    path = Path(request.output) / "mosaics" / STAMP / "red.tif"
    check(path, [s for s in scenes() if s.epsg == 32634], "red")
    with rasterio.open(path) as file:
        assert file.nodata == 0


def test_a_scene_without_the_band_is_a_missing_tile(
    make_request: Make, sandbox: Path, tmp_path: Path
) -> None:
    items = [s.item(str(sandbox)) for s in scenes()]
    del items[0]["assets"]["red"]
    (tmp_path / "items.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": items})
    )
    request = make_request(catalog=str(tmp_path / "items.json"), **{"grid.crs": "EPSG:32634"})
    assert run(request).incomplete == 1
    (row, _) = rows(request, "timestamps_aggregation_band_report.csv")
    assert "has no such band" in row["message"]


def test_wider_numbers_promote_the_mosaic(
    make_request: Make, sandbox: Path, tmp_path: Path
) -> None:
    request = spoiled(
        make_request,
        sandbox,
        tmp_path,
        lambda path: rewrite(path, lambda p: p.astype("int32"), dtype="int32"),
    )
    run(request)
    with rasterio.open(Path(request.output) / "mosaics" / STAMP / "red.tif") as file:
        assert file.dtypes == ("int32",)


def test_a_full_disk_fails_the_task_and_keeps_what_is_done(
    make_request: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    real, calls = os.fsync, [0]

    def full(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").count("/mosaics/") and calls[0] < 2:
            calls[0] += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    request = make_request()
    monkeypatch.setattr(os, "fsync", full)
    status = run(request)
    monkeypatch.undo()
    assert status.state == "failed"
    assert "the disk is full" in status.message
    assert status.done == 1
    assert run(request).state == "succeeded"
    assert read(Path(request.output) / "mosaics" / STAMP / "red.tif").any()
