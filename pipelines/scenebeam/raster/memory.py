"""Read a small GeoTIFF from memory."""

from __future__ import annotations

import numpy as np
from rasterio.io import MemoryFile

from scenebeam.raster.validity import Array


def read_tiff(content: bytes) -> Array:
    """Read all bands of a GeoTIFF.

    Args:
        content: The file.

    Returns:
        Array of shape (bands, rows, columns), of the dtype of the file.
    """
    with MemoryFile(content) as memory, memory.open() as dataset:
        return np.asarray(dataset.read())
