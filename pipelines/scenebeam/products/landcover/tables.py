"""Tables of a run: its areas of interest, and its chips."""

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
from scenebeam.products.landcover.request import LandcoverRequest, Platform
from scenebeam.products.landcover.task import LandcoverTask, Layer
from scenebeam.tasks import Outcome

AOIS_FILE = "aoi_metadata.geojson"
CHIPS_FILE = "chip_metadata.csv"
TRACKER_FILE = "gelos_chip_tracker.geojson"


def aoi_table(
    tasks: Sequence[LandcoverTask],
    records: Mapping[str, AoiRecord],
    outcomes: Mapping[str, Outcome],
) -> BytesFile:
    """Build `aoi_metadata.geojson`: each area with its scenes and chips, or why it has none.

    Args:
        tasks: All tasks of the plan.
        records: Task id → record, of finished areas.
        outcomes: Task id → outcome, of the tasks of this run.
    """
    features = [_aoi(task, records.get(task.id), outcomes.get(task.id)) for task in tasks]
    return BytesFile(stac_items.to_bytes({"type": "FeatureCollection", "features": features}))


def _aoi(task: LandcoverTask, record: AoiRecord | None, outcome: Outcome | None) -> dict[str, Any]:
    status, reason = _aoi_status(task, record, outcome)
    properties: dict[str, Any] = {
        "aoi": task.aoi,
        "name": task.name,
        "status": status,
        "reason": reason,
        "scenes_found": task.found,
        "mgrs_tile": task.tile,
        "relative_orbit": task.orbit,
        "wrs_path_row": task.wrs,
    }
    layers = _by_platform(task.layers)
    for platform in layers:
        scene_ids: list[str] = []
        for layer in layers[platform]:
            scene_ids += [scene.id for scene in layer.scenes]
        properties[f"{platform}_scene_ids"] = scene_ids
    for platform in layers:
        dates = _dates(layers[platform])
        if dates:
            properties[f"{platform}_dates"] = dates
    if record is not None:
        counts = Counter(chip.land_class for chip in record.chips)
        chips_by_class = {}
        for number, land_class in sorted(task.classes.items()):
            chips_by_class[land_class.name] = counts[number]
        properties |= {
            "epsg": record.crs.removeprefix("EPSG:"),
            "windows": record.windows,
            "homogeneous_windows": record.homogeneous,
            "rejected_windows": record.rejected,
            "chips": len(record.chips),
            "chips_by_class": chips_by_class,
        }
    geometry = mapping(shapely.from_wkb(task.outline)) if task.outline else None
    return {"type": "Feature", "id": task.aoi, "geometry": geometry, "properties": properties}


def _aoi_status(
    task: LandcoverTask, record: AoiRecord | None, outcome: Outcome | None
) -> tuple[str, str]:
    """Return (status, reason) of an area."""
    if task.fault:
        return "skipped", task.fault
    if record is not None:
        if record.chips:
            return "done", ""
        return "done", "no window is of one class and clear on every date"
    if outcome is not None:
        return "failed", outcome.reason
    return "planned", ""


def _by_platform(layers: Sequence[Layer]) -> dict[Platform, list[Layer]]:
    groups: dict[Platform, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(layer.platform, []).append(layer)
    return groups


def _dates(layers: Sequence[Layer]) -> list[str]:
    """Dates of the layers that have one."""
    return [f"{layer.scenes[0].when:%Y-%m-%d}" for layer in layers if layer.date]


def chip_properties(chip: Chip, product: LandcoverRequest) -> dict[str, Any]:
    """Describe a chip.

    Args:
        chip: The chip, released or not.
        product: The request; its `public_url` is the prefix of the files of released chips.

    Returns:
        Column of `chip_metadata.csv` → value; a list where there can be several.
    """
    longitude, latitude = chip.center
    task = chip.task
    properties: dict[str, Any] = {
        "id": chip.id,
        "aoi": task.aoi,
        "aoi_chip": chip.record.chip,
        "lat": latitude,
        "lon": longitude,
        "class": chip.record.land_class,
        "category": chip.land_class.name,
        "color": chip.land_class.color,
        "epsg": int(chip.crs.removeprefix("EPSG:")) if chip.crs.startswith("EPSG:") else chip.crs,
        "status": _chip_status(chip),
    }
    if chip.split:
        properties["split"] = chip.split
    properties |= {
        "mgrs_tile": task.tile,
        "relative_orbit": task.orbit,
        "wrs_path_row": task.wrs,
    }
    for platform, layers in _by_platform(task.layers).items():
        scene_ids: list[str] = []
        for layer in layers:
            scene_ids += chip.record.scene_ids(layer)
        properties[f"{platform}_scene_ids"] = scene_ids
        dates = _dates(layers)
        if dates:
            properties[f"{platform}_dates"] = dates
        stems = _file_stems(chip, layers, product.public_url)
        properties[f"{platform}_files"] = [f"{stem}.tif" for stem in stems]
        if task.thumbnails:
            properties[f"{platform}_thumbs"] = [f"{stem}.png" for stem in stems]
    return properties


def _file_stems(chip: Chip, layers: Sequence[Layer], public_url: str | None) -> list[str]:
    """Locations of a chip's files, without extension.

    Files of a released chip are relative to the release, or start with `public_url`; those of any
    other chip are relative to the output.
    """
    if chip.id is None:
        prefix = f"{chip.task.output_prefix}/"
        return [prefix + layer.working_name(chip.record.chip) for layer in layers]
    prefix = "" if public_url is None else f"{public_url.rstrip('/')}/"
    return [prefix + layer.release_name(chip.id) for layer in layers]


def _chip_status(chip: Chip) -> str:
    if chip.id is not None:
        return "released"
    if chip.duplicate_of:
        return f"left out: area {chip.duplicate_of} shows the same ground"
    return "left out by sampling_factor"


def chip_table(chips: Sequence[Chip], product: LandcoverRequest) -> Table:
    """Build `chip_metadata.csv`, one row per chip. Lists are separated by `|`.

    Args:
        chips: The chips.
        product: The request.
    """
    rows = []
    for chip in chips:
        row = chip_properties(chip, product)
        for column, value in row.items():
            if isinstance(value, list):
                row[column] = "|".join(value)
        row["footprint"] = shape(chip.footprint).wkt
        rows.append(row)
    # Chips can differ in their columns: only those that are released have a split.
    columns: dict[str, None] = {}
    for row in rows:
        columns |= dict.fromkeys(row)
    return Table(list(columns) or ["id"], rows)


def chip_tracker(chips: Sequence[Chip], product: LandcoverRequest) -> BytesFile:
    """Build `gelos_chip_tracker.geojson`, one feature per chip.

    Args:
        chips: The released chips.
        product: The request.
    """
    features = []
    for chip in chips:
        features.append(
            {
                "type": "Feature",
                "id": chip.id,
                "geometry": chip.footprint,
                "properties": chip_properties(chip, product),
            }
        )
    document = {"type": "FeatureCollection", "features": features}
    return BytesFile(json.dumps(document).encode() + b"\n")
