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
from scenebeam.imaging.bands import min_std_dev, scale_offset
from scenebeam.imaging.chip_reader import ChipReader
from scenebeam.imaging.chip_scenes import ChipScene
from scenebeam.raster.cog import CogBand
from scenebeam.raster.grid import Grid
from scenebeam.raster.merge import cast_nodata, harmonize
from scenebeam.raster.source import Source
from scenebeam.raster.validity import Array, valid_mask
from scenebeam.request import Checks

_FEW_PIXELS = 16
"""An image with fewer is checked exactly."""


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
        is_offset = self.values != "raw" and self.scene.bands[band].add_offset != 0
        is_alike = pixels.dtype == self.dtype and nodata == self.nodata
        if is_alike and not is_offset:
            return pixels  # as most are: of many small chips, each call counts
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


def is_plainly_usable(image: ChipImage, checks: Checks) -> bool:
    """Whether an image has no pixel without data, and all of its bands vary a lot.

    This decides for almost all images, in a fraction of the time of `check_image`.
    """
    pixels, nodata = image.pixels, image.encoding.nodata
    if pixels.dtype.kind not in "iu" or pixels[0].size < _FEW_PIXELS:
        return False
    if nodata is not None and bool((pixels == pixels.dtype.type(nodata)).any()):
        return False
    deviations = pixels.reshape(len(pixels), -1).std(axis=1, dtype=np.float32)
    limits = [min_std_dev(asset, checks) or 0.0 for asset in image.encoding.scene.bands]
    return bool((deviations > 2 * np.array(limits) + 1).all())


def check_image(
    image: ChipImage, most_nodata: float, field: str, checks: Checks
) -> list[dict[str, float]]:
    """Compute the statistics of each band over its valid pixels, and check them.

    Args:
        image: The image.
        most_nodata: Largest share of pixels without data in percent.
        field: The field of the request that says so.
        checks: Thresholds of a usable image.

    Raises:
        CheckError: Too many pixels are nodata, or a band does not vary.
    """
    encoding, pixels = image.encoding, image.pixels
    scene = encoding.scene.id
    if encoding.nodata is None:
        valid = np.ones(pixels.shape, bool)
    else:
        valid = pixels != encoding.dtype.type(encoding.nodata)
    empty = 100 * (1 - np.count_nonzero(valid.any(axis=0)) / pixels[0].size)
    if empty > most_nodata:
        raise CheckError(
            f"{empty:.2f} % of the chip has no data in {scene}, more than {field} = "
            f"{most_nodata:g}, although the scene's footprint covers it"
        )
    statistics: list[dict[str, float]] = []
    for asset, values, band_valid in zip(encoding.scene.bands, pixels, valid, strict=True):
        valid_percent = 100 * (np.count_nonzero(band_valid) / band_valid.size)
        if 100 - valid_percent > checks.max_nodata_percent:
            raise CheckError(
                f"{asset.band} of {scene}: {100 - valid_percent:.1f} % is nodata, more than "
                f"checks.max_nodata_percent = {checks.max_nodata_percent:g}"
            )
        values = values if valid_percent == 100 else values[band_valid]
        # In float64 throughout, so that the sums of large chips are exact enough.
        exact = values.astype(np.float64)
        mean = float(exact.mean())
        deviation = float(exact.std(mean=mean))
        least = min_std_dev(asset, checks)
        if least is not None and values.size > 1 and deviation <= least:
            raise CheckError(f"{asset.band} of {scene} is constant over the chip: {mean:g}")
        statistics.append(
            {
                "minimum": float(values.min()),
                "maximum": float(values.max()),
                "mean": round(mean, 4),
                "stddev": round(deviation, 4),
                "valid_percent": round(valid_percent, 4),
            }
        )
    return statistics
