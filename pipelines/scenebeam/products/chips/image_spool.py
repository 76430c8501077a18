"""Keep the images of a cell on local disk until its chips are packed.

Images are read scene by scene, in the order of the files, but a chip is packed with all its images.
"""

from __future__ import annotations

import shutil
import tempfile
from typing import IO

import numpy as np

from scenebeam.errors import StorageError
from scenebeam.raster.validity import Array

_SPARE = 64 * 2**20


class ImageSpool:
    """A temporary file of arrays. A context manager that removes it."""

    def __init__(self, expected: int) -> None:
        """Open a file.

        Args:
            expected: Bytes that it will hold.

        Raises:
            StorageError: The disk has less space.
        """
        free = shutil.disk_usage(tempfile.gettempdir()).free
        if free < expected + _SPARE:
            raise StorageError(
                f"the images of a cell need {expected / 1e6:,.0f} MB in {tempfile.gettempdir()}, "
                f"which has {free / 1e6:,.0f} MB free; free some space, or set TMPDIR"
            )
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="scenebeam-images-")  # noqa: SIM115
        self._places: dict[tuple[str, int, str], tuple[int, str, tuple[int, ...]]] = {}

    def __enter__(self) -> ImageSpool:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def add(self, name: str, number: int, scene: str, pixels: Array) -> None:
        """Add the image of a chip: the name of its collection, index of the chip, and scene."""
        offset = self._file.seek(0, 2)
        self._file.write(np.ascontiguousarray(pixels).data)
        self._places[name, number, scene] = offset, pixels.dtype.str, pixels.shape

    def has(self, name: str, number: int, scene: str) -> bool:
        """Whether an image has been added."""
        return (name, number, scene) in self._places

    def get(self, name: str, number: int, scene: str) -> Array:
        """Read an image back."""
        offset, dtype, shape = self._places[name, number, scene]
        self._file.seek(offset)
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer(self._file.read(size), dtype).reshape(shape)
