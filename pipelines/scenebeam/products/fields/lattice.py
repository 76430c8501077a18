"""Lattice: field boundaries → chips on a lattice that covers the Earth, zone by zone of UTM.

The corners of a zone's chips lie on multiples of their side (from the origin of the imagery's
pixels), so that the same field gives the same chips in every dataset. A field lies on the chips of
its own zone and hemisphere, and one across their edge on those of both: at the edge chips of two
zones may overlap, and no field falls between them. A chip is named by the kilometre of the Military
Grid that its centre lies in: `ftw-34UFF1628`.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from pyproj import Transformer

from scenebeam.errors import RequestError
from scenebeam.imaging.shards import PARTS
from scenebeam.products.fields.boundaries import Faults, FieldNames, Geometries, read_fields
from scenebeam.products.fields.chips import Chip
from scenebeam.products.fields.request import ChipGridOptions
from scenebeam.transfer.signing import redact_url

Array = np.ndarray[Any, np.dtype[Any]]
CellIndex = tuple[int, int, int]
"""EPSG code of the zone, column and row of the lattice."""
_SCHEMA = pa.schema([("number", pa.int64()), ("geometry", pa.binary())])
_DEGREES_PER_METRE = 1 / 111_000


@dataclass(frozen=True)
class SpooledFile:
    """The fields of a square, which wait on this machine's disk for the plan to be frozen."""

    folder: Path
    holder: TemporaryDirectory[str] = field(repr=False)
    """Removes it when it is forgotten."""

    def to_bytes(self) -> bytes:
        """One Parquet file of numbers and polygons in degrees (WKB)."""
        tables = [pq.ParquetFile(path).read() for path in sorted(self.folder.iterdir())]
        sink = io.BytesIO()
        pq.write_table(pa.concat_tables(tables), sink, compression="zstd")
        return sink.getvalue()


@dataclass
class FieldChips:
    """The chips of a file of field boundaries."""

    chips: list[Chip]
    places: list[CellIndex]
    coverage: list[float]
    """Percent of each chip under fields; what two fields cover counts twice, up to the whole."""
    squares: list[str]
    """The file of fields of each chip: its MGRS square."""
    faults: Faults
    named: FieldNames
    files: dict[str, SpooledFile]
    """The fields of each square, by name in the store."""

    def only(self, names: set[str]) -> FieldChips:
        """Without the chips of other names."""
        kept = [number for number, chip in enumerate(self.chips) if chip.name in names]
        squares = [self.squares[number] for number in kept]
        return replace(
            self,
            chips=[self.chips[number] for number in kept],
            places=[self.places[number] for number in kept],
            coverage=[self.coverage[number] for number in kept],
            squares=squares,
            files={
                name: self.files[name]
                for name in sorted({fields_name(square) for square in squares})
            },
        )


def fields_name(square: str) -> str:
    """Name in the store of the fields of a square, until all masks are made."""
    return f"{PARTS}fields/{square}.parquet"


def chips_of_fields(
    path: str, grid: ChipGridOptions, year: int, origin: tuple[float, float] = (0.0, 0.0)
) -> FieldChips:
    """Find all chips that fields cover enough of, by name. One pass over the file, a batch in
    memory.

    Args:
        path: The file of field boundaries.
        grid: What chips are like.
        year: Of planting.
        origin: Easting and northing, in meters, by which the lattice is moved off multiples of the
            chips' side, so that it lies on the pixels of the imagery: (15, 15) for Landsat.

    Raises:
        RequestError: No chip is left.
    """
    faults, named, side = Faults(), FieldNames(), grid.size * grid.resolution
    covered: dict[CellIndex, float] = {}
    wanted: set[CellIndex] = set()
    names: dict[CellIndex, str] = {}
    spool = _Spool()
    for numbers, geometries in read_fields(path, faults, named):
        parts, owners = shapely.get_parts(geometries, return_index=True)
        for epsg, pieces in _within_zones(parts).items():
            _, columns, rows, _ = _laid(_projected(pieces, epsg, origin), side)
            wanted |= {
                (epsg, column, row)
                for column, row in zip(columns.tolist(), rows.tolist(), strict=True)
            }
        for epsg, own in _near_zones(parts, side).items():
            pairs, columns, rows, areas = _laid(_projected(parts[own], epsg, origin), side)
            squares = []
            for column, row, area in zip(
                columns.tolist(), rows.tolist(), areas.tolist(), strict=True
            ):
                place = epsg, column, row
                covered[place] = covered.get(place, 0.0) + area
                if place not in names:
                    names[place] = _mgrs(place, side)
                squares.append(names[place][:_SQUARE])
            spool.add(squares, numbers[owners[own[pairs]]], parts[own[pairs]])
    enough = {place: 100 * min(covered[place] / side**2, 1.0) for place in wanted}
    places = sorted(
        (p for p, share in enough.items() if share >= grid.min_coverage),
        key=lambda place: names[place],
    )
    if not places:
        raise RequestError(
            f"product.boundaries: no chip is left: fields of {redact_url(path)} cover none of them enough"
        )
    if len({names[place] for place in places}) < len(places):
        raise RequestError("product.grid: two chips have one name; make them larger")
    return FieldChips(
        [_chip(place, names[place], grid, year, origin) for place in places],
        places,
        [round(enough[place], 4) for place in places],
        [names[place][:_SQUARE] for place in places],
        faults,
        named,
        spool.files({names[place][:_SQUARE] for place in places}),
    )


def _chip(
    place: CellIndex, name: str, grid: ChipGridOptions, year: int, origin: tuple[float, float]
) -> Chip:
    (epsg, column, row), (x, y) = place, origin
    side, pixel = grid.size * grid.resolution, grid.resolution
    transform = (pixel, 0.0, column * side + x, 0.0, -pixel, (row + 1) * side + y)
    return Chip(f"{grid.prefix}-{name}_{year}", f"EPSG:{epsg}", transform, (grid.size, grid.size))


def _within_zones(parts: Geometries) -> dict[int, Geometries]:
    """EPSG code of a zone → the polygons (in degrees) in it; those across its edge are cut
    there.
    """
    west, south, east, north = shapely.bounds(parts).T
    zones = _zone(west, south)
    across = zones != _zone(east, north)
    found: dict[int, list[Any]] = {}
    for index in np.flatnonzero(~across).tolist():
        found.setdefault(int(zones[index]), []).append(parts[index])
    for index in np.flatnonzero(across).tolist():
        for number in range(int((west[index] + 180) // 6), int((east[index] + 180) // 6) + 1):
            for base, low, high in ((32600, 0, 90), (32700, -90, 0)):
                strip = shapely.box(number * 6 - 180, low, number * 6 - 174, high)
                piece = shapely.intersection(parts[index], strip)
                found.setdefault(base + number % 60 + 1, []).extend(
                    p for p in shapely.get_parts(piece) if p.area > 0
                )
    return {epsg: np.array(pieces, object) for epsg, pieces in sorted(found.items()) if pieces}


def _zone(longitude: Array, latitude: Array) -> Array:
    """EPSG code of the zone of UTM of each place."""
    return np.asarray(
        (np.floor((longitude + 180) / 6)).astype(int) % 60
        + 1
        + np.where(latitude >= 0, 32600, 32700)
    )


def _near_zones(parts: Geometries, side: float) -> dict[int, Array]:
    """EPSG code of a zone → which polygons (in degrees) may lie on its chips, that reach beyond its
    edge.
    """
    west, south, east, north = shapely.bounds(parts).T
    up = 2 * side * _DEGREES_PER_METRE
    across = up / np.maximum(np.cos(np.radians(np.maximum(abs(south), abs(north)))), 0.05)
    first, last = (
        (np.floor((west - across + 180) / 6)).astype(int),
        (np.floor((east + across + 180) / 6)).astype(int),
    )
    found: dict[int, list[int]] = {}
    for index, (a, b, bottom, top) in enumerate(
        zip(first, last, south - up, north + up, strict=True)
    ):
        for zone in {zone % 60 + 1 for zone in range(int(a), int(b) + 1)}:
            for base in ([32600] if top >= 0 else []) + ([32700] if bottom < 0 else []):
                found.setdefault(base + zone, []).append(index)
    return {epsg: np.array(indices) for epsg, indices in sorted(found.items())}


def _laid(polygons: Geometries, side: float) -> tuple[Array, Array, Array, Array]:
    """Polygons in a zone's CRS → of each cell that one covers some of: which one, column, row,
    square metres.
    """
    left, bottom, right, top = np.floor(shapely.bounds(polygons) / side).astype(np.int64).T
    wide, high = right - left + 1, top - bottom + 1
    which = np.repeat(np.arange(len(polygons)), wide * high)
    within = np.arange(len(which)) - np.repeat(np.cumsum(wide * high) - wide * high, wide * high)
    columns, rows = left[which] + within % wide[which], bottom[which] + within // wide[which]
    areas = shapely.area(polygons)[which]
    several = (wide * high)[which] > 1
    boxes = shapely.box(columns * side, rows * side, (columns + 1) * side, (rows + 1) * side)
    areas[several] = shapely.area(shapely.intersection(polygons[which[several]], boxes[several]))
    some = areas > 0
    return which[some], columns[some], rows[some], areas[some]


def _projected(polygons: Geometries, epsg: int, origin: tuple[float, float]) -> Geometries:
    """Degrees → meters of a zone from the origin of the lattice."""

    def project(longitude: Array, latitude: Array) -> tuple[Array, Array]:
        x, y = _to_zone(epsg).transform(longitude, latitude)
        return x - origin[0], y - origin[1]

    return np.asarray(shapely.transform(polygons, project, interleaved=False))


@cache
def _to_zone(epsg: int) -> Transformer:
    return Transformer.from_crs("EPSG:4326", f"EPSG:{epsg}", always_xy=True)


_BANDS = "CDEFGHJKLMNPQRSTUVWX"
_COLUMNS = ("ABCDEFGH", "JKLMNPQR", "STUVWXYZ")
_SQUARE = 5
"""Characters of a square's name: `34UFF`."""
_ROWS = ("ABCDEFGHJKLMNPQRSTUV", "FGHJKLMNPQRSTUVABCDE")
"""Letters of the Military Grid (NGA.SIG.0012): of latitude, and of squares by zone."""


def _mgrs(place: CellIndex, side: float) -> str:
    """`34UFF1628`: the kilometre of the Military Grid that a cell's centre lies in; of small cells
    the hundred meters (`34UFF160280`), or less.

    By the zone and hemisphere of its own lattice, also where the centre lies beyond their edge, so
    that no two cells share a name; libraries would name it after the zone next door.
    """
    epsg, column, row = place
    zone, x, y = epsg % 100, (column + 0.5) * side, (row + 0.5) * side
    latitude = float(_to_zone(epsg).transform(x, y, direction="INVERSE")[1])
    band = min(max(int((latitude + 80) // 8), 0), 19)
    band = max(band, 10) if epsg < 32700 else min(band, 9)
    square = (
        _COLUMNS[(zone - 1) % 3][int(x // 100_000) - 1]
        + _ROWS[(zone - 1) % 2][int(y // 100_000) % 20]
    )
    digits = next((count for count in range(2, 5) if side >= 1.5 * 10 ** (5 - count)), 5)
    along, up = (int(part % 100_000) // 10 ** (5 - digits) for part in (x, y))
    return f"{zone:02d}{_BANDS[band]}{square}{along:0{digits}d}{up:0{digits}d}"


class _Spool:
    """The fields of each square, kept on disk until they are asked for."""

    def __init__(self) -> None:
        self._holder: TemporaryDirectory[str] = TemporaryDirectory(prefix="scenebeam-fields-")
        self._folder, self._batches = Path(self._holder.name), 0

    def add(self, squares: Sequence[str], numbers: Array, parts: Geometries) -> None:
        """Fields (in degrees) that lie on cells of squares; a field on several cells of one is kept
        once.
        """
        by_square: dict[str, dict[tuple[int, int], int]] = {}
        for index, (square, number) in enumerate(zip(squares, numbers.tolist(), strict=True)):
            by_square.setdefault(square, {}).setdefault((number, id(parts[index])), index)
        self._batches += 1
        for square, chosen in by_square.items():
            some = list(chosen.values())
            columns = {"number": numbers[some], "geometry": shapely.to_wkb(parts[some])}
            (self._folder / square).mkdir(exist_ok=True)
            pq.write_table(
                pa.table(columns, schema=_SCHEMA),
                self._folder / square / f"{self._batches:06d}.parquet",
            )

    def files(self, squares: Iterable[str]) -> dict[str, SpooledFile]:
        """What some squares hold, by name in the store."""
        return {
            fields_name(square): SpooledFile(self._folder / square, self._holder)
            for square in sorted(squares)
        }
