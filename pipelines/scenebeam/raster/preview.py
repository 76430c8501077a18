"""Preview: a small PNG of an image, as people would look at it."""

from __future__ import annotations

from collections.abc import Mapping

import imagecodecs
import numpy as np

from scenebeam.errors import CheckError
from scenebeam.raster.merge import Array

_DARK, _BRIGHT = 2, 98
"""Percentiles that are black and white."""
_COLOURS = (
    ("red", "green", "blue"),
    ("visual_red", "visual_green", "visual_blue"),
    ("nir", "red", "green"),
    ("nir08", "red", "green"),
)
_POLARIZATIONS = ("vv", "vh", "hh", "hv")


def preview(pictures: Mapping[str, Array], unit: str | None = None) -> bytes:
    """Bands by name (2-D, NaN where there is no data) → PNG with transparency, stretched between percentiles.

    True colour where the bands are there, else false colour, else the first band in grey. Radar is drawn in dB, `unit`
    being that of its numbers. Raises CheckError where there is nothing to draw.
    """
    drawn = {name.lower(): picture for name, picture in pictures.items() if np.isfinite(picture).any()}
    if not drawn:
        raise CheckError("there is nothing to draw: no band has data")
    chosen = next((names for names in _COLOURS if all(name in drawn for name in names)), None)
    names = chosen or next(([name] for name in _POLARIZATIONS if name in drawn), [next(iter(drawn))])
    shape = drawn[names[0]].shape
    channels = [resized(drawn[name], *shape) for name in names]
    if names[0] in _POLARIZATIONS and unit == "linear":
        channels = [10 * np.log10(np.where(channel > 0, channel, np.nan)) for channel in channels]
    seen = np.isfinite(channels).all(axis=0)
    image = np.stack([*(_stretched(channel) for channel in channels), np.where(seen, 255, 0).astype(np.uint8)])
    return png(np.moveaxis(image, 0, -1))


def png(image: Array) -> bytes:
    """(rows, columns, channels) uint8 → PNG; of two or four channels the last is opacity."""
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(image)))


def _stretched(channel: Array) -> Array:
    low, high = np.nanpercentile(channel, [_DARK, _BRIGHT]) if np.isfinite(channel).any() else (0, 1)
    scaled = (np.nan_to_num(channel, nan=low) - low) / max(high - low, 1e-9)
    return np.asarray((255 * np.clip(scaled, 0, 1)).round(), np.uint8)


def resized(picture: Array, rows: int, columns: int) -> Array:
    """By the nearest pixel."""
    down = (np.arange(rows) + 0.5) * picture.shape[0] / rows
    right = (np.arange(columns) + 0.5) * picture.shape[1] / columns
    return np.asarray(picture[np.ix_(down.astype(int), right.astype(int))])
