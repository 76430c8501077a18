"""Codecs and predictors: one table for everything that reads or writes compressed blocks.

To add a codec, add an entry to `CODECS`. One that has an `encode` function can also be written; its
name then belongs in `request.codecs.Codec` too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from affine import Affine
from rasterio.io import MemoryFile

from scenebeam.raster.layout import TiffLayout
from scenebeam.raster.validity import Array, Mask

PREDICTOR_NONE, PREDICTOR_HORIZONTAL, PREDICTOR_FLOAT = 1, 2, 3
"""Values of the TIFF tag Predictor (TIFF 6.0 section 14, and TIFF Technical Note 3)."""
MASK_CODEC = "deflate"
"""Codec of the nodata masks that we write."""


@dataclass(frozen=True)
class Codec:
    """One compression scheme of TIFF blocks."""

    tags: tuple[int, ...]
    """Values of the TIFF tag Compression that mean this codec; the first one is written."""
    decode: Callable[[memoryview, int], Array]
    """Compressed bytes and the expected size → decoded bytes, as a 1-D uint8 array."""
    encode: Callable[[Any], bytes | bytearray] | None = None
    """Array or bytes → compressed bytes; None for a codec that is only read."""
    max_ratio: int | None = None
    """Highest possible compression ratio, rounded up; None if there is no useful bound."""
    has_predictor: bool = True
    """Whether the tag Predictor applies to the codec."""


def _copy(encoded: memoryview, size: int) -> Array:
    decoded = np.empty(size, np.uint8)
    decoded[:] = np.frombuffer(encoded, np.uint8, size)
    return decoded


def _decoder(decode: Callable[..., Any]) -> Callable[[memoryview, int], Array]:
    """Wrap a decoder of imagecodecs that writes into an array."""

    def decode_into(encoded: memoryview, size: int) -> Array:
        decoded = np.empty(size, np.uint8)
        return decoded[: len(decode(encoded, out=decoded))]

    return decode_into


def _lzw_decode(encoded: memoryview, size: int) -> Array:
    # This decoder takes bytes only, and returns them.
    return np.frombuffer(imagecodecs.lzw_decode(bytes(encoded), out=size), np.uint8)


def _lzw_encode(block: Array) -> bytes:
    """Compress with libtiff's LZW encoder, by way of a TIFF with one strip in memory.

    libtiff clears its string table as soon as entry 4094 is added (TIFF 6.0 section 13). Decoders
    that rely on that cannot read the output of encoders that clear it later.
    """
    raw = np.frombuffer(np.ascontiguousarray(block).tobytes(), np.uint8)
    profile = {
        "width": raw.size,
        "height": 1,
        "count": 1,
        "blockysize": 1,
        "transform": Affine(1, 0, 0, 0, -1, 1),
    }
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", dtype="uint8", compress="lzw", **profile) as strip:
            strip.write(raw[None, None])
        with tifffile.TiffFile(memory) as tiff:
            page = tiff.pages[0]
            memory.seek(page.dataoffsets[0])
            return bytes(memory.read(page.databytecounts[0]))


CODECS: dict[str, Codec] = {
    "none": Codec(tags=(1,), decode=_copy, has_predictor=False),
    "deflate": Codec(
        tags=(8, 32946),
        decode=_decoder(imagecodecs.deflate_decode),
        # Level 1 of libdeflate takes a third of the time of level 6, and gives the same bytes on
        # every CPU (benchmarks/README.md).
        encode=partial(imagecodecs.deflate_encode, level=1),
        max_ratio=1500,  # 1,032 in theory
    ),
    "lzw": Codec(
        tags=(5,),
        decode=_lzw_decode,
        encode=_lzw_encode,
        max_ratio=1500,  # 1,365 in theory
    ),
    "zstd": Codec(
        tags=(50000,),
        decode=_decoder(imagecodecs.zstd_decode),
        encode=partial(imagecodecs.zstd_encode, level=3),
    ),
}
"""Codecs by name. The names are those of GDAL's creation option COMPRESS, in lower case."""
CODEC_OF_TAG = {tag: name for name, codec in CODECS.items() for tag in codec.tags}
"""Value of the TIFF tag Compression → name of the codec."""


def predictor_for(dtype: np.dtype[Any]) -> int:
    """Return the predictor that `encode` applies to blocks of a dtype."""
    return PREDICTOR_FLOAT if dtype.kind == "f" else PREDICTOR_HORIZONTAL


def encode(block: Array, codec: str) -> bytes:
    """Compress a block of one band, after applying the predictor of its dtype.

    Args:
        block: Array of shape (rows, columns), of the full size of a block.
        codec: A codec of `CODECS` that has an encoder.

    Returns:
        The compressed bytes; the same on every machine.
    """
    if predictor_for(block.dtype) == PREDICTOR_FLOAT:
        block = imagecodecs.floatpred_encode(np.ascontiguousarray(block)[:, :, None], axis=-2)
    else:
        block = imagecodecs.delta_encode(block, axis=-1)
    return _compress(block, codec)


def encode_mask(valid: Mask) -> bytes:
    """Compress a block of a nodata mask, one bit per pixel, 1 where there is data."""
    return _compress(np.packbits(valid, axis=1).tobytes(), MASK_CODEC)


def _compress(block: Array | bytes, codec: str) -> bytes:
    compress = CODECS[codec].encode
    if compress is None:
        raise ValueError(f"codec {codec!r} is read-only")
    return bytes(compress(block))


def decode(layout: TiffLayout, encoded: memoryview, rows: int | None = None) -> Array:
    """Decompress one block, and undo its predictor.

    Args:
        layout: Layout of the image.
        encoded: The bytes of the block in the file.
        rows: Rows of this block, for a last strip with fewer of them; by default those of any
            block.

    Returns:
        Array of shape (rows, columns, samples) in native byte order.

    Raises:
        ValueError: The block does not have the size that the header says.
        Exception: Whatever else the codec raises for corrupt bytes.
    """
    height, width = layout.block
    shape = (height if rows is None else rows, width, layout.samples_per_block)
    size = int(np.prod(shape)) * layout.dtype.itemsize
    codec = CODECS[layout.codec]
    # A forged header could make a few bytes look like gigabytes: check before memory is allocated.
    if codec.max_ratio is not None and size > codec.max_ratio * (len(encoded) + 1):
        raise ValueError(f"{len(encoded)} bytes cannot decompress to {size}")
    raw = codec.decode(encoded, size)
    if raw.nbytes != size:
        raise ValueError(f"the block has {raw.nbytes} bytes instead of {size}")
    if layout.predictor == PREDICTOR_FLOAT:
        # The decoder reorders the bytes of each number into the byte order of `out`.
        pixels = np.empty(shape, layout.dtype)
        imagecodecs.floatpred_decode(raw.view(layout.dtype).reshape(shape), axis=-2, out=pixels)
    else:
        pixels = raw.view(layout.dtype).reshape(shape)
    # Horizontal differencing is undone by summing numbers, which needs native byte order.
    if not pixels.dtype.isnative:
        pixels = pixels.astype(pixels.dtype.newbyteorder("="))
    if layout.predictor == PREDICTOR_HORIZONTAL:
        # In place where possible; arrays over Python bytes, as LZW returns them, are read-only.
        pixels = imagecodecs.delta_decode(
            pixels, axis=-2, out=pixels if pixels.flags.writeable else None
        )
    return pixels
