"""The synthetic Earth: the value of every pixel as a function of place, band and date.

A landscape between hills and a sea, with a river, woods, a town and fields that green and ripen;
`terrain` describes its ground. Clouds move over it, and their shadows.

All functions take easting and northing in whole meters, as arrays that broadcast against each
other. They use integer arithmetic wherever possible, so that pixels are identical on all machines.
Tests compare products with these functions, without reading the files of the sandbox.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np

from scenebeam.sandbox import terrain
from scenebeam.sandbox.terrain import (
    FIELD,
    FOREST,
    MEADOW,
    ROCK,
    SAND,
    TOWN,
    WATER,
    common_meters,
    ground,
    noise,
)

Array = np.ndarray[Any, np.dtype[Any]]
Integers = terrain.Integers

BANDS = {"blue": 10, "green": 10, "red": 10, "nir": 10, "swir16": 20, "swir22": 20, "scl": 20}
"""Sentinel-2 band → resolution in meters."""
_GREEN_LEAF = {"blue": 300, "green": 640, "red": 380, "nir": 3900, "swir16": 1700, "swir22": 800}
_RIPE_LEAF = {"blue": 700, "green": 1150, "red": 1500, "nir": 2700, "swir16": 2600, "swir22": 1900}
_BARE_SOIL = {"blue": 820, "green": 1020, "red": 1280, "nir": 1900, "swir16": 2700, "swir22": 2300}
_SPECTRA = {
    WATER: {"blue": 560, "green": 470, "red": 280, "nir": 130, "swir16": 90, "swir22": 70},
    SAND: {"blue": 1700, "green": 2150, "red": 2500, "nir": 3000, "swir16": 3500, "swir22": 3200},
    TOWN: {"blue": 1150, "green": 1300, "red": 1420, "nir": 1900, "swir16": 2100, "swir22": 1900},
    FIELD: _BARE_SOIL,
    FOREST: {"blue": 230, "green": 400, "red": 280, "nir": 2700, "swir16": 1250, "swir22": 560},
    MEADOW: {"blue": 430, "green": 740, "red": 640, "nir": 2700, "swir16": 2000, "swir22": 1200},
    ROCK: {"blue": 1050, "green": 1270, "red": 1450, "nir": 1900, "swir16": 2500, "swir22": 2300},
}
"""Surface → reflectance times 10,000, by band."""
_CROPS = (("wheat", 60, 185), ("maize", 130, 285), ("beet", 100, 300), ("clover", 30, 330))
"""Name, and the days of the year between which a crop grows."""
_PLOT_KINDS = len(_CROPS) * 11 * 113
"""Kinds of plots: crops, days of sowing, and soils."""
_CLOUD, _SHADOW = 9, 3
"""Classes of the Sentinel-2 scene classification."""
_QA_CLEAR, _QA_CLOUD, _QA_SHADOW = 21824, 22280, 23888
"""Values of Landsat's `qa_pixel`."""
LAND_CLASSES = (1, 2, 5, 7, 8, 11, 4, 0)
"""Classes of io-lulc; 0 is nodata."""
_PATCH_SIDE = 2880
"""Meters of a patch of one land cover class: three chips of 960 m."""


def day_number(when: datetime) -> int:
    """Return the days since 2020-01-01. Pixels depend on the day, not on the time."""
    return (when.date() - datetime(2020, 1, 1).date()).days


def reflectance(band: str, easting: Array, northing: Array, day: int) -> Array:
    """Return the cloud-free values of an optical band.

    A grain that differs from pixel to pixel and from day to day makes shifts by a single pixel or
    day visible.

    Args:
        band: A band of `BANDS` other than `scl`.
        easting: Eastings of pixel centers, in whole meters.
        northing: Northings of pixel centers, in whole meters.
        day: See `day_number`.

    Returns:
        Reflectance times 10,000, without BOA_ADD_OFFSET; int64, always positive.
    """
    x, y = common_meters(easting, northing)
    here = ground(x, y)
    spectra = [_SPECTRA[surface][band] for surface in range(len(_SPECTRA))]
    values = np.take(np.array(spectra), here.surface)
    values = np.where(here.surface == FIELD, _crops(band, here.plot, day), values)
    # Roofs differ, and streets are dark. Deep water is darker than water near the shore.
    roofs = np.where(here.plot < 0, -450, here.plot % 1_500 - 500)
    values = values + np.where(here.surface == TOWN, roofs, 0)
    if band in ("blue", "green", "red"):
        shore = np.clip(here.height // 4 + 150, -40, 150)
        values = values + np.where(here.surface == WATER, shore, 0)
    values = values * (here.light * 2048 + here.mottle) // (256 * 2048)
    return np.asarray(np.maximum(values, 20) + _grain(x, y, day, len(band)) % 53)


def _crops(band: str, plot: Integers, day: int) -> Integers:
    """Return the reflectance of fields by the number of the plot; tracks have a negative one."""
    crops = _crop_table(band, day % 365)
    track = 700 if band in ("blue", "green", "red") else 1900
    return np.where(plot < 0, track, np.take(crops, plot % len(crops)))


@lru_cache(maxsize=64)
def _crop_table(band: str, day_of_year: int) -> Integers:
    """Return the reflectance of all kinds of plots: what grows there, since when, on which soil.

    A crop is bare soil, greens as it grows, and ripens before the harvest.
    """
    plot = np.arange(_PLOT_KINDS, dtype=np.int64)
    sown = np.take(np.array([crop[1] for crop in _CROPS]), plot % len(_CROPS))
    length = np.take(np.array([crop[2] for crop in _CROPS]), plot % len(_CROPS)) - sown
    # Plots of the same crop are up to ten days apart.
    age = day_of_year - sown - plot % 11
    growth = np.clip(age * 512 // length, 0, 256)
    ripeness = np.clip((age - length * 2 // 3) * 768 // length, 0, 256)
    leaf = (256 - ripeness) * _GREEN_LEAF[band] + ripeness * _RIPE_LEAF[band] >> 8
    grown = (256 - growth) * _BARE_SOIL[band] + growth * leaf >> 8
    grown = np.where(age > length, _BARE_SOIL[band], grown)
    brightness = 200 + plot % 113
    return np.asarray(grown * brightness >> 8)


def is_cloud(easting: Array, northing: Array, day: int) -> Array:
    """Return where clouds are: ragged disks that move from day to day. Boolean.

    A disk has a radius of at most 1,100 m, in one of three squares of 6 km.
    """
    x, y = common_meters(easting, northing)
    x, y = x + day * 1700, y + day * 900
    dx, dy = x % 6000 - 3000, y % 6000 - 3000
    cell = (x // 6000 * 31 + y // 6000 * 17 + day) % 3
    distance = dx * dx + dy * dy
    found = np.asarray((distance < 1100 * 1100) & (cell == 0))
    if found.any():
        # The edge is ragged: the square of the radius varies between 55 and 100 %.
        x, y, distance = (np.broadcast_to(part, found.shape)[found] for part in (x, y, distance))
        shares = 36_000 + noise(x, y, 9, 61) * 29_536 // 65_536
        found[found] = distance < 1100 * 1100 // 65_536 * shares
    return found


def scene_class(easting: Array, northing: Array, day: int) -> Array:
    """Return the Sentinel-2 scene classification (SCL).

    Returns:
        4 vegetation, 5 not vegetated, 6 water, 9 cloud, 3 cloud shadow; int64.
    """
    x, y = common_meters(easting, northing)
    here = ground(x, y)
    is_green = _crops("nir", here.plot, day) > 2 * _crops("red", here.plot, day)
    classes = np.where((here.surface == FIELD) & ~is_green, 5, 4)
    classes = np.where(np.isin(here.surface, (SAND, TOWN, ROCK)), 5, classes)
    classes = np.where(here.surface == WATER, 6, classes)
    classes = np.where(_is_shadow(x, y, day), _SHADOW, classes)
    return np.where(is_cloud(x, y, day), _CLOUD, classes)


def land_class(easting: Array, northing: Array) -> Array:
    """Return the land cover: square patches of the classes in `LAND_CLASSES`; int64."""
    x, y = np.asarray(easting, np.int64), np.asarray(northing, np.int64)
    patch = (x // _PATCH_SIDE + 3 * (y // _PATCH_SIDE)) % len(LAND_CLASSES)
    return np.take(np.array(LAND_CLASSES), patch)


def elevation(easting: Array, northing: Array) -> Array:
    """Return the elevation in meters above sea level; water is at 0. float64."""
    x, y = common_meters(easting, northing)
    # Divisors are powers of two, so that the result is exact in float32.
    heights = np.maximum(ground(x, y).height, 0) / 128
    return np.where(land_class(x, y) == 1, 0, heights).astype(np.float64)


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
    x, y = np.asarray(easting, np.int64), np.asarray(northing, np.int64)
    speckle = _grain(x, y, day, len(polarization)) % 97
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
    x, y = common_meters(easting, northing)
    values = reflectance(band, x, y, day)
    clouded = is_cloud(x, y, day)
    shaded = _is_shadow(x, y, day) & ~clouded
    values[shaded] = values[shaded] * 5 // 8
    if clouded.any():
        x, y = (np.broadcast_to(part, clouded.shape)[clouded] for part in (x, y))
        billows = noise(x + day * 1700, y + day * 900, 8, 62) // 24
        values[clouded] = values[clouded] // 4 + 2600 + billows
    return values


def _grain(x: Integers, y: Integers, day: int, salt: int) -> Integers:
    """Return pseudo-random integers for squares of 10 m, by XOR of multiples of primes."""
    return x // 10 * 73856093 ^ y // 10 * 19349663 ^ day * 83492791 ^ salt * 2971215073


def _is_shadow(easting: Array, northing: Array, day: int) -> Array:
    """Return where cloud shadows are: clouds shifted by 400 m to the northwest. Boolean.

    The sun is in the southeast.
    """
    x, y = common_meters(easting, northing)
    return is_cloud(x + 400, y - 400, day)
