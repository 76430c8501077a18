"""Read scenes that are already on disk or in a bucket, as a time-series table lists them."""

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
from scenebeam.catalog.bands import record_for_item
from scenebeam.catalog.scene import Asset, Scene, asset_from_record
from scenebeam.catalog.series_rows import ListedScene
from scenebeam.collections import CollectionRecord
from scenebeam.csvtable import is_empty, parse_rows, read_day, read_number
from scenebeam.errors import RequestError
from scenebeam.multihash import SHA256_PREFIX, file_multihash
from scenebeam.request import is_url
from scenebeam.transfer.signing import redact_url

log = logging.getLogger(__name__)

_IMAGE_SUFFIXES = {".tif", ".tiff", ".jp2"}
_LISTING_THREADS = 16
"""Folders that are listed at the same time."""
_UNDATED = datetime.min.replace(tzinfo=UTC)
"""Time of a scene until its row is known."""


class Files(Protocol):
    """Read access to the files below a folder or bucket prefix, by their relative keys."""

    def list(self, prefix: str = "") -> set[str]:
        """List the keys of all files that start with `prefix`."""
        ...

    def read(self, key: str) -> bytes | None:
        """Read a file; None if it does not exist."""
        ...

    def uri_for(self, key: str) -> str:
        """Return the absolute path or URI of a file."""
        ...


@dataclass(frozen=True)
class SeriesRow:
    """One row of a time series: a timestamp and its scenes in order."""

    acquired: datetime
    scenes: tuple[str, ...]
    """Scene ids."""
    anchor: datetime | None
    """The day that the row was selected for."""
    cloud: float | None
    """Cloud cover of the cloudiest scene, in percent."""


def parse_series(content: bytes, name: str) -> list[SeriesRow]:
    """Parse a time-series table.

    Args:
        content: The content of the file; for the accepted forms see `parse_rows`.
        name: Name of the table in messages.

    Returns:
        The rows in order. A row may have no scenes.

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
            # An unquoted list with commas continues in the cells that follow, which only works if
            # `tile_ids` is the last column.
            if list(row.cells)[-1] != "tile_ids":
                raise RequestError(
                    f"{where} has more cells than the table has columns: quote the list of tiles"
                )
            text = "|".join([text, *row.extra])
        anchor = read_day(row.cells, "anchor_date", where)
        rows.append(SeriesRow(acquired, tuple(_parse_scene_ids(text, where)), anchor, cloud))
    return rows


def _parse_scene_ids(text: str, where: str) -> list[str]:
    """Parse the ids in a cell: separated by `|`, `,` or `;`, or a list as Python prints it."""
    text = text.strip().strip("'\"").strip()
    # NumPy prints arrays without commas, so in brackets a space separates, too.
    separators = r"[|,;\s]" if text.startswith(("[", "(", "{")) else r"[|,;\t\r\n]"
    ids: dict[str, None] = {}
    for part in re.split(separators, text.strip("[](){}")):
        scene_id = part.strip().strip("'\"")
        if is_empty(scene_id):
            continue
        # An id becomes a folder name: it must not contain slashes or start with a dot.
        if not re.fullmatch(r"[A-Za-z0-9._-]+", scene_id) or scene_id.startswith("."):
            raise RequestError(f"{where}: {scene_id!r} is not the id of a scene")
        ids[scene_id] = None
    return list(ids)


def series_digest(rows: Iterable[SeriesRow]) -> str:
    """Return the SHA-256 of the content of a table, independent of its formatting.

    Column order, quotes, separators and line ends do not change the digest.
    """
    content = []
    for row in rows:
        acquired = row.acquired.astimezone(UTC).isoformat()
        anchor = None if row.anchor is None else row.anchor.isoformat()
        content.append([acquired, row.scenes, anchor, row.cloud])
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def read_series_scenes(
    rows: Iterable[SeriesRow],
    records: list[CollectionRecord],
    root: Files,
    *,
    checksums: bool = False,
) -> list[ListedScene]:
    """Read the scenes that the rows of a time series list, with their files.

    A file is `<scene_id>/<band>.tif` (or `.tiff`, `.jp2`) below `root`; its name may be any name
    of the band, in any case. Bands without a file have no asset, and the product decides what a
    missing tile means. If the STAC item of the scene is beside the files, as in scenebeam's
    downloads, properties are read from it. If it has no cloud cover, the row's is used.

    Args:
        rows: Rows of the table.
        records: Records that may describe the scenes; the first one defines the bands.
        root: The folder of the scenes.
        checksums: Whether the checksums of local files are verified, in addition to their sizes.

    Returns:
        One scene for each id in each row, in the order of the table.

    Raises:
        RequestError: An item beside the files cannot be read.
    """
    table = list(rows)
    ids: dict[str, None] = {}
    for row in table:
        ids.update(dict.fromkeys(row.scenes))
    # Rows may share scenes: each folder is read once.
    with ThreadPoolExecutor(_LISTING_THREADS) as threads:
        read = threads.map(lambda scene_id: _read_scene(scene_id, records, root, checksums), ids)
        by_id = dict(zip(ids, read, strict=True))
    scenes = []
    for number, row in enumerate(table):
        for place, scene_id in enumerate(row.scenes):
            scene = by_id[scene_id]
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
    _warn_of_unknown_offsets(by_id, records[0])
    return scenes


def _read_scene(
    scene_id: str, records: list[CollectionRecord], root: Files, checksums: bool
) -> ListedScene:
    """Read a scene from the files in its folder. Its time and row are filled in later."""
    keys = sorted(key for key in root.list(f"{scene_id}/") if key.count("/") == 1)
    files = {}
    for key in keys:
        path = PurePosixPath(key)
        if path.suffix.lower() in _IMAGE_SUFFIXES:
            files[path.stem.lower()] = root.uri_for(key)
    item_key = f"{scene_id}/{scene_id}.json"
    item = _parse_item(root.read(item_key), root.uri_for(item_key)) if item_key in keys else {}
    for asset_key, described in item.get("assets", {}).items():
        if _is_in_bucket(described):
            files.setdefault(asset_key.lower(), described["href"])
    properties = item.get("properties", {})
    cloud = properties.get("eo:cloud_cover")
    return ListedScene(
        id=scene_id,
        collection=records[0].id,
        provider=records[0].provider,
        datetime=_UNDATED,
        acquired=_UNDATED,
        platform=properties.get("platform"),
        constellation=properties.get("constellation"),
        cloud_cover=float(cloud) if isinstance(cloud, int | float) else None,
        footprint=lonlat_geometry(item["geometry"]) if item.get("geometry") else None,
        assets=_local_assets(scene_id, files, item, records, checksums),
    )


def _is_in_bucket(described: dict[str, Any]) -> bool:
    """Return whether scenebeam moved a file to a bucket, and kept only the item here."""
    return str(described.get("href")).startswith("gs://") and "scenebeam:index" in described


def _warn_of_unknown_offsets(scenes: Mapping[str, Scene], record: CollectionRecord) -> None:
    unknown = []
    for scene_id, scene in scenes.items():
        if not all(asset.add_offset_known for asset in scene.assets.values()):
            unknown.append(scene_id)
    if unknown and record.add_offset is not None:
        log.warning(
            "%d of %d scenes (the first: %s): it is unknown whether their pixels contain the "
            "offset %+d, so their products have `values: unknown`; put the STAC item of each scene "
            "beside its files, or name its folder by the product id of the producer",
            len(unknown),
            len(scenes),
            unknown[0],
            record.add_offset.amount,
        )


def _parse_item(content: bytes | None, where: str) -> dict[str, Any]:
    """Parse the STAC item of a scene, and normalize its `assets` and `properties`."""
    try:
        item = json.loads(content or b"{}")
    except ValueError as error:
        raise RequestError(f"cannot read the item {where}: {error}") from None
    if not isinstance(item, dict):
        raise RequestError(f"{where} is not a STAC item")
    assets = {}
    for key, described in (item.get("assets") or {}).items():
        if isinstance(described, dict):
            assets[key] = described
    return {**item, "assets": assets, "properties": item.get("properties") or {}}


def _local_assets(
    scene_id: str,
    files: dict[str, str],
    item: dict[str, Any],
    records: list[CollectionRecord],
    checksums: bool,
) -> dict[str, Asset]:
    """Build the assets of all bands that have a file.

    Args:
        scene_id: The scene.
        files: Path or URI of each file, by its stem in lower case.
        item: The item of the scene; empty if there is none.
        records: As in `read_series_scenes`.
        checksums: As in `read_series_scenes`.
    """
    record = records[0]
    # The first record names the bands. Whether pixels carry an offset depends on where the files
    # came from, so that rule is taken from the record that fits the item.
    offset_record = record_for_item(item, records) or record
    properties = item.get("properties", {})
    assets = {}
    for band in record.bands:
        file = _file_of_band(band, files, record)
        if file is None:
            continue
        add_offset = None
        if band in offset_record.bands:
            add_offset = offset_record.file_add_offset(band, scene_id, properties)
        described = item.get("assets", {}).get(PurePosixPath(file).stem, {})
        assets[band] = _local_asset(band, file, record, described, add_offset, checksums)
    return assets


def _file_of_band(band: str, files: dict[str, str], record: CollectionRecord) -> str | None:
    """Find the file of a band by any of the band's names."""
    band_record = record.bands[band]
    for name in (band, band_record.asset, *band_record.alias):
        if name.lower() in files:
            return files[name.lower()]
    return None


def _local_asset(
    band: str,
    file: str,
    record: CollectionRecord,
    described: dict[str, Any],
    add_offset: int | None,
    checksums: bool,
) -> Asset:
    """Build the asset of a band that has a file.

    Args:
        band: Common name of the band.
        file: Path or URI of the file.
        record: The record of the band.
        described: The asset of the file in the item; empty if there is none.
        add_offset: Radiometric offset of the file if `described` states none; None if unknown.
        checksums: As in `read_series_scenes`.
    """
    # `scenebeam:shift` is the radiometric offset that was determined at download.
    add_offset = described.get("scenebeam:shift", add_offset)
    href, signing = file, "none"
    damage = "" if is_url(file) else _damage(file, described, checksums)
    if damage:
        # Fall back to the URL that the file was downloaded from.
        source_url = described.get("scenebeam:source")
        remedy = f"; it is read from {redact_url(source_url)} instead" if source_url else ""
        log.warning("%s %s%s", file, damage, remedy)
        if source_url:
            href, signing = source_url, described.get("scenebeam:signing", "none")
    return asset_from_record(
        record,
        band,
        href=href,
        index=described.get("scenebeam:index", 1),
        resolution=record.bands[band].resolution,
        add_offset=add_offset or 0,
        add_offset_known=add_offset is not None,
        signing=signing,
    )


def _damage(file: str, described: Mapping[str, Any], checksums: bool) -> str:
    """Compare a local file with its item. Returns what is wrong, or "" if nothing is."""
    stated_size, checksum = described.get("file:size"), described.get("file:checksum")
    try:
        size = os.path.getsize(file)
        if stated_size is not None and size != stated_size:
            return f"has {size:,} bytes, and its item says {stated_size:,}"
        # Only SHA-256 is verified: the checksum is a multihash, and other functions are skipped.
        verifiable = checksums and str(checksum).startswith(SHA256_PREFIX)
        if verifiable and file_multihash(Path(file)) != checksum:
            return "has a different SHA-256 than its item states"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return ""
