"""Pictures: what bands that lie in the store look like, read back from their coarsest overviews."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scenebeam.errors import CheckError
from scenebeam.raster.preview import png, preview, resized, small_picture
from scenebeam.raster.reader import open_source
from scenebeam.raster.validity import Array
from scenebeam.storage import Store
from scenebeam.transfer.retry import Budget

THUMBNAIL = "thumbnail.png"
LONGEST = 400
"""Pixels of a picture's longer side."""


def read_previews(store: Store, bands: Mapping[str, tuple[str, int]]) -> dict[str, Array]:
    """Bands by name, each a file's name and its number in it → 2-D floats of at most 400 px a side, NaN for no data.

    Raises ReadError where a file cannot be read back.
    """
    found = {}
    for name, (file, number) in bands.items():
        source = open_source(store.path(file), number, Budget(private=True))
        try:
            whole = small_picture(source, source.info.nodata)
        finally:
            source.close()
        shrink = min(1.0, LONGEST / max(whole.shape))
        found[name] = resized(whole, *(max(1, round(side * shrink)) for side in whole.shape))
    return found


def render_png(pictures: Mapping[str, Array], unit: str | None = None) -> bytes:
    """Pictures by band → PNG, as `preview` has it; all transparent where none has data. `unit` is radar's."""
    try:
        return preview(pictures, unit)
    except CheckError:
        return png(np.zeros((*next(iter(pictures.values())).shape, 2), np.uint8))
