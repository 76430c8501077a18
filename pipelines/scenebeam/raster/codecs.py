"""Codecs and predictors: one table for everything that reads or writes compressed blocks.

A codec is a module of `block_codecs`.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import imagecodecs
import numpy as np

from scenebeam.raster import block_codecs
from scenebeam.raster.block_codecs._codec import Codec
from scenebeam.raster.layout import TiffLayout
from scenebeam.raster.validity import Array, Mask

PREDICTOR_NONE, PREDICTOR_HORIZONTAL, PREDICTOR_FLOAT = 1, 2, 3
"""Values of the TIFF tag Predictor (TIFF 6.0 section 14, and TIFF Technical Note 3)."""
CHUNKS = "blosc"
"""Name of the codec of chunks of Zarr stores. No TIFF has it, so it is not in CODECS."""
CHUNK_CODEC: dict[str, Any] = {"cname": "zstd", "clevel": 1, "shuffle": "bitshuffle"}
"""Its settings: for reflectance as small as the zstd levels that take four times as long."""
MASK_CODEC = "deflate"
"""Codec of the nodata masks that we write."""


def _copy(encoded: memoryview, size: int) -> Array:
    decoded = np.empty(size, np.uint8)
    decoded[:] = np.frombuffer(encoded, np.uint8, size)
    return decoded


def _load_codecs() -> dict[str, Codec]:
    """The codecs by name: uncompressed blocks, and the modules of `block_codecs`."""
    codecs = {"none": Codec(tags=(1,), decode=_copy, has_predictor=False)}
    for module in pkgutil.iter_modules(block_codecs.__path__):
        if not module.name.startswith("_"):
            path = f"{block_codecs.__name__}.{module.name}"
            codecs[module.name] = importlib.import_module(path).CODEC
    return codecs


CODECS = _load_codecs()
"""Codecs by name."""
CODEC_OF_TAG = {tag: name for name, codec in CODECS.items() for tag in codec.tags}
"""Value of the TIFF tag Compression → name of the codec."""


def predictor_for(codec: str, dtype: np.dtype[Any]) -> int:
    """Return the predictor that `encode` applies to blocks of a dtype."""
    if not CODECS[codec].has_predictor:
        return PREDICTOR_NONE
    return PREDICTOR_FLOAT if dtype.kind == "f" else PREDICTOR_HORIZONTAL


def encode(block: Array, codec: str) -> bytes:
    """Compress a block of one band, after applying the predictor of its codec and dtype.

    Args:
        block: Array of shape (rows, columns), of the full size of a block.
        codec: A codec of `CODECS` that has an encoder, or CHUNKS.

    Returns:
        The compressed bytes; the same on every machine.
    """
    if codec == CHUNKS:
        return _encode_chunk(block)
    predictor = predictor_for(codec, block.dtype)
    if predictor == PREDICTOR_FLOAT:
        block = imagecodecs.floatpred_encode(np.ascontiguousarray(block)[:, :, None], axis=-2)
    elif predictor == PREDICTOR_HORIZONTAL:
        block = imagecodecs.delta_encode(block, axis=-1)
    else:
        return _compress(block.tobytes(), codec)
    return _compress(block, codec)


def _encode_chunk(block: Array) -> bytes:
    little = block.astype(block.dtype.newbyteorder("<"), copy=False)
    # An array, for of bytes imagecodecs does not know the size of a number, and shuffles nothing.
    encoded = imagecodecs.blosc_encode(
        np.ascontiguousarray(little),  # type: ignore[arg-type]
        level=CHUNK_CODEC["clevel"],
        compressor=CHUNK_CODEC["cname"],
        shuffle=CHUNK_CODEC["shuffle"],
        typesize=block.dtype.itemsize,
        numthreads=1,
    )
    return bytes(encoded)


def undo_float_predictor(values: Array) -> Array:
    """Undo the floating-point predictor (TIFF Technical Note 3).

    Args:
        values: Floats of shape (…, rows, columns), of the bytes that are stored.

    Returns:
        The numbers, in the same shape.
    """
    native = np.ascontiguousarray(values)
    decoded = np.empty_like(native)
    imagecodecs.floatpred_decode(native, axis=-1, out=decoded)
    return decoded


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
