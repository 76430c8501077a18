"""Encode: bands on the grid of their stack, one by one as pixels or as tiles, together as one COG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from scenebeam.imaging.bands import resolve_nodata
from scenebeam.imaging.encode import ImageEncoder, publish_cog
from scenebeam.imaging.parts import StoredPart
from scenebeam.imaging.thumbnails import MAX_SIDE
from scenebeam.metadata import stac_items
from scenebeam.products.stacks.item import MadeStack, scale_offset
from scenebeam.products.stacks.task import StackBand, StackTask
from scenebeam.raster.cog import CogBand, CogProfile
from scenebeam.raster.compose import BandLayers, Layer, compose
from scenebeam.raster.grid import Grid
from scenebeam.raster.merge import cast_nodata
from scenebeam.raster.preview import to_picture
from scenebeam.raster.pyramid import level_shapes
from scenebeam.raster.sample import Sample
from scenebeam.raster.source import RasterInfo, Source
from scenebeam.raster.validity import Array, valid_count
from scenebeam.storage import Store
from scenebeam.tasks import GridSpec

_KEPT_FROM = 2**24
"""Pixels of a band from which it is kept when it is finished: what is made in a second is made again."""


@dataclass(frozen=True)
class PixelEncoding:
    """How the numbers of one stack are written, those of all its bands."""

    dtype: np.dtype[Any]
    nodata: float | None


def common_encoding(bands: Sequence[tuple[StackBand, RasterInfo]]) -> PixelEncoding:
    """A GeoTIFF has one dtype, which holds the numbers of all bands, and one nodata value: the first band's."""
    dtype = np.result_type(*(info.dtype for _, info in bands))
    return PixelEncoding(
        dtype,
        next(
            (nodata for band, info in bands if (nodata := nodata_of(band, info)) is not None), None
        ),
    )


def nodata_of(band: StackBand, info: RasterInfo) -> float | None:
    """The nodata value of a band: its collection's, else its file's."""
    return resolve_nodata(info.href, info.nodata, band.asset.nodata)


@dataclass
class BandOnGrid:
    """What there is of a band on the grid: how many pixels hold data, and a sample of all."""

    sample: Sample
    valid: int = 0
    masked: bool = False
    """Whether there are holes that no nodata value marks."""
    range: tuple[float, float] | None = None
    """Least and greatest number among the pixels that hold data, where there is no nodata value."""
    picture: Array | None = None
    """Every so many-th pixel as floats, NaN where there is no data; at most 400 a side."""

    @classmethod
    def of(cls, grid: Grid) -> BandOnGrid:
        """Return one that has seen nothing of `grid` yet."""
        return cls(Sample(grid.shape[0] * grid.shape[1]))

    def add(self, pixels: Array, nodata: float | None) -> None:
        """Take some rows of the grid into account."""
        self.sample.add(pixels, nodata)
        count = valid_count(pixels, nodata)
        self.valid += count
        self.masked |= bool(np.ma.is_masked(pixels))
        if nodata is None and count:
            least, greatest = float(pixels.min()), float(pixels.max())
            seen = self.range or (least, greatest)
            self.range = min(seen[0], least), max(seen[1], greatest)

    def free_number(self, dtype: np.dtype[Any]) -> float | None:
        """Return a number that no pixel with data has, to mark holes by; None if there is none."""
        if dtype.kind == "f":
            return math.nan
        limits, (least, greatest) = np.iinfo(dtype), self.range or (1.0, 1.0)
        if least > limits.min:
            return float(limits.min)
        return float(limits.max) if greatest < limits.max else None


def decode_band(task: StackTask, band: StackBand, source: Source, grid: Grid) -> BandOnGrid:
    """Decode all of a band that lies on the grid. Raises as `raster.compose.compose`."""
    found = BandOnGrid.of(grid)
    nodata = nodata_of(band, source.info)
    step = max(1, math.ceil(max(grid.shape) / MAX_SIDE))
    pictures, row = [], 0
    for pixels in _composed(task, band, source, grid, nodata):
        found.add(pixels, nodata)
        pictures.append(to_picture(pixels[-row % step :: step, ::step], nodata))
        row += len(pixels)
    found.picture = np.concatenate(pictures)
    return found


def _composed(
    task: StackTask,
    band: StackBand,
    source: Source,
    grid: Grid,
    nodata: float | None,
) -> Iterator[Array]:
    """Yield a band on the grid of its stack, some rows at a time, in its own dtype."""
    shift = 0 if task.values == "raw" else band.asset.add_offset
    layer = Layer(task.scene.id, source, shift)
    layers = BandLayers(band.name, [layer], source.info.dtype, nodata, band.resampling, "first")
    for _, _, pixels in compose(grid, [layers], task.ahead):
        yield pixels


@dataclass
class Encoded:
    """A band of a stack, encoded."""

    image: ImageEncoder | StoredPart
    """In memory, or stored as a part."""
    content: BandOnGrid
    key: str
    """Key of its part."""
    facts: dict[str, Any]

    def keep(self, store: Store) -> None:
        """Store it as a part, for the run that can finish its stack."""
        if isinstance(self.image, ImageEncoder):
            height, width = self.facts["grid"]["shape"]
            self.image.store_part(store, self.key, (0, height, 0, width), self.facts)


def encode_band(
    task: StackTask,
    band: StackBand,
    source: Source,
    grid: Grid,
    numbers: PixelEncoding,
    store: Store,
    parts: set[str],
    kept: ExitStack,
) -> Encoded:
    """Read a band onto the grid and encode it, unless the store has a part of it.

    Args:
        task: The task of the scene.
        band: The band.
        source: Its open file.
        grid: The grid of its stack.
        numbers: The encoding of its stack.
        store: The output.
        parts: Keys of the parts in the store.
        kept: Closes the local copy of a part that is used.
    """
    key = task.part_key(band.name)
    facts: dict[str, Any] = {
        "grid": GridSpec.of(grid).model_dump(mode="json"),
        "numbers": [numbers.dtype.str, repr(numbers.nodata)],
    }
    if key in parts:
        part = StoredPart(kept.enter_context(store.local_copy(key)))
        stored = part.header.facts
        if {name: stored[name] for name in facts} == facts:
            sample = Sample.from_values(stored["sample"], stored["total"])
            return Encoded(part, BandOnGrid(sample, stored["valid"]), key, stored)
    own_nodata = nodata_of(band, source.info)
    image = ImageEncoder(
        level_shapes(*grid.shape),
        numbers.dtype,
        numbers.nodata,
        codec=task.codec,
        average=not band.asset.categorical,
    )
    content = BandOnGrid.of(grid)
    for pixels in _composed(task, band, source, grid, own_nodata):
        content.add(pixels, own_nodata)
        image.add(cast_nodata(pixels, own_nodata, numbers.dtype, numbers.nodata))
    sample = content.sample
    facts |= {"valid": content.valid, "total": sample.total, "sample": sample.values.tolist()}
    encoded = Encoded(image, content, key, facts)
    if grid.shape[0] * grid.shape[1] >= _KEPT_FROM:
        encoded.keep(store)
    return encoded


def write_stack(
    task: StackTask,
    stack: str,
    bands: Sequence[StackBand],
    encoded: Sequence[Encoded],
    grid: Grid,
    numbers: PixelEncoding,
    store: Store,
) -> MadeStack:
    """Publish the bands of one stack as one COG."""
    profile = CogProfile.for_grid(
        grid,
        numbers.dtype,
        numbers.nodata,
        codec=task.codec,
        bands=tuple(CogBand(band.name, *scale_offset(band, task.values)) for band in bands),
        tags={
            "SCENEBEAM_VALUES": task.values,
            "SCENEBEAM_ACQUIRED": stac_items.rfc3339(task.scene.when),
        },
    )
    images = [band.image for band in encoded]
    file = publish_cog(store, task.stack_key(stack), profile, images)
    pixels = grid.shape[0] * grid.shape[1]
    valid = [one.content.valid / pixels for one in encoded]
    kinds = [(numbers.dtype.name, numbers.nodata)] * len(bands)
    return MadeStack(grid, list(bands), kinds, valid, file.size, file.checksum)
