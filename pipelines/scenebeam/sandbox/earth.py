"""The synthetic Earth: the value of every pixel as a function of place, band and date.

All functions take easting and northing in whole meters, as arrays that broadcast against each
other. They use integer arithmetic wherever possible, so that pixels are identical on all machines.
Tests compare products with these functions, without reading the files of the sandbox.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Integers = np.ndarray[Any, np.dtype[np.int64]]

BANDS = {"blue": 10, "green": 10, "red": 10, "nir": 10, "swir16": 20, "swir22": 20, "scl": 20}
"""Sentinel-2 band → resolution in meters."""
_BRIGHTNESS = {"blue": 500, "green": 700, "red": 900, "nir": 2600, "swir16": 1800, "swir22": 1300}
_CLOUD, _SHADOW = 9, 3
"""Classes of the Sentinel-2 scene classification."""
_QA_CLEAR, _QA_CLOUD, _QA_SHADOW = 21824, 22280, 23888
"""Values of Landsat's `qa_pixel`."""
_FIELD_SIDE = 480
"""Meters."""
LAND_CLASSES = (1, 2, 5, 7, 8, 11, 4, 0)
"""Classes of io-lulc; 0 is nodata."""
_PATCH_SIDE = 2880
"""Meters of a patch of one land cover class: three chips of 960 m."""


def day_number(when: datetime) -> int:
    """Return the days since 2020-01-01. Pixels depend on the day, not on the time."""
    return (when.date() - datetime(2020, 1, 1).date()).days


def reflectance(band: str, easting: Array, northing: Array, day: int) -> Array:
    """Return the cloud-free values of an optical band.

    They consist of fields of 480 m, hills of several kilometers, a season, and a grain that differs
    from pixel to pixel and from day to day. Shifts by a single pixel or day are therefore visible.

    Args:
        band: A band of `BANDS` other than `scl`.
        easting: Eastings of pixel centers, in whole meters.
        northing: Northings of pixel centers, in whole meters.
        day: See `day_number`.

    Returns:
        Reflectance times 10,000, without BOA_ADD_OFFSET; int64, always positive.
    """
    x, y = _whole_meters(easting, northing)
    is_nir = band == "nir"
    field = (x // _FIELD_SIDE * 7919 + y // _FIELD_SIDE * 104729) % 11
    vegetation = field * 60 if is_nir else field * -20
    season = _wave(np.asarray(day), 365, 400)
    hills = _wave(x, 5200, 300) + _wave(y, 7300, 250)
    grain = _hash(x, y, day, len(band)) % 53
    seasonal = season if is_nir else -season // 4
    return np.asarray(_BRIGHTNESS[band] + hills + vegetation + seasonal + grain + 60)


def is_cloud(easting: Array, northing: Array, day: int) -> Array:
    """Return where clouds are: disks on a grid of 6 km that moves from day to day. Boolean."""
    x, y = _whole_meters(easting, northing)
    x, y = x + day * 1700, y + day * 900
    dx, dy = x % 6000 - 3000, y % 6000 - 3000
    # Only one of three cells has a cloud.
    cell = (x // 6000 * 31 + y // 6000 * 17 + day) % 3
    return np.asarray((dx * dx + dy * dy < 1100 * 1100) & (cell == 0))


def scene_class(easting: Array, northing: Array, day: int) -> Array:
    """Return the Sentinel-2 scene classification (SCL).

    Returns:
        4 vegetation, 5 bare soil, 6 water, 9 cloud, 3 cloud shadow; int64.
    """
    x, y = _whole_meters(easting, northing)
    field = (x // _FIELD_SIDE * 7919 + y // _FIELD_SIDE * 104729) % 7
    ground = np.take(np.array([4, 4, 5, 4, 5, 6, 4]), field)
    shadowed = np.where(_is_shadow(x, y, day), _SHADOW, ground)
    return np.where(is_cloud(x, y, day), _CLOUD, shadowed)


def land_class(easting: Array, northing: Array) -> Array:
    """Return the land cover: square patches of the classes in `LAND_CLASSES`; int64."""
    x, y = _whole_meters(easting, northing)
    patch = (x // _PATCH_SIDE + 3 * (y // _PATCH_SIDE)) % len(LAND_CLASSES)
    return np.take(np.array(LAND_CLASSES), patch)


def elevation(easting: Array, northing: Array) -> Array:
    """Return the elevation in meters above sea level; water is at 0. float64."""
    x, y = _whole_meters(easting, northing)
    hills = 20 + _wave(x, 5200, 300) + _wave(y, 7300, 250)
    return np.where(land_class(x, y) == 1, 0, hills).astype(np.float64)


def backscatter(polarization: str, easting: Array, northing: Array, day: int) -> Array:
    """Return radar backscatter with speckle, in linear power.

    Args:
        polarization: `vv` or `vh`.
        easting: Eastings of pixel centers, in whole meters.
        northing: Northings of pixel centers, in whole meters.
        day: See `day_number`.

    Returns:
        float32, always positive.
    """
    x, y = _whole_meters(easting, northing)
    speckle = _hash(x, y, day, len(polarization)) % 97
    power = 40 + 30 * land_class(x, y) + 4 * speckle
    # Divisors are powers of two, so that the result is exact in float32.
    return np.asarray(power / (4096 if polarization == "vv" else 16384), np.float32)


def landsat(band: str, easting: Array, northing: Array, day: int) -> Array:
    """Return values of Landsat Collection 2 Level-2, or its quality flags; int64.

    Args:
        band: A Landsat band, or `qa_pixel`.
        easting: Eastings of pixel centers, in whole meters.
        northing: Northings of pixel centers, in whole meters.
        day: See `day_number`.
    """
    if band == "qa_pixel":
        shadowed = np.where(_is_shadow(easting, northing, day), _QA_SHADOW, _QA_CLEAR)
        return np.where(is_cloud(easting, northing, day), _QA_CLOUD, shadowed)
    return 7273 + 4 * pixel("nir" if band == "nir08" else band, easting, northing, day)


def pixel(band: str, easting: Array, northing: Array, day: int) -> Array:
    """Return the values of any Sentinel-2 band, with bright clouds in the optical bands.

    Args:
        band: A band of `BANDS`.
        easting: Eastings of pixel centers, in whole meters.
        northing: Northings of pixel centers, in whole meters.
        day: See `day_number`.

    Returns:
        Classes for `scl`, else reflectance times 10,000 without BOA_ADD_OFFSET; int64.
    """
    if band == "scl":
        return scene_class(easting, northing, day)
    clear = reflectance(band, easting, northing, day)
    return np.where(is_cloud(easting, northing, day), clear + 5000, clear)


def _whole_meters(easting: Array, northing: Array) -> tuple[Integers, Integers]:
    return np.asarray(easting, np.int64), np.asarray(northing, np.int64)


def _wave(position: Array, period: int, height: int) -> Array:
    """Return a triangle wave in integers: 0 → height → 0 within a period."""
    phase = position % period
    return np.asarray(height * np.minimum(phase, period - phase) * 2 // period)


def _hash(x: Integers, y: Integers, day: int, salt: int) -> Integers:
    """Return pseudo-random integers for squares of 10 m, by XOR of multiples of primes."""
    return x // 10 * 73856093 ^ y // 10 * 19349663 ^ day * 83492791 ^ salt * 2971215073


def _is_shadow(easting: Array, northing: Array, day: int) -> Array:
    """Return where cloud shadows are: clouds shifted by 400 m to the southeast. Boolean."""
    return is_cloud(easting - 400, northing + 400, day)
