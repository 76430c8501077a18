"""The demo: sandbox → mosaics → a short summary."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from scenebeam.requestfile import validate_request
from scenebeam.run.driver import run
from scenebeam.sandbox.scenes import AREA, COLLECTION, DATES, write_sandbox
from scenebeam.sandbox.server import serve

PRODUCTS = {
    "mosaic": {"kind": "mosaic", "bands": ["blue", "green", "red", "nir", "scl"]},
    "stack": {"kind": "stack"},
    "index": {"kind": "index", "index": "ndvi"},
    "assets": {"kind": "assets", "bands": ["B04", "B08", "SCL"]},
}


def run_demo(folder: Path, product: str, progress: Callable[[int, int], None] | None = None) -> str:
    """Write the sandbox, serve it on loopback, run a request for one product against it, and say what came out."""
    scenes, output = folder / "scenes", folder / product
    scenes.mkdir(parents=True, exist_ok=True)
    with serve(scenes) as server:
        write_sandbox(scenes, server.url)
        request = validate_request(
            {
                "run": "demo",
                "catalog": f"{server.url}/catalog.json",
                "collections": [COLLECTION],
                "area": {"bbox": list(AREA)},
                "dates": DATES,
                "product": PRODUCTS[product],
                "output": str(output.absolute()),
                "runner": "serial",
            }
        )
        # The server's port is new each time, so the request is too: the demo starts from a clean folder.
        status = run(request, overwrite=True, progress=progress)
    lines = [f"demo: {status.state}, {status.done} of {status.tasks} tasks"]
    lines += [f"  {path.relative_to(folder.parent)}" for path in sorted(output.glob("*/*/*.tif"))]
    lines.append(f"Tables, STAC items and the frozen plan: {output}")
    lines.append(f"{status.requests} requests, {status.read_bytes / 1e6:.1f} MB read")
    return "\n".join(lines)
