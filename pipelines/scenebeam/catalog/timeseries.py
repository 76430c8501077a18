"""Scenes that are already on disk, as a time-series table names them."""

from __future__ import annotations

import json
import logging
import re
from datetime import datetime
from pathlib import Path
from typing import Any

from scenebeam.catalog.area import lonlat_geometry
from scenebeam.catalog.scene import Asset, Scene
from scenebeam.catalog.search import record_for_item
from scenebeam.collections import CollectionRecord
from scenebeam.csvtable import read_day, read_rows
from scenebeam.errors import RequestError
from scenebeam.request import TimeSeries

log = logging.getLogger(__name__)

_IMAGES = {".tif", ".tiff", ".jp2"}


def scenes_from_time_series(
    source: TimeSeries, records: list[CollectionRecord]
) -> tuple[list[Scene], dict[str, datetime]]:
    """The scenes that a time-series table names, with their files under `<root>/<scene_id>/<band>.tif`.

    Also gives, by scene, the anchor date of its row. A band's file may bear any of the band's names in any case.
    Bands without a file are left out of the scene's assets: a missing tile, for the product to judge. Where the
    scene's STAC item lies beside the files, as scenebeam's downloads have it, it tells the rest.
    Raises RequestError for a table that is not one.
    """
    record = records[0]
    scenes: dict[str, Scene] = {}
    anchors: dict[str, datetime] = {}
    path = Path(source.time_series)
    for number, row in enumerate(read_rows(path, ("acq_datetime", "tile_ids")), start=2):
        acquired = read_day(row, "acq_datetime", f"{path} line {number}")
        anchor = read_day(row, "anchor_date", f"{path} line {number}")
        if acquired is None:
            raise RequestError(f"{path} line {number}: acq_datetime is empty")
        for name in [part.strip() for part in re.split(r"[|,;]", row["tile_ids"].strip("[]")) if part.strip()]:
            if not re.fullmatch(r"[A-Za-z0-9._-]+", name) or name.startswith("."):
                raise RequestError(f"{source.time_series}: {name!r} is not the id of a scene")
            folder = Path(source.root) / name
            files = {file.stem.lower(): file for file in sorted(folder.glob("*")) if file.suffix.lower() in _IMAGES}
            item = _item(folder / f"{name}.json")
            properties = item.get("properties", {})
            scenes[name] = Scene(
                id=name,
                collection=record.id,
                provider=record.provider,
                datetime=acquired,
                acquired=acquired,
                platform=properties.get("platform"),
                constellation=properties.get("constellation"),
                cloud_cover=properties.get("eo:cloud_cover"),
                footprint=lonlat_geometry(item["geometry"]) if item.get("geometry") else None,
                assets=_local_assets(name, files, item, records),
            )
            if anchor is not None:
                anchors.setdefault(name, anchor)
    _warn_of_unknown(scenes, record)
    return list(scenes.values()), anchors


def _warn_of_unknown(scenes: dict[str, Scene], record: CollectionRecord) -> None:
    unknown = []
    for name, scene in scenes.items():
        if not all(asset.shift_known for asset in scene.assets.values()):
            unknown.append(name)
    if unknown and record.shift is not None:
        log.warning(
            "%d of %d scenes (the first: %s): nothing says whether their pixels carry %+d, so "
            "their products say `values: unknown`; put the STAC item of each scene beside its "
            "files, or name its folder by the producer's product id",
            len(unknown),
            len(scenes),
            unknown[0],
            record.shift.amount,
        )


def _item(path: Path) -> dict[str, Any]:
    """The scene's STAC item, where its download has left one."""
    if not path.exists():
        return {}
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"cannot read the item {path}: {error}") from None
    return found


def _local_assets(
    scene_id: str,
    files: dict[str, Path],
    item: dict[str, Any],
    records: list[CollectionRecord],
) -> dict[str, Asset]:
    """Bands by their names, of those that have a file."""
    record = records[0]
    rule = record_for_item(item, records) or record
    properties = item.get("properties", {})
    found = {}
    for band in record.bands:
        shift = rule.file_shift(band, scene_id, properties) if band in rule.bands else None
        asset = _local_asset(band, files, record, item.get("assets", {}), shift)
        if asset is not None:
            found[band] = asset
    return found


def _local_asset(
    band: str,
    files: dict[str, Path],
    record: CollectionRecord,
    described: dict[str, dict[str, Any]],
    shift: int | None,
) -> Asset | None:
    known = record.bands[band]
    names = [band, known.asset, *known.alias]
    file = next((files[name.lower()] for name in names if name.lower() in files), None)
    if file is None:
        return None
    scale, offset = record.band_scaling(band)
    told = described.get(file.stem, {})
    shift = told.get("scenebeam:shift", shift)
    return Asset(
        band=band,
        href=str(file),
        index=told.get("scenebeam:index", 1),
        resolution=known.resolution,
        dtype=record.band_dtype(band),
        nodata=record.band_nodata(band),
        scale=scale,
        offset=offset,
        shift=shift or 0,
        shift_known=shift is not None,
        categorical=known.categorical,
        uniform=record.may_be_uniform(band),
        sensor=record.band_sensor(band),
        unit=record.unit,
        value_range=record.value_range,
    )
