"""Previews: small PNG pictures of images, for people to look at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import imagecodecs
import numpy as np

from scenebeam.errors import CheckError
from scenebeam.raster.sample import data_mask
from scenebeam.raster.source import Source
from scenebeam.raster.validity import Array

_MAX_PIXELS = 2**20
"""Pixels of a picture, at most."""
_READ_AT_ONCE = 16 * 2**20
"""Bytes of decoded blocks that are held at once, for an image without overviews."""
_BLACK, _WHITE = 2, 98
"""Percentiles that are drawn black and white."""
_COMPOSITES = (
    ("red", "green", "blue"),
    ("visual_red", "visual_green", "visual_blue"),
    ("nir", "red", "green"),
    ("nir08", "red", "green"),
)
_POLARIZATIONS = ("vv", "vh", "hh", "hv")


def render_preview(pictures: Mapping[str, Array], unit: str | None = None) -> bytes:
    """Render bands as a PNG with transparency, stretched between percentiles.

    True color if the bands are there, else false color, else one band in gray.

    Args:
        pictures: 2-D arrays by band name, NaN where there is no data. Shapes may differ.
        unit: Unit of radar bands; "linear" ones are drawn in dB.

    Raises:
        CheckError: No band has data.
    """
    drawable = {}
    for name, picture in pictures.items():
        if np.isfinite(picture).any():
            drawable[name.lower()] = picture
    if not drawable:
        raise CheckError("there is nothing to draw: no band has data")
    names = _bands_to_draw(list(drawable))
    shape = drawable[names[0]].shape
    channels = [resize_nearest(drawable[name], *shape) for name in names]
    if names[0] in _POLARIZATIONS and unit == "linear":
        channels = [10 * np.log10(np.where(channel > 0, channel, np.nan)) for channel in channels]
    opacity = np.where(np.isfinite(channels).all(axis=0), 255, 0).astype(np.uint8)
    image = np.stack([*(_stretched(channel) for channel in channels), opacity], axis=-1)
    return encode_png(image)


def _bands_to_draw(names: Sequence[str]) -> Sequence[str]:
    """Three bands to draw in color, or one to draw in gray."""
    for composite in _COMPOSITES:
        if all(name in names for name in composite):
            return composite
    for polarization in _POLARIZATIONS:
        if polarization in names:
            return [polarization]
    return [names[0]]


def encode_png(image: Array) -> bytes:
    """Encode an image as PNG.

    Args:
        image: uint8 array of shape (rows, columns, channels): gray or RGB. With two or four
            channels, the last one is opacity.
    """
    # A copy with the usual strides: NumPy calls an image of one pixel contiguous whatever its
    # strides are, but the encoder does not.
    copied = np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape)
    # The fastest level: a thumbnail is 3 % larger, in less than half of the time.
    return bytes(imagecodecs.png_encode(copied, level=1))


def _stretched(channel: Array) -> Array:
    """Scale a channel to 0 … 255 between its percentiles."""
    low, high = 0.0, 1.0
    if np.isfinite(channel).any():
        low, high = np.nanpercentile(channel, [_BLACK, _WHITE])
    scaled = (np.nan_to_num(channel, nan=low) - low) / max(high - low, 1e-9)
    return np.asarray((255 * np.clip(scaled, 0, 1)).round(), np.uint8)


def resize_nearest(picture: Array, rows: int, columns: int) -> Array:
    """Resize a 2-D array by nearest neighbor.

    Args:
        picture: Array of any shape (height, width).
        rows: Rows of the result.
        columns: Columns of the result.

    Returns:
        Array of shape (rows, columns), same dtype.
    """
    row_centers = (np.arange(rows) + 0.5) * picture.shape[0] / rows
    column_centers = (np.arange(columns) + 0.5) * picture.shape[1] / columns
    return np.asarray(picture[np.ix_(row_centers.astype(int), column_centers.astype(int))])


def to_picture(pixels: Array, nodata: float | None) -> Array:
    """Convert 2-D pixels to float32, NaN where there is no data."""
    values = np.ma.getdata(pixels).astype(np.float32)
    return np.where(data_mask(pixels, nodata), values, np.float32(np.nan))


def read_preview(source: Source, nodata: float | None) -> Array:
    """Read a small picture of an open band: an overview, or every n-th pixel.

    An image without overviews is read completely, some blocks at a time, so that memory is bounded.

    Args:
        source: The band.
        nodata: Nodata value.

    Returns:
        2-D float32 array of about a megapixel or less, NaN where there is no data.

    Raises:
        ReadError: The file is truncated, or cannot be decoded or read.
    """
    pieces = source.sample_overview()
    if len(pieces) == 1:
        return to_picture(pieces[0], nodata)
    info = source.info
    step = math.ceil(math.sqrt(info.height * info.width / _MAX_PIXELS))
    picture = np.full((-(-info.height // step), -(-info.width // step)), np.nan, np.float32)
    height, width = info.block
    across = -(-info.width // width)
    at_once = max(1, _READ_AT_ONCE // source.block_bytes)
    for block_row in range(-(-info.height // height)):
        for first in range(0, across, at_once):
            columns = range(first, min(first + at_once, across))
            futures = source.fetch([(block_row, column) for column in columns])
            for (row, column), future in futures.items():
                # The first row and column of the block that are multiples of the step.
                top, left = -(row * height) % step, -(column * width) % step
                part = to_picture(future.result()[top::step, left::step], nodata)
                down, right = (row * height + top) // step, (column * width + left) // step
                picture[down : down + part.shape[0], right : right + part.shape[1]] = part
    return picture
