"""Read the bands of one scene on many chips, and convert them to the pixels of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from scenebeam.catalog.scene import Asset
from scenebeam.errors import CheckError, ReadError
from scenebeam.imaging.bands import scale_offset
from scenebeam.imaging.chip_reader import ChipReader
from scenebeam.imaging.chip_scenes import ChipScene
from scenebeam.raster.cog import CogBand
from scenebeam.raster.grid import Grid
from scenebeam.raster.merge import cast_nodata, harmonize
from scenebeam.raster.source import Source
from scenebeam.raster.validity import Array, valid_mask


@dataclass(frozen=True)
class PixelEncoding:
    """How the pixels of a scene's chips are stored: one dtype and nodata value for all bands."""

    scene: ChipScene
    dtype: np.dtype[Any]
    nodata: float | None
    source_nodata: Sequence[float | None]
    """Nodata value of each band's file."""
    values: str
    """`harmonized`: the radiometric offset is removed; `raw`: it is kept."""

    @classmethod
    def of(cls, scene: ChipScene, reader: ChipReader, values: str) -> PixelEncoding:
        """Use the smallest dtype that holds all bands, and the first nodata value of any band."""
        dtype = np.result_type(*(source.info.dtype for source in reader.sources))
        nodata = next((value for value in reader.nodata if value is not None), None)
        return cls(scene, dtype, nodata, reader.nodata, values)

    @cached_property
    def bands(self) -> tuple[CogBand, ...]:
        """Name, scale and offset of each band of an image."""
        bands: list[CogBand] = []
        for asset in self.scene.bands:
            bands.append(CogBand(asset.band, *scale_offset(asset, self.values)))
        return tuple(bands)

    def encode(self, band: int, pixels: Array) -> Array:
        """Convert the pixels of one band from the values of its file to those of the image."""
        nodata = self.source_nodata[band]
        if self.values != "raw":
            add_offset = self.scene.bands[band].add_offset
            pixels = harmonize(pixels, valid_mask(pixels, nodata), add_offset, nodata)
        return cast_nodata(pixels, nodata, self.dtype, self.nodata)


@dataclass(frozen=True)
class ChipImage:
    """The pixels of one chip, ready to be stored."""

    encoding: PixelEncoding
    pixels: Array
    """Shape (bands, rows, columns)."""


def read_images(
    scene: ChipScene,
    opened: Sequence[Future[Source]],
    grids: Mapping[int, Grid],
    values: str,
    resampling: Callable[[Asset], str],
) -> Iterator[tuple[int, ChipImage | str]]:
    """Read one scene on the grids of chips, in the order of its files.

    Args:
        scene: The scene.
        opened: The sources of its bands, as `open_sources` returns them.
        grids: Number of a chip → its grid.
        values: `harmonized` or `raw`.
        resampling: The method of a band that is not categorical.

    Yields:
        The number of a chip, and its image or why it can never be read.

    Raises:
        ReadError: A file cannot be read at the moment, and a later attempt may succeed.
    """
    try:
        reader = ChipReader(scene.bands, opened, grids, resampling)
    except (ReadError, CheckError) as error:
        if isinstance(error, ReadError) and not error.permanent:
            raise
        for number in grids:
            yield number, str(error)
        return
    with reader:
        encoding = PixelEncoding.of(scene, reader, values)
        for number in reader.file_order():
            try:
                bands = reader.read(number)
            except ReadError as error:
                if not error.permanent:
                    raise
                yield number, str(error)
                continue
            pixels = [encoding.encode(band, read) for band, (read, _) in enumerate(bands)]
            yield number, ChipImage(encoding, np.stack(pixels))
