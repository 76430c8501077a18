"""Crop calendar: the days of planting and harvest at a place, from two images of days of the year."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
from pyproj import CRS

from scenebeam.errors import ReadError, RequestError
from scenebeam.products.fields.request import Season
from scenebeam.raster.reader import open_source
from scenebeam.raster.source import Source, read_window
from scenebeam.raster.validity import Array
from scenebeam.storage.local import LocalStore
from scenebeam.transfer.ranges import local_copy
from scenebeam.transfer.retry import Budget

FILES: dict[Season, str] = {
    "planting": "sc-sos-3x3-v2-cog.tiff",
    "harvest": "sc-eos-3x3-v2-cog.tiff",
}
"""Summer crops: start and end of the season, day of year at 0.5 degrees, 0 where there is none."""


DEFAULT = "https://data.source.coop/ftw/ftw-inference-input/global-crop-calendar"
"""The global calendar of Fields of The World."""
_LARGEST = 256 * 2**20


def default_calendar() -> str:
    """The folder of the default calendar in this machine's cache; its files are fetched on first use.

    Raises:
        RequestError: They are not there, and cannot be fetched.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = LocalStore(str(cache / "scenebeam" / "crop-calendar"))
    for name in FILES.values():
        if folder.size(name) is None:
            try:
                with local_copy(f"{DEFAULT}/{name}", Budget(private=True), _LARGEST) as path:
                    folder.upload(name, path)
            except ReadError as error:
                raise RequestError(
                    f"the default crop calendar cannot be fetched: {error}; give product.crop_calendar, the folder or "
                    "URL of a copy, or product.days, the days of planting and harvest"
                ) from None
    return folder.uri


class CropCalendar:
    """Days of planting and harvest. Reads the blocks that it is asked about, each once."""

    def __init__(self, place: str) -> None:
        """`place` is the folder or URL of both files. RequestError where one of them cannot be read."""
        self._place = place
        self._blocks: dict[tuple[str, int, int], Array] = {}
        self._known: dict[tuple[int, int], tuple[int, int]] = {}
        try:
            self._sources: dict[str, Source] = {
                season: open_source(f"{place.rstrip('/')}/{name}", 1, Budget(private=True))
                for season, name in FILES.items()
            }
        except ReadError as error:
            raise RequestError(f"product.crop_calendar: {error}") from None
        for source in self._sources.values():
            if not CRS.from_user_input(source.info.crs).is_geographic:
                raise RequestError(
                    f"product.crop_calendar: {source.info.href} is not in degrees of longitude and latitude"
                )
        shapes = {(s.info.transform, s.info.width, s.info.height) for s in self._sources.values()}
        if len(shapes) > 1:
            raise RequestError(
                f"product.crop_calendar: the two files in {place} lie on different grids"
            )

    def days(self, longitude: float, latitude: float) -> tuple[int, int]:
        """Day of year of planting and of harvest; of the nearest cell that has both where this one has not."""
        info = self._sources["planting"].info
        column, row = ~info.transform @ (longitude, latitude)
        cell = int(np.clip(np.floor(row), 0, info.height - 1)), int(np.floor(column)) % info.width
        if cell not in self._known:
            planting, harvest = (self._pixel(season, *cell) for season in FILES)
            if planting <= 0 or harvest <= 0:
                planting, harvest = self._nearest(longitude, latitude)
            self._known[cell] = planting, harvest
        return self._known[cell]

    def _pixel(self, season: Season, row: int, column: int) -> int:
        """One pixel, by way of its block."""
        info = self._sources[season].info
        height, width = info.block
        key = season, row // height, column // width
        if key not in self._blocks:
            top, left = key[1] * height, key[2] * width
            extent = min(height, info.height - top), min(width, info.width - left)
            self._blocks[key] = self._read(season, top, left, *extent)
        return int(self._blocks[key][row % height, column % width])

    def _read(self, season: Season, row: int, column: int, height: int, width: int) -> Array:
        try:
            return np.nan_to_num(read_window(self._sources[season], row, column, height, width))
        except ReadError as error:
            raise RequestError(f"product.crop_calendar: {error}") from None

    @cached_property
    def _filled(self) -> tuple[Array, Array, Array]:
        """Longitude and latitude of all cells that have both days, and the days: (n,), (n,), (n, 2)."""
        info = self._sources["planting"].info
        both = np.stack(
            [self._read(season, 0, 0, info.height, info.width) for season in FILES], axis=-1
        )
        rows, columns = np.nonzero((both > 0).all(axis=-1))
        if not rows.size:
            raise RequestError(
                f"product.crop_calendar: no cell of the files in {self._place} has both days"
            )
        longitude = info.transform.c + (columns + 0.5) * info.transform.a
        latitude = info.transform.f + (rows + 0.5) * info.transform.e
        return longitude, latitude, both[rows, columns]

    def _nearest(self, longitude: float, latitude: float) -> tuple[int, int]:
        """By the great circle (haversine); the first of several as near, in the order of rows."""
        lon, lat, days = self._filled
        across, up = np.radians(lon - longitude), np.radians(lat - latitude)
        level = np.cos(np.radians(latitude)) * np.cos(np.radians(lat))
        arc = np.sin(up / 2) ** 2 + level * np.sin(across / 2) ** 2
        planting, harvest = days[int(np.argmin(arc))]
        return int(planting), int(harvest)

    def close(self) -> None:
        """Let go of the files."""
        for source in self._sources.values():
            source.close()


def season_days(year: int, planting: int, harvest: int) -> dict[Season, datetime]:
    """Days of year → midnights: planting in `year`; a harvest day before the planting day is the next year's."""
    return {
        "planting": _midnight(year, planting),
        "harvest": _midnight(year + (harvest < planting), harvest),
    }


def _midnight(year: int, day: int) -> datetime:
    """Day 366 of a year that has none is its last."""
    found = datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=day - 1)
    return found if found.year == year else datetime(year, 12, 31, tzinfo=UTC)
