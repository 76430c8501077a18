"""One variable of a cube as a lazy xarray array, whose windows are read on access."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from scenebeam.imaging.shards import Window
from scenebeam.raster.reader import open_source
from scenebeam.raster.source import read_window
from scenebeam.raster.validity import Array
from scenebeam.transfer.retry import Budget

_TIMES_AT_ONCE = 16
"""Small windows of different times that are read at once: they mostly wait for the network."""
_PIXELS_AT_ONCE = 2**24
"""Pixels of windows that are read at once, unless a single one has more."""


class WindowReader(Protocol):
    """Reads one band of one time. It is picklable, and holds no open file."""

    def read(self, window: Window) -> Array:
        """Return the pixels of a window; a masked array where no nodata value marks holes."""


@dataclass(frozen=True)
class FileBand:
    """A band of a raster file on the grid of the cube."""

    href: str
    index: int
    """From 1."""

    def read(self, window: Window) -> Array:
        top, bottom, left, right = window
        # The header of a file stays known to the process: to open it again costs no round trip.
        source = open_source(self.href, self.index, Budget(private=True))
        try:
            return read_window(source, top, left, bottom - top, right - left)
        finally:
            source.close()


@dataclass(frozen=True)
class Decoding:
    """How stored numbers become float32 in physical units: scale * number + offset."""

    nodata: float | None
    scale: float
    offset: float

    def decode(self, values: Array) -> Array:
        """Convert numbers; NaN where there is no data."""
        hidden = np.ma.getmaskarray(values) if np.ma.is_masked(values) else None
        numbers = np.asarray(values)
        decoded = numbers * np.float64(self.scale) + self.offset
        if self.nodata is not None and not np.isnan(self.nodata):
            decoded[numbers == self.nodata] = np.nan
        if hidden is not None:
            decoded[hidden] = np.nan
        return np.asarray(decoded, np.float32)


class LazyCube(BackendArray):
    """One band of all times, of shape (time, rows, columns). Safe to pickle, and to share."""

    def __init__(
        self,
        readers: Sequence[WindowReader | None],
        dtype: np.dtype[Any],
        fill: float,
        shape: tuple[int, int],
        decoding: Decoding | None = None,
    ) -> None:
        """Describe the array; nothing is read yet.

        Args:
            readers: One per time; None where the band is missing.
            dtype: Dtype of the stored pixels.
            fill: Value where there is no data.
            shape: Rows and columns of every image.
            decoding: How to convert the stored numbers; None: not at all.
        """
        self.shape = (len(readers), *shape)
        self.dtype = dtype if decoding is None else np.dtype(np.float32)
        self._readers, self._stored, self._fill = readers, dtype, fill
        self._decoding = decoding

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
        values: Array = np.empty((len(times), len(rows), len(columns)), self.dtype)
        if values.size:
            self._read_times(values, times, rows, columns)
        return values[tuple(slice(None) if isinstance(index, slice) else 0 for index in key)]

    def _read_times(self, values: Array, times: range, rows: range, columns: range) -> None:
        # The smallest window with all of the rows and columns, then those of them.
        window = min(rows), max(rows) + 1, min(columns), max(columns) + 1
        top, bottom, left, right = window
        steps = slice(None, None, rows.step), slice(None, None, columns.step)

        def read(place: int, number: int) -> None:
            values[place] = self._read_time(number, window)[steps]

        pixels = (bottom - top) * (right - left)
        at_once = min(len(times), max(1, min(_TIMES_AT_ONCE, _PIXELS_AT_ONCE // pixels)))
        if at_once == 1:
            for place, number in enumerate(times):
                read(place, number)
            return
        with ThreadPoolExecutor(at_once, thread_name_prefix="time") as threads:
            list(threads.map(read, range(len(times)), times))

    def _read_time(self, number: int, window: Window) -> Array:
        reader = self._readers[number]
        top, bottom, left, right = window
        if reader is None:
            pixels: Array = np.full((bottom - top, right - left), self._fill, self._stored)
        else:
            pixels = reader.read(window)
        if self._decoding is not None:
            return self._decoding.decode(pixels)
        return np.ma.filled(pixels, self._fill)
