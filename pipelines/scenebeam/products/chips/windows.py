"""Place chips: the square of pixels around a place, or the cells of a grid over an area."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely
from mgrs import MGRS
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError
from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry

from scenebeam.errors import RequestError
from scenebeam.imaging.chip_places import window_footprints
from scenebeam.products.chips.places import Places, identifier
from scenebeam.products.chips.request import ChipsRequest, PlaceGrid
from scenebeam.raster.validity import Array

_EARTH_RADIUS = 6_378_137.0
"""Meters, as the Major TOM grid has it."""
_MAJOR_TOM_STEP = 10_000.0
_MAX_CHIPS = 50_000_000
Origin = tuple[float, float]
"""Offset of the edges of pixels from multiples of their size."""


@dataclass(frozen=True)
class ChipWindows:
    """Chips and where they are. All sequences have the same length."""

    ids: Sequence[str]
    places: Sequence[str]
    """Ids of the places in their file; the same without a file."""
    crs: Array
    """CRS of each chip, such as EPSG:32634."""
    left: Array
    top: Array
    """In units of the CRS, like `left`."""
    side: float
    """Side of a chip in units of its CRS."""
    columns: Mapping[str, Sequence[Any]]
    """Values of columns of the places."""

    def subset(self, kept: Array) -> ChipWindows:
        """Return the chips at some indices, in their order."""
        indices = kept.tolist()
        columns = {}
        for name, values in self.columns.items():
            columns[name] = [values[index] for index in indices]
        return ChipWindows(
            [self.ids[index] for index in indices],
            [self.places[index] for index in indices],
            self.crs[kept],
            self.left[kept],
            self.top[kept],
            self.side,
            columns,
        )

    def footprints(self) -> tuple[Array, Array]:
        """Return outlines and centers in degrees, as `window_footprints` does."""
        shapes, centers = np.empty(len(self.ids), object), np.empty((len(self.ids), 2))
        for crs in np.unique(self.crs):
            one = np.flatnonzero(self.crs == crs)
            shapes[one], centers[one] = window_footprints(
                str(crs), self.left[one], self.top[one], self.side
            )
        return shapes, centers


def windows_of_places(
    places: Places,
    product: ChipsRequest,
    origin: Origin,
    anchor: tuple[float, float] = (0.5, 0.5),
) -> ChipWindows:
    """Return the chip around each place, in the UTM zone of the place or in the requested CRS.

    Args:
        places: The places.
        product: The request of the product.
        origin: Where the pixel lattice of the images is.
        anchor: Where in its chip a place is: shares of the side from the left and from the bottom.

    Raises:
        RequestError: The CRS is not valid, or a place is outside of it.
    """
    crs = utm_zones(places.lon, places.lat)
    if product.crs != "utm":
        crs[:] = _parse_crs(product.crs)
    side = product.side * product.resolution
    left, top = np.empty(len(crs)), np.empty(len(crs))
    for name in np.unique(crs):
        one = np.flatnonzero(crs == name)
        from_lonlat = Transformer.from_crs("EPSG:4326", str(name), always_xy=True)
        x, y = from_lonlat.transform(places.lon[one], places.lat[one])
        left[one] = np.asarray(x) - anchor[0] * side
        top[one] = np.asarray(y) + (1 - anchor[1]) * side
    for number in np.flatnonzero(~np.isfinite(left + top)).tolist():
        raise RequestError(
            f"product.crs: {product.crs} has no coordinates of {places.names[number]}"
        )
    if product.snap:
        left = _snap(left, origin[0], product.resolution)
        top = _snap(top, origin[1], product.resolution)
    ids = [identifier(name) for name in places.names]
    return ChipWindows(ids, places.names, crs, left, top, side, places.columns)


def windows_of_grid(
    grid: PlaceGrid, area: MultiPolygon, product: ChipsRequest, origin: Origin
) -> ChipWindows:
    """Return the chips of a grid that are in an area, from north to south.

    Args:
        grid: The grid.
        area: The area in degrees.
        product: The request of the product.
        origin: Where the pixel lattice of the images is.

    Raises:
        RequestError: The CRS is not valid, or there are no chips, or too many.
    """
    if grid.kind == "major-tom":
        found = _major_tom(grid.step or _MAJOR_TOM_STEP, area, product, origin)
    else:
        found = _lattice(grid.step, area, product, origin)
    shapes, centers = found.footprints()
    if product.crs == "utm" and grid.kind != "major-tom":
        # At the edge of a zone, each chip is that of the zone of its own center.
        kept = utm_zones(centers[:, 0], centers[:, 1]) == found.crs
    else:
        kept = np.ones(len(shapes), bool)
    shapely.prepare(area)
    kept &= shapely.intersects(shapes, area)
    if grid.min_overlap > 0:
        inside = shapely.area(shapely.intersection(shapes, area))
        kept &= inside >= grid.min_overlap * shapely.area(shapes)
    if not kept.any():
        raise RequestError("product.grid: no chip is in the area")
    chips = found.subset(np.flatnonzero(kept))
    if grid.kind != "mgrs":
        return chips
    names = _mgrs_references(chips, product.resolution)
    return replace(chips, ids=names, places=names)


def _mgrs_references(chips: ChipWindows, resolution: float) -> list[str]:
    """Return the MGRS references of the lower left corners, such as `34TGL48009800`."""
    grid = MGRS()
    # Four digits are 10 m, and five 1 m.
    digits = 4 if resolution % 10 == 0 else 5
    names = []
    for crs, left, top in zip(chips.crs, chips.left, chips.top, strict=True):
        code = int(str(crs).removeprefix("EPSG:"))
        hemisphere = "N" if code < 32700 else "S"
        bottom = float(top) - chips.side
        names.append(grid.UTMToMGRS(code % 100, hemisphere, float(left), bottom, digits))
    return names


def utm_zones(lon: Array, lat: Array) -> Array:
    """Return the UTM zone of places, or the polar stereographic system beyond 84° N and 80° S.

    Args:
        lon: Longitudes in degrees, shape (n,).
        lat: Latitudes in degrees, shape (n,).

    Returns:
        Object array of EPSG codes such as EPSG:32634, shape (n,).
    """
    zones = np.minimum(((lon + 180) % 360 // 6).astype(int) + 1, 60)
    codes = np.where(lat >= 0, 32600, 32700) + zones
    codes = np.where(lat > 84, 32661, np.where(lat < -80, 32761, codes))
    names = {code: f"EPSG:{code}" for code in np.unique(codes).tolist()}
    return np.array([names[code] for code in codes.tolist()], object)


def _parse_crs(text: str) -> str:
    try:
        authority = CRS.from_user_input(text).to_authority()
    except CRSError:
        raise RequestError(f"product.crs: {text!r} is neither utm nor a valid CRS") from None
    if authority is None:
        raise RequestError(f"product.crs: {text[:60]!r} has no code; give one such as EPSG:3035")
    return ":".join(authority)


def _snap(values: Array, origin: float, resolution: float) -> Array:
    return np.asarray(np.rint((values - origin) / resolution) * resolution + origin)


def _lattice(
    step: float | None, area: MultiPolygon, product: ChipsRequest, origin: Origin
) -> ChipWindows:
    """Chips at multiples of the step from the origin of each CRS."""
    side = product.side * product.resolution
    step = side if step is None else max(round(step / product.resolution), 1) * product.resolution
    ids: list[str] = []
    systems: list[str] = []
    lefts: list[Array] = []
    tops: list[Array] = []
    for crs, part in _parts_by_crs(area, product.crs):
        from_lonlat = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
        # A long edge in degrees bends when it is projected.
        dense = shapely.segmentize(part, 0.1)
        projected = shapely.transform(dense, from_lonlat.transform, interleaved=False)
        west, south, east, north = projected.bounds
        columns = np.arange(math.floor((west - side) / step), math.ceil(east / step) + 1)
        rows = np.arange(math.floor((south - side) / step), math.ceil(north / step) + 1)[::-1]
        if len(columns) * len(rows) > _MAX_CHIPS:
            raise RequestError(f"product.grid: more than {_MAX_CHIPS:,} chips; use a larger step")
        grid_rows, grid_columns = np.meshgrid(rows, columns, indexing="ij")
        zone = crs.removeprefix("EPSG:")
        for row, column in zip(
            grid_rows.ravel().tolist(), grid_columns.ravel().tolist(), strict=True
        ):
            ids.append(f"{zone}_{_signed(column)}_{_signed(row)}")
        systems += [crs] * grid_rows.size
        lefts.append(grid_columns.ravel() * step + origin[0])
        tops.append(grid_rows.ravel() * step + side + origin[1])
    return ChipWindows(
        ids, ids, np.array(systems, object), np.concatenate(lefts), np.concatenate(tops), side, {}
    )


def _signed(number: int) -> str:
    return f"{number}" if number >= 0 else f"m{-number}"


def _parts_by_crs(area: MultiPolygon, requested: str) -> Iterator[tuple[str, BaseGeometry]]:
    """Yield each CRS, and the part of the area in its zone with a margin."""
    if requested != "utm":
        yield _parse_crs(requested), area
        return
    west, _, east, _ = area.bounds
    for zone in range(int((west + 180) // 6), int((east + 180 - 1e-9) // 6) + 1):
        for base, low, high in ((32600, 0.0, 84.0), (32700, -80.0, 0.0)):
            band = shapely.box(zone * 6 - 180, low, zone * 6 - 174, high)
            part = area.intersection(band)
            if not part.is_empty and part.area:
                yield f"EPSG:{base + zone + 1}", part


def _major_tom(
    step: float, area: MultiPolygon, product: ChipsRequest, origin: Origin
) -> ChipWindows:
    """Chips whose lower left corners are the points of the Major TOM grid.

    Rows of points are multiples of 180° / ceil(pi * R / step) from the equator, and the points of
    a row multiples of 360° / ceil(2 * pi * R * cos(latitude) / step) (Francis and Czerkawski 2024,
    https://arxiv.org/abs/2402.12095).
    """
    height = 180 / math.ceil(math.pi * _EARTH_RADIUS / step)
    ids: list[str] = []
    points: list[tuple[float, float]] = []
    for part in area.geoms:
        west, south, east, north = part.bounds
        for row in range(math.floor(south / height) - 1, math.ceil(north / height) + 1):
            latitude = row * height
            if abs(latitude) >= 84:
                continue
            around = 2 * math.pi * _EARTH_RADIUS * math.cos(math.radians(latitude))
            count = math.ceil(around / step)
            width = 360 / count
            for position in range(math.floor(west / width) - 1, math.ceil(east / width) + 1):
                # Beyond the antimeridian, columns are those of the other side.
                column = (position + count // 2) % count - count // 2
                ids.append(_major_tom_id(row, column))
                points.append((column * width, latitude))
    if len(ids) > _MAX_CHIPS:
        raise RequestError(f"product.grid: more than {_MAX_CHIPS:,} chips; use a larger step")
    unique = dict(zip(ids, points, strict=True))
    lon, lat = np.array(list(unique.values())).T
    places = Places(list(unique), lon, lat, {})
    return windows_of_places(places, product, origin, anchor=(0.0, 0.0))


def _major_tom_id(row: int, column: int) -> str:
    """Return a name such as `435U_972R`: up from the equator, right of Greenwich."""
    vertical = f"{row}U" if row >= 0 else f"{-row}D"
    horizontal = f"{column}R" if column >= 0 else f"{-column}L"
    return f"{vertical}_{horizontal}"
