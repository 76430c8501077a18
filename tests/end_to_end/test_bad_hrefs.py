"""Hrefs that are none: a fault of that asset alone, named in the report."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from known import check
from scenebeam.execution.driver import run
from scenebeam.request import RunRequest
from scenebeam.sandbox.scenes import SCENES
from scenebeam.sandbox.server import SandboxServer

Make = Callable[..., RunRequest]
STAMP = "20210610T092031Z"
BEST = next(scene for scene in SCENES if scene.id == "S2A_34TGL_20210610_1_L2A")
OTHERS = [scene for scene in SCENES if scene.acquired.year == 2021 and scene != BEST]
BAD = {
    "brackets": "http://[::1/x",
    "colons": "http://a:b:c/",
    "port": "http://127.0.0.1:99999999/x.tif",
    "no host": "http:///x.tif",
    "bad name": "http://a..b/x.tif",
    "long label": f"http://{'a' * 300}.example/x.tif",
    "spaces": "http://a b/x.tif",
    "empty": "",
    "null": None,
    "a number": 7,
    "a list": ["http://a/x.tif"],
}


def catalog_of(server: SandboxServer, folder: Path, href: Any) -> Path:
    items = [scene.item(server.url) for scene in (BEST, *OTHERS)]
    items[0]["assets"]["red"]["href"] = href
    path = folder / "bad.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return path


@pytest.mark.parametrize("name", BAD)
def test_a_mosaic_lacks_that_tile(
    make_request: Make,
    server: SandboxServer,
    tmp_path: Path,
    name: str,
) -> None:
    catalog = catalog_of(server, tmp_path, BAD[name])
    request = make_request(
        catalog=str(catalog),
        dates="2021",
        **{"grid.crs": "EPSG:32634", "limits.max_attempts": 2},
    )
    status = run(request)
    assert (status.state, status.incomplete) == ("succeeded", 1), status.message
    folder = Path(request.output) / "mosaics" / STAMP
    item = json.loads((folder / f"{STAMP}.json").read_text())
    (missing,) = item["assets"]["red"]["scenebeam:missing"]
    assert missing["scene"] == BEST.id
    assert "unexpected" not in missing["reason"]
    check(folder / "red.tif", sorted(OTHERS, key=lambda scene: scene.cloud_cover), "red")


@pytest.mark.parametrize("name", BAD)
def test_a_download_lacks_that_file(
    make_request: Make,
    server: SandboxServer,
    tmp_path: Path,
    name: str,
) -> None:
    catalog = catalog_of(server, tmp_path, BAD[name])
    product = {"kind": "assets", "bands": ["red", "scl"]}
    request = make_request(
        catalog=str(catalog),
        dates="2021",
        product=product,
        **{"limits.max_attempts": 2},
    )
    run(request)
    with (Path(request.output) / "assets_download_status.csv").open(newline="") as file:
        rows = {row["scene_id"]: row for row in csv.DictReader(file)}
    assert {rows[scene.id]["status"] for scene in OTHERS} == {"success"}
    bad = rows[BEST.id]
    assert (bad["ok_red"], bad["ok_scl"]) == ("False", "True")
    assert bad["status"] != "exception"
    assert "unexpected" not in bad["message"]
