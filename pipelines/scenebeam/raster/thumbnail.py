"""Thumbnails: PNG pictures of small chips, all of a kind on the same scale so that they compare."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scenebeam.raster.render import draw_classes, encode_png, scale
from scenebeam.raster.validity import Array

_WHITE = 0.3
"""Reflectance that is drawn white: most land is darker."""
_DB_RANGES = ((-20.0, 0.0), (-26.0, -5.0), (0.0, 15.0))
"""dB that are drawn black and white: of VV, of VH, and of their ratio."""
_MIN_POWER = 1e-6
"""Lowest power that is converted to dB."""
_SUN = (np.radians(315.0), np.radians(45.0))
"""Azimuth and height of the light of shaded relief: northwest, as is customary on maps."""


def natural_color(reflectance: Mapping[str, Array]) -> bytes:
    """Render red, green and blue reflectance from 0 to 0.3 as PNG.

    Args:
        reflectance: 2-D arrays by band; pixels that are NaN in any are transparent. Without red,
            green and blue, the first band is drawn in gray.
    """
    names = ("red", "green", "blue")
    if not reflectance.keys() >= set(names):
        names = (next(iter(reflectance)),) * 3
    channels = [_scaled(np.nan_to_num(reflectance[name]), 0.0, _WHITE) for name in names]
    unknown = np.logical_or.reduce([np.isnan(reflectance[name]) for name in names])
    if unknown.any():
        channels.append(np.where(unknown, 0, 255).astype(np.uint8))
    return encode_png(np.stack(channels, axis=-1))


def backscatter(power: Mapping[str, Array]) -> bytes:
    """Render VV, VH and their ratio in dB as PNG.

    Args:
        power: 2-D linear backscatter by polarization. Without VV and VH, the first one is drawn.
    """
    decibels = {name: 10 * np.log10(np.maximum(p, _MIN_POWER)) for name, p in power.items()}
    if {"vv", "vh"} <= decibels.keys():
        channels = [decibels["vv"], decibels["vh"], decibels["vv"] - decibels["vh"]]
    else:
        channels = [next(iter(decibels.values()))] * 3
    scaled = []
    for channel, (black, white) in zip(channels, _DB_RANGES, strict=True):
        scaled.append(_scaled(channel, black, white))
    return encode_png(np.stack(scaled, axis=-1))


def shaded(elevation: Array, pixel: float) -> bytes:
    """Render elevation as shaded relief, as PNG.

    Slopes are third-order finite differences over 3 x 3 pixels (Horn 1981, Proc. IEEE 69(1),
    doi:10.1109/PROC.1981.11918).

    Args:
        elevation: 2-D array in meters.
        pixel: Size of a pixel in meters.
    """
    z = np.pad(elevation.astype(np.float64), 1, mode="edge")
    west = z[:-2, :-2] + 2 * z[1:-1, :-2] + z[2:, :-2]
    east = z[:-2, 2:] + 2 * z[1:-1, 2:] + z[2:, 2:]
    north = z[:-2, :-2] + 2 * z[:-2, 1:-1] + z[:-2, 2:]
    south = z[2:, :-2] + 2 * z[2:, 1:-1] + z[2:, 2:]
    slope_east, slope_north = (east - west) / (8 * pixel), (north - south) / (8 * pixel)
    azimuth, height = _SUN
    light = np.array(
        [np.sin(azimuth) * np.cos(height), np.cos(azimuth) * np.cos(height), np.sin(height)]
    )
    # Cosine of the angle between the light and the normal (-slope_east, -slope_north, 1).
    length = np.sqrt(1 + slope_east**2 + slope_north**2)
    shade = (light[2] - slope_east * light[0] - slope_north * light[1]) / length
    gray = _scaled(shade, 0.0, 1.0)
    return encode_png(np.stack([gray, gray, gray], axis=-1))


def classes(numbers: Array, colors: Mapping[int, str]) -> bytes:
    """Render classes as PNG.

    Args:
        numbers: 2-D array of classes.
        colors: Color of each class, such as `#419bdf`; classes without one are gray.
    """
    return encode_png(draw_classes(numbers, np.ones(numbers.shape, bool), colors))


def _scaled(values: Array, black: float, white: float) -> Array:
    return np.asarray(np.rint(255 * scale(values, (black, white))), np.uint8)
