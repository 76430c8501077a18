"""LZW, as libtiff compresses it."""

from __future__ import annotations

import imagecodecs
import numpy as np
import tifffile
from affine import Affine
from rasterio.io import MemoryFile

from scenebeam.raster.block_codecs._codec import Codec
from scenebeam.raster.validity import Array


def _decode(encoded: memoryview, size: int) -> Array:
    # This decoder takes bytes only, and returns them.
    return np.frombuffer(imagecodecs.lzw_decode(bytes(encoded), out=size), np.uint8)


def _encode(block: Array) -> bytes:
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


CODEC = Codec(
    tags=(5,),
    decode=_decode,
    encode=_encode,
    max_ratio=1500,  # 1,365 in theory
)
