"""Scenes that are already on disk, as a time-series table names them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from scenebeam.catalog.area import lonlat_geometry
from scenebeam.catalog.scene import Asset, Scene
from scenebeam.catalog.search import record_for_item
from scenebeam.catalog.series_rows import ListedScene
from scenebeam.collections import CollectionRecord
from scenebeam.csvtable import is_empty, parse_rows, read_day, read_number
from scenebeam.errors import RequestError
from scenebeam.multihash import SHA256_PREFIX, file_multihash
from scenebeam.request import is_url
from scenebeam.transfer.signing import redact_url

log = logging.getLogger(__name__)

_IMAGES = {".tif", ".tiff", ".jp2"}
_AT_ONCE = 16
"""Folders that are listed at the same time."""
_NEVER = datetime.min.replace(tzinfo=UTC)


class Files(Protocol):
    """Files below one folder, by their relative names: the part of a store that is read here."""

    def list(self, prefix: str = "") -> set[str]:
        """Names of all files that start with `prefix`."""
        ...

    def read(self, name: str) -> bytes | None:
        """A file's content; None where there is no such file."""
        ...

    def path(self, name: str) -> str:
        """Where a file lies."""
        ...


@dataclass(frozen=True)
class SeriesRow:
    """One row of a time series: a timestamp, its scenes in order, and what is known of them."""

    acquired: datetime
    scenes: tuple[str, ...]
    anchor: datetime | None
    cloud: float | None
    """Percent, of the cloudiest scene."""


def parse_series(content: bytes, name: str) -> list[SeriesRow]:
    """Parse a time-series table.

    Args:
        content: The file: see `parse_rows`.
        name: What messages call it.

    Returns:
        Its rows in order. A row may name no scene.

    Raises:
        RequestError: The table is not a time series; the message names the line.
    """
    rows = []
    for row in parse_rows(content, name, ("acq_datetime", "tile_ids")):
        where = f"{name} line {row.line}"
        acquired = read_day(row.cells, "acq_datetime", where)
        if acquired is None:
            raise RequestError(f"{where}: acq_datetime is empty")
        cloud = read_number(row.cells, "cloud_score", where)
        if cloud is not None and not 0 <= cloud <= 100:
            raise RequestError(f"{where}: cloud_score {cloud:g} is not a percentage")
        text = row.cells["tile_ids"]
        if any(not is_empty(cell) for cell in row.extra):
            # A list that is not quoted runs on in the cells beside it.
            if list(row.cells)[-1] != "tile_ids":
                told = "has more cells than the table has columns: quote the list of tiles"
                raise RequestError(f"{where} {told}")
            text = "|".join([text, *row.extra])
        anchor = read_day(row.cells, "anchor_date", where)
        rows.append(SeriesRow(acquired, tuple(_scene_ids(text, where)), anchor, cloud))
    return rows


def _scene_ids(text: str, where: str) -> list[str]:
    """The ids of a cell: separated by bars, commas or semicolons, or a list as Python prints it."""
    text = text.strip().strip("'\"").strip()
    # NumPy prints no commas between the items of an array.
    separators = r"[|,;\s]" if text.startswith(("[", "(", "{")) else r"[|,;\t\r\n]"
    names: dict[str, None] = {}
    for part in re.split(separators, text.strip("[](){}")):
        name = part.strip().strip("'\"")
        if is_empty(name):
            continue
        if not re.fullmatch(r"[A-Za-z0-9._-]+", name) or name.startswith("."):
            raise RequestError(f"{where}: {name!r} is not the id of a scene")
        names[name] = None
    return list(names)


def series_digest(rows: Iterable[SeriesRow]) -> str:
    """SHA-256 of what a table says, whatever its columns, quotes and line ends look like."""
    plain = [
        [
            row.acquired.astimezone(UTC).isoformat(),
            row.scenes,
            None if row.anchor is None else row.anchor.isoformat(),
            row.cloud,
        ]
        for row in rows
    ]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


def scenes_of_series(
    rows: Iterable[SeriesRow],
    records: list[CollectionRecord],
    root: Files,
    *,
    checksums: bool = False,
) -> list[ListedScene]:
    """The scenes that the rows of a time series name, with their files.

    A file is `<scene_id>/<band>.tif` below `root`, or `.jp2`, and may bear any of the band's names
    in any case. Bands without a file are left out of the scene's assets: a missing tile, for the
    product to judge. Where the scene's STAC item lies beside the files, as scenebeam's downloads
    have it, it tells the rest. A scene whose item says nothing of clouds has its row's.

    Args:
        rows: Rows of the table.
        records: Records that may describe the scenes; the first gives the names of bands.
        root: The folder of the scenes.
        checksums: Whether files of this machine are held against the checksums of their items, too.

    Raises:
        RequestError: An item beside the files cannot be read.
    """
    table = list(rows)
    names = list(dict.fromkeys(name for row in table for name in row.scenes))
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        found = threads.map(lambda name: _read_scene(name, records, root, checksums), names)
        known = dict(zip(names, found, strict=True))
    scenes = []
    for number, row in enumerate(table):
        for place, name in enumerate(row.scenes):
            scene = known[name]
            cloud = scene.cloud_cover if scene.cloud_cover is not None else row.cloud
            scenes.append(
                replace(
                    scene,
                    datetime=row.acquired,
                    acquired=row.acquired,
                    cloud_cover=cloud,
                    row=number,
                    place=place,
                    anchor=row.anchor,
                )
            )
    _warn_of_unknown(known, records[0])
    return scenes


def _read_scene(
    name: str, records: list[CollectionRecord], root: Files, checksums: bool
) -> ListedScene:
    """A scene by what lies in its folder; its row says the rest."""
    listed = sorted(file for file in root.list(f"{name}/") if file.count("/") == 1)
    files = {}
    for file in listed:
        path = PurePosixPath(file)
        if path.suffix.lower() in _IMAGES:
            files[path.stem.lower()] = root.path(file)
    item_name = f"{name}/{name}.json"
    item = _parse_item(root.read(item_name), root.path(item_name)) if item_name in listed else {}
    for label, asset in item["assets"].items() if item else ():
        if _is_in_bucket(asset):
            files.setdefault(label.lower(), asset["href"])
    properties = item.get("properties", {})
    cloud = properties.get("eo:cloud_cover")
    return ListedScene(
        id=name,
        collection=records[0].id,
        provider=records[0].provider,
        datetime=_NEVER,
        acquired=_NEVER,
        platform=properties.get("platform"),
        constellation=properties.get("constellation"),
        cloud_cover=float(cloud) if isinstance(cloud, int | float) else None,
        footprint=lonlat_geometry(item["geometry"]) if item.get("geometry") else None,
        assets=_local_assets(name, files, item, records, checksums),
    )


def _is_in_bucket(asset: dict[str, Any]) -> bool:
    """Whether scenebeam put the file into a bucket, and kept only the item here."""
    return str(asset.get("href")).startswith("gs://") and "scenebeam:index" in asset


def _warn_of_unknown(scenes: Mapping[str, Scene], record: CollectionRecord) -> None:
    unknown = []
    for name, scene in scenes.items():
        if not all(asset.add_offset_known for asset in scene.assets.values()):
            unknown.append(name)
    if unknown and record.add_offset is not None:
        log.warning(
            "%d of %d scenes (the first: %s): nothing says whether their pixels carry %+d, so "
            "their products say `values: unknown`; put the STAC item of each scene beside its "
            "files, or name its folder by the producer's product id",
            len(unknown),
            len(scenes),
            unknown[0],
            record.add_offset.amount,
        )


def _parse_item(content: bytes | None, where: str) -> dict[str, Any]:
    """The scene's STAC item, with the parts that are read here."""
    try:
        item = json.loads(content or b"{}")
    except ValueError as error:
        raise RequestError(f"cannot read the item {where}: {error}") from None
    if not isinstance(item, dict):
        raise RequestError(f"{where} is not a STAC item")
    assets = {}
    for label, asset in (item.get("assets") or {}).items():
        if isinstance(asset, dict):
            assets[label] = asset
    return {**item, "assets": assets, "properties": item.get("properties") or {}}


def _local_assets(
    scene_id: str,
    files: dict[str, str],
    item: dict[str, Any],
    records: list[CollectionRecord],
    checksums: bool,
) -> dict[str, Asset]:
    """Bands by their names, of those that have a file."""
    record = records[0]
    rule = record_for_item(item, records) or record
    properties = item.get("properties", {})
    found = {}
    for band in record.bands:
        add_offset = (
            rule.file_add_offset(band, scene_id, properties) if band in rule.bands else None
        )
        asset = _local_asset(band, files, record, item.get("assets", {}), add_offset, checksums)
        if asset is not None:
            found[band] = asset
    return found


def _damage(file: str, told: Mapping[str, Any], checksums: bool) -> str:
    """Why a file of this machine is not the one that its item describes; empty where it is, or nothing tells."""
    size, checksum = told.get("file:size"), told.get("file:checksum")
    try:
        found = os.path.getsize(file)
        if size is not None and found != size:
            return f"has {found:,} bytes, and its item says {size:,}"
        if (
            checksums
            and str(checksum).startswith(SHA256_PREFIX)
            and file_multihash(Path(file)) != checksum
        ):
            return "has another SHA-256 than its item says"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return ""


def _local_asset(
    band: str,
    files: dict[str, str],
    record: CollectionRecord,
    described: dict[str, dict[str, Any]],
    add_offset: int | None,
    checksums: bool,
) -> Asset | None:
    known = record.bands[band]
    names = [band, known.asset, *known.alias]
    file = next((files[name.lower()] for name in names if name.lower() in files), None)
    if file is None:
        return None
    scale, offset = record.band_scaling(band)
    told = described.get(PurePosixPath(file).stem, {})
    add_offset = told.get("scenebeam:shift", add_offset)
    damage = "" if is_url(file) else _damage(file, told, checksums)
    source = told.get("scenebeam:source") if damage else None
    if damage:
        log.warning(
            "%s %s%s",
            file,
            damage,
            f"; it is read from {redact_url(source)} instead" if source else "",
        )
    return Asset(
        band=band,
        href=source or file,
        signing=told.get("scenebeam:signing", "none") if source else "none",
        index=told.get("scenebeam:index", 1),
        resolution=known.resolution,
        dtype=record.band_dtype(band),
        nodata=record.band_nodata(band),
        scale=scale,
        offset=offset,
        add_offset=add_offset or 0,
        add_offset_known=add_offset is not None,
        categorical=known.categorical,
        constant_ok=record.may_be_constant(band),
        sensor=record.band_sensor(band),
        unit=record.unit,
        value_range=record.value_range,
    )
