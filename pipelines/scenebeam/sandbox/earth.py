"""The synthetic Earth: what every pixel is, by place, band and date. Whole numbers only, so always the same."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

BANDS = {"blue": 10, "green": 10, "red": 10, "nir": 10, "swir16": 20, "swir22": 20, "scl": 20}
"""Band → metres to a pixel."""
_BRIGHTNESS = {"blue": 500, "green": 700, "red": 900, "nir": 2600, "swir16": 1800, "swir22": 1300}
_CLOUD = 9
_SHADOW = 3


def day_number(when: datetime) -> int:
    """Days since 2020-01-01, which is all that pixels know of a date."""
    return (when.date() - datetime(2020, 1, 1).date()).days


def _wave(position: Array, period: int, height: int) -> Array:
    """A triangle wave in whole numbers: 0 → height → 0 over `period` metres."""
    phase = position % period
    return np.asarray(height * np.minimum(phase, period - phase) * 2 // period)


def reflectance(band: str, easting: Array, northing: Array, day: int) -> Array:
    """Harmonized digital numbers (reflectance x 10,000) of a band at pixel centres in metres; int64, always > 0.

    Fields of 480 m, hills of some kilometres, a season, and a grain that differs from pixel to pixel.
    """
    x, y = np.asarray(easting, np.int64), np.asarray(northing, np.int64)
    field = (x // 480 * 7919 + y // 480 * 104729) % 11
    hills = _wave(x, 5200, 300) + _wave(y, 7300, 250)
    season = _wave(np.asarray(day), 365, 400)
    green = field * 60 if band == "nir" else field * -20
    grain = (x // 10 * 73856093 ^ y // 10 * 19349663 ^ day * 83492791 ^ len(band) * 2971215073) % 53
    return np.asarray(
        _BRIGHTNESS[band] + hills + green + (season if band == "nir" else -season // 4) + grain + 60
    )


def is_cloud(easting: Array, northing: Array, day: int) -> Array:
    """Where clouds stand on a day: discs on a 6 km lattice that drifts from day to day. Boolean."""
    x, y = np.asarray(easting, np.int64) + day * 1700, np.asarray(northing, np.int64) + day * 900
    dx, dy = x % 6000 - 3000, y % 6000 - 3000
    cell = (x // 6000 * 31 + y // 6000 * 17 + day) % 3
    return np.asarray((dx * dx + dy * dy < 1100 * 1100) & (cell == 0))


def scene_class(easting: Array, northing: Array, day: int) -> Array:
    """Sentinel-2 scene classification: 4 vegetation, 5 bare, 6 water, 9 cloud, 3 its shadow. int64."""
    x, y = np.asarray(easting, np.int64), np.asarray(northing, np.int64)
    ground = np.take(np.array([4, 4, 5, 4, 5, 6, 4]), (x // 480 * 7919 + y // 480 * 104729) % 7)
    shadow = is_cloud(x - 400, y + 400, day)
    return np.where(is_cloud(x, y, day), _CLOUD, np.where(shadow, _SHADOW, ground))


LAND_CLASSES = (1, 2, 5, 7, 8, 11, 4, 0)
"""By io-lulc's numbers; 0 is no data."""
_COUNTRY = 2880
"""Metres to a side of a patch of one class."""


def land_class(easting: Array, northing: Array) -> Array:
    """Land cover: patches of one class, three chips of 960 m wide. int64."""
    x, y = np.asarray(easting, np.int64) // _COUNTRY, np.asarray(northing, np.int64) // _COUNTRY
    return np.take(np.array(LAND_CLASSES), (x + 3 * y) % len(LAND_CLASSES))


def elevation(easting: Array, northing: Array) -> Array:
    """Metres above the sea, which is 0: water is at sea level. float64."""
    x, y = np.asarray(easting, np.int64), np.asarray(northing, np.int64)
    hills = 20 + _wave(x, 5200, 300) + _wave(y, 7300, 250)
    return np.where(land_class(x, y) == 1, 0, hills).astype(np.float64)


def backscatter(polarization: str, easting: Array, northing: Array, day: int) -> Array:
    """Radar power at pixel centres, linear, with speckle; float32, always > 0."""
    x, y = np.asarray(easting, np.int64), np.asarray(northing, np.int64)
    speckle = (
        x // 10 * 73856093 ^ y // 10 * 19349663 ^ day * 83492791 ^ len(polarization) * 2971215073
    ) % 97
    ground = 40 + 30 * land_class(x, y)
    return np.asarray(
        (ground + 4 * speckle) / (4096 if polarization == "vv" else 16384), np.float32
    )


def landsat(band: str, easting: Array, northing: Array, day: int) -> Array:
    """Landsat Collection 2 digital numbers, or its quality flags, at pixel centres. int64."""
    if band == "qa_pixel":
        cloudy = is_cloud(easting, northing, day)
        shadow = is_cloud(easting - 400, northing + 400, day)
        return np.where(cloudy, 22280, np.where(shadow, 23888, 21824))
    return 7273 + 4 * pixel("nir" if band == "nir08" else band, easting, northing, day)


def pixel(band: str, easting: Array, northing: Array, day: int) -> Array:
    """The harmonized number of any band at pixel centres; clouds shine in the reflective bands."""
    if band == "scl":
        return scene_class(easting, northing, day)
    clear = reflectance(band, easting, northing, day)
    return np.where(is_cloud(easting, northing, day), clear + 5000, clear)
