"""Build the chips of field boundaries, on a lattice of square cells in each UTM zone.

The cells of a zone cover the whole zone and some ground beyond its edges. Their corners are
multiples of the chip's side, from the origin of the imagery's pixels. The lattice therefore depends
on the chip size only, and the same field gets the same chips in every dataset.

A cell becomes a chip if two conditions hold:

- *A field reaches it inside its own zone.* Otherwise each field near the edge of a zone would get
  chips in both zones. A field that crosses the edge is cut there, and each piece asks for the cells
  of its own zone: no part of it is lost, and chips of the two zones may overlap at the edge.
- *Fields cover enough of it.* Here all fields count, including those beyond the edge of the zone,
  because the mask of the chip shows them too.

A chip is named after the kilometer square of the Military Grid Reference System (MGRS) that
contains its center: `ftw-34UFF1628`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import compress, repeat
from typing import Any

import numpy as np
import shapely
from pyproj import Transformer

from scenebeam.errors import RequestError
from scenebeam.imaging.spool import SpooledFile
from scenebeam.products.fields.boundaries import Faults, FieldNames, read_fields
from scenebeam.products.fields.chips import Chip
from scenebeam.products.fields.request import ChipGridOptions
from scenebeam.products.fields.spool import FieldSpool, fields_key
from scenebeam.transfer.signing import redact_url
from scenebeam.vectors import Geometries

Array = np.ndarray[Any, np.dtype[Any]]
CellIndex = tuple[int, int, int]
"""EPSG code of the UTM zone, column and row of the lattice."""
_NORTH, _SOUTH = 32600, 32700
"""EPSG code of UTM zone n is one of these plus n, on either hemisphere (WGS 84)."""
_ZONE_WIDTH = 6
"""Degrees of longitude."""
_DEGREES_PER_METER = 1 / 111_000
"""Degrees of latitude in a meter, approximately."""


@dataclass
class FieldChips:
    """The chips of a file of field boundaries. All sequences have one entry per chip."""

    chips: list[Chip]
    cells: list[CellIndex]
    """Where each chip is on its lattice."""
    coverage: list[float]
    """Percent of each chip covered by fields; where two fields overlap, both count, up to 100."""
    squares: list[str]
    """MGRS square (100 km) of each chip, by which its fields are stored."""
    faults: Faults
    names: FieldNames
    files: dict[str, SpooledFile]
    """The fields of each square, by key in the store."""

    def subset(self, names: set[str]) -> FieldChips:
        """Return only the chips with these names, and the files that they need."""
        kept = [chip.name in names for chip in self.chips]
        squares = list(compress(self.squares, kept))
        files: dict[str, SpooledFile] = {}
        for square in sorted(set(squares)):
            files[fields_key(square)] = self.files[fields_key(square)]
        return replace(
            self,
            chips=list(compress(self.chips, kept)),
            cells=list(compress(self.cells, kept)),
            coverage=list(compress(self.coverage, kept)),
            squares=squares,
            files=files,
        )


def chips_of_fields(
    path: str, grid: ChipGridOptions, year: int, origin: tuple[float, float] = (0.0, 0.0)
) -> FieldChips:
    """Find all chips that fields cover enough of.

    Reads the file once, one batch of fields in memory at a time.

    Args:
        path: The file of field boundaries.
        grid: Size, resolution and prefix of the chips, and the least coverage.
        year: Year of planting, part of the chips' names.
        origin: Easting and northing in meters by which the lattice is offset from multiples of the
            chips' side, to align it with the pixels of the imagery: (15, 15) for Landsat.

    Returns:
        The chips in the order of their names.

    Raises:
        RequestError: The file cannot be read, no chip is left, or chips are so small that two of
            them get the same name.
    """
    faults, field_names = Faults(), FieldNames()
    coverage = _CellCoverage(grid.size * grid.resolution, origin)
    for numbers, geometries in read_fields(path, faults, field_names):
        coverage.add(numbers, geometries)

    percent = coverage.percent()
    names = coverage.names
    enough = [cell for cell, share in percent.items() if share >= grid.min_coverage]
    cells = sorted(enough, key=names.__getitem__)
    if not cells:
        raise RequestError(
            f"product.boundaries: no chips: the fields of {redact_url(path)} do not cover "
            f"{grid.min_coverage:g} % (product.grid.min_coverage) of any chip"
        )
    found = FieldChips([], cells, [], [], faults, field_names, {})
    for cell in cells:
        found.chips.append(_chip(cell, names[cell], grid, year, origin))
        found.coverage.append(round(percent[cell], 4))
        found.squares.append(names[cell][:_SQUARE])
    if len({chip.name for chip in found.chips}) < len(cells):
        raise RequestError("product.grid: two chips have the same name; use larger chips")
    found.files = coverage.spool.files(set(found.squares))
    return found


@dataclass
class _CellCoverage:
    """Which cells fields overlap, accumulated batch by batch."""

    side: float
    """Side of a cell in meters."""
    origin: tuple[float, float]
    wanted: set[CellIndex] = field(default_factory=set)
    """Cells that some field reaches inside their own zone."""
    covered: dict[CellIndex, float] = field(default_factory=dict)
    """Square meters of fields on each cell."""
    names: dict[CellIndex, str] = field(default_factory=dict)
    """MGRS name of each cell."""
    spool: FieldSpool = field(default_factory=FieldSpool)

    def add(self, numbers: Array, geometries: Geometries) -> None:
        """Count the fields of one batch, and spool their polygons by square.

        Args:
            numbers: Numbers of the fields, shape (n,).
            geometries: Their polygons and multipolygons in degrees, shape (n,).
        """
        polygons, owners = shapely.get_parts(geometries, return_index=True)

        # First, which cells the fields ask for: each piece of a field those of its own zone.
        for epsg, pieces in _cut_at_zone_edges(polygons).items():
            _, columns, rows, _ = _overlaps(_project(pieces, epsg, self.origin), self.side)
            self.wanted.update(zip(repeat(epsg), columns.tolist(), rows.tolist()))

        # Second, how much of each cell they cover. Whole polygons are measured, in every zone
        # whose cells they may overlap.
        for epsg, near in _zones_in_reach(polygons, self.side).items():
            projected = _project(polygons[near], epsg, self.origin)
            overlapping, columns, rows, areas = _overlaps(projected, self.side)
            squares = []
            for column, row, area in zip(
                columns.tolist(), rows.tolist(), areas.tolist(), strict=True
            ):
                cell = epsg, column, row
                self.covered[cell] = self.covered.get(cell, 0.0) + area
                if cell not in self.names:
                    self.names[cell] = _mgrs_name(cell, self.side)
                squares.append(self.names[cell][:_SQUARE])
            indices = near[overlapping]
            self.spool.add(squares, numbers[owners[indices]], polygons[indices])

    def percent(self) -> Mapping[CellIndex, float]:
        """Return the coverage in percent of each wanted cell."""
        return {cell: 100 * min(self.covered[cell] / self.side**2, 1.0) for cell in self.wanted}


def _chip(
    cell: CellIndex, name: str, grid: ChipGridOptions, year: int, origin: tuple[float, float]
) -> Chip:
    epsg, column, row = cell
    side, pixel = grid.size * grid.resolution, grid.resolution
    # Rows of the lattice count upward, and the transform starts at the upper left corner.
    left, top = column * side + origin[0], (row + 1) * side + origin[1]
    transform = (pixel, 0.0, left, 0.0, -pixel, top)
    return Chip(f"{grid.prefix}-{name}_{year}", f"EPSG:{epsg}", transform, (grid.size, grid.size))


def _cut_at_zone_edges(polygons: Geometries) -> dict[int, Geometries]:
    """Cut polygons in degrees at the edges of UTM zones and at the equator.

    Returns:
        EPSG code of a zone → the pieces that are inside it, also in degrees.
    """
    west, south, east, north = shapely.bounds(polygons).T
    zones = _utm_epsg(west, south)
    crossing = zones != _utm_epsg(east, north)
    pieces: dict[int, list[Any]] = {}
    for index in np.flatnonzero(~crossing).tolist():
        pieces.setdefault(int(zones[index]), []).append(polygons[index])

    # Few polygons cross an edge, so cutting them one by one is fast enough.
    for index in np.flatnonzero(crossing).tolist():
        first = int((west[index] + 180) // _ZONE_WIDTH)
        last = int((east[index] + 180) // _ZONE_WIDTH)
        for number in range(first, last + 1):
            left = number * _ZONE_WIDTH - 180
            for base, bottom, top in ((_NORTH, 0, 90), (_SOUTH, -90, 0)):
                half_zone = shapely.box(left, bottom, left + _ZONE_WIDTH, top)
                cut = shapely.get_parts(shapely.intersection(polygons[index], half_zone))
                for piece in cut:
                    # Where a polygon only touches the edge, the intersection is a line or a point.
                    if piece.area > 0:
                        pieces.setdefault(base + number % 60 + 1, []).append(piece)
    return {epsg: np.array(members, object) for epsg, members in sorted(pieces.items())}


def _utm_epsg(longitude: Array, latitude: Array) -> Array:
    """Return the EPSG code of the UTM zone of each point, without the exceptions of Norway."""
    # Longitude 180 belongs to zone 1, hence modulo 60.
    zone = np.floor((longitude + 180) / _ZONE_WIDTH).astype(int) % 60 + 1
    return np.asarray(zone + np.where(latitude >= 0, _NORTH, _SOUTH))


def _zones_in_reach(polygons: Geometries, side: float) -> dict[int, Array]:
    """Find the zones whose cells each polygon may overlap, including zones next to its own.

    Args:
        polygons: Polygons in degrees.
        side: Side of a cell in meters.

    Returns:
        EPSG code of a zone → indices of the polygons.
    """
    west, south, east, north = shapely.bounds(polygons).T
    # A cell that starts just inside its zone reaches at most its diagonal, less than two sides,
    # beyond the edge. A meter spans more degrees of longitude toward the poles: the cosine is
    # bounded because polygons may touch a pole.
    up = 2 * side * _DEGREES_PER_METER
    cosine = np.cos(np.radians(np.maximum(abs(south), abs(north))))
    across = up / np.maximum(cosine, 0.05)
    first = np.floor((west - across + 180) / _ZONE_WIDTH).astype(int)
    last = np.floor((east + across + 180) / _ZONE_WIDTH).astype(int)

    indices: dict[int, list[int]] = {}
    extents = zip(first.tolist(), last.tolist(), south - up, north + up, strict=True)
    for index, (first_zone, last_zone, bottom, top) in enumerate(extents):
        # A set, because near a pole the range may go around the Earth more than once.
        for zone in {number % 60 + 1 for number in range(first_zone, last_zone + 1)}:
            if top >= 0:
                indices.setdefault(_NORTH + zone, []).append(index)
            if bottom < 0:
                indices.setdefault(_SOUTH + zone, []).append(index)
    return {epsg: np.array(members) for epsg, members in sorted(indices.items())}


def _overlaps(polygons: Geometries, side: float) -> tuple[Array, Array, Array, Array]:
    """Find the cells that polygons overlap.

    Args:
        polygons: Polygons in meters from the origin of the lattice, shape (n,).
        side: Side of a cell in meters.

    Returns:
        For each pair of a polygon and a cell that overlap: the index of the polygon, the column and
        row of the cell, and the area of the overlap in square meters.
    """
    # Enumerate all cells that the bounding boxes touch, for all polygons at once: polygon i has
    # counts[i] cells, so its index is repeated that often, and `within` counts its cells from 0.
    left, bottom, right, top = np.floor(shapely.bounds(polygons) / side).astype(np.int64).T
    width, height = right - left + 1, top - bottom + 1
    counts = width * height
    owners = np.repeat(np.arange(len(polygons)), counts)
    starts = np.cumsum(counts) - counts
    within = np.arange(len(owners)) - np.repeat(starts, counts)
    columns = left[owners] + within % width[owners]
    rows = bottom[owners] + within // width[owners]

    # Most fields are inside a single cell, and their overlap is their own area. Only the others
    # need an intersection, which is by far the slowest step.
    areas = shapely.area(polygons)[owners]
    shared = counts[owners] > 1
    boxes = shapely.box(columns * side, rows * side, (columns + 1) * side, (rows + 1) * side)
    areas[shared] = shapely.area(shapely.intersection(polygons[owners[shared]], boxes[shared]))

    # A bounding box may touch cells that the polygon itself does not reach.
    overlap = areas > 0
    return owners[overlap], columns[overlap], rows[overlap], areas[overlap]


def _project(polygons: Geometries, epsg: int, origin: tuple[float, float]) -> Geometries:
    """Project polygons from degrees to meters of a zone, relative to the lattice's origin."""

    def project(longitude: Array, latitude: Array) -> tuple[Array, Array]:
        x, y = _to_utm(epsg).transform(longitude, latitude)
        return x - origin[0], y - origin[1]

    return np.asarray(shapely.transform(polygons, project, interleaved=False))


@cache
def _to_utm(epsg: int) -> Transformer:
    return Transformer.from_crs("EPSG:4326", f"EPSG:{epsg}", always_xy=True)


# Letters of the Military Grid (NGA.SIG.0012): I and O are not used. The letters of columns repeat
# every three zones, and those of rows start at F in even zones.
_LATITUDE_BANDS = "CDEFGHJKLMNPQRSTUVWX"
_COLUMN_LETTERS = ("ABCDEFGH", "JKLMNPQR", "STUVWXYZ")
_ROW_LETTERS = ("ABCDEFGHJKLMNPQRSTUV", "FGHJKLMNPQRSTUVABCDE")
_SQUARE = 5
"""Characters of the name of a 100 km square: `34UFF`."""


def _mgrs_name(cell: CellIndex, side: float) -> str:
    """Name a cell after the MGRS square that contains its center.

    The zone and hemisphere are those of the cell's lattice, even if the center is beyond their
    edge. MGRS libraries would name such a cell after the neighboring zone, and two cells could get
    the same name.

    Args:
        cell: The cell.
        side: Its side in meters.

    Returns:
        `34UFF1628` (1 km) for cells of 1.5 km and more; smaller cells get more digits,
        `34UFF160280` (100 m) and so on down to 1 m.
    """
    epsg, column, row = cell
    zone, x, y = epsg % 100, (column + 0.5) * side, (row + 0.5) * side

    # Latitude bands are 8 degrees high from 80 degrees south; N is the first of the north.
    latitude = float(_to_utm(epsg).transform(x, y, direction="INVERSE")[1])
    band = min(max(int((latitude + 80) // 8), 0), 19)
    band = max(band, 10) if epsg < _SOUTH else min(band, 9)

    # 100 km squares: eight columns around the central meridian; rows repeat every 2,000 km.
    column_letter = _COLUMN_LETTERS[(zone - 1) % 3][int(x // 100_000) - 1]
    row_letter = _ROW_LETTERS[(zone - 1) % 2][int(y // 100_000) % 20]

    digits = 2
    while digits < 5 and side < 1.5 * 10 ** (5 - digits):
        digits += 1
    unit = 10 ** (5 - digits)
    easting, northing = int(x % 100_000) // unit, int(y % 100_000) // unit
    square = f"{zone:02d}{_LATITUDE_BANDS[band]}{column_letter}{row_letter}"
    return f"{square}{easting:0{digits}d}{northing:0{digits}d}"
