"""Over the antimeridian: split, never stretched."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import rasterio

from known import check
from scenebeam.execution.driver import run
from scenebeam.requestfile import validate_request
from scenebeam.sandbox.scenes import COLLECTION, SandboxScene, write_sandbox

WHEN = datetime(2021, 6, 10, 22, 0, 0)
# 180° lies at an easting of 166,021 m in zone 1 and of 833,979 m in zone 60, at the equator.
EAST = SandboxScene("01NAA", 32601, 161_000, 12_000, WHEN, cloud_cover=1.0)
WEST = SandboxScene("60NZF", 32660, 826_000, 12_000, WHEN, cloud_cover=2.0)


def test_a_mosaic_over_the_antimeridian(tmp_path: Path) -> None:
    (tmp_path / "scenes").mkdir()
    catalog = write_sandbox(tmp_path / "scenes", scenes=[EAST, WEST])
    request = validate_request(
        {
            "catalog": str(catalog),
            "collections": [COLLECTION],
            "area": {"bbox": [179.95, 0.04, -179.97, 0.1]},
            "product": {"kind": "mosaic", "bands": ["red"]},
            "output": str(tmp_path / "out"),
            "runner": "serial",
        }
    )
    assert run(request).state == "succeeded"
    (path,) = (tmp_path / "out").glob("mosaics/*/red.tif")
    with rasterio.open(path) as file:
        assert file.width < 1000, "0.08 degrees, not 359.92"
        assert (file.read(1) > 0).mean() > 0.99
    check(path, [EAST, WEST], "red")
