"""Tables: what became of each area of interest, and of each chip."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import shapely
from shapely.geometry import mapping, shape

from scenebeam.csvtable import Table
from scenebeam.metadata import stac_items
from scenebeam.metadata.item_tables import BytesFile
from scenebeam.products.landcover.chips import Chip
from scenebeam.products.landcover.record import AoiRecord
from scenebeam.products.landcover.request import LandcoverRequest
from scenebeam.products.landcover.task import LandcoverTask, Layer
from scenebeam.tasks import Outcome

AOIS_FILE, CHIPS_FILE, TRACKER_FILE = (
    "aoi_metadata.geojson",
    "chip_metadata.csv",
    "gelos_chip_tracker.geojson",
)


def aoi_metadata(
    tasks: Sequence[LandcoverTask],
    records: Mapping[str, AoiRecord],
    outcomes: Mapping[str, Outcome],
) -> BytesFile:
    """Areas of interest with their scenes and chips, and why there are none: `aoi_metadata.geojson`."""
    features = [_aoi(task, records.get(task.id), outcomes.get(task.id)) for task in tasks]
    return BytesFile(stac_items.to_bytes({"type": "FeatureCollection", "features": features}))


def _aoi(task: LandcoverTask, record: AoiRecord | None, outcome: Outcome | None) -> dict[str, Any]:
    status, reason = "planned", ""
    if task.fault:
        status, reason = "skipped", task.fault
    elif record is not None:
        status, reason = (
            "done",
            "" if record.chips else "no window is of one class and clear on every date",
        )
    elif outcome is not None:
        status, reason = "failed", outcome.reason
    told: dict[str, Any] = {
        "aoi": task.aoi,
        "name": task.name,
        "status": status,
        "reason": reason,
        "scenes_found": task.found,
        "mgrs_tile": task.tile,
        "relative_orbit": task.orbit,
        "wrs_path_row": task.wrs,
        **{f"{name}_scene_ids": ids for name, ids in _scene_ids(task.layers).items()},
        **{f"{name}_dates": dates for name, dates in _dates(task.layers).items()},
    }
    if record is not None:
        names = {number: one.name for number, one in task.classes.items()}
        counts = Counter(chip.land_class for chip in record.chips)
        told |= {
            "epsg": record.crs.removeprefix("EPSG:"),
            "windows": record.windows,
            "homogeneous_windows": record.homogeneous,
            "rejected_windows": record.rejected,
            "chips": len(record.chips),
            "chips_by_class": {names[number]: counts[number] for number in sorted(names)},
        }
    geometry = mapping(shapely.from_wkb(task.outline)) if task.outline else None
    return {"type": "Feature", "id": task.aoi, "geometry": geometry, "properties": told}


def _scene_ids(layers: Sequence[Layer]) -> dict[str, list[str]]:
    """Of each modality, date by date."""
    found: dict[str, list[str]] = {}
    for layer in layers:
        found.setdefault(layer.platform, []).extend(scene.id for scene in layer.scenes)
    return found


def _dates(layers: Sequence[Layer]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for layer in layers:
        if layer.date:
            found.setdefault(layer.platform, []).append(f"{layer.scenes[0].when:%Y-%m-%d}")
    return found


def chip_facts(chip: Chip, product: LandcoverRequest) -> dict[str, Any]:
    """What is told of a chip, by column; lists where there are several."""
    longitude, latitude = chip.center
    task, released = chip.task, chip.id is not None
    base = (
        "" if product.public_url is None or not released else f"{product.public_url.rstrip('/')}/"
    )
    facts: dict[str, Any] = {
        "id": chip.id,
        "aoi": task.aoi,
        "aoi_chip": chip.made.chip,
        "lat": latitude,
        "lon": longitude,
        "class": chip.made.land_class,
        "category": chip.land_class.name,
        "color": chip.land_class.color,
        "epsg": int(chip.crs.removeprefix("EPSG:")) if chip.crs.startswith("EPSG:") else chip.crs,
        "status": _status(chip),
        **({"split": chip.split} if chip.split else {}),
        "mgrs_tile": task.tile,
        "relative_orbit": task.orbit,
        "wrs_path_row": task.wrs,
    }
    dates = _dates(task.layers)
    for name in dict.fromkeys(layer.platform for layer in task.layers):
        layers = [layer for layer in task.layers if layer.platform == name]
        names = [
            layer.name(chip.made.chip) if chip.id is None else layer.release_name(chip.id)
            for layer in layers
        ]
        folder = f"{task.output_prefix}/" if chip.id is None else base
        facts[f"{name}_scene_ids"] = [
            scene for layer in layers for scene in chip.made.scene_ids(layer)
        ]
        if name in dates:
            facts[f"{name}_dates"] = dates[name]
        facts[f"{name}_files"] = [f"{folder}{one}.tif" for one in names]
        if task.thumbnails:
            facts[f"{name}_thumbs"] = [f"{folder}{one}.png" for one in names]
    return facts


def _status(chip: Chip) -> str:
    if chip.id is not None:
        return "released"
    return (
        f"left out: area {chip.twin} shows the same ground"
        if chip.twin
        else "left out by sampling_factor"
    )


def chip_table(chips: Sequence[Chip], product: LandcoverRequest) -> Table:
    """A row for each chip: `chip_metadata.csv`. Lists are separated by bars."""
    rows = []
    for chip in chips:
        facts = chip_facts(chip, product)
        rows.append(
            {
                key: "|".join(value) if isinstance(value, list) else value
                for key, value in facts.items()
            }
            | {"footprint": shape(chip.footprint).wkt}
        )
    columns = dict.fromkeys(column for row in rows for column in row)
    return Table(list(columns) or ["id"], rows)


def tracker(chips: Sequence[Chip], product: LandcoverRequest) -> BytesFile:
    """A feature for each chip: `gelos_chip_tracker.geojson`."""
    features = [
        {
            "type": "Feature",
            "id": chip.id,
            "geometry": chip.footprint,
            "properties": chip_facts(chip, product),
        }
        for chip in chips
    ]
    return BytesFile(
        json.dumps({"type": "FeatureCollection", "features": features}).encode() + b"\n"
    )
