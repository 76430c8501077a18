"""DEFLATE, as libdeflate compresses it."""

from __future__ import annotations

from functools import partial

import imagecodecs

from scenebeam.raster.block_codecs._codec import Codec, decoder_into

CODEC = Codec(
    tags=(8, 32946),
    decode=decoder_into(imagecodecs.deflate_decode),
    # Level 1 of libdeflate takes a third of the time of level 6, and gives the same bytes on every
    # CPU (benchmarks/README.md).
    encode=partial(imagecodecs.deflate_encode, level=1),
    max_ratio=1500,  # 1,032 in theory
)
