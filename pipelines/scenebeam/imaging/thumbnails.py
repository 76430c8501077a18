"""Render published bands as small pictures, from their coarsest overviews."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scenebeam.raster.preview import read_preview, resize_nearest, style_bands
from scenebeam.raster.reader import open_source
from scenebeam.raster.render import (
    Limits,
    choose_style,
    draw,
    encode_png,
    index_limits,
    measure_limits,
    reflectance_limits,
)
from scenebeam.raster.validity import Array
from scenebeam.storage import Store
from scenebeam.transfer.retry import Budget

THUMBNAIL = "thumbnail.png"
MAX_SIDE = 400
"""Pixels of the longer side of a picture."""


def read_previews(store: Store, bands: Mapping[str, tuple[str, int]]) -> dict[str, Array]:
    """Read small versions of bands.

    Args:
        store: The output.
        bands: Name of a band → key of its COG, and its index there from 1.

    Returns:
        Name → 2-D array of floats of at most MAX_SIDE pixels per side, NaN where there is no data.

    Raises:
        ReadError: A file cannot be read back.
    """
    previews = {}
    for name, (key, index) in bands.items():
        previews[name] = fit_preview(read_band(store, key, index))
    return previews


def read_band(store: Store, key: str, index: int) -> Array:
    """Read a small version of a published band: see `raster.preview.read_preview`.

    Args:
        store: The output.
        key: Key of the COG.
        index: Index of the band in it, from 1.

    Returns:
        2-D float32 array of about a megapixel or less, NaN where there is no data.

    Raises:
        ReadError: The file cannot be read back.
    """
    source = open_source(store.uri_for(key), index, Budget(private=True))
    try:
        return read_preview(source, source.info.nodata)
    finally:
        source.close()


def fit_preview(image: Array, side: int = MAX_SIDE) -> Array:
    """Shrink an image, by nearest neighbor, to at most some pixels per side.

    Args:
        image: Array of shape (rows, columns, …).
        side: Most pixels of its longer side.
    """
    shrink = min(1.0, side / max(image.shape[:2]))
    height, width = (max(1, round(length * shrink)) for length in image.shape[:2])
    return resize_nearest(image, height, width)


@dataclass(frozen=True)
class ThumbnailBand:
    """A band of an image, as its thumbnail shows it."""

    name: str
    """Common name, by which the bands of a color picture are chosen."""
    values: Array
    """2-D array in physical units, NaN where there is no data."""
    is_scaled: bool = False
    """Whether the values of an optical band are reflectance, rather than digital numbers."""
    categorical: bool = False
    index: bool = False
    """Whether it is a spectral index."""


def render_thumbnail(bands: Sequence[ThumbnailBand]) -> bytes:
    """Render an image as PNG.

    Reflectance is drawn between fixed limits, and so are indices from -1 to 1, so that all
    thumbnails of a run compare. The limits of anything else are measured.

    Args:
        bands: Bands of the image; the first of a name is drawn.

    Returns:
        The picture; all transparent if there is no data.
    """
    by_name: dict[str, ThumbnailBand] = {}
    for band in bands:
        by_name.setdefault(band.name, band)
    drawable = {name: band for name, band in by_name.items() if np.isfinite(band.values).any()}
    if not drawable:
        return encode_png(np.zeros((*bands[0].values.shape, 2), np.uint8))
    style = choose_style(
        list(drawable),
        categorical=[name for name, band in drawable.items() if band.categorical],
        indices=[name for name, band in drawable.items() if band.index],
    )
    drawn = style_bands(style, {name: band.values for name, band in drawable.items()})
    limits = []
    for name, values in zip(style.bands, drawn, strict=True):
        limits.append(_limits(drawable[name], values))
    return encode_png(draw(style, drawn, limits))


def _limits(band: ThumbnailBand, values: Array) -> Limits:
    limits = reflectance_limits(band.name) if band.is_scaled else None
    if limits is not None:
        return limits
    measured = measure_limits(values) or (0.0, 1.0)
    return index_limits(measured) if band.index else measured
