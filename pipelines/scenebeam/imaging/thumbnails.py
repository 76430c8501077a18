"""Pictures: what bands that lie in the store look like, read back from their coarsest overviews."""

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
"""Pixels of a picture's longer side."""


def read_previews(store: Store, bands: Mapping[str, tuple[str, int]]) -> dict[str, Array]:
    """Bands by name, each a file's name and its number in it → 2-D floats of at most 400 px a side, NaN for no data.

    Raises ReadError where a file cannot be read back.
    """
    found = {}
    for name, (file, number) in bands.items():
        source = open_source(store.uri_for(file), number, Budget(private=True))
        try:
            whole = read_preview(source, source.info.nodata)
        finally:
            source.close()
        shrink = min(1.0, MAX_SIDE / max(whole.shape))
        found[name] = resize_nearest(whole, *(max(1, round(side * shrink)) for side in whole.shape))
    return found


def render_png(pictures: Mapping[str, Array], unit: str | None = None) -> bytes:
    """Pictures by band → PNG, as `raster.preview.render_preview`; all transparent where none has data. `unit` is radar's."""
    try:
        return render_preview(pictures, unit)
    except CheckError:
        return encode_png(np.zeros((*next(iter(pictures.values())).shape, 2), np.uint8))
