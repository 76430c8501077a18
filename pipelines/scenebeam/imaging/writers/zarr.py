"""Zarr: the outputs of all tasks of a run as arrays of one store, of dimensions (time, y, x).

A task writes whole shards: see `imaging.cube_layout`. The metadata of the store are published when
the run ends, so readers see all of a run or nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scenebeam.errors import CheckError
from scenebeam.imaging.assemble import encode_coarse_levels, open_parts
from scenebeam.imaging.cube_layout import CubeLayout, image_path, root_of, shard_path
from scenebeam.imaging.encode import ImageEncoder
from scenebeam.imaging.gridded_task import GriddedTask, Output
from scenebeam.imaging.thumbnails import fit_preview
from scenebeam.imaging.writers.base import Facts, Writer, Written
from scenebeam.imaging.writers.zarr_format import MEDIA_TYPE, ShardFile
from scenebeam.raster.codecs import CHUNKS, encode
from scenebeam.raster.cog import AnyLevel
from scenebeam.raster.preview import to_picture
from scenebeam.raster.pyramid import BLOCK_SIZE
from scenebeam.raster.validity import same_nodata
from scenebeam.storage import Store
from scenebeam.tasks import CubeBand, CubeSlice

_FILES = "files"
"""Fact of a shard: the files that it has written."""


@dataclass(frozen=True)
class ZarrWriter(Writer):
    """Writes shards of a Zarr store."""

    place: CubeSlice

    def codec(self, task: GriddedTask) -> str:
        return CHUNKS

    def levels(self, task: GriddedTask) -> int:
        return self._layout(task).shared

    def _layout(self, task: GriddedTask) -> CubeLayout:
        return CubeLayout(task.grid.shape, self.place.cuts)

    def encoding(self, task: GriddedTask, output: Output) -> Output:
        band = band_in(self.place, output.name)
        check_encoding(band, output.dtype, output.nodata)
        return replace(output, dtype=np.dtype(band.dtype), nodata=band.nodata)

    def publish(
        self, task: GriddedTask, store: Store, output: Output, encoder: ImageEncoder, facts: Facts
    ) -> Written:
        files = self._write(task, store, output, encoder.levels(), 0, (0, 0))
        check_unmasked(output.name, encoder.masks())
        asset = self.asset(task, output.name, files)
        return Written(output, asset, [facts], encoder.preview())

    def store_shard(
        self, task: GriddedTask, store: Store, output: Output, encoder: ImageEncoder, facts: Facts
    ) -> None:
        origin = task.window[0], task.window[2]
        files = self._write(task, store, output, encoder.levels(), 0, origin)
        check_unmasked(output.name, encoder.masks())
        key = task.part_key(output.name, task.shard)
        facts = {**facts, _FILES: files}
        encoder.store_part(store, key, task.window, facts, coarse_only=True)

    def assemble(self, task: GriddedTask, store: Store, output: Output) -> Written:
        part_keys = [task.part_key(output.name, shard) for shard in range(task.shards)]
        layout = self._layout(task)
        with ExitStack() as copies:
            parts = open_parts(store, part_keys, copies)
            header = parts[0].header
            made = replace(output, dtype=np.dtype(header.dtype), nodata=header.nodata)
            pyramid = encode_coarse_levels(
                parts,
                layout.levels[layout.shared :],
                header.dtype,
                header.nodata,
                CHUNKS,
                average=not output.categorical,
            )
            facts = [part.header.facts for part in parts]
        files = self._write(task, store, output, pyramid.finish(), layout.shared, (0, 0))
        preview = fit_preview(to_picture(pyramid.overview, made.nodata))
        for fact in facts:
            files += fact[_FILES]
        return Written(made, self.asset(task, output.name, files), facts, preview)

    def _write(
        self,
        task: GriddedTask,
        store: Store,
        output: Output,
        levels: Sequence[AnyLevel],
        first: int,
        origin: tuple[int, int],
    ) -> list[dict[str, Any]]:
        band = band_in(self.place, output.name)
        return write_shards(store, self.place, self._layout(task), band, levels, first, origin)

    def asset(
        self, task: GriddedTask, name: str, files: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Describe an image in the store as an asset."""
        up = "../" * task.product_prefix.count("/")
        return array_asset(self.place, name, files, up)


def array_asset(
    place: CubeSlice, name: str, files: Sequence[Mapping[str, Any]], up: str
) -> dict[str, Any]:
    """Describe one time of an array as an asset of a STAC item.

    Args:
        place: Where it is.
        name: Name of the array.
        files: Its shards.
        up: Path from the item to the output.
    """
    asset: dict[str, Any] = {
        "href": f"{up}{image_path(place, name)}",
        "type": MEDIA_TYPE,
        "roles": ["data"],
        "file:size": sum(file["file:size"] for file in files),
        "scenebeam:time_index": place.index,
    }
    # What is staged is deleted after the commit.
    return asset if place.format == "icechunk" else {**asset, "scenebeam:files": list(files)}


def band_in(place: CubeSlice, name: str) -> CubeBand:
    """Return a band of an image as the store holds it."""
    return next(band for band in place.bands if band.name == name)


def check_encoding(band: CubeBand, dtype: np.dtype[Any], nodata: float | None) -> None:
    """Check that pixels, as their files turn out to be, fit into an array.

    Raises:
        CheckError: They do not.
    """
    if not np.can_cast(dtype, band.dtype, "safe") or not same_nodata(nodata, band.nodata):
        raise CheckError(
            f"{band.name}: the files have pixels of {dtype} with nodata {nodata}, and the cube "
            f"has {band.dtype} with {band.nodata}; declare dtype and nodata in the record of the "
            "collection"
        )


def check_unmasked(name: str, masks: object) -> None:
    """Check that no pixel is invalid without a nodata value: arrays have no masks.

    Raises:
        CheckError: Some are.
    """
    if masks is not None:
        raise CheckError(
            f"{name}: some pixels have no data, and there is no nodata value to say so; declare "
            "one in the record of the collection, or use product.format: cog"
        )


def write_shards(
    store: Store,
    place: CubeSlice,
    layout: CubeLayout,
    band: CubeBand,
    levels: Sequence[AnyLevel],
    first: int = 0,
    origin: tuple[int, int] = (0, 0),
) -> list[dict[str, Any]]:
    """Write the shards of an image, or of a window of it.

    Args:
        store: The output.
        place: Where the image is.
        layout: The levels and shards of the cube.
        band: The band.
        levels: The encoded blocks of consecutive levels.
        first: Number of the first of them.
        origin: Row and column of the window on level 0.

    Returns:
        The files: `key`, `file:size` and `file:checksum`.
    """
    fill = np.full((BLOCK_SIZE, BLOCK_SIZE), band.fill, band.dtype)
    empty = encode(fill, CHUNKS)
    files: list[dict[str, Any]] = []
    for level, blocks in enumerate(levels, start=first):
        files += _write_level(store, place, layout, band.name, level, blocks, origin, empty)
    return files


def _write_level(
    store: Store,
    place: CubeSlice,
    layout: CubeLayout,
    name: str,
    level: int,
    blocks: AnyLevel,
    origin: tuple[int, int],
    empty: bytes,
) -> list[dict[str, Any]]:
    height, width = layout.shard_shape(level)
    rows, columns = height // BLOCK_SIZE, width // BLOCK_SIZE
    top, left = (edge >> level for edge in origin)
    first_row, first_column = top // height, left // width
    across = -(-blocks.width // BLOCK_SIZE)
    down = -(-blocks.height // BLOCK_SIZE)
    encoded = iter(blocks)
    files = []
    # One row of shards at a time is open; blocks arrive row by row.
    for shard_row in range(-(-down // rows)):
        with ExitStack() as opened:
            shards, written = [], []
            for shard_column in range(-(-across // columns)):
                row, column = first_row + shard_row, first_column + shard_column
                path = shard_path(level, name, place.index, row, column)
                key = f"{root_of(place)}{path}"
                file = opened.enter_context(store.open_write(key))
                shards.append(ShardFile(file, rows, columns))
                written.append((key, file))
            for row in range(min(rows, down - shard_row * rows)):
                for column in range(across):
                    block = next(encoded)
                    if block != empty:
                        shard, inside = divmod(column, columns)
                        shards[shard].add(row, inside, block)
            for one in shards:
                one.finish()
        for key, file in written:
            files.append({"key": key, "file:size": file.size, "file:checksum": file.checksum})
    return files
