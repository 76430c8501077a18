"""Parquet: a row for each chip, with the bytes of a COG for each band and mask.

As in the Major TOM data sets, a row is read by itself and its bytes open in any GeoTIFF library. A
band of several images is a COG with one band for each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from scenebeam.products.chips.layouts.base import (
    EncodedSample,
    StoredChip,
    StoredSample,
    encode_bands,
    encode_mask,
)
from scenebeam.products.chips.layouts.sharded import ShardedLayout, ShardFile, shards_of
from scenebeam.products.chips.samples import ChipSample, ImageStack
from scenebeam.raster.cog import CogBand
from scenebeam.raster.memory import read_tiff
from scenebeam.storage import AtomicFile, Store

_GROUP_BYTES = 64 * 2**20
"""Size of a group of rows."""
_METADATA = "metadata"
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("split", pa.string()),
        ("crs", pa.string()),
        ("geometry", pa.binary()),
        ("lon", pa.float64()),
        ("lat", pa.float64()),
        ("times", pa.list_(pa.timestamp("ms", "UTC"))),
        (_METADATA, pa.string()),
    ]
)


class ParquetShard(ShardFile):
    """A Parquet file that is being written."""

    def __init__(self, file: AtomicFile) -> None:
        super().__init__(file)
        self._file = file
        self._rows: list[dict[str, Any]] = []
        self._waiting = 0
        self._writer: pq.ParquetWriter | None = None

    def add(self, sample: ChipSample, encoded: EncodedSample) -> None:
        size = sum(len(content) for content in encoded.members.values())
        self._rows.append(_row(sample, encoded))
        self.size += size
        self._waiting += size
        if self._waiting >= _GROUP_BYTES:
            self._write(list(encoded.members))

    def _write(self, members: Sequence[str]) -> None:
        binary = [(name, pa.binary()) for name in members]
        schema = pa.schema([*_SCHEMA, *binary])
        table = pa.Table.from_pylist(self._rows, schema=schema)
        if self._writer is None:
            # COGs are compressed already.
            self._writer = pq.ParquetWriter(
                pa.PythonFile(self._file, "w"), schema, compression="none"
            )
        self._writer.write_table(table)
        self._rows, self._waiting = [], 0

    def close(self) -> None:
        if self._rows:
            known = {field.name for field in _SCHEMA}
            self._write([name for name in self._rows[0] if name not in known])
        if self._writer is not None:
            self._writer.close()


class ParquetRows(ShardedLayout):
    """`<split>/<cell>-<number>.parquet`."""

    suffix = "parquet"
    media_type = "application/vnd.apache.parquet"
    shard = ParquetShard

    def encode(self, sample: ChipSample) -> EncodedSample:
        members = {}
        for stack in sample.stacks:
            for band in range(len(stack.bands)):
                name = f"{stack.name}_{stack.bands[band].description}"
                members[name] = _encode_band(sample, stack, band)
        for label, mask in sample.masks.items():
            members[label] = encode_mask(sample, label, mask)
        return EncodedSample(members)

    @staticmethod
    def read(store: Store, splits: Sequence[str], files: Sequence[str]) -> Iterator[StoredSample]:
        for key in shards_of(files, ParquetRows.suffix, splits):
            with store.local_copy(key) as path:
                for batch in pq.ParquetFile(path).iter_batches(batch_size=16):
                    for index in range(len(batch)):
                        yield partial(_chip_of, batch, index)


def _encode_band(sample: ChipSample, stack: ImageStack, band: int) -> bytes:
    """Encode one band of all images, as a COG with a band for each image."""
    pixels = stack.pixels[:, band]
    described = stack.bands[band]
    bands = []
    for label in stack.labels:
        bands.append(CogBand(label or described.description, described.scale, described.offset))
    return encode_bands(sample, pixels, stack.nodata, bands)


def _row(sample: ChipSample, encoded: EncodedSample) -> dict[str, Any]:
    west, south, east, north = shapely.geometry.shape(sample.footprint).bounds
    return {
        "id": sample.id,
        "split": sample.ref.split,
        "crs": sample.task.crs,
        "geometry": shapely.to_wkb(shapely.geometry.shape(sample.footprint)),
        "lon": (west + east) / 2,
        "lat": (south + north) / 2,
        "times": list(sample.image.times),
        _METADATA: json.dumps(sample.metadata()),
        **encoded.members,
    }


def _chip_of(batch: pa.RecordBatch, index: int) -> StoredChip:
    [row] = batch.slice(index, 1).to_pylist()
    document = json.loads(row[_METADATA])
    images, taken = {}, {"geometry"}
    for name, described in document["images"].items():
        columns = [f"{name}_{band['name']}" for band in described["bands"]]
        images[name] = np.stack([read_tiff(row[column]) for column in columns], axis=1)
        taken.update(columns)
    masks = {}
    for name, content in row.items():
        if isinstance(content, bytes) and name not in taken:
            masks[name] = read_tiff(content)[0]
    return StoredChip(document["id"], images, masks, document)
