"""Zstandard."""

from __future__ import annotations

from functools import partial

import imagecodecs

from scenebeam.raster.block_codecs._codec import Codec, decoder_into

CODEC = Codec(
    tags=(50000,),
    decode=decoder_into(imagecodecs.zstd_decode),
    encode=partial(imagecodecs.zstd_encode, level=3),
)
