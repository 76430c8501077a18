"""The demo of each product: write a data set of the sandbox, serve it, and run a request on it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scenebeam.execution.driver import run
from scenebeam.products import product_of
from scenebeam.request.places import place_fields
from scenebeam.requestfile import validate_request
from scenebeam.sandbox import landcover
from scenebeam.sandbox.fields import write_fields
from scenebeam.sandbox.scenes import AREA, COLLECTION, DATES, write_sandbox
from scenebeam.sandbox.series import SERIES_AREA, SERIES_DATES, write_series
from scenebeam.sandbox.server import serve
from scenebeam.status import PAGE_FILE

_MAX_LISTED = 12
"""Images that are listed by name."""


def _write_scenes(folder: Path, url: str) -> dict[str, Any]:
    write_sandbox(folder, url)
    return {"area": {"bbox": list(AREA)}, "dates": DATES}


def _write_series(folder: Path, url: str) -> dict[str, Any]:
    write_series(folder, url)
    return {"area": {"bbox": list(SERIES_AREA)}, "dates": SERIES_DATES}


def _write_fields(folder: Path, url: str) -> dict[str, Any]:
    write_fields(folder, url)
    return {}


def _write_dated_fields(folder: Path, url: str) -> dict[str, Any]:
    write_fields(folder, url)
    return {"dates": ["2021-04", "2021-10"]}


def _write_landcover(folder: Path, url: str) -> dict[str, Any]:
    landcover.write_landcover(folder, url)
    return {"collections": [record.model_dump(mode="json") for record in landcover.records()]}


_DATASETS: dict[str, Callable[[Path, str], dict[str, Any]]] = {
    "scenes": _write_scenes,
    "series": _write_series,
    "fields": _write_fields,
    "dated_fields": _write_dated_fields,
    "landcover": _write_landcover,
}
"""Data set → writes it into a folder that is served at a URL, and returns fields of a request."""


def run_demo(folder: Path, kind: str, progress: Callable[[int, int], None] | None = None) -> str:
    """Run the demo of one product.

    Args:
        folder: Where the data set (in `scenes`) and the output are written.
        kind: Kind of the product.
        progress: Called with (finished tasks, all tasks).

    Returns:
        A summary for the terminal.
    """
    scenes, output = folder / "scenes", folder / kind
    scenes.mkdir(parents=True, exist_ok=True)
    demo = product_of(kind).demo
    with serve(scenes) as server:
        fields = _DATASETS[demo.dataset](scenes, server.url)
        document: dict[str, Any] = {
            "run": "demo",
            "catalog": f"{server.url}/catalog.json",
            "collections": [COLLECTION],
            "output": str(output.absolute()),
            "runner": "serial",
            "product": copy.deepcopy(dict(demo.product)),
            **fields,
        }
        for place in place_fields(document):
            if place.dotted.startswith("product."):
                place.holder[place.key] = str(scenes / place.value)
        # The server listens on another port each time, so the request differs from the last one.
        status = run(validate_request(document), overwrite=True, progress=progress)
    images = sorted(output.glob(demo.images))
    lines = [f"demo: {status.state}, {status.done} of {status.tasks} tasks"]
    for path in images[:_MAX_LISTED]:
        lines.append(f"  {path.relative_to(folder.parent)}")
    if len(images) > _MAX_LISTED:
        lines.append(f"  and {len(images) - _MAX_LISTED} more")
    lines.append(f"Tables, STAC items and the frozen plan: {output}")
    lines.append(f"Report: {output / PAGE_FILE}")
    lines.append(f"{status.requests} requests, {status.read_bytes / 1e6:.1f} MB read")
    return "\n".join(lines)
