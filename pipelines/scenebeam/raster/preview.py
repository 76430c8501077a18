"""Previews: small PNG pictures of images, for people to look at."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from scenebeam.errors import CheckError
from scenebeam.raster.render import (
    Style,
    balanced_limits,
    choose_style,
    draw,
    encode_png,
    measure_limits,
    to_decibels,
)
from scenebeam.raster.sample import data_mask
from scenebeam.raster.source import Source
from scenebeam.raster.validity import Array

_MAX_PIXELS = 2**20
"""Pixels of a picture, at most."""
_READ_AT_ONCE = 16 * 2**20
"""Bytes of decoded blocks that are held at once, for an image without overviews."""


def render_preview(pictures: Mapping[str, Array]) -> bytes:
    """Render the bands of one image as a PNG with transparency, between limits of its own.

    Args:
        pictures: 2-D arrays by band name, NaN where there is no data. Shapes may differ.

    Raises:
        CheckError: No band has data.
    """
    drawable = {}
    for name, picture in pictures.items():
        if np.isfinite(picture).any():
            drawable[name.lower()] = picture
    if not drawable:
        raise CheckError("there is nothing to draw: no band has data")
    style = choose_style(list(drawable))
    bands = style_bands(style, drawable)
    limits = [measure_limits(band) or (0.0, 1.0) for band in bands]
    return encode_png(draw(style, bands, balanced_limits(style, limits)))


def style_bands(style: Style, pictures: Mapping[str, Array]) -> list[Array]:
    """Return the bands that a style draws, all of the shape of the first.

    Args:
        style: How the image is drawn.
        pictures: 2-D arrays by band name, NaN where there is no data. Shapes may differ.
    """
    shape = pictures[style.bands[0]].shape
    bands = [resize_nearest(pictures[name], *shape) for name in style.bands]
    return [to_decibels(band) for band in bands] if style.is_radar else bands


def resize_nearest(picture: Array, rows: int, columns: int) -> Array:
    """Resize an image by nearest neighbor.

    Args:
        picture: Array of shape (height, width), or with channels last.
        rows: Rows of the result.
        columns: Columns of the result.

    Returns:
        Array with that many rows and columns, same dtype.
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
