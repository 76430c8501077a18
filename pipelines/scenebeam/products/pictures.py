"""Pictures: a small PNG of bands that lie in the store, read from their coarsest overviews."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scenebeam.errors import CheckError
from scenebeam.raster.preview import drawn, png, preview, resized
from scenebeam.raster.reader import open_source
from scenebeam.raster.validate import picture
from scenebeam.storage import Store
from scenebeam.transfer.ranges import Budget

THUMBNAIL = "thumbnail.png"
_LONGEST = 400
"""Pixels of a picture's longer side."""


def draw(store: Store, bands: Mapping[str, tuple[str, int]], unit: str | None = None) -> bytes:
    """Bands by name, each a file's name and its number in it → PNG of those that `preview` draws; `unit` is radar's.

    All transparent where none of them has data. Raises ReadError where a file cannot be read back.
    """
    pictures = {}
    for name in drawn(bands):
        file, number = bands[name]
        source = open_source(store.path(file), number, Budget())
        whole = picture(source.look()[0], source.info.nodata)
        source.close()
        shrink = min(1.0, _LONGEST / max(whole.shape))
        pictures[name] = resized(whole, *(max(1, round(side * shrink)) for side in whole.shape))
    try:
        return preview(pictures, unit)
    except CheckError:
        return png(np.zeros((*next(iter(pictures.values())).shape, 2), np.uint8))
