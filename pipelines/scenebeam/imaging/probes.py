"""Facts about the files of a band that hold for all of them, from the header and size of a few.

A plan has thousands of files, and each header takes a round trip. So one header per band is
read, and is assumed to be typical of its other files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from scenebeam.catalog.scene import Asset
from scenebeam.errors import SceneBeamError
from scenebeam.imaging.bands import Band
from scenebeam.imaging.refs import AssetRef
from scenebeam.raster.reader import open_source
from scenebeam.raster.tiff import read_layout
from scenebeam.request import Limits, is_url
from scenebeam.transfer.pools import io_threads
from scenebeam.transfer.rangefile import RangeFile
from scenebeam.transfer.ranges import UNKNOWN_SIZE, read_range_and_size
from scenebeam.transfer.retry import Budget

_DEGREES = 0.5
"""A pixel size below this is in degrees, not in meters."""
_MAX_SIZE_SAMPLES = 3
"""Files of a band whose size a server is asked for; the others are assumed to be alike."""


@dataclass(frozen=True)
class BandProbe:
    """Facts from the header of one file, which are assumed to hold for all files of its band."""

    block: tuple[int, int] = (1024, 1024)
    """Rows and columns of a block."""
    pixel: float = 10.0
    """Pixel size in units of the file's CRS."""
    bytes_per_pixel: float = 1.0
    """Compressed bytes per pixel."""
    block_bytes: float = 2**20
    """Average compressed size of a block."""
    blocks: tuple[int, int] = (2**30, 2**30)
    """Rows and columns of blocks in the file."""


def probe(href: str, index: int, signing: str, limits: Limits) -> BandProbe:
    """Read the header of a file.

    A file that cannot be read gets the default values: the estimate goes on, and the error is
    reported when the task is made.

    Args:
        href: Unsigned href of the file.
        index: Index of the band in the file, from 1.
        signing: How the href is signed.
        limits: Timeouts; retries are cut short, as an estimate is not worth a long wait.
    """
    budget = _short_budget(limits)
    try:
        layout = read_layout(RangeFile(href, budget, signing))
        if layout is not None:
            # In a pixel-interleaved file, one block holds all bands, which are read together.
            bands = 1 if layout.interleaved else layout.count
            size = float(layout.sizes.sum())
            return BandProbe(
                block=layout.block,
                pixel=abs(layout.transform.a),
                bytes_per_pixel=size / (layout.width * layout.height * bands),
                block_bytes=size / layout.sizes.size,
                blocks=_block_counts(layout.height, layout.width, layout.block),
            )
        # GDAL reads the file, and does not report the sizes of blocks: assume that they are
        # compressed to one half.
        source = open_source(href, index, budget, signing)
        info = source.info
        source.close()
    except SceneBeamError:
        return BandProbe()
    bytes_per_pixel = info.dtype.itemsize / 2
    return BandProbe(
        block=info.block,
        pixel=abs(info.transform.a),
        bytes_per_pixel=bytes_per_pixel,
        block_bytes=bytes_per_pixel * info.block[0] * info.block[1],
        blocks=_block_counts(info.height, info.width, info.block),
    )


def _short_budget(limits: Limits) -> Budget:
    return Budget.of(limits.model_copy(update={"max_attempts": 2, "retry_seconds": 5}))


def _block_counts(height: int, width: int, block: tuple[int, int]) -> tuple[int, int]:
    return -(-height // block[0]), -(-width // block[1])


def probe_bands(all_bands: Iterable[Sequence[Band]], limits: Limits) -> dict[str, BandProbe]:
    """Read one header of each band.

    Args:
        all_bands: Bands of all acquisitions; the first file of each name is read.
        limits: Timeouts.

    Returns:
        Name of the band → facts; bands without any file are left out.
    """
    first: dict[str, AssetRef] = {}
    for bands in all_bands:
        for band in bands:
            if band.sources:
                first.setdefault(band.name, band.sources[0])

    def probe_file(source: AssetRef) -> BandProbe:
        return probe(source.href, source.index, source.signing, limits)

    return dict(zip(first, io_threads().map(probe_file, first.values()), strict=True))


class FileSizes:
    """Sizes of whole files: from the catalog, from the disk, or from a few files of the band."""

    def __init__(self, limits: Limits, *, measure: bool) -> None:
        """Create an empty cache.

        Args:
            limits: Timeouts.
            measure: Ask servers for sizes that neither the catalog nor the disk knows. Otherwise
                they are guessed.
        """
        self._budget = _short_budget(limits)
        self._samples: dict[str, list[int]] = {}
        self._measure = measure

    def of(self, asset: Asset) -> int:
        """Return the size of a file in bytes, as well as it is known."""
        if asset.size is not None:
            return asset.size
        if not is_url(asset.href):
            try:
                return os.path.getsize(asset.href)
            except OSError:
                return asset.likely_size
        if not self._measure:
            return asset.likely_size
        samples = self._samples.setdefault(asset.band, [])
        if len(samples) < _MAX_SIZE_SAMPLES:
            samples.append(self._request_size(asset))
        return sum(samples) // len(samples)

    def _request_size(self, asset: Asset) -> int:
        try:
            size = read_range_and_size(asset.href, 0, 1, self._budget, asset.signing)[1]
        except SceneBeamError:
            return asset.likely_size
        return size if size != UNKNOWN_SIZE else asset.likely_size


def blocks_in_extent(known: BandProbe, width: float, height: float) -> tuple[int, int]:
    """Count the blocks of a file that an extent intersects.

    Args:
        known: The header.
        width: Width of the extent, in units of the file's CRS.
        height: Height of the extent.

    Returns:
        (least, most): an extent that does not start at the edge of a block intersects one more row
        and column of blocks.
    """
    rows = int(height / known.pixel / known.block[0]) + 1
    columns = int(width / known.pixel / known.block[1]) + 1
    max_rows, max_columns = known.blocks
    least = min(rows, max_rows) * min(columns, max_columns)
    most = min(rows + 1, max_rows) * min(columns + 1, max_columns)
    return least, most


def compression_gain(known: BandProbe, pixel: float) -> float:
    """Return how much better an output compresses than its source, at most.

    An output with smaller pixels repeats or interpolates those of its source, and compresses about
    twice as well as the ratio of their numbers.

    Args:
        known: The header of the source.
        pixel: Pixel size of the output in meters.
    """
    # The area of a pixel in degrees cannot be compared with that of the output.
    ratio = (known.pixel / pixel) ** 2 if known.pixel >= _DEGREES else 1.0
    return 2 * ratio if ratio > 1 else 1.0


class ProbeCache:
    """Facts about the files of each band, from the header and the size of a few of them."""

    def __init__(self, limits: Limits, *, measure: bool) -> None:
        """Create an empty cache.

        Args:
            limits: Timeouts.
            measure: Read headers. Otherwise files are assumed to be typical.
        """
        self.sizes = FileSizes(limits, measure=measure)
        """Sizes of whole files."""
        self._limits = limits
        self._measure = measure
        self._probes: dict[str, BandProbe] = {}

    def of(self, asset: Asset) -> BandProbe:
        """Return the header of a file of the same band, which is read once."""
        if not self._measure:
            return BandProbe(pixel=asset.resolution)
        if asset.band not in self._probes:
            self._probes[asset.band] = probe(asset.href, asset.index, asset.signing, self._limits)
        return self._probes[asset.band]

    def blocks(self, asset: Asset, width: float, height: float) -> tuple[int, int]:
        """Count the blocks that an extent in meters intersects: (least, most)."""
        known = self.of(asset)
        # For a file in degrees, the resolution of the catalog, in meters, is close enough.
        meters = known.pixel if known.pixel >= _DEGREES else max(asset.resolution, _DEGREES)
        return blocks_in_extent(replace(known, pixel=meters), width, height)
