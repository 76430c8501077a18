"""Encode images row chunk by row chunk, and publish them as COGs: one path for all products."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from scenebeam.imaging.parts import write_part
from scenebeam.imaging.shards import Window
from scenebeam.imaging.thumbnails import fit_preview
from scenebeam.raster.band_reader import TiffSource
from scenebeam.raster.block_copy import copy_blocks
from scenebeam.raster.codecs import encode_mask
from scenebeam.raster.cog import CogProfile, Level, stack_levels, write_cog
from scenebeam.raster.preview import to_picture
from scenebeam.raster.pyramid import BLOCK_SIZE, EncodedBlocks, Pyramid
from scenebeam.raster.validity import Array, valid_count
from scenebeam.storage import AtomicFile, Piece, Store


class EncodedImage(Protocol):
    """One band, encoded: in memory, or in a part that an earlier run has stored."""

    def levels(self) -> Sequence[Level | EncodedBlocks]:
        """Return the image and its overviews, as encoded blocks."""

    def masks(self) -> list[list[bytes]] | None:
        """Return the mask of each block by level; None if nodata marks all invalid pixels."""


class ImageEncoder:
    """Encodes one band from top to bottom, with its overviews, and counts its valid pixels."""

    def __init__(
        self,
        shapes: Sequence[tuple[int, int]],
        dtype: np.dtype[Any],
        nodata: float | None,
        *,
        codec: str,
        average: bool,
        keep_coarse: bool = False,
        block_size: int = BLOCK_SIZE,
    ) -> None:
        """Start an image.

        Args:
            shapes: Rows and columns of the image and of each overview.
            dtype: Dtype of the pixels.
            nodata: Nodata value; None: invalid pixels are masked.
            codec: Compression of the blocks.
            average: Average pixels for overviews; otherwise use the nearest, as for classes.
            keep_coarse: Keep the pixels of the level after the last, for an image made of shards.
            block_size: Side of a block in pixels.
        """
        self.valid = 0
        """Number of valid pixels so far; of a copied image an estimate, from an overview."""
        self._pyramid = Pyramid(
            shapes,
            dtype,
            nodata,
            codec=codec,
            average=average,
            keep_coarse=keep_coarse,
            block_size=block_size,
        )

    def add(self, pixels: Array) -> None:
        """Encode the next rows, of shape (rows, columns)."""
        self.valid += valid_count(pixels, self._pyramid.nodata)
        self._pyramid.add(pixels)

    def copy(
        self, source: TiffSource, max_in_flight: int, on_sample: Callable[[Array], None]
    ) -> None:
        """Copy a whole image, block by block: see `copy_blocks`."""
        share = copy_blocks(source, self._pyramid, max_in_flight, on_sample)
        self.valid = round(share * source.info.width * source.info.height)

    def levels(self) -> Sequence[Level | EncodedBlocks]:
        """Return the image and its overviews, once all rows are added."""
        return self._pyramid.finish()

    def masks(self) -> list[list[bytes]] | None:
        """Return the mask of each block by level; None if nodata marks all invalid pixels."""
        return self._pyramid.masks

    def preview(self) -> Array:
        """Return a small version of the image, once all rows are added: see `fit_preview`."""
        return fit_preview(to_picture(self._pyramid.overview, self._pyramid.nodata))

    def store_part(
        self,
        store: Store,
        key: str,
        window: Window,
        facts: dict[str, Any],
        *,
        coarse_only: bool = False,
        pieces: Sequence[Sequence[Piece]] | None = None,
    ) -> None:
        """Store the encoded blocks as a part of an image that is finished later.

        Args:
            store: The output.
            key: Key of the part.
            window: Rows and columns of the whole image that it covers.
            facts: What the product needs to know of the part then, as JSON.
            coarse_only: Leave the blocks out: they are published already.
            pieces: For each level where its blocks are stored already; None: store them.
        """
        levels = [] if coarse_only else self._pyramid.finish()
        with store.open_write(key) as file:
            write_part(file, self._pyramid, levels, window, facts, pieces)


def publish_cog(
    store: Store, key: str, profile: CogProfile, images: Sequence[EncodedImage]
) -> AtomicFile:
    """Publish encoded images as the bands of one COG, atomically.

    Args:
        store: The output.
        key: Key of the COG.
        profile: Its grid, dtype, nodata value and tags.
        images: Its bands, all of the same shape.

    Returns:
        The published file, with its size and checksum.
    """
    with store.open_write(key) as file:
        if len(images) == 1:
            write_cog(file, profile, images[0].levels(), images[0].masks())
        else:
            levels = stack_levels([image.levels() for image in images])
            write_cog(file, profile, levels, _common_masks(images))
    return file


def _common_masks(images: Sequence[EncodedImage]) -> list[list[bytes]] | None:
    """Return one mask for all bands, as a TIFF has it: valid is what is valid in all bands."""
    masks = []
    for image in images:
        image_masks = image.masks()
        if image_masks is not None:
            masks.append(image_masks)
    if not masks:
        return None
    common = []
    for level in zip(*masks, strict=True):
        common.append([_common_mask(blocks) for blocks in zip(*level, strict=True)])
    return common


def _common_mask(blocks: Sequence[bytes]) -> bytes:
    # Masks are empty where all is valid, and often equal in all bands: decode the rest only.
    different = {block for block in blocks if block}
    if len(different) < 2:
        return next(iter(different), b"")
    unpacked = [np.frombuffer(zlib.decompress(block), np.uint8) for block in different]
    bits = np.bitwise_and.reduce(unpacked)
    side = math.isqrt(8 * bits.size)  # a block is a square, with one bit per pixel
    return encode_mask(np.unpackbits(bits).reshape(side, side).astype(bool))
