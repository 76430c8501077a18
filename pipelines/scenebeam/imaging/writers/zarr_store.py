"""The metadata of a run's Zarr store: one group per level, and coordinates of every time.

They are written when the run ends, the groups last: until then, readers find no store, or the one
of before. A coordinate along time has files of a fixed size, so that a store that grows stays valid
for those who have opened it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
from pyproj import CRS

from scenebeam.csvtable import File
from scenebeam.imaging.cube_layout import CubeLayout, array_path
from scenebeam.imaging.writers.geozarr import level_attributes, root_attributes
from scenebeam.imaging.writers.zarr_format import (
    METADATA,
    array_document,
    chunk_codecs,
    consolidated,
    encode_small,
    group_document,
    json_file,
    sharding_codec,
    small_codecs,
    small_shard,
)
from scenebeam.metadata.item_tables import BytesFile
from scenebeam.raster.grid import Grid
from scenebeam.raster.pyramid import BLOCK_SIZE
from scenebeam.raster.validity import Array
from scenebeam.tasks import CubeBand

_TIMES = 1024
"""Times in a file of a coordinate."""
_NOT_A_TIME = int(np.iinfo(np.int64).min)
_Coordinate = tuple[dict[str, Any], list[bytes]]
"""Document and chunks of a coordinate."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME_ATTRIBUTES = {
    "units": "microseconds since 1970-01-01",
    "calendar": "proleptic_gregorian",
    "standard_name": "time",
}
SPATIAL_REF = "spatial_ref"
CLOUD_COVER = {"units": "%", "long_name": "cloud cover"}
"""Attributes of the coordinate `cloud_cover`."""
LONG_NAMES = {
    "coastal": "coastal aerosol",
    "nir": "near infrared",
    "nir08": "narrow near infrared",
    "swir16": "short-wave infrared at 1.6 micrometers",
    "swir22": "short-wave infrared at 2.2 micrometers",
    "scl": "scene classification",
    "vv": "backscatter, VV polarization",
    "vh": "backscatter, VH polarization",
}


@dataclass(frozen=True)
class StoredImage:
    """One time of a store."""

    index: int
    id: str
    when: datetime
    bands: Sequence[CubeBand]
    properties: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""
    """Digest of what it is made of; empty if it is not made."""


IMAGES = "scenebeam:images"
"""Attribute of the root: place along time → version of the image."""


@dataclass(frozen=True)
class CubeStore:
    """A store: its grid, and the images along time."""

    grid: Grid
    cuts: tuple[int, int]
    images: Sequence[StoredImage]

    @property
    def layout(self) -> CubeLayout:
        """Where the pixels are."""
        return CubeLayout((self.grid.shape[0], self.grid.shape[1]), self.cuts)

    @property
    def bands(self) -> list[CubeBand]:
        """The variables."""
        bands: dict[str, CubeBand] = {}
        for image in self.images:
            for band in image.bands:
                bands.setdefault(band.name, band)
        return list(bands.values())

    @property
    def versions(self) -> dict[str, str]:
        """Place along time → version, of the images that are made."""
        return {str(image.index): image.version for image in self.images if image.version}

    @property
    def length(self) -> int:
        """Number of places along time."""
        return max(image.index for image in self.images) + 1

    def files(self) -> dict[str, File]:
        """Return all that is not a shard, by path in the store, without its groups."""
        files: dict[str, File] = {}
        for level in range(len(self.layout.levels)):
            files |= self.coordinate_files(level)
            for name, document in self._level(level).items():
                files[f"{array_path(level, name)}/{METADATA}"] = json_file(document)
        return files

    def groups(self) -> dict[str, File]:
        """Return the metadata of the groups, by path in the store: those of levels, then the root.

        Each holds the metadata of all that is below it.
        """
        documents: dict[str, dict[str, Any]] = {}
        groups: dict[str, File] = {}
        grids = [self.level_grid(level) for level in range(len(self.layout.levels))]
        for level, grid in enumerate(grids):
            members = self._level(level)
            group = group_document(level_attributes(grid))
            groups[f"{level}/{METADATA}"] = json_file(consolidated(group, members))
            documents[str(level)] = group
            for name, document in members.items():
                documents[array_path(level, name)] = document
        root = group_document({**root_attributes(grids), IMAGES: self.versions})
        groups[METADATA] = json_file(consolidated(root, documents))
        return groups

    def level_grid(self, level: int) -> Grid:
        """Return the grid of a level: that of a COG's overview, whose pixels are twice as large."""
        transform = self.grid.transform
        scale = 1 << level
        scaled = transform * transform.scale(scale)
        return Grid(self.layout.levels[level], scaled, self.grid.crs)

    def _level(self, level: int) -> dict[str, dict[str, Any]]:
        """Return the arrays of a level by name."""
        arrays = {}
        height, width = self.layout.levels[level]
        rows, columns = self.layout.shard_shape(level)
        others = self.other_coordinates(level)
        for band in self.bands:
            arrays[band.name] = array_document(
                (self.length, height, width),
                (1, rows, columns),
                band.dtype,
                band.fill,
                ("time", "y", "x"),
                band_attributes(band, others),
                [sharding_codec((1, BLOCK_SIZE, BLOCK_SIZE), chunk_codecs(band.dtype))],
            )
        for name, (document, _) in self._coordinates(level).items():
            arrays[name] = document
        return arrays

    def other_coordinates(self, level: int) -> list[str]:
        """Return the names of the coordinates that are no dimensions."""
        return [name for name in self._coordinates(level) if name not in ("time", "y", "x")]

    def coordinate_files(self, level: int) -> dict[str, File]:
        """Return the coordinates of a level, by path in the store."""
        files: dict[str, File] = {}
        for name, (document, chunks) in self._coordinates(level).items():
            path = array_path(level, name)
            files[f"{path}/{METADATA}"] = json_file(document)
            for number, chunk in enumerate(chunks):
                suffix = f"c/{number}" if document["shape"] else "c"
                files[f"{path}/{suffix}"] = BytesFile(chunk)
        return files

    def _coordinates(self, level: int) -> dict[str, _Coordinate]:
        """Return the coordinates of a level by name."""
        return self._coordinates_by_level[level]

    @cached_property
    def _coordinates_by_level(self) -> list[dict[str, _Coordinate]]:
        return [self._make_coordinates(level) for level in range(len(self.layout.levels))]

    def _make_coordinates(self, level: int) -> dict[str, _Coordinate]:
        grid = self.level_grid(level)
        times = np.full(self.length, _NOT_A_TIME, np.int64)
        ids = [""] * self.length
        clouds = np.full(self.length, np.nan)
        for image in self.images:
            times[image.index] = (image.when - EPOCH) // timedelta(microseconds=1)
            ids[image.index] = image.id
            cloud = image.properties.get("eo:cloud_cover")
            clouds[image.index] = np.nan if cloud is None else cloud
        coordinates = {
            "time": _times(times),
            "id": _along_time(ids, "string", "", {"long_name": "id of the STAC item"}),
            SPATIAL_REF: _scalar(grid),
        }
        if not np.isnan(clouds).all():
            stored = _along_time(clouds, "float64", np.nan, CLOUD_COVER)
            coordinates["cloud_cover"] = stored
        for name, values, attributes in pixel_centers(grid):
            document = array_document(
                values.shape, values.shape, "float64", np.nan, (name,), attributes
            )
            coordinates[name] = document, [encode_small(values)]
        return coordinates


def _times(values: Array) -> _Coordinate:
    document = array_document(
        values.shape, (_TIMES,), "int64", _NOT_A_TIME, ("time",), _TIME_ATTRIBUTES
    )
    chunks = []
    for first in range(0, len(values), _TIMES):
        part = values[first : first + _TIMES]
        padded = np.pad(part, (0, _TIMES - len(part)), constant_values=_NOT_A_TIME)
        chunks.append(encode_small(padded))
    return document, chunks


def _along_time(
    values: Array | list[str], dtype: str, fill: float | str, attributes: Mapping[str, Any]
) -> _Coordinate:
    """Store a coordinate with chunks of one time, like those of the bands: xarray wants them equal.

    The chunks are in shards, as there would be too many files otherwise.
    """
    codecs = [sharding_codec((1,), small_codecs(dtype))]
    size = (len(values),)
    document = array_document(size, (_TIMES,), dtype, fill, ("time",), attributes, codecs)
    shards = []
    for first in range(0, len(values), _TIMES):
        shards.append(small_shard(values[first : first + _TIMES], _TIMES))
    return document, shards


def _scalar(grid: Grid) -> _Coordinate:
    document = array_document((), (), "int32", 0, (), grid_mapping(grid))
    return document, [encode_small(np.zeros((), np.int32))]


def grid_mapping(grid: Grid) -> dict[str, Any]:
    """Return the attributes of `spatial_ref`: CRS and transform in the terms of CF and GDAL."""
    attributes: dict[str, Any] = dict(CRS.from_user_input(grid.crs).to_cf())
    attributes["spatial_ref"] = attributes["crs_wkt"]
    attributes["GeoTransform"] = " ".join(map(str, grid.transform.to_gdal()))
    return attributes


def pixel_centers(grid: Grid) -> list[tuple[str, Array, dict[str, str]]]:
    """Return name, pixel centers and attributes of the two coordinates of a grid."""
    crs, transform = CRS.from_user_input(grid.crs), grid.transform
    names = {"y": "projection_y_coordinate", "x": "projection_x_coordinate"}
    units = {"y": "m", "x": "m"}
    if crs.is_geographic:
        names = {"y": "latitude", "x": "longitude"}
        units = {"y": "degrees_north", "x": "degrees_east"}
    y = transform.f + transform.e * (np.arange(grid.shape[0]) + 0.5)
    x = transform.c + transform.a * (np.arange(grid.shape[1]) + 0.5)
    centers = []
    for name, values in (("y", y), ("x", x)):
        centers.append((name, values, {"units": units[name], "standard_name": names[name]}))
    return centers


def band_attributes(band: CubeBand, coordinates: Sequence[str]) -> dict[str, Any]:
    """Return the attributes of a variable, in the terms of CF.

    Args:
        band: The band.
        coordinates: Names of the coordinates that are no dimensions.
    """
    attributes: dict[str, Any] = {
        "grid_mapping": SPATIAL_REF,
        "coordinates": " ".join(coordinates),
        "long_name": LONG_NAMES.get(band.name, band.name),
    }
    if band.nodata is not None:
        attributes["_FillValue"] = _fill_attribute(band.nodata, band.dtype)
    return attributes | scale_attributes(band)


def scale_attributes(band: CubeBand) -> dict[str, Any]:
    """Return how pixels of a band become physical values, in the terms of CF."""
    attributes: dict[str, Any] = {}
    if (band.scale, band.offset) != (1, 0):
        attributes |= {"scale_factor": band.scale, "units": "1"}
    # With an offset, even of 0, xarray decodes to 64-bit numbers.
    if band.offset != 0:
        attributes["add_offset"] = band.offset
    return attributes


def _fill_attribute(value: float, dtype: str) -> int | str:
    """Return a fill value as xarray stores it: floats as their little-endian bytes in base 64."""
    if np.dtype(dtype).kind != "f":
        return int(value)
    return base64.standard_b64encode(np.array(value, "<f8").tobytes()).decode()
