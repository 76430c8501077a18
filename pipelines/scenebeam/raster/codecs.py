"""Codecs: one compressed block of a TIFF → its pixels."""

from __future__ import annotations

from typing import Any

import imagecodecs
import numpy as np

from scenebeam.raster.tiff import TiffLayout
from scenebeam.raster.validity import Array

_MOST_PACKED = 1500
"""Bytes that one byte of DEFLATE (1,032) or LZW (1,365) can come to, at most: more is a forged header."""


def block_bytes(layout: TiffLayout) -> int:
    """Bytes of a block, decoded."""
    return (
        layout.block[0]
        * layout.block[1]
        * layout.dtype.itemsize
        * (layout.count if layout.interleaved else 1)
    )


_DECODE: dict[str, Any] = {"deflate": imagecodecs.deflate_decode, "zstd": imagecodecs.zstd_decode}


def decode(layout: TiffLayout, encoded: memoryview, rows: int | None = None) -> Array:
    """Compressed bytes → (rows, columns, samples) in this machine's byte order. Raises what the codecs raise.

    `rows` are those of the block; by default as many as any block has.
    """
    height, width = layout.block
    shape = (height if rows is None else rows, width, layout.count if layout.interleaved else 1)
    size = int(np.prod(shape)) * layout.dtype.itemsize
    if layout.codec in ("deflate", "lzw") and size > _MOST_PACKED * len(encoded) + _MOST_PACKED:
        raise ValueError(f"{len(encoded)} bytes cannot come to {size}")
    raw = np.empty(size, np.uint8)
    if layout.codec == "none":
        raw[:] = np.frombuffer(encoded, np.uint8, size)
    elif layout.codec == "lzw":
        raw = np.frombuffer(imagecodecs.lzw_decode(bytes(encoded), out=size), np.uint8)
    elif len(_DECODE[layout.codec](encoded, out=raw)) != size:
        raise ValueError(f"a block of {size} bytes was expected")
    if raw.nbytes != size:
        raise ValueError(f"it has {raw.nbytes} bytes where {size} were expected")
    if layout.predictor == 3:
        pixels = np.empty(shape, layout.dtype)
        imagecodecs.floatpred_decode(raw.view(layout.dtype).reshape(shape), axis=-2, out=pixels)
    else:
        pixels = raw.view(layout.dtype).reshape(shape)
    if not pixels.dtype.isnative:
        pixels = pixels.astype(pixels.dtype.newbyteorder("="))
    if layout.predictor == 2:
        pixels = imagecodecs.delta_decode(
            pixels, axis=-2, out=pixels if pixels.flags.writeable else None
        )
    return pixels
