"""Write golden outputs: small runs of the installed release, finished and interrupted.

    python tests/golden/make.py

Run it once for each release, before anything is changed that comes after it, and commit what it
writes into `tests/golden/<version>/`. `tests/test_golden.py` opens and resumes the outputs of all
releases. Those of a former release are never written again.

Scenes and outputs are made below `ROOT`, a path of no machine in particular, so that files stay
as the release wrote them. Tests replace it by the folder in which they run. The scenes are those of
the sandbox, which tests write too; they are not kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

from scenebeam.execution.driver import run
from scenebeam.execution.make import make_task
from scenebeam.imaging import shards
from scenebeam.requestfile import validate_request
from scenebeam.sandbox import landcover
from scenebeam.sandbox.fields import YEAR, write_fields
from scenebeam.sandbox.scenes import COLLECTION, DATES, write_sandbox
from scenebeam.sandbox.series import SERIES_DATES, write_series
from scenebeam.tasks import Outcome

ROOT = Path("/tmp/scenebeam-golden")
SCENES, OUTPUTS = ROOT / "scenes", ROOT / "outputs"
DATASETS: dict[str, Callable[[Path], Path]] = {
    "sandbox": write_sandbox,
    "series": write_series,
    "fields": write_fields,
    "landcover": landcover.write_landcover,
}
"""Folder below `SCENES` → what writes its scenes."""
_LEFT_OUT = ("report", "spending.csv", ".scenebeam.lock", "scenes.parquet")
"""What no later run reads."""
_GRID = {"crs": "EPSG:32634", "resolution": 10, "bounds": [745_600, 4_501_000, 746_240, 4_501_480]}
"""64 x 48 pixels inside of a tile."""
_TALL = {"crs": "EPSG:32634", "resolution": 10, "bounds": [744_000, 4_501_500, 746_560, 4_511_740]}
"""256 x 1024 pixels, of which a corner has data on both sides of a cut between shards."""


@dataclass(frozen=True)
class Golden:
    """A run."""

    dataset: str
    product: dict[str, Any]
    fields: dict[str, Any]
    """Further fields of the request."""
    tasks: int = 1
    """How many tasks the interrupted run has finished."""
    small_shards: bool = False
    """Whether images are cut into shards that are much smaller than those of the release."""


_AREA = [23.904, 40.626, 23.910, 40.629]
"""Within that grid."""
_SCENES = {"dates": DATES, "area": {"bbox": _AREA}, "grid": _GRID}
_MONTHS = {"dates": SERIES_DATES, "grid": _GRID}
RUNS = {
    "mosaic": Golden("sandbox", {"kind": "mosaic", "bands": ["red", "scl"]}, _SCENES),
    "mosaic-zarr": Golden(
        "sandbox", {"kind": "mosaic", "bands": ["red"], "format": "zarr"}, _SCENES
    ),
    # With two catalogs, versions are named by what the scenes are, and not by where they are.
    "mosaic-series": Golden(
        "sandbox",
        {"kind": "mosaic", "bands": ["red"]},
        {
            **_SCENES,
            "series": True,
            "catalog": [str(SCENES / f"sandbox/{name}.json") for name in ("items", "catalog")],
        },
    ),
    "composite": Golden("series", {"kind": "composite", "bands": ["red"]}, _MONTHS),
    "composite-shards": Golden(
        "series",
        {"kind": "composite", "bands": ["red"]},
        {"dates": "2023-04", "grid": _TALL},
        small_shards=True,
    ),
    "index": Golden("sandbox", {"kind": "index", "index": "ndvi"}, _SCENES),
    "stack": Golden("sandbox", {"kind": "stack", "bands": ["red", "scl"]}, _SCENES),
    "assets": Golden("sandbox", {"kind": "assets", "bands": ["scl"]}, _SCENES),
    "fields": Golden(
        "fields",
        {
            "kind": "fields",
            "year": YEAR,
            "boundaries": str(SCENES / "fields/fields.geojson"),
            "days": {"planting": "04-06", "harvest": "10-25"},
            "bands": ["red"],
            "grid": {"size": 64},
            "keep_remote_refs": False,
        },
        # On both sides of the edge between two squares, which are two tasks.
        {"area": {"bbox": [23.911, 40.612, 23.913, 40.617]}},
    ),
    "chips": Golden(
        "fields",
        {
            "kind": "chips",
            "places": str(SCENES / "fields/fields.geojson"),
            "draw": {"count": 4},
            "size": 32,
            "bands": ["red"],
        },
        {"dates": ["2021-04", "2021-10"]},
        tasks=0,
    ),
    "landcover": Golden(
        "landcover",
        {
            "kind": "landcover",
            "aois": str(SCENES / "landcover/aois.geojson"),
            "include": [0, 1],
            "version": "v1",
            "periods": landcover.PERIODS[:1],
            "sample_size": 48,
            "chips_per_class": 1,
            "s2l2a": {"bands": ["red"]},
            "s1rtc": None,
            "lc2l2": None,
            "lulc": {"dates": str(landcover.YEAR), "classes": [2, 5]},
            "thumbnails": False,
        },
        {"collections": [record.model_dump(mode="json") for record in landcover.records()]},
    ),
}


def main() -> None:
    """Write the outputs of all runs."""
    target = Path(__file__).parent / version("scenebeam")
    if target.exists():
        raise SystemExit(f"{target} exists: outputs of a release are written once")
    shutil.rmtree(ROOT, ignore_errors=True)
    for dataset, write in DATASETS.items():
        (SCENES / dataset).mkdir(parents=True)
        write(SCENES / dataset)
    ignored = shutil.ignore_patterns(*_LEFT_OUT)
    for name, golden in RUNS.items():
        output = OUTPUTS / name
        for state in ("finished", "interrupted"):
            shutil.rmtree(output, ignore_errors=True)
            make(name, golden, interrupted=state == "interrupted")
            shutil.copytree(output, target / name / state, ignore=ignored)


def make(name: str, golden: Golden, *, interrupted: bool) -> None:
    """Make a run, or a part of it."""
    request = validate_request(
        {
            "run": name,
            "catalog": str(SCENES / golden.dataset / "items.json"),
            "collections": [COLLECTION],
            "product": golden.product,
            "output": str(OUTPUTS / name),
            "runner": "serial",
            # One download after another.
            "limits": {"max_download_workers": 1},
            **golden.fields,
        }
    )
    with ExitStack() as patches:
        if golden.small_shards:
            patches.enter_context(patch.object(shards, "_CELL_LEVELS", 1))
            patches.enter_context(patch.object(shards, "_LARGEST_SHARD", 2**17))
        if not interrupted:
            assert run(request).state == "succeeded"
            return
        patches.enter_context(
            patch("scenebeam.execution.make.make_task", _interrupt_after(golden.tasks))
        )
        try:
            run(request)
        except KeyboardInterrupt:
            return
    raise AssertionError(f"{name} has no more than {golden.tasks} tasks")


def _interrupt_after(count: int) -> Callable[..., Outcome]:
    """Return a function that makes some tasks, and then is as if Ctrl-C were pressed."""
    made = 0

    def make_some(*arguments: Any) -> Outcome:
        nonlocal made
        if made == count:
            raise KeyboardInterrupt
        made += 1
        return make_task(*arguments)

    return make_some


if __name__ == "__main__":
    main()
