"""Read a band onto the grid of its stack, and summarize its pixels as they pass by."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from scenebeam.imaging.bands import resolve_nodata
from scenebeam.imaging.thumbnails import MAX_SIDE
from scenebeam.products.stacks.task import StackBand, StackTask
from scenebeam.raster.compose import compose
from scenebeam.raster.grid import Grid
from scenebeam.raster.layers import BandLayers, Layer
from scenebeam.raster.preview import to_picture
from scenebeam.raster.sample import Sample
from scenebeam.raster.source import RasterInfo, Source
from scenebeam.raster.validity import Array, valid_count


def nodata_of(band: StackBand, info: RasterInfo) -> float | None:
    """Return the nodata value of a band: that of its collection, or else of its file.

    Raises:
        CheckError: Both are declared, and they differ.
    """
    return resolve_nodata(info.href, info.nodata, band.asset.nodata)


@dataclass
class BandContent:
    """Facts about the pixels of a band on the grid of its stack."""

    sample: Sample
    valid: int = 0
    """Number of valid pixels."""
    masked: bool = False
    """Whether there are invalid pixels that no nodata value marks."""
    range: tuple[float, float] | None = None
    """Smallest and largest valid pixel, if there is no nodata value."""
    preview: Array | None = None
    """Every n-th pixel as float, NaN where there is no data; at most MAX_SIDE pixels per side."""

    @classmethod
    def of(cls, grid: Grid) -> BandContent:
        """Create an empty summary for a grid."""
        return cls(Sample(grid.shape[0] * grid.shape[1]))

    def add(self, pixels: Array, nodata: float | None) -> None:
        """Add the next rows of the grid.

        Args:
            pixels: Array of shape (rows, columns).
            nodata: Nodata value; without one, invalid pixels are masked.
        """
        self.sample.add(pixels, nodata)
        count = valid_count(pixels, nodata)
        self.valid += count
        self.masked |= bool(np.ma.is_masked(pixels))
        if nodata is None and count:
            smallest, largest = float(pixels.min()), float(pixels.max())
            if self.range is not None:
                smallest, largest = min(self.range[0], smallest), max(self.range[1], largest)
            self.range = smallest, largest

    def unused_number(self, dtype: np.dtype[Any]) -> float | None:
        """Return a number that no valid pixel has, as nodata value; None if there is none.

        Args:
            dtype: Dtype of the band.
        """
        if dtype.kind == "f":
            return math.nan
        limits = np.iinfo(dtype)
        smallest, largest = self.range or (1.0, 1.0)
        if smallest > limits.min:
            return float(limits.min)
        return float(limits.max) if largest < limits.max else None


def band_row_chunks(
    task: StackTask,
    band: StackBand,
    source: Source,
    grid: Grid,
    nodata: float | None,
    whole: Grid | None = None,
) -> Iterator[Array]:
    """Read a band onto the grid of its stack, from top to bottom.

    Args:
        task: The task.
        band: The band.
        source: Its open file.
        grid: The grid of its stack.
        nodata: Its nodata value.
        whole: The grid of its stack, if `grid` is only a part of it.

    Yields:
        Arrays of shape (rows, columns), in the dtype of the file.

    Raises:
        LayerError: The file is blank or permanently broken.
        ReadError: The file may be readable later.
    """
    add_offset = 0 if task.values == "raw" else band.asset.add_offset
    layer = Layer(task.scene.id, source, add_offset)
    layers = BandLayers(band.name, [layer], source.info.dtype, nodata, band.resampling, "first")
    for _, _, pixels in compose(grid, [layers], whole):
        yield pixels


def summarize_band(task: StackTask, band: StackBand, source: Source, grid: Grid) -> BandContent:
    """Decode all of a band that is on the grid, and summarize it with a preview.

    Args:
        task: The task.
        band: The band.
        source: Its open file.
        grid: The grid of its stack.

    Raises:
        LayerError: The file is blank or permanently broken.
        ReadError: The file may be readable later.
    """
    content = BandContent.of(grid)
    nodata = nodata_of(band, source.info)
    step = max(1, math.ceil(max(grid.shape) / MAX_SIDE))
    previews, top = [], 0
    for pixels in band_row_chunks(task, band, source, grid, nodata):
        content.add(pixels, nodata)
        # Rows of the preview are multiples of `step` in the grid, whatever the chunks are.
        first = -top % step
        previews.append(to_picture(pixels[first::step, ::step], nodata))
        top += len(pixels)
    content.preview = np.concatenate(previews)
    return content
