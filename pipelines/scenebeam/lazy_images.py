"""Images of an output as a lazy xarray array. Imports xarray, which is an extra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from scenebeam.raster.reader import open_source
from scenebeam.raster.source import Source, read_window
from scenebeam.raster.validity import Array
from scenebeam.transfer.retry import Budget


@dataclass(frozen=True)
class Decoding:
    """How numbers of files become float32 in physical units: scale * number + offset."""

    nodata: float | None
    scale: float
    offset: float

    def decode(self, values: Array) -> Array:
        """Convert numbers; NaN where there is no data."""
        decoded = values * np.float64(self.scale) + self.offset
        if self.nodata is not None and not np.isnan(self.nodata):
            decoded[values == self.nodata] = np.nan
        return np.asarray(decoded, np.float32)


class LazyImages(BackendArray):
    """One band of all images, of shape (time, rows, columns): each window is read on access.

    It is pickled without its open files, so that processes of dask can use it.
    """

    def __init__(
        self,
        files: Sequence[tuple[str, int] | None],
        dtype: np.dtype[Any],
        fill: float,
        shape: tuple[int, int],
        decoding: Decoding | None = None,
    ) -> None:
        """Describe the images; nothing is opened yet.

        Args:
            files: One file per time, and the index of the band in it, from 1; None where there is
                no image.
            dtype: Dtype of the pixels in the files.
            fill: Value where there is no image.
            shape: Rows and columns of every image.
            decoding: How to convert the numbers of the files; None: not at all.
        """
        self.shape = (len(files), *shape)
        self.dtype = dtype if decoding is None else np.dtype(np.float32)
        self._files, self._stored, self._fill = files, dtype, fill
        self._decoding = decoding
        self._sources: dict[int, Source] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_sources": {}}

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self._read
        )

    def _read(self, key: tuple[int | slice, ...]) -> Array:
        """Read the part that integers and slices select, one of them per dimension."""
        ranges = []
        for index, size in zip(key, self.shape, strict=True):
            part = index if isinstance(index, slice) else slice(index, index + 1)
            ranges.append(range(size)[part])
        times, rows, columns = ranges
        values = np.full((len(times), len(rows), len(columns)), self._fill, self._stored)
        if values.size:
            # The smallest window with all of the rows and columns, then those of them.
            top, bottom = min(rows), max(rows) + 1
            left, right = min(columns), max(columns) + 1
            inside = np.ix_(np.asarray(rows) - top, np.asarray(columns) - left)
            for place, number in enumerate(times):
                source = self._open(number)
                if source is not None:
                    window = read_window(source, top, left, bottom - top, right - left)
                    values[place] = window[inside]
        if self._decoding is not None:
            values = self._decoding.decode(values)
        return values[tuple(slice(None) if isinstance(index, slice) else 0 for index in key)]

    def _open(self, number: int) -> Source | None:
        file = self._files[number]
        if file is None:
            return None
        if number not in self._sources:
            self._sources[number] = open_source(*file, Budget(private=True))
        return self._sources[number]
