"""Statistics of bands over many chips: exact where pixels are integers, and mergeable.

Each band has a histogram of its valid pixels. Integers of at most 16 bits have a bin for each
value, so all that follows from it is exact, in whichever order cells are merged. Other numbers have
a bin for each value of the upper 16 bits of their float32: sums are float64 in the order of the
cells, and percentiles are exact to 0.8 %.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from scenebeam.products.chips.samples import ImageStack
from scenebeam.raster.validity import Array, valid_mask

_BINS = 2**16
_BATCH = 2**20
_PERCENTILES = (1, 2, 5, 25, 50, 75, 95, 98, 99)
SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("band", pa.string()),
        ("dtype", pa.string()),
        ("bin", pa.int32()),
        ("count", pa.int64()),
        ("sum", pa.float64()),
        ("squares", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
    ]
)
"""Of the table of a cell: a row for each bin. Sums are those of the pixels in the bin, and extremes
those of the band."""


@dataclass
class BandHistogram:
    """The histogram of a band."""

    dtype: str
    counts: Array = field(default_factory=lambda: np.zeros(_BINS, np.int64))
    sums: Array = field(default_factory=lambda: np.zeros(_BINS))
    squares: Array = field(default_factory=lambda: np.zeros(_BINS))
    low: float = np.inf
    high: float = -np.inf
    waiting: list[Array] = field(default_factory=list)
    """Pixels that are counted together: each count takes all bins."""
    waiting_pixels: int = 0

    @property
    def is_exact(self) -> bool:
        """Whether each bin is one value."""
        kind = np.dtype(self.dtype)
        return kind.kind in "ui" and kind.itemsize <= 2

    def add(self, values: Array) -> None:
        """Add valid pixels, shape (n,)."""
        self.waiting.append(values)
        self.waiting_pixels += len(values)
        if self.waiting_pixels >= _BATCH:
            self.flush()

    def flush(self) -> None:
        """Count the pixels that wait."""
        if not self.waiting:
            return
        values = np.concatenate(self.waiting)
        self.waiting, self.waiting_pixels = [], 0
        if values.dtype.kind == "f":
            values = values[np.isfinite(values)]
        if not values.size:
            return
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))
        if self.is_exact:
            lowest = int(np.iinfo(self.dtype).min)
            self.counts += np.bincount(values.astype(np.int64) - lowest, minlength=_BINS)
            return
        exact = values.astype(np.float64)
        # The order of these bits is that of the numbers, once the negative ones are turned.
        bits = values.astype(np.float32).view(np.uint32) >> 16
        bins = np.where(bits >> 15, 0xFFFF - bits, bits + 0x8000).astype(np.int64)
        self.counts += np.bincount(bins, minlength=_BINS)
        self.sums += np.bincount(bins, exact, minlength=_BINS)
        self.squares += np.bincount(bins, exact**2, minlength=_BINS)

    def values(self) -> Array:
        """Return the value that stands for each bin."""
        if self.is_exact:
            return np.arange(_BINS) + int(np.iinfo(self.dtype).min)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.counts > 0, self.sums / self.counts, 0.0)

    def describe(self) -> dict[str, float | int]:
        """Return count, mean, standard deviation, extremes and percentiles; only 0 if empty."""
        self.flush()
        count = int(self.counts.sum())
        if not count:
            return {"count": 0}
        values = self.values()
        filled = np.flatnonzero(self.counts)
        if self.is_exact:
            # Whole numbers of any size, so that nothing is rounded before the end.
            pairs = list(zip(values[filled].tolist(), self.counts[filled].tolist(), strict=True))
            total = sum(value * times for value, times in pairs)
            squares = sum(value * value * times for value, times in pairs)
            mean = total / count
            variance = (squares * count - total * total) / (count * count)
        else:
            mean = float(self.sums.sum()) / count
            variance = float(self.squares.sum()) / count - mean * mean
        described: dict[str, float | int] = {
            "count": count,
            "mean": mean,
            "std": float(np.sqrt(max(variance, 0.0))),
            "min": self.low,
            "max": self.high,
        }
        cumulative = np.cumsum(self.counts)
        for percentile in _PERCENTILES:
            # The nearest rank: the smallest value that has so many pixels at or below it.
            rank = max(int(np.ceil(percentile / 100 * count)), 1)
            described[f"p{percentile}"] = float(values[np.searchsorted(cumulative, rank)])
        return described


class ChipStatistics:
    """The histograms of all bands of all images."""

    def __init__(self) -> None:
        self._bands: dict[tuple[str, str], BandHistogram] = {}

    def add(self, stack: ImageStack) -> None:
        """Add the images of a chip."""
        for number, band in enumerate(stack.bands):
            pixels = stack.pixels[:, number].ravel()
            valid = valid_mask(pixels, stack.nodata)
            kept = pixels if valid is None else pixels[valid]
            self._band(stack.name, band.description, pixels.dtype.name).add(kept)

    def _band(self, image: str, band: str, dtype: str) -> BandHistogram:
        if (image, band) not in self._bands:
            self._bands[image, band] = BandHistogram(dtype)
        return self._bands[image, band]

    def to_table(self) -> pa.Table:
        """Return the bins that are not empty."""
        rows: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
        for (image, band), histogram in sorted(self._bands.items()):
            histogram.flush()
            for index in np.flatnonzero(histogram.counts).tolist():
                row = (
                    image,
                    band,
                    histogram.dtype,
                    index,
                    int(histogram.counts[index]),
                    float(histogram.sums[index]),
                    float(histogram.squares[index]),
                    histogram.low,
                    histogram.high,
                )
                for name, value in zip(SCHEMA.names, row, strict=True):
                    rows[name].append(value)
        return pa.table(rows, schema=SCHEMA)

    def merge(self, table: pa.Table) -> None:
        """Add the table of a cell."""
        for row in _groups(table):
            image, band, dtype, bins, counts, sums, squares, low, high = row
            histogram = self._band(image, band, dtype)
            histogram.low = min(histogram.low, float(low[0]))
            histogram.high = max(histogram.high, float(high[0]))
            histogram.counts[bins] += counts
            histogram.sums[bins] += sums
            histogram.squares[bins] += squares

    def describe(self) -> dict[str, dict[str, dict[str, float | int]]]:
        """Return image → band → statistics."""
        described: dict[str, dict[str, dict[str, float | int]]] = {}
        for (image, band), histogram in sorted(self._bands.items()):
            described.setdefault(image, {})[band] = histogram.describe()
        return described


def _groups(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    """Yield image, band and dtype of each band of a table, and its other columns as arrays."""
    images = np.asarray(table.column("image").to_pylist(), object)
    bands = np.asarray(table.column("band").to_pylist(), object)
    dtypes = table.column("dtype").to_pylist()
    columns = [table.column(name).to_numpy() for name in SCHEMA.names[3:]]
    for image, band in dict.fromkeys(zip(images.tolist(), bands.tolist(), strict=True)):
        one = np.flatnonzero((images == image) & (bands == band))
        yield image, band, dtypes[one[0]], *(column[one] for column in columns)
