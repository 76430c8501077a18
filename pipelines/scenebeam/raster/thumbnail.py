"""Thumbnails: small chips as people would look at them, all of one kind on one scale so that they compare."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scenebeam.raster.preview import png
from scenebeam.raster.validity import Array

_BRIGHT = 0.3
"""Reflectance that is white: most land is darker."""
_RANGES = ((-20.0, 0.0), (-26.0, -5.0), (0.0, 15.0))
"""dB that are black and white, of VV, of VH and of VV over VH."""
_SUN = (np.radians(315.0), np.radians(45.0))
"""Azimuth and height of the light over shaded relief, as cartographers have it."""


def natural_colour(reflectance: Mapping[str, Array]) -> bytes:
    """Bands of reflectance by name, 2-D → PNG: red, green, blue from 0 to 0.3; the first band in grey without them."""
    names = (
        ("red", "green", "blue")
        if {"red", "green", "blue"} <= reflectance.keys()
        else (next(iter(reflectance)),) * 3
    )
    return png(np.stack([_scaled(reflectance[name], 0.0, _BRIGHT) for name in names], axis=-1))


def backscatter(power: Mapping[str, Array]) -> bytes:
    """Linear backscatter by polarization, 2-D → PNG: VV, VH and their ratio in dB; the first in grey without them."""
    decibels = {name: 10 * np.log10(np.maximum(values, 1e-6)) for name, values in power.items()}
    if {"vv", "vh"} <= decibels.keys():
        channels = [decibels["vv"], decibels["vh"], decibels["vv"] - decibels["vh"]]
    else:
        channels = [next(iter(decibels.values()))] * 3
    return png(
        np.stack(
            [_scaled(one, *span) for one, span in zip(channels, _RANGES, strict=True)], axis=-1
        )
    )


def shaded(elevation: Array, pixel: float) -> bytes:
    """Elevation in metres, 2-D, at `pixel` metres a pixel → PNG of shaded relief.

    Slopes by third-order differences over 3 x 3 pixels (Horn 1981, Proc. IEEE 69(1), doi:10.1109/PROC.1981.11918).
    """
    z = np.pad(elevation.astype(np.float64), 1, mode="edge")
    west, east = (z[:-2, c] + 2 * z[1:-1, c] + z[2:, c] for c in (slice(None, -2), slice(2, None)))
    north, south = (
        z[r, :-2] + 2 * z[r, 1:-1] + z[r, 2:] for r in (slice(None, -2), slice(2, None))
    )
    across, up = (east - west) / (8 * pixel), (north - south) / (8 * pixel)
    azimuth, height = _SUN
    # The cosine between the ground's upward normal and the light.
    light = np.array(
        [np.sin(azimuth) * np.cos(height), np.cos(azimuth) * np.cos(height), np.sin(height)]
    )
    shade = (light[2] - across * light[0] - up * light[1]) / np.sqrt(1 + across**2 + up**2)
    grey = _scaled(shade, 0.0, 1.0)
    return png(np.stack([grey, grey, grey], axis=-1))


def classes(numbers: Array, colors: Mapping[int, str]) -> bytes:
    """Classes, 2-D, and the colour (`#419bdf`) of each → PNG; a class without one is grey."""
    image = np.full((*numbers.shape, 3), 128, np.uint8)
    for number in np.unique(numbers).tolist():
        if number in colors:
            image[numbers == number] = [int(colors[number][at : at + 2], 16) for at in (1, 3, 5)]
    return png(image)


def _scaled(values: Array, black: float, white: float) -> Array:
    return np.asarray(np.rint(255 * np.clip((values - black) / (white - black), 0, 1)), np.uint8)
