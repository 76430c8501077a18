"""Memory stays under what the plan states, whatever the area: measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from resident import PEAK_KIB
from scenebeam.planning.search import make_plan
from scenebeam.request import RunRequest
from scenebeam.requestfile import validate_request
from scenebeam.sandbox import earth
from scenebeam.sandbox.scenes import SandboxScene

TILE = SandboxScene(
    "34TFL", 32634, 600_000, 4_500_000, datetime(2021, 6, 10, 9, 20, 31), size=10980
)

RUN = f"""
import sys
from scenebeam.requestfile import load_request
from scenebeam.execution.driver import run
status = run(load_request(sys.argv[1])[0])
assert status.state == "succeeded", status
print({PEAK_KIB})
"""


def peak_bytes(request: RunRequest, folder: Path) -> int:
    """Most memory that a process holds while it runs the request."""
    (folder / "request.json").write_text(request.model_dump_json())
    command = [sys.executable, "-c", RUN, str(folder / "request.json")]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(told.stdout.split()[-1]) * 1024


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("memory", ["1GiB", "400MB"])
def test_half_a_gigapixel_stays_under_the_bound(tmp_path: Path, memory: str) -> None:
    TILE.write(tmp_path, ["red"], block=1024)
    (tmp_path / "items.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": [TILE.item(str(tmp_path))]})
    )
    request = validate_request(
        {
            "catalog": str(tmp_path / "items.json"),
            "collections": ["sentinel-2-l2a"],
            "grid": {
                "crs": "EPSG:32634",
                "resolution": 5,
                "bounds": [600_000, 4_390_200, 709_800, 4_500_000],
            },
            "product": {"kind": "mosaic", "bands": ["red"]},
            "output": str(tmp_path / "out"),
            "runner": "serial",
            "limits": {"memory": memory},
        }
    )
    plan = make_plan(request)
    stated = plan.estimate.memory
    assert stated <= request.limits.memory
    assert len(plan.tasks) > 1
    assert peak_bytes(request, tmp_path) <= stated
    with rasterio.open(tmp_path / "out/mosaics/20210610T092031Z/red.tif") as file:
        assert file.shape == (21960, 21960)
        east = 600_000 + 10 * np.arange(4500, 4800) + 5
        north = 4_500_000 - 10 * np.arange(6000, 6300) - 5
        truth = earth.pixel("red", east[None, :], north[:, None], earth.day_number(TILE.acquired))
        found = file.read(1, window=Window(9000, 12000, 600, 600))
        np.testing.assert_array_equal(found, truth.repeat(2, axis=0).repeat(2, axis=1))


@pytest.mark.slow
@pytest.mark.timeout(600)  # it writes half a gigapixel first
def test_an_index_of_half_a_gigapixel_stays_under_a_gibibyte_on_all_cores(tmp_path: Path) -> None:
    TILE.write(tmp_path, ["red", "nir", "scl"], block=1024)
    (tmp_path / "items.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": [TILE.item(str(tmp_path))]})
    )
    request = validate_request(
        {
            "catalog": str(tmp_path / "items.json"),
            "collections": ["sentinel-2-l2a"],
            "grid": {
                "crs": "EPSG:32634",
                "resolution": 5,
                "bounds": [600_000, 4_390_200, 709_800, 4_500_000],
            },
            "product": {"kind": "index", "index": "ndvi"},
            "output": str(tmp_path / "out"),
            "runner": {"kind": "direct", "workers": 3},
        }
    )
    assert peak_bytes(request, tmp_path) <= 2**30
    with rasterio.open(tmp_path / "out/indices/20210610T092031Z/ndvi.tif") as file:
        assert file.shape == (21960, 21960)
