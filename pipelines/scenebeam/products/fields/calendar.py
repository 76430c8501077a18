"""Look up the days of planting and harvest in a crop calendar.

A calendar is a pair of rasters in degrees: the day of year on which the season starts, and the day
on which it ends. Cells without a season hold 0. A global calendar is small in memory but not on a
slow network, so only the blocks under the chips are read.
"""

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
"""Start and end of season of summer crops: day of year at 0.5 degrees, 0 without a season."""
DEFAULT = "https://data.source.coop/ftw/ftw-inference-input/global-crop-calendar"
"""URL of the global calendar of Fields of The World."""
_MAX_BYTES = 256 * 2**20
"""Maximum size of a file of the default calendar."""


def default_calendar() -> str:
    """Return the folder of the default calendar in this machine's cache; download it on first use.

    Raises:
        RequestError: The files are neither in the cache nor can they be downloaded.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = LocalStore(str(cache / "scenebeam" / "crop-calendar"))
    for name in FILES.values():
        if folder.size(name) is not None:
            continue
        try:
            with local_copy(f"{DEFAULT}/{name}", Budget(private=True), _MAX_BYTES) as path:
                folder.upload(name, path)
        except ReadError as error:
            raise RequestError(
                f"the default crop calendar cannot be downloaded: {error}; give "
                "product.crop_calendar, the folder or URL of a copy, or product.days, the days of "
                "planting and harvest"
            ) from None
    return folder.uri


class CropCalendar:
    """Days of planting and harvest by location. Each block of the rasters is read at most once."""

    def __init__(self, location: str) -> None:
        """Open both files.

        Args:
            location: Folder or URL that contains the files named in FILES.

        Raises:
            RequestError: A file cannot be read or is not in degrees, or the two have different
                grids.
        """
        self._location = location
        self._blocks: dict[tuple[str, int, int], Array] = {}
        self._days: dict[tuple[int, int], tuple[int, int]] = {}
        self._sources: dict[Season, Source] = {}
        grids = set()
        for season, name in FILES.items():
            href = f"{location.rstrip('/')}/{name}"
            # The request states the location, not a catalog, so it may be a private address.
            try:
                source = open_source(href, 1, Budget(private=True))
            except ReadError as error:
                raise RequestError(f"product.crop_calendar: {error}") from None
            self._sources[season] = source
            grids.add((source.info.transform, source.info.width, source.info.height))
        for source in self._sources.values():
            if not CRS.from_user_input(source.info.crs).is_geographic:
                raise RequestError(
                    f"product.crop_calendar: {source.info.href} is not in degrees of longitude and "
                    "latitude"
                )
        # A cell is looked up once and read in both rasters.
        if len(grids) > 1:
            raise RequestError(
                f"product.crop_calendar: the two files in {location} have different grids"
            )

    def days(self, longitude: float, latitude: float) -> tuple[int, int]:
        """Look up the days of a place.

        Args:
            longitude: In degrees, WGS 84.
            latitude: In degrees, WGS 84.

        Returns:
            Day of year of planting and of harvest, 1 to 366. If the cell of the place lacks one of
            them, both are those of the nearest cell that has both.

        Raises:
            RequestError: A block cannot be read, or no cell has both days.
        """
        info = self._sources["planting"].info
        x, y = ~info.transform @ (longitude, latitude)
        # Columns wrap around the Earth: longitude 180 is in the first column. Rows do not, and
        # latitude -90 is in the last one.
        row = int(np.clip(np.floor(y), 0, info.height - 1))
        column = int(np.floor(x)) % info.width
        # Many chips share a cell of half a degree, so the days of each cell are kept.
        if (row, column) not in self._days:
            planting = self._pixel("planting", row, column)
            harvest = self._pixel("harvest", row, column)
            if planting <= 0 or harvest <= 0:
                planting, harvest = self._nearest(longitude, latitude)
            self._days[row, column] = planting, harvest
        return self._days[row, column]

    def _pixel(self, season: Season, row: int, column: int) -> int:
        """Return one pixel; its block is read and kept."""
        info = self._sources[season].info
        height, width = info.block
        key = season, row // height, column // width
        if key not in self._blocks:
            top, left = key[1] * height, key[2] * width
            # Blocks at the right and lower edges may be cut off by the end of the raster.
            extent = min(height, info.height - top), min(width, info.width - left)
            self._blocks[key] = self._read(season, top, left, *extent)
        return int(self._blocks[key][row % height, column % width])

    def _read(self, season: Season, row: int, column: int, height: int, width: int) -> Array:
        try:
            return np.nan_to_num(read_window(self._sources[season], row, column, height, width))
        except ReadError as error:
            raise RequestError(f"product.crop_calendar: {error}") from None

    @cached_property
    def _complete_cells(self) -> tuple[Array, Array, Array]:
        """Centers and days of all n cells that have both days.

        Longitudes (n,) and latitudes (n,) in degrees, and days of planting and harvest (n, 2).
        """
        # This reads both rasters in full, so it is computed only if some place has no season.
        info = self._sources["planting"].info
        rasters = [self._read(season, 0, 0, info.height, info.width) for season in FILES]
        both = np.stack(rasters, axis=-1)
        rows, columns = np.nonzero((both > 0).all(axis=-1))
        if not rows.size:
            raise RequestError(
                f"product.crop_calendar: no cell of the files in {self._location} has both days"
            )
        longitude = info.transform.c + (columns + 0.5) * info.transform.a
        latitude = info.transform.f + (rows + 0.5) * info.transform.e
        return longitude, latitude, both[rows, columns]

    def _nearest(self, longitude: float, latitude: float) -> tuple[int, int]:
        """Return the days of the nearest complete cell; of several at one distance, the first row.

        Cells are compared by the haversine of the central angle, sin²(Δφ/2) + cos φ₁ cos φ₂
        sin²(Δλ/2), which grows with the great-circle distance and is exact across the antimeridian.
        """
        longitudes, latitudes, days = self._complete_cells
        across = np.radians(longitudes - longitude)
        up = np.radians(latitudes - latitude)
        cosines = np.cos(np.radians(latitude)) * np.cos(np.radians(latitudes))
        haversine = np.sin(up / 2) ** 2 + cosines * np.sin(across / 2) ** 2
        planting, harvest = days[int(np.argmin(haversine))]
        return int(planting), int(harvest)

    def close(self) -> None:
        """Close the files."""
        for source in self._sources.values():
            source.close()


def season_days(year: int, planting: int, harvest: int) -> dict[Season, datetime]:
    """Convert days of year to dates.

    Args:
        year: Year of planting.
        planting: Day of year, 1 to 366.
        harvest: Day of year, 1 to 366. A harvest day before the planting day is in the next year.

    Returns:
        Midnight (UTC) at the start of each day.
    """
    return {
        "planting": _midnight(year, planting),
        "harvest": _midnight(year + (harvest < planting), harvest),
    }


def _midnight(year: int, day: int) -> datetime:
    """Convert a day of year; in common years day 366 is 31 December, like day 365."""
    date = datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=day - 1)
    return date if date.year == year else datetime(year, 12, 31, tzinfo=UTC)
