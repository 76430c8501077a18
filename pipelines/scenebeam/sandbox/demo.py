"""The demo: sandbox → products → a short summary."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from scenebeam.requestfile import validate_request
from scenebeam.run.driver import run
from scenebeam.sandbox import landcover
from scenebeam.sandbox.fields import YEAR, write_fields
from scenebeam.sandbox.scenes import AREA, COLLECTION, DATES, write_sandbox
from scenebeam.sandbox.server import serve
from scenebeam.status import PAGE_FILE

PRODUCTS: dict[str, dict[str, Any]] = {
    "mosaic": {"kind": "mosaic", "bands": ["blue", "green", "red", "nir", "scl"]},
    "stack": {"kind": "stack"},
    "index": {"kind": "index", "index": "ndvi"},
    "fields": {
        "kind": "fields",
        "year": YEAR,
        "pixel_check": True,
        "cloud_cover_pixel": 5,
        "grid": {"size": 160},
    },
    "landcover": {
        "kind": "landcover",
        "include": [0, 1],
        "version": "demo",
        "periods": landcover.PERIODS,
        "chips_per_class": 2,
        "s2l2a": {"bands": ["blue", "green", "red", "nir", "swir16", "swir22"]},
        "lc2l2": {"bands": ["blue", "green", "red", "nir08", "swir16", "swir22"]},
        "lulc": {"dates": str(landcover.YEAR)},
        "sampling_factor": 1,
    },
    "assets": {"kind": "assets", "bands": ["B04", "B08", "SCL"]},
}


def _prepare(scenes: Path, url: str, product: dict[str, Any]) -> dict[str, Any]:
    """Write scenes; what a request on them has besides."""
    write_sandbox(scenes, url)
    return {"product": product, "area": {"bbox": list(AREA)}, "dates": DATES}


def _prepare_fields(scenes: Path, url: str, product: dict[str, Any]) -> dict[str, Any]:
    write_fields(scenes, url)
    files = {
        "boundaries": str(scenes / "fields.geojson"),
        "crop_calendar": str(scenes / "calendar"),
    }
    return {"product": {**product, **files}}


def _prepare_landcover(scenes: Path, url: str, product: dict[str, Any]) -> dict[str, Any]:
    landcover.write_landcover(scenes, url)
    records = [record.model_dump(mode="json") for record in landcover.records()]
    return {"product": {**product, "aois": str(scenes / "aois.geojson")}, "collections": records}


_PREPARE = {"fields": _prepare_fields, "landcover": _prepare_landcover}
_FILES = {"fields": "*/*_image_*.tif", "landcover": "processed/*/*_000000*.tif"}
"""What is named of what came out."""
_SHOWN = 12
"""Images that are named; of more the number is told."""


def run_demo(folder: Path, product: str, progress: Callable[[int, int], None] | None = None) -> str:
    """Write the sandbox, serve it on loopback, run a request for one product against it, and say what came out."""
    scenes, output = folder / "scenes", folder / product
    scenes.mkdir(parents=True, exist_ok=True)
    with serve(scenes) as server:
        document: dict[str, Any] = {
            "run": "demo",
            "catalog": f"{server.url}/catalog.json",
            "collections": [COLLECTION],
            "output": str(output.absolute()),
            "runner": "serial",
        }
        document |= _PREPARE.get(product, _prepare)(scenes, server.url, PRODUCTS[product])
        # The server's port is new each time, so the request is too: the demo starts from a clean folder.
        status = run(validate_request(document), overwrite=True, progress=progress)
    images = sorted(output.glob(_FILES.get(product, "*/*/*.tif")))
    lines = [f"demo: {status.state}, {status.done} of {status.tasks} tasks"]
    lines += [f"  {path.relative_to(folder.parent)}" for path in images[:_SHOWN]]
    lines += [f"  and {len(images) - _SHOWN} more"] if len(images) > _SHOWN else []
    lines.append(f"Tables, STAC items and the frozen plan: {output}")
    lines.append(f"What came of it, to look at: {output / PAGE_FILE}")
    lines.append(f"{status.requests} requests, {status.read_bytes / 1e6:.1f} MB read")
    return "\n".join(lines)
