"""The demo: sandbox → products → a short summary."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from scenebeam.requestfile import validate_request
from scenebeam.run.driver import run
from scenebeam.sandbox.fields import YEAR, write_fields
from scenebeam.sandbox.scenes import AREA, COLLECTION, DATES, write_sandbox
from scenebeam.sandbox.server import serve

PRODUCTS: dict[str, dict[str, Any]] = {
    "mosaic": {"kind": "mosaic", "bands": ["blue", "green", "red", "nir", "scl"]},
    "stack": {"kind": "stack"},
    "index": {"kind": "index", "index": "ndvi"},
    "fields": {"kind": "fields", "year": YEAR, "pixel_check": True, "cloud_cover_pixel": 5, "grid": {"size": 160}},
    "assets": {"kind": "assets", "bands": ["B04", "B08", "SCL"]},
}


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
            "product": PRODUCTS[product],
            "output": str(output.absolute()),
            "runner": "serial",
        }
        if product == "fields":
            write_fields(scenes, server.url)
            files = {"boundaries": str(scenes / "fields.geojson"), "crop_calendar": str(scenes / "calendar")}
            document["product"] = {**PRODUCTS[product], **files}
        else:
            write_sandbox(scenes, server.url)
            document |= {"area": {"bbox": list(AREA)}, "dates": DATES}
        # The server's port is new each time, so the request is too: the demo starts from a clean folder.
        status = run(validate_request(document), overwrite=True, progress=progress)
    images = sorted([*output.glob("*/*/*.tif"), *output.glob("*/*_image_*.tif")])
    lines = [f"demo: {status.state}, {status.done} of {status.tasks} tasks"]
    lines += [f"  {path.relative_to(folder.parent)}" for path in images[:_SHOWN]]
    lines += [f"  and {len(images) - _SHOWN} more"] if len(images) > _SHOWN else []
    lines.append(f"Tables, STAC items and the frozen plan: {output}")
    lines.append(f"{status.requests} requests, {status.read_bytes / 1e6:.1f} MB read")
    return "\n".join(lines)
