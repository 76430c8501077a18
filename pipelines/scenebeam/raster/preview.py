"""Preview: a small PNG of an image, as people would look at it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import imagecodecs
import numpy as np

from scenebeam.errors import CheckError
from scenebeam.raster.sample import data_mask
from scenebeam.raster.source import Source
from scenebeam.raster.validity import Array

_LARGEST = 2**20
"""Pixels of a picture, at most."""
_READ_AT_ONCE = 16 * 2**20
"""Bytes of decoded blocks that a picture of an image without overviews is made from at once."""
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
    drawn = {
        name.lower(): picture for name, picture in pictures.items() if np.isfinite(picture).any()
    }
    if not drawn:
        raise CheckError("there is nothing to draw: no band has data")
    chosen = next((names for names in _COLOURS if all(name in drawn for name in names)), None)
    names = chosen or next(
        ([name] for name in _POLARIZATIONS if name in drawn), [next(iter(drawn))]
    )
    shape = drawn[names[0]].shape
    channels = [resized(drawn[name], *shape) for name in names]
    if names[0] in _POLARIZATIONS and unit == "linear":
        channels = [10 * np.log10(np.where(channel > 0, channel, np.nan)) for channel in channels]
    seen = np.isfinite(channels).all(axis=0)
    image = np.stack(
        [*(_stretched(channel) for channel in channels), np.where(seen, 255, 0).astype(np.uint8)]
    )
    return png(np.moveaxis(image, 0, -1))


def png(image: Array) -> bytes:
    """(rows, columns, channels) uint8 → PNG; of two or four channels the last is opacity."""
    # A copy: of an image of one pixel NumPy calls any strides contiguous, and the encoder does not.
    copied = np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape)
    return bytes(imagecodecs.png_encode(copied))


def _stretched(channel: Array) -> Array:
    low, high = (
        np.nanpercentile(channel, [_DARK, _BRIGHT]) if np.isfinite(channel).any() else (0, 1)
    )
    scaled = (np.nan_to_num(channel, nan=low) - low) / max(high - low, 1e-9)
    return np.asarray((255 * np.clip(scaled, 0, 1)).round(), np.uint8)


def resized(picture: Array, rows: int, columns: int) -> Array:
    """By the nearest pixel."""
    down = (np.arange(rows) + 0.5) * picture.shape[0] / rows
    right = (np.arange(columns) + 0.5) * picture.shape[1] / columns
    return np.asarray(picture[np.ix_(down.astype(int), right.astype(int))])


def picture(pixels: Array, nodata: float | None) -> Array:
    """Convert a 2-D piece of an image to float32, NaN where there is no data."""
    values = np.ma.getdata(pixels).astype(np.float32)
    return np.where(data_mask(pixels, nodata), values, np.float32(np.nan))


def small_picture(source: Source, nodata: float | None) -> Array:
    """Read a small picture of an open band: an overview, else every so many-th pixel of the image.

    An image without overviews is read whole, some blocks at a time, so that memory is bounded.

    Returns:
        2-D float32 of about a megapixel or less, NaN where there is no data.

    Raises:
        ReadError: The file is truncated, or cannot be decoded or read.
    """
    pieces = source.sample_overview()
    if len(pieces) == 1:
        return picture(pieces[0], nodata)
    info = source.info
    step = math.ceil(math.sqrt(info.height * info.width / _LARGEST))
    found = np.full((-(-info.height // step), -(-info.width // step)), np.nan, np.float32)
    height, width = info.block
    across = -(-info.width // width)
    at_once = max(1, _READ_AT_ONCE // source.block_bytes)
    for block_row in range(-(-info.height // height)):
        for first in range(0, across, at_once):
            columns = range(first, min(first + at_once, across))
            futures = source.fetch([(block_row, column) for column in columns])
            for (row, column), future in futures.items():
                # The first row and column of the block that are a multiple of the step.
                top, left = -(row * height) % step, -(column * width) % step
                few = picture(future.result()[top::step, left::step], nodata)
                down, right = (row * height + top) // step, (column * width + left) // step
                found[down : down + few.shape[0], right : right + few.shape[1]] = few
    return found
