"""Render published bands as small pictures, from their coarsest overviews."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scenebeam.errors import CheckError
from scenebeam.raster.preview import encode_png, read_preview, render_preview, resize_nearest
from scenebeam.raster.reader import open_source
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
        source = open_source(store.uri_for(key), index, Budget(private=True))
        try:
            overview = read_preview(source, source.info.nodata)
        finally:
            source.close()
        previews[name] = fit_preview(overview)
    return previews


def fit_preview(overview: Array) -> Array:
    """Shrink an overview, by nearest neighbor, to at most MAX_SIDE pixels per side.

    Args:
        overview: 2-D array.
    """
    shrink = min(1.0, MAX_SIDE / max(overview.shape))
    height, width = (max(1, round(side * shrink)) for side in overview.shape)
    return resize_nearest(overview, height, width)


def render_png(previews: Mapping[str, Array], unit: str | None = None) -> bytes:
    """Render previews as PNG, as `raster.preview.render_preview` does.

    Args:
        previews: Name of a band → preview, all of the same shape.
        unit: Unit of the pixels, for radar.

    Returns:
        The picture; all transparent if there is no data.
    """
    try:
        return render_preview(previews, unit)
    except CheckError:
        shape = next(iter(previews.values())).shape
        return encode_png(np.zeros((*shape, 2), np.uint8))
