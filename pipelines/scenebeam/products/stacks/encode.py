"""Encode the bands of a stack one by one, and publish them together as one COG.

A band that is encoded while another one fails is stored as a part, so that the next run need not
make it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np

from scenebeam.errors import CheckError
from scenebeam.imaging.bands import scale_offset
from scenebeam.imaging.encode import ImageEncoder, publish_cog
from scenebeam.imaging.parts import StoredPart
from scenebeam.metadata import stac_items
from scenebeam.products.stacks.content import BandContent, band_row_chunks, nodata_of
from scenebeam.products.stacks.item import PublishedStack, StackedBand, stack_file
from scenebeam.products.stacks.task import StackBand, StackTask
from scenebeam.raster.band_reader import TiffSource
from scenebeam.raster.block_copy import as_copyable
from scenebeam.raster.cog import CogBand, CogProfile
from scenebeam.raster.grid import Grid
from scenebeam.raster.layers import LayerError
from scenebeam.raster.merge import cast_nodata
from scenebeam.raster.pyramid import BLOCK_SIZE, level_shapes
from scenebeam.raster.read_ahead import MAX_IN_FLIGHT
from scenebeam.raster.sample import Sample
from scenebeam.raster.source import Source
from scenebeam.raster.validity import same_nodata
from scenebeam.storage import Store
from scenebeam.tasks import GridSpec

_STORED_PIXELS = 2**24
"""Pixels of a band from which it is stored as soon as it is encoded.

A smaller one is made again within a second, if the process is killed.
"""


@dataclass(frozen=True)
class PixelEncoding:
    """Dtype, nodata value and block size of all bands of one stack."""

    dtype: np.dtype[Any]
    nodata: float | None
    block_size: int = BLOCK_SIZE


def common_encoding(
    task: StackTask, bands: Sequence[tuple[StackBand, Source]], grid: Grid
) -> PixelEncoding:
    """Return the encoding of a stack, as a GeoTIFF has one for all its bands.

    Args:
        task: The task.
        bands: The bands and their open files.
        grid: The grid of the stack.

    Returns:
        A dtype that holds the pixels of all bands, the nodata value of the first band that has
        one, and the block size of the files if all of them can be copied block by block.
    """
    dtype = np.result_type(*(source.info.dtype for _, source in bands))
    declared = [nodata_of(band, source.info) for band, source in bands]
    nodata = next((value for value in declared if value is not None), None)
    encoding = PixelEncoding(dtype, nodata)
    copyable = [_copyable(task, band, source, grid, encoding) for band, source in bands]
    sizes = {source.info.block[0] for source in copyable if source is not None}
    if None in copyable or len(sizes) != 1:
        return encoding
    return replace(encoding, block_size=sizes.pop())


def _copyable(
    task: StackTask, band: StackBand, source: Source, grid: Grid, encoding: PixelEncoding
) -> TiffSource | None:
    """See `as_copyable`. Besides, all numbers must stay as they are."""
    is_shifted = task.values != "raw" and band.asset.add_offset != 0
    if is_shifted or not same_nodata(nodata_of(band, source.info), encoding.nodata):
        return None
    return as_copyable(source, grid, encoding.dtype, task.codec)


class StoredParts:
    """The parts of a scene in the store. A context manager that closes their local copies."""

    def __init__(self, task: StackTask, store: Store) -> None:
        """List the parts of a task."""
        self.keys = store.list(task.parts_prefix)
        """Keys of all parts."""
        self._store = store
        self._copies = ExitStack()

    def __enter__(self) -> StoredParts:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._copies.close()

    def open(self, key: str) -> StoredPart | None:
        """Open a part; None if there is none."""
        if key not in self.keys:
            return None
        return StoredPart(self._copies.enter_context(self._store.local_copy(key)))


@dataclass
class EncodedBand:
    """A band of a stack, encoded."""

    image: ImageEncoder | StoredPart
    """In memory, or stored as a part."""
    content: BandContent
    key: str
    """Key of its part."""
    facts: dict[str, Any]
    """The facts of its part."""

    def keep(self, store: Store) -> None:
        """Store the band as a part, unless it is one."""
        if isinstance(self.image, ImageEncoder):
            height, width = self.facts["grid"]["shape"]
            self.image.store_part(store, self.key, (0, height, 0, width), self.facts)


def encode_band(
    task: StackTask,
    band: StackBand,
    source: Source,
    grid: Grid,
    encoding: PixelEncoding,
    store: Store,
    parts: StoredParts,
) -> EncodedBand:
    """Read a band onto the grid and encode it, unless it is stored as a part.

    Args:
        task: The task.
        band: The band.
        source: Its open file.
        grid: The grid of its stack.
        encoding: The encoding of its stack.
        store: The output.
        parts: The parts in the store.

    Raises:
        LayerError: The file is blank or permanently broken.
        ReadError: The file may be readable later.
    """
    key = task.part_key(band.name)
    # The grid and the encoding depend on the other bands too: if one of those was missing when a
    # part was stored, the part may not fit any more.
    expected: dict[str, Any] = {
        "grid": GridSpec.of(grid).model_dump(mode="json"),
        "numbers": [encoding.dtype.str, repr(encoding.nodata), encoding.block_size],
    }
    stored = _stored_band(parts, key, expected)
    if stored is not None:
        return stored
    nodata = nodata_of(band, source.info)
    image = ImageEncoder(
        level_shapes(*grid.shape),
        encoding.dtype,
        encoding.nodata,
        codec=task.codec,
        average=not band.asset.categorical,
        block_size=encoding.block_size,
    )
    content = BandContent.of(grid)
    copyable = _copyable(task, band, source, grid, encoding)
    if copyable is not None and copyable.info.block[0] == encoding.block_size:
        image.copy(copyable, MAX_IN_FLIGHT // task.at_once, partial(content.add, nodata=nodata))
        content.valid = image.valid
        if not image.valid:
            cause = CheckError("blank: all of it is nodata")
            raise LayerError(band.name, task.scene.id, cause)
    else:
        for pixels in band_row_chunks(task, band, source, grid, nodata):
            content.add(pixels, nodata)
            image.add(cast_nodata(pixels, nodata, encoding.dtype, encoding.nodata))
    # With these facts, a later run can check the band without decoding it.
    sample = content.sample
    facts = {
        **expected,
        "valid": content.valid,
        "total": sample.total,
        "sample": sample.values.tolist(),
    }
    encoded = EncodedBand(image, content, key, facts)
    if grid.shape[0] * grid.shape[1] >= _STORED_PIXELS:
        encoded.keep(store)
    return encoded


def _stored_band(parts: StoredParts, key: str, expected: dict[str, Any]) -> EncodedBand | None:
    """Return a band that is stored as a part; None if there is none that fits."""
    part = parts.open(key)
    if part is None:
        return None
    facts = part.header.facts
    if any(facts[name] != value for name, value in expected.items()):
        return None
    sample = Sample.from_values(facts["sample"], facts["total"])
    return EncodedBand(part, BandContent(sample, facts["valid"]), key, facts)


def write_stack(
    task: StackTask,
    stack: str,
    bands: Sequence[tuple[StackBand, EncodedBand]],
    grid: Grid,
    encoding: PixelEncoding,
    store: Store,
) -> PublishedStack:
    """Publish the bands of one stack as one COG.

    Args:
        task: The task.
        stack: Suffix of the stack.
        bands: Its bands in canonical order.
        grid: Its grid.
        encoding: Its encoding.
        store: The output.
    """
    pixels = grid.shape[0] * grid.shape[1]
    cog_bands, images, stacked = [], [], []
    for band, encoded in bands:
        cog_bands.append(CogBand(band.name, *scale_offset(band.asset, task.values)))
        images.append(encoded.image)
        valid = encoded.content.valid / pixels
        stacked.append(StackedBand(band, encoding.dtype.name, encoding.nodata, valid))
    profile = CogProfile.for_grid(
        grid,
        encoding.dtype,
        encoding.nodata,
        codec=task.codec,
        block_size=encoding.block_size,
        bands=tuple(cog_bands),
        tags={
            "SCENEBEAM_VALUES": task.values,
            "SCENEBEAM_ACQUIRED": stac_items.rfc3339(task.scene.when),
        },
    )
    file = publish_cog(store, task.stack_key(stack), profile, images)
    return PublishedStack(grid, stacked, stack_file(task, stack, file.size, file.checksum))
