"""Scene and Asset: a STAC item and one of its bands, normalized across providers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import ConfigDict
from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.area import TILE_METERS
from scenebeam.collections import CollectionRecord
from scenebeam.collections.record import Nodata
from scenebeam.figures.maps import coverage_map, locator_map
from scenebeam.figures.notebook import render_card

SOURCE_COLLECTION, SOURCE_PROVIDER = "scenebeam:collection", "scenebeam:provider"
"""Properties of items that scenebeam writes for downloaded scenes: where the scenes came from."""


@dataclass(frozen=True)
class Asset:
    """One band of a scene: the file that holds it, and how to interpret its pixels.

    physical value = scale * (stored number - add_offset) + offset
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(ser_json_inf_nan="strings")

    band: str
    """Common name in lower case (`red`)."""
    href: str
    """Unsigned; it is signed when the file is opened."""
    index: int
    """Index of the band in the file, from 1."""
    resolution: float
    """Nominal ground size of a pixel in meters."""
    dtype: str
    nodata: Nodata
    scale: float
    offset: float
    add_offset: int
    """Offset that the stored numbers contain on top of the harmonized ones: +1000 for Sentinel-2
    from processing baseline 04.00 (ESA's BOA_ADD_OFFSET)."""
    categorical: bool
    constant_ok: bool = False
    """Whether a file in which all pixels are equal is plausible."""
    sensor: Literal["optical", "sar"] | None = None
    """Which plausibility checks apply to the pixels."""
    unit: Literal["linear", "db"] | None = None
    """Unit of SAR backscatter: power or decibels."""
    value_range: tuple[float, float] | None = None
    """Plausible harmonized numbers."""
    signing: str = "none"
    """How hrefs are signed: see `scenebeam.transfer.signing`."""
    media_type: str | None = None
    size: int | None = None
    """Size of the file in bytes, if the catalog states it."""
    checksum: str | None = None
    """Checksum of the file, as the catalog states it."""
    shape: tuple[int, int] | None = None
    """Rows and columns, if the catalog states them."""
    add_offset_known: bool = True
    """Whether `add_offset` is known. If not, it is 0 and products declare their values unknown."""

    @property
    def likely_size(self) -> int:
        """Size of the file in bytes: as the catalog states it, else an estimate.

        The estimate assumes that compression halves the size of the pixels, and that a file
        without a stated shape covers one Sentinel-2 tile.
        """
        if self.size is not None:
            return self.size
        pixel_bytes = {"uint8": 1, "float32": 4}.get(self.dtype, 2)
        tile_side = TILE_METERS / max(self.resolution, 1.0)
        rows, columns = self.shape or (tile_side, tile_side)
        return int(rows * columns * pixel_bytes / 2)


def asset_from_record(
    record: CollectionRecord,
    band: str,
    *,
    href: str,
    index: int,
    resolution: float,
    add_offset: int,
    add_offset_known: bool = True,
    signing: str = "none",
    media_type: str | None = None,
    size: int | None = None,
    checksum: str | None = None,
    shape: tuple[int, int] | None = None,
) -> Asset:
    """Build the asset of a band from its collection's record and the facts about one file.

    Args:
        record: The collection record, which says how the pixels of the band are encoded.
        band: Common name of the band; must be a band of the record.
        href: Path or unsigned URL of the file. The other arguments are the fields of `Asset` of
            the same names.

    Returns:
        The asset.
    """
    scale, offset = record.band_scale_offset(band)
    return Asset(
        band=band,
        href=href,
        index=index,
        resolution=resolution,
        dtype=record.band_dtype(band),
        nodata=record.band_nodata(band),
        scale=scale,
        offset=offset,
        add_offset=add_offset,
        categorical=record.bands[band].categorical,
        constant_ok=record.may_be_constant(band),
        sensor=record.band_sensor(band),
        unit=record.unit,
        value_range=record.value_range,
        signing=signing,
        media_type=media_type,
        size=size,
        checksum=checksum,
        shape=shape,
        add_offset_known=add_offset_known,
    )


@dataclass(frozen=True)
class Scene:
    """One STAC item, normalized."""

    id: str
    collection: str
    provider: str
    datetime: dt.datetime
    acquired: dt.datetime
    """Start of the acquisition that the scene belongs to, shared by all tiles of a datatake."""
    platform: str | None = None
    tile: str | None = None
    """MGRS tile, for collections that are tiled."""
    end: dt.datetime | None = None
    """End of the interval, for items with an interval instead of an instant; `datetime` is its
    start."""
    pass_key: str | None = None
    """Identifies the pass of a platform; None if scenes are grouped by time instead."""
    tile_key: str | None = None
    """Identifies the ground covered; None if footprints are compared instead."""
    part_key: str | None = None
    """Identifies a part of one tile and pass; None if footprints are compared instead."""
    processed: tuple[str, ...] = ()
    """Sort key for the processings of one part, from oldest to newest."""
    cloud_cover: float | None = None
    """Percent of the scene."""
    aoi_cloud: float | None = None
    """Cloud cover in percent of the area, if it was measured."""
    nodata: float | None = None
    """Percent of the scene without data."""
    relative_orbit: int | None = None
    orbit_state: str | None = None
    wrs: str | None = None
    """Landsat path and row: `084/068`."""
    footprint: BaseGeometry | None = None
    """Extent of the data in degrees; None if it is unknown until the files are opened."""
    item_href: str | None = None
    host: str = ""
    """The catalog that it was found in, where several are searched."""
    identity: str = ""
    """What it is whatever its host, where several catalogs are searched."""
    alternates: tuple[Scene, ...] = ()
    """The same scene at other hosts, most preferred first."""
    constellation: str | None = None
    properties: dict[str, Any] = field(default_factory=dict)
    """Those properties of the item that the keys above were read from."""
    assets: dict[str, Asset] = field(default_factory=dict)
    """Assets by band."""

    def __repr__(self) -> str:
        """Return one line: all assets of a scene would fill a page."""
        cloud = "" if self.cloud_cover is None else f", {self.cloud_cover:.3g} % cloud"
        when = f"{self.datetime:%Y-%m-%dT%H:%M:%SZ}"
        return f"<Scene {self.id}, {when}{cloud}, {len(self.assets)} bands>"

    def _repr_html_(self) -> str:
        """Show in a notebook when and where the scene was taken, and its bands."""
        cloud = "" if self.cloud_cover is None else f"{self.cloud_cover:.3g} %"
        outline = footprints([self])
        return render_card(
            self.id,
            {
                "collection": f"{self.collection} of {self.provider}",
                "time": f"{self.datetime:%Y-%m-%d %H:%M:%S} UTC",
                "platform": self.platform,
                "tile": self.tile or self.wrs,
                "cloud": cloud,
                "bands": ", ".join(self.assets),
            },
            figures=[coverage_map(scenes=outline), locator_map(outline)],
        )


def footprints(scenes: Iterable[Scene]) -> np.ndarray[Any, Any]:
    """Return the footprints of scenes in degrees, without those that are unknown."""
    known = [scene.footprint for scene in scenes if scene.footprint is not None]
    return np.array(known, object)
