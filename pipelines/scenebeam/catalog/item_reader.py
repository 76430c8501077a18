"""Read a STAC item into a Scene. All differences between providers are handled here."""

from __future__ import annotations

import datetime as dt
import os.path
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.area import lonlat_geometry
from scenebeam.catalog.packed_items import links_of
from scenebeam.catalog.scene import SOURCE_COLLECTION, Asset, Scene, asset_from_record
from scenebeam.collections import CollectionRecord
from scenebeam.collections.identity import KNOWN_SENSORS
from scenebeam.errors import CatalogError, RequestError
from scenebeam.request import is_url
from scenebeam.transfer.signing import preferred_href

_REMOTE_SCHEMES = {"http", "https", "s3", "gs"}
_PASS_START = re.compile(r"(?:^|/)(\d{8}T\d{6})(?:/|$)")


def scene_from_item(
    item: dict[str, Any],
    record: CollectionRecord,
    *,
    base: str | None = None,
    resolution: float | None = None,
) -> Scene:
    """Read a STAC item into a Scene.

    Args:
        item: The item as JSON.
        record: The record of the item's collection.
        base: Folder of a local catalog, against which relative hrefs are resolved; None for a
            remote catalog, which must not refer to local files.
        resolution: Preferred resolution in meters, for bands that the item has at several; by
            default the band's own.

    Returns:
        The scene, with an asset for each band of the record that the item has.

    Raises:
        CatalogError: The item cannot be used: it has no id or no time, its geometry is invalid,
            or an href is refused.
    """
    properties = item.get("properties") or {}
    item_id = str(item.get("id") or "")
    if not item_id:
        raise CatalogError("a STAC item without an id")
    when = _parse_instant(properties.get("datetime") or properties.get("start_datetime"))
    if when is None:
        raise CatalogError(f"item {item_id}: no datetime and no start_datetime that can be read")
    identity = record.identity or KNOWN_SENSORS
    pass_key = identity.pass_key(item_id, properties)
    self_href = next((link.get("href") for link in links_of(item, "self")), None)
    footprint = _footprint(item, item_id)
    return Scene(
        id=item_id,
        collection=record.id if is_archived(item) else str(item.get("collection") or record.id),
        provider=record.provider,
        datetime=when,
        acquired=_pass_start(pass_key) or when,
        platform=_lower(properties.get("platform")),
        constellation=_lower(properties.get("constellation")),
        tile=_mgrs_tile(properties),
        end=None if properties.get("datetime") else _parse_instant(properties.get("end_datetime")),
        pass_key=pass_key,
        tile_key=identity.tile_key(item_id, properties),
        part_key=identity.part_key(item_id, properties),
        processed=identity.processing_key(item_id, properties),
        cloud_cover=_number(properties.get("eo:cloud_cover")),
        nodata=_nodata_percent(properties),
        relative_orbit=_integer(properties.get("sat:relative_orbit")),
        orbit_state=properties.get("sat:orbit_state"),
        wrs=_wrs(properties),
        footprint=footprint,
        item_href=self_href,
        properties=_present(properties, sorted(identity.property_names)),
        assets=_assets(item, record, _HrefResolver(item_id, self_href, base), resolution),
    )


def is_archived(item: dict[str, Any]) -> bool:
    """Return whether an item describes files that scenebeam has downloaded.

    The collection of such an item is that of the download; the original one is a property.
    """
    return bool((item.get("properties") or {}).get(SOURCE_COLLECTION))


@dataclass(frozen=True)
class _HrefResolver:
    """Makes the hrefs of one item absolute, and refuses those that a catalog must not contain."""

    item_id: str
    self_href: str | None
    base: str | None

    def resolve(self, href: str) -> str:
        if not is_url(href) and not os.path.isabs(href):
            if self.base is not None and (self.self_href is None or not is_url(self.self_href)):
                href = os.path.join(self.base, href)
            elif self.self_href is not None:
                from pystac.utils import make_absolute_href  # slow to import, and rarely needed

                # urllib's urljoin does not support gs://.
                href = make_absolute_href(href, self.self_href)
        href = href.removeprefix("file://")
        if is_url(href):
            if urlsplit(href).scheme.lower() not in _REMOTE_SCHEMES:
                raise CatalogError(
                    f"item {self.item_id}: {href!r} is refused; hrefs may be http(s), s3 or gs"
                )
        elif self.base is None:
            raise CatalogError(
                f"item {self.item_id}: a remote catalog must not refer to the local file "
                f"{href!r}; refused"
            )
        return href


def _assets(
    item: dict[str, Any],
    record: CollectionRecord,
    resolver: _HrefResolver,
    resolution: float | None,
) -> dict[str, Asset]:
    archived = is_archived(item)
    assets = {}
    for band in record.bands:
        if archived:
            asset = _archived_asset(item, band, record, resolver)
        else:
            asset = _provider_asset(item, band, record, resolver, resolution)
        if asset is not None:
            assets[band] = asset
    return assets


def _provider_asset(
    item: dict[str, Any],
    band: str,
    record: CollectionRecord,
    resolver: _HrefResolver,
    resolution: float | None,
) -> Asset | None:
    """Read a band from an item of the provider, whose asset keys the record knows."""
    properties = item.get("properties") or {}
    item_assets = item.get("assets") or {}
    keys = {}
    for size, key in record.bands[band].keys_by_resolution.items():
        if _hrefs(item_assets.get(key)):
            keys[size] = key
    if not keys:
        return None
    # The band's own resolution is the first key. Another one is used if it is requested, or if
    # the item lacks the first.
    chosen = resolution if resolution in keys else next(iter(keys))
    described = item_assets[keys[chosen]]
    hrefs = [resolver.resolve(href) for href in _hrefs(described)]
    checksum = described.get("file:checksum")
    return asset_from_record(
        record,
        band,
        href=preferred_href(hrefs, record.signing),
        index=record.bands[band].band,
        resolution=chosen,
        add_offset=record.band_add_offset(band, properties),
        add_offset_known=record.is_offset_known(band, properties),
        signing=record.signing,
        media_type=described.get("type"),
        size=_integer(described.get("file:size")),
        checksum=None if checksum is None else str(checksum),
        shape=_parse_shape(described.get("proj:shape") or properties.get("proj:shape")),
    )


def _archived_asset(
    item: dict[str, Any], band: str, record: CollectionRecord, resolver: _HrefResolver
) -> Asset | None:
    """Read a band from an item that scenebeam wrote, which describes each file by itself."""
    described = _archived_file(item.get("assets") or {}, band)
    if described is None:
        return None
    names = [str(entry.get("name")) for entry in described["bands"]]
    raster_band = (described.get("raster:bands") or [{}])[names.index(band)]
    band_record = record.bands[band]
    # `scenebeam:shift` is the radiometric offset of the file; None if it was not known.
    add_offset = described.get("scenebeam:shift")
    has_offset = band_record.has_add_offset and not band_record.categorical
    return asset_from_record(
        record,
        band,
        href=resolver.resolve(_hrefs(described)[0]),
        index=_integer(described.get("scenebeam:index")) or 1,
        resolution=_number(raster_band.get("spatial_resolution")) or band_record.resolution,
        add_offset=int(add_offset) if add_offset is not None and has_offset else 0,
        add_offset_known=add_offset is not None or record.add_offset is None,
        media_type=described.get("type"),
        size=_integer(described.get("file:size")),
        checksum=described.get("file:checksum"),
    )


def _archived_file(assets: dict[str, Any], band: str) -> dict[str, Any] | None:
    """Find the asset that holds a band in a downloaded file (not a preview or derived product)."""
    for described in assets.values():
        if not _hrefs(described) or described.get("scenebeam:index") is None:
            continue
        for entry in described.get("bands") or ():
            if isinstance(entry, dict) and entry.get("name") == band:
                found: dict[str, Any] = described
                return found
    return None


def _parse_shape(value: Any) -> tuple[int, int] | None:
    try:
        rows, columns = (int(side) for side in value)
    except (TypeError, ValueError):
        return None
    return (rows, columns) if rows > 0 and columns > 0 else None


def _hrefs(asset: Any) -> list[str]:
    """Return the hrefs of an asset: its own first, then those of the alternate-assets extension."""
    if not isinstance(asset, dict):
        return []
    hrefs = []
    for location in (asset, *(asset.get("alternate") or {}).values()):
        href = str(location.get("href") or "") if isinstance(location, dict) else ""
        if href and _is_parsable(href):
            hrefs.append(href)
    return hrefs


def _is_parsable(href: str) -> bool:
    """Return whether urllib can split an href; it cannot for `http://[::1/x`."""
    try:
        urlsplit(href)
    except ValueError:
        return False
    return True


def _parse_instant(value: Any) -> dt.datetime | None:
    """Parse RFC 3339 and its common variants (no zone, a space for the T) into a time in UTC.

    A date without a time means midnight.
    """
    if not value:
        return None
    try:
        instant = dt.datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return instant.astimezone(dt.UTC) if instant.tzinfo else instant.replace(tzinfo=dt.UTC)


def _footprint(item: dict[str, Any], item_id: str) -> BaseGeometry | None:
    """Read the footprint of an item, split at the antimeridian if it crosses it.

    By RFC 7946 section 5.2, a bbox with west < east does not cross the antimeridian. Many catalogs
    write the least and the greatest longitude anyway, so a wide bbox is ambiguous: `_is_wide`
    decides.
    """
    if not item.get("geometry"):
        return None
    bbox = item.get("bbox")
    sides = [float(side) for side in bbox] if isinstance(bbox, list) and len(bbox) in (4, 6) else []
    try:
        footprint = lonlat_geometry(item["geometry"], crosses=not (sides and _is_wide(sides)))
    except RequestError as error:
        raise CatalogError(f"item {item_id}: {error}") from None
    return None if footprint.is_empty else footprint


def _is_wide(sides: list[float]) -> bool:
    """Return whether a bbox really spans more than half of all longitudes.

    The alternative is a narrow strip across the antimeridian, whose least and greatest longitudes
    were taken for west and east. The reading that gives the less elongated shape is taken.

    Args:
        sides: A STAC bbox of 4 or 6 numbers, in degrees.
    """
    half = len(sides) // 2
    width, height = sides[half] - sides[0], abs(sides[half + 1] - sides[1])
    if width <= 180 or not height:
        return width > 180
    # Elongation is the ratio of the longer to the shorter side, in degrees.
    as_written = width / height
    as_strip = max(360 - width, 1e-9) / height
    return max(as_written, 1 / as_written) < max(as_strip, 1 / as_strip)


def _pass_start(pass_key: str | None) -> dt.datetime | None:
    """Return the start time in the name of a pass, if it contains one."""
    match = _PASS_START.search(pass_key or "")
    if match is None:
        return None
    try:
        return dt.datetime.strptime(match[1], "%Y%m%dT%H%M%S").replace(tzinfo=dt.UTC)
    except ValueError:
        return None


def _mgrs_tile(properties: dict[str, Any]) -> str | None:
    code = str(properties.get("grid:code") or "")
    if code.startswith("MGRS-"):
        return code.removeprefix("MGRS-")
    tile = properties.get("s2:mgrs_tile")
    return str(tile) if tile else None


def _wrs(properties: dict[str, Any]) -> str | None:
    path, row = properties.get("landsat:wrs_path"), properties.get("landsat:wrs_row")
    return f"{int(path):03}/{int(row):03}" if path and row else None


def _nodata_percent(properties: dict[str, Any]) -> float | None:
    by_statistics = (properties.get("statistics") or {}).get("nodata")
    return _number(properties.get("s2:nodata_pixel_percentage", by_statistics))


def _present(properties: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Return the named properties that an item has, in the order of `names`."""
    present = {}
    for name in names:
        if properties.get(name) is not None:
            present[name] = properties[name]
    return present


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _integer(value: Any) -> int | None:
    return None if value is None else int(value)


def _lower(value: Any) -> str | None:
    return None if value is None else str(value).lower()
