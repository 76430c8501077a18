"""What every codec declares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from scenebeam.raster.validity import Array


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


def decoder_into(decode: Callable[..., Any]) -> Callable[[memoryview, int], Array]:
    """Wrap a decoder of imagecodecs that writes into an array."""

    def decode_into(encoded: memoryview, size: int) -> Array:
        decoded = np.empty(size, np.uint8)
        return decoded[: len(decode(encoded, out=decoded))]

    return decode_into
