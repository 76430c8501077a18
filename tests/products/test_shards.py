"""Cutting: every pixel in just one shard, on whole cells."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer

from resident import PEAK_KIB
from scenebeam.imaging.shards import cut_windows, shared_levels
from scenebeam.planning.search import make_plan
from scenebeam.raster.pyramid import BLOCK_SIZE, level_shapes
from scenebeam.request import RunRequest

shapes = st.tuples(st.integers(1, 200_000), st.integers(1, 200_000))


@given(shapes, st.integers(1, 60_000))
def test_windows_cover_a_grid_once(shape: tuple[int, int], widest: int) -> None:
    windows, cell = cut_windows(shape, widest)
    assert (
        sum((bottom - top) * (right - left) for top, bottom, left, right in windows)
        == shape[0] * shape[1]
    )
    assert len({(top, left) for top, _, left, _ in windows}) == len(windows)
    for top, bottom, left, right in windows:
        assert 0 <= top < bottom <= shape[0]
        assert 0 <= left < right <= shape[1]
        assert right - left <= max(widest, BLOCK_SIZE)
        if len(windows) > 1:
            assert top % cell == left % cell == 0
            assert bottom == shape[0] or bottom % cell == 0
            assert right == shape[1] or right % cell == 0


@given(shapes, st.integers(1, 60_000))
def test_tiles_of_the_shared_levels_do_not_reach_beyond_a_shard(
    shape: tuple[int, int], widest: int
) -> None:
    windows, cell = cut_windows(shape, widest)
    if len(windows) == 1:
        return
    levels = shared_levels(shape, cell)
    assert 1 <= levels <= len(level_shapes(*shape))
    assert cell % (BLOCK_SIZE << (levels - 1)) == 0


@given(st.integers(1, 60_000), st.integers(1, 60_000), st.integers(BLOCK_SIZE, 60_000))
def test_columns_are_as_few_as_memory_allows(height: int, width: int, widest: int) -> None:
    """A source block that lies across a cut is read on both sides of it; but cuts are coarse enough to be put together."""
    windows, cell = cut_windows((height, width), widest)
    columns = {(left, right) for _, _, left, right in windows}
    unit = 2 * BLOCK_SIZE if widest >= 2 * BLOCK_SIZE else BLOCK_SIZE
    usable = max(
        widest // unit * unit if widest < 8 * BLOCK_SIZE else 0,
        widest * 3 // 4 if widest >= 8 * BLOCK_SIZE else 0,
    )
    assert -(-width // widest) <= len(columns) <= -(-width // usable)
    assert len(columns) == 1 or cell >= unit


def test_a_task_holds_no_more_for_more_shards(
    make_request: Callable[..., RunRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plans grow with the shards, not with their square."""
    grid = {
        "grid.crs": "EPSG:32634",
        "grid.resolution": 2,
        "product.bands": ["red"],
        "limits.memory": "350MB",
    }
    sizes = {}
    monkeypatch.setattr("scenebeam.imaging.shards._CELL_LEVELS", 1)
    for shard in (2**26, 2**18):
        monkeypatch.setattr("scenebeam.imaging.shards._NARROW_SHARD", shard)
        tasks = make_plan(make_request(**grid)).tasks
        sizes[len(tasks)] = max(len(task.model_dump_json()) for task in tasks)
    few, many = sorted(sizes)
    assert many >= 10 * few
    assert sizes[many] < sizes[few] + 100


@pytest.mark.slow
def test_a_year_of_a_country_is_planned_in_bounded_memory(tmp_path: Path) -> None:
    """NDVI by month over 100,000 square kilometers: 1,000 scenes, headers that cannot be read are guessed."""
    to_lonlat = Transformer.from_crs(32632, 4326, always_xy=True).transform

    def ring(left: float, top: float, side: float) -> list[list[float]]:
        corners = (
            (left, top),
            (left + side, top),
            (left + side, top - side),
            (left, top - side),
            (left, top),
        )
        return [list(to_lonlat(*corner)) for corner in corners]

    items = []
    for number in range(1000):
        day = datetime(2023, 1, 3, 10, 20, 31) + timedelta(days=5 * (number // 16))
        outline = ring(
            300_000 + 100_000 * (number // 4 % 4), 5_500_020 - 100_000 * (number % 4), 109_800
        )
        xs, ys = zip(*outline, strict=True)
        properties = {
            "datetime": f"{day:%Y-%m-%dT%H:%M:%SZ}",
            "earthsearch:boa_offset_applied": True,
        }
        items.append(
            {
                "type": "Feature", "stac_version": "1.0.0", "id": f"s{number}", "collection": "sentinel-2-l2a", "links": [],
                "geometry": {"type": "Polygon", "coordinates": [outline]}, "bbox": [min(xs), min(ys), max(xs), max(ys)],
                "properties": {**properties, "s2:datatake_id": f"GS2A_{day:%Y%m%dT%H%M%S}_000000_N05.09"},
                "assets": {band: {"href": f"{tmp_path}/{band}.tif"} for band in ("red", "nir", "scl")},
            }
        )  # fmt: skip
    (tmp_path / "items.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": items})
    )
    request = {
        "catalog": str(tmp_path / "items.json"), "collections": ["sentinel-2-l2a"], "dates": "2023",
        "area": {"geometry": {"type": "Polygon", "coordinates": [ring(340_000, 5_456_228, 316_228)]}},
        "product": {"kind": "index", "index": "ndvi", "per": "month"}, "output": str(tmp_path / "out"),
        "limits": {"max_bytes": "50TB"},
    }  # fmt: skip
    (tmp_path / "request.json").write_text(json.dumps(request))
    code = (
        "import sys; from scenebeam.cli import main\n"
        "try: main(['plan', sys.argv[1], '--json'])\n"
        f"finally: print({PEAK_KIB}, file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "request.json")], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["tasks"] > 100
    assert int(ended.stderr.strip().splitlines()[-1]) < 2**20, "kibibytes"
