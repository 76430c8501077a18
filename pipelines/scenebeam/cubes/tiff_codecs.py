"""The predictors of TIFF as codecs of Zarr, so that blocks of COGs are chunks as they are.

Names and settings are those of the package virtual-tiff: a cube that is written with one of them
is read with the other. They only decode, for blocks are never written through Zarr.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from zarr.abc.codec import ArrayArrayCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import NDBuffer
from zarr.core.common import JSON

from scenebeam.raster.codecs import undo_float_predictor
from scenebeam.raster.validity import Array

HORIZONTAL, FLOATING_POINT = "imagecodecs_delta", "imagecodecs_floatpred"
"""Names of the codecs of predictors 2 and 3."""


@dataclass(frozen=True)
class _Predictor(ArrayArrayCodec):
    """A predictor: rows of numbers, of which each is stored as its difference to the one before."""

    configuration: tuple[tuple[str, Any], ...] = ()

    is_fixed_size = True
    codec: ClassVar[str]

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        settings = data.get("configuration")
        return cls(tuple(settings.items()) if isinstance(settings, dict) else ())

    def to_dict(self) -> dict[str, JSON]:
        return {"name": self.codec, "configuration": dict(self.configuration)}

    @abstractmethod
    def undo(self, values: Array) -> Array:
        """Return the numbers of a block of shape (…, rows, columns)."""

    async def _decode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> NDBuffer:
        values = np.asarray(chunk_data.as_numpy_array())
        native = values.astype(values.dtype.newbyteorder("="), copy=False)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(self.undo(native))

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> NDBuffer | None:
        raise NotImplementedError("references to COGs are read-only")

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        return input_byte_length


class HorizontalPredictor(_Predictor):
    """Predictor 2: the differences of neighboring numbers."""

    codec = HORIZONTAL

    def undo(self, values: Array) -> Array:
        unsigned = values.view(f"u{values.itemsize}")
        return np.cumsum(unsigned, axis=-1, dtype=unsigned.dtype).view(values.dtype)


class FloatPredictor(_Predictor):
    """Predictor 3: bytes of equal significance are together, as differences."""

    codec = FLOATING_POINT

    def undo(self, values: Array) -> Array:
        return undo_float_predictor(values)
