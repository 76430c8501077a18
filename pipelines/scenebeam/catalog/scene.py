"""Scene and Asset: a STAC item and one band of it, the same whichever provider it came from."""

from __future__ import annotations

import datetime as dt
import os.path
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from pystac.utils import make_absolute_href
from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.area import TILE_METRES, lonlat_geometry
from scenebeam.catalog.packed_items import links_of
from scenebeam.collections import CollectionRecord
from scenebeam.collections.identity import KNOWN_SENSORS
from scenebeam.errors import CatalogError, RequestError
from scenebeam.request import is_url
from scenebeam.transfer.signing import preferred_href

SOURCE_COLLECTION, SOURCE_PROVIDER = "scenebeam:collection", "scenebeam:provider"
"""Properties of items that scenebeam has made of scenes: where the scenes are from."""
_REMOTE_SCHEMES = {"http", "https", "s3", "gs"}
_INSTANT = re.compile(r"(?:^|/)(\d{8}T\d{6})(?:/|$)")


@dataclass(frozen=True)
class Asset:
    """One band of a scene: where its file is and what its numbers mean."""

    band: str
    """Common name, lower case (`red`)."""
    href: str
    """Unsigned: signed when it is opened."""
    index: int
    """Band inside the file, from 1."""
    resolution: float
    dtype: str
    nodata: float | None
    scale: float
    offset: float
    """Physical value = scale x (number - shift) + offset."""
    add_offset: int
    """What the pixels carry on top of the harmonized number."""
    categorical: bool
    constant_ok: bool = False
    """Whether one number throughout is nothing odd."""
    sensor: Literal["optical", "sar"] | None = None
    """Whose checks say whether it is fit to use."""
    unit: Literal["linear", "db"] | None = None
    """Of a radar's numbers."""
    value_range: tuple[float, float] | None = None
    """Plausible harmonized numbers."""
    signing: str = "none"
    media_type: str | None = None
    size: int | None = None
    """Bytes of the file, where the catalogue says."""
    checksum: str | None = None
    """As the catalogue writes it."""
    shape: tuple[int, int] | None = None
    """Rows and columns, where the catalog says."""
    add_offset_known: bool = True
    """Whether anything says what `shift` is. Else it is 0, and products call their values unknown."""

    @property
    def likely_size(self) -> int:
        """Bytes by the catalog, else half of what the pixels take: by their number, or as many as a Sentinel-2 tile."""
        if self.size is not None:
            return self.size
        item = {"uint8": 1, "float32": 4}.get(self.dtype, 2)
        side = TILE_METRES / max(self.resolution, 1.0)
        rows, columns = self.shape or (side, side)
        return int(rows * columns * item / 2)


@dataclass(frozen=True)
class Scene:
    """One STAC item, normalised."""

    id: str
    collection: str
    provider: str
    datetime: dt.datetime
    acquired: dt.datetime
    """Start of the acquisition that the scene is a part of; tiles of one datatake share it."""
    platform: str | None = None
    tile: str | None = None
    """MGRS tile, where the collection has tiles."""
    end: dt.datetime | None = None
    """Where the item covers an interval instead of an instant: its end, `datetime` being its start."""
    pass_key: str | None = None
    """What scenes of one platform's pass share; None where time decides."""
    tile_key: str | None = None
    """What scenes of the same ground share; None where footprints decide."""
    part_key: str | None = None
    """What tells the parts of one tile and pass apart; None where footprints decide."""
    processed: tuple[str, ...] = ()
    """Sorts processings of one part from oldest to newest."""
    cloud_cover: float | None = None
    aoi_cloud: float | None = None
    """Percent of the area, where it was measured."""
    nodata: float | None = None
    """Percent of the scene without data."""
    relative_orbit: int | None = None
    orbit_state: str | None = None
    wrs: str | None = None
    """Landsat's path and row: `084/068`."""
    footprint: BaseGeometry | None = None
    """Where there is data, in degrees; None where not known before the files are opened."""
    item_href: str | None = None
    constellation: str | None = None
    properties: dict[str, Any] = field(default_factory=dict)
    """Of the item, those that its keys above were read from."""
    assets: dict[str, Asset] = field(default_factory=dict)


def scene_from_item(
    item: dict[str, Any],
    record: CollectionRecord,
    *,
    base: str | None = None,
    resolution: float | None = None,
) -> Scene:
    """A STAC item (as JSON) → Scene, by what `record` knows of its collection.

    `base` is the folder of a catalogue on this machine: relative hrefs start there, and only such a
    catalogue may name local files. `resolution`, in metres, is the one wanted of bands that the item has at
    several; else its own. Raises CatalogError for an item that cannot be used.
    """
    properties = item.get("properties") or {}
    name = str(item.get("id") or "")
    if not name:
        raise CatalogError("a STAC item without an id")
    when = _instant(properties.get("datetime") or properties.get("start_datetime"))
    if when is None:
        raise CatalogError(f"item {name}: no datetime and no start_datetime that can be read")
    identity = record.identity or KNOWN_SENSORS
    pass_key = identity.pass_key(name, properties)
    self_href = next((link.get("href") for link in links_of(item, "self")), None)
    try:
        footprint = _footprint(item)
    except RequestError as error:
        raise CatalogError(f"item {name}: {error}") from None
    return Scene(
        id=name,
        collection=record.id if is_archived(item) else str(item.get("collection") or record.id),
        provider=record.provider,
        datetime=when,
        acquired=_start_of_pass(pass_key) or when,
        platform=_lower(properties.get("platform")),
        constellation=_lower(properties.get("constellation")),
        tile=_tile(properties),
        end=None if properties.get("datetime") else _instant(properties.get("end_datetime")),
        pass_key=pass_key,
        tile_key=identity.tile_key(name, properties),
        part_key=identity.part_key(name, properties),
        processed=identity.processed(name, properties),
        cloud_cover=_number(properties.get("eo:cloud_cover")),
        nodata=_number(
            properties.get(
                "s2:nodata_pixel_percentage", (properties.get("statistics") or {}).get("nodata")
            )
        ),
        relative_orbit=_integer(properties.get("sat:relative_orbit")),
        orbit_state=properties.get("sat:orbit_state"),
        wrs=_wrs(properties),
        footprint=footprint,
        item_href=self_href,
        properties={
            key: properties[key]
            for key in sorted(identity.names)
            if properties.get(key) is not None
        },
        assets={
            band: asset
            for band in record.bands
            if (
                asset := _asset(
                    item,
                    band,
                    record,
                    lambda href: _absolute_href(href, self_href, base, name),
                    resolution,
                )
            )
        },
    )


def _asset(
    item: dict[str, Any],
    band: str,
    record: CollectionRecord,
    absolute: Callable[[str], str],
    resolution: float | None,
) -> Asset | None:
    known, properties = record.bands[band], item.get("properties") or {}
    stored_by_key = item.get("assets") or {}
    if is_archived(item):
        return _archived_asset(stored_by_key, band, record, absolute)
    offered = known.keys_by_resolution.items()
    keys = {size: key for size, key in offered if _hrefs(stored_by_key.get(key))}
    if not keys:
        return None
    chosen = resolution if resolution in keys else next(iter(keys))
    stored = stored_by_key[keys[chosen]]
    hrefs = [absolute(href) for href in _hrefs(stored)]
    scale, offset = record.band_scaling(band)
    checksum = stored.get("file:checksum")
    return Asset(
        band=band,
        href=preferred_href(hrefs, record.signing),
        index=known.band,
        resolution=chosen,
        dtype=record.band_dtype(band),
        nodata=record.band_nodata(band),
        scale=scale,
        offset=offset,
        add_offset=record.band_add_offset(band, properties),
        categorical=known.categorical,
        constant_ok=record.may_be_constant(band),
        sensor=record.band_sensor(band),
        unit=record.unit,
        value_range=record.value_range,
        signing=record.signing,
        media_type=stored.get("type"),
        size=_integer(stored.get("file:size")),
        checksum=None if checksum is None else str(checksum),
        shape=_shape(stored.get("proj:shape") or properties.get("proj:shape")),
    )


def _shape(told: Any) -> tuple[int, int] | None:
    try:
        rows, columns = (int(side) for side in told)
    except (TypeError, ValueError):
        return None
    return (rows, columns) if rows > 0 and columns > 0 else None


def is_archived(item: dict[str, Any]) -> bool:
    """Whether an item is of files that scenebeam has downloaded: its collection is a run's."""
    return bool((item.get("properties") or {}).get(SOURCE_COLLECTION))


def _archived_asset(
    assets: dict[str, Any], band: str, record: CollectionRecord, absolute: Callable[[str], str]
) -> Asset | None:
    """A band of a scene that scenebeam has downloaded, by what the item says of the file."""
    stored = next((one for one in assets.values() if _hrefs(one) and _holds(one, band)), None)
    if stored is None:
        return None
    place = [str(one.get("name")) for one in stored["bands"]].index(band)
    told = (stored.get("raster:bands") or [{}])[place]
    known, (scale, offset) = record.bands[band], record.band_scaling(band)
    shift = stored.get("scenebeam:shift")
    return Asset(
        band=band,
        href=absolute(_hrefs(stored)[0]),
        index=_integer(stored.get("scenebeam:index")) or 1,
        resolution=_number(told.get("spatial_resolution")) or known.resolution,
        dtype=record.band_dtype(band),
        nodata=record.band_nodata(band),
        scale=scale,
        offset=offset,
        add_offset=0
        if shift is None or known.categorical or not known.has_add_offset
        else int(shift),
        add_offset_known=shift is not None or record.add_offset is None,
        categorical=known.categorical,
        constant_ok=record.may_be_constant(band),
        sensor=record.band_sensor(band),
        unit=record.unit,
        value_range=record.value_range,
        media_type=stored.get("type"),
        size=_integer(stored.get("file:size")),
        checksum=stored.get("file:checksum"),
    )


def _holds(stored: dict[str, Any], band: str) -> bool:
    """Whether a file is the provider's own, and holds a band."""
    names = [one.get("name") for one in stored.get("bands") or () if isinstance(one, dict)]
    return stored.get("scenebeam:index") is not None and band in names


def _hrefs(stored: Any) -> list[str]:
    """Return where an asset's file lies, its own href first; an asset without any is no file."""
    if not isinstance(stored, dict):
        return []
    places = [stored, *(stored.get("alternate") or {}).values()]
    named = [
        str(place["href"]) for place in places if isinstance(place, dict) and place.get("href")
    ]
    return [href for href in named if _has_parts(href)]


def _has_parts(href: str) -> bool:
    """Return whether an href can be taken apart at all; `http://[::1/x` cannot."""
    try:
        urlsplit(href)
    except ValueError:
        return False
    return True


def _absolute_href(href: str, self_href: str | None, base: str | None, item: str) -> str:
    if not is_url(href) and not os.path.isabs(href):
        if base is not None and (self_href is None or not is_url(self_href)):
            href = os.path.join(base, href)
        elif self_href is not None:
            href = make_absolute_href(href, self_href)  # urljoin knows no gs://
    href = href.removeprefix("file://")
    if is_url(href):
        if urlsplit(href).scheme.lower() not in _REMOTE_SCHEMES:
            raise CatalogError(
                f"item {item}: will not read {href!r}; hrefs may be http(s), s3 or gs"
            )
    elif base is None:
        raise CatalogError(
            f"item {item}: a catalogue on the network names the local file {href!r}; refused"
        )
    return href


def _instant(value: Any) -> dt.datetime | None:
    """Parse RFC 3339 and its relatives in the wild (no zone, a space for the T) → an instant in UTC.

    A date without a time is midnight.
    """
    if not value:
        return None
    try:
        found = dt.datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return found.astimezone(dt.UTC) if found.tzinfo else found.replace(tzinfo=dt.UTC)


def _footprint(item: dict[str, Any]) -> BaseGeometry | None:
    """Where an item has data.

    One whose bbox runs from west to east does not cross the antimeridian (RFC 7946 section 5.2). Many catalogs write
    the least and the largest longitude all the same: of the two readings that whose shape is less drawn out holds.
    """
    if not item.get("geometry"):
        return None
    bbox = item.get("bbox")
    sides = [float(side) for side in bbox] if isinstance(bbox, list) and len(bbox) in (4, 6) else []
    found = lonlat_geometry(item["geometry"], crosses=not (sides and _is_wide(sides)))
    return None if found.is_empty else found


def _is_wide(sides: list[float]) -> bool:
    """Return whether a bbox holds more than half the longitudes, and is no strip across the antimeridian."""
    half = len(sides) // 2
    width, height = sides[half] - sides[0], abs(sides[half + 1] - sides[1])
    if width <= 180 or not height:
        return width > 180
    ratios = (width / height, max(360 - width, 1e-9) / height)
    as_told, as_strip = (max(ratio, 1 / ratio) for ratio in ratios)
    return as_told < as_strip


def _start_of_pass(pass_key: str | None) -> dt.datetime | None:
    """The instant that a pass is named by, where it is named by one."""
    match = _INSTANT.search(pass_key or "")
    if match is None:
        return None
    try:
        return dt.datetime.strptime(match[1], "%Y%m%dT%H%M%S").replace(tzinfo=dt.UTC)
    except ValueError:
        return None


def _tile(properties: dict[str, Any]) -> str | None:
    code = str(properties.get("grid:code") or "")
    if code.startswith("MGRS-"):
        return code.removeprefix("MGRS-")
    tile = properties.get("s2:mgrs_tile")
    return str(tile) if tile else None


def _wrs(properties: dict[str, Any]) -> str | None:
    path, row = (properties.get(f"landsat:wrs_{name}") for name in ("path", "row"))
    return f"{int(path):03}/{int(row):03}" if path and row else None


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _integer(value: Any) -> int | None:
    return None if value is None else int(value)


def _lower(value: Any) -> str | None:
    return None if value is None else str(value).lower()
