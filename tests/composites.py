"""Requests for composites of the series, and what they leave."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from known_series import Bounds
from scenebeam.request import RunRequest
from scenebeam.requestfile import validate_request
from scenebeam.sandbox.scenes import COLLECTION
from scenebeam.sandbox.series import SERIES_DATES

GRID = Bounds(744_900, 4_501_990, 700, 560)
"""Reaches beyond the scenes on all sides but the upper one."""
BANDS = ["red", "nir"]
SECTIONS = ("catalog", "collections", "dates", "area", "select", "grid", "limits", "output")
Make = Callable[..., RunRequest]


def composite_request(catalog: Path, output: Path, **fields: Any) -> RunRequest:
    """A request for composites; what is not a section of requests is a field of the product."""
    sections = {name: fields.pop(name) for name in SECTIONS if name in fields}
    document: dict[str, Any] = {
        "catalog": str(catalog),
        "collections": [COLLECTION],
        "dates": SERIES_DATES,
        "grid": GRID.document,
        "product": {"kind": "composite", "bands": BANDS, **fields},
        "output": str(output),
        "runner": "serial",
        **sections,
    }
    return validate_request(document)


def read(request: RunRequest, period: str, name: str) -> np.ndarray:
    with rasterio.open(Path(request.output, "composites", period, f"{name}.tif")) as file:
        return file.read(1)


def item_of(request: RunRequest, period: str) -> dict[str, Any]:
    path = Path(request.output, "composites", period, f"{period}.json")
    return json.loads(path.read_text())


def table(request: RunRequest) -> dict[str, dict[str, str]]:
    with Path(request.output, "composites_status.csv").open() as file:
        return {row["period"]: row for row in csv.DictReader(file)}
