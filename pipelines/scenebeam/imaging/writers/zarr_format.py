"""Zarr v3: the documents of arrays and groups, and the bytes of shards.

A shard is a file of chunks, compressed one by one, and an index at its end: for each chunk, in row
order, its offset and size as little-endian 64-bit numbers, and a CRC-32C of the index. A chunk
without data is left out, and has 2^64 - 1 for both
(https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/).
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa

from scenebeam.metadata.item_tables import BytesFile
from scenebeam.raster.codecs import CHUNK_CODEC
from scenebeam.raster.validity import Array
from scenebeam.storage import AtomicFile

METADATA = "zarr.json"
MEDIA_TYPE = "application/vnd.zarr; version=3"
_ABSENT = b"\xff" * 16
_ZSTD_LEVEL = 3


class ShardFile:
    """A shard that is written chunk by chunk, in any order."""

    def __init__(self, file: AtomicFile | io.BytesIO, rows: int, columns: int) -> None:
        """Start a shard of `rows` x `columns` chunks."""
        self._file, self._columns = file, columns
        self._index = [_ABSENT] * (rows * columns)

    def add(self, row: int, column: int, chunk: bytes) -> None:
        """Append a compressed chunk."""
        place = struct.pack("<QQ", self._file.tell(), len(chunk))
        self._index[row * self._columns + column] = place
        self._file.write(chunk)

    def finish(self) -> None:
        """Write the index."""
        index = b"".join(self._index)
        self._file.write(index + struct.pack("<I", google_crc32c.value(index)))


def group_document(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}


def consolidated(group: Mapping[str, Any], members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a group that holds those of its members, for one request to read all.

    Args:
        group: The group.
        members: Path below the group → document.
    """
    inline = {"kind": "inline", "must_understand": False, "metadata": dict(members)}
    return {**group, "consolidated_metadata": inline}


def array_document(
    shape: Sequence[int],
    chunk: Sequence[int],
    dtype: str,
    fill: float | str,
    dimensions: Sequence[str],
    attributes: Mapping[str, Any],
    codecs: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the metadata of an array.

    Args:
        shape: Its shape.
        chunk: Shape of its chunks, or of its shards.
        dtype: Name of its dtype; `string` for texts.
        fill: Value of what is not stored.
        dimensions: Names of its dimensions.
        attributes: Its attributes.
        codecs: How chunks are stored; default: see `encode_small`.
    """
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": _json_fill(fill, dtype),
        "codecs": list(small_codecs(dtype) if codecs is None else codecs),
        "attributes": dict(attributes),
        "dimension_names": list(dimensions),
    }


def _json_fill(fill: float | str, dtype: str) -> float | str:
    if isinstance(fill, str):
        return fill
    if np.dtype(dtype).kind != "f":
        return int(fill)
    if np.isnan(fill):
        return "NaN"
    return float(fill) if np.isfinite(fill) else f"{'-' if fill < 0 else ''}Infinity"


def _bytes_codec(dtype: str) -> dict[str, Any]:
    if np.dtype(dtype).itemsize == 1:
        return {"name": "bytes"}
    return {"name": "bytes", "configuration": {"endian": "little"}}


def small_codecs(dtype: str) -> list[dict[str, Any]]:
    """Return the codecs of what `encode_small` compresses."""
    first = {"name": "vlen-utf8"} if dtype == "string" else _bytes_codec(dtype)
    zstd = {"name": "zstd", "configuration": {"level": _ZSTD_LEVEL, "checksum": False}}
    return [first, zstd]


def encode_small(values: Array | Sequence[str]) -> bytes:
    """Compress a chunk of numbers or texts by zstd; texts are a UTF-8 string with its size each."""
    if isinstance(values, np.ndarray):
        content = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"))).tobytes()
    else:
        content = struct.pack("<I", len(values))
        for text in values:
            encoded = text.encode()
            content += struct.pack("<I", len(encoded)) + encoded
    codec = pa.Codec("zstd", compression_level=_ZSTD_LEVEL)
    return bytes(codec.compress(content, asbytes=True))


def chunk_codecs(dtype: str) -> list[dict[str, Any]]:
    """Return the codecs of chunks of pixels: see `raster.codecs.CHUNK_CODEC`."""
    blosc = {**CHUNK_CODEC, "typesize": np.dtype(dtype).itemsize, "blocksize": 0}
    return [_bytes_codec(dtype), {"name": "blosc", "configuration": blosc}]


def sharding_codec(chunk: Sequence[int], codecs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the codec of shards of chunks of a shape, which are stored by other codecs."""
    return {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": list(chunk),
            "codecs": list(codecs),
            "index_codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                {"name": "crc32c"},
            ],
            "index_location": "end",
        },
    }


def small_shard(values: Array | Sequence[str], size: int) -> bytes:
    """Return a shard of `size` chunks along one dimension, of one value each."""
    content = io.BytesIO()
    shard = ShardFile(content, 1, size)
    for number in range(len(values)):
        shard.add(0, number, encode_small(values[number : number + 1]))
    shard.finish()
    return content.getvalue()


def json_file(document: Mapping[str, Any]) -> BytesFile:
    """Return a document as a file."""
    return BytesFile((json.dumps(document, indent=1) + "\n").encode())
