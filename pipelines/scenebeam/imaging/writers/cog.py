"""Cloud-Optimized GeoTIFF: one file per output. Shards are parts until the last one is stored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from scenebeam.imaging.assemble import assemble
from scenebeam.imaging.encode import ImageEncoder, publish_cog
from scenebeam.imaging.gridded_item import cog_profile
from scenebeam.imaging.gridded_task import GriddedTask, Output
from scenebeam.imaging.pieces import Integrity, is_composed, write_pieces
from scenebeam.imaging.thumbnails import read_previews
from scenebeam.imaging.writers.base import Facts, Writer, Written
from scenebeam.metadata import stac_items
from scenebeam.storage import Store


class CogWriter(Writer):
    """Writes COGs."""

    def codec(self, task: GriddedTask) -> str:
        return task.codec

    def publish(
        self, task: GriddedTask, store: Store, output: Output, encoder: ImageEncoder, facts: Facts
    ) -> Written:
        key = task.output_key(output.name)
        file = publish_cog(store, key, cog_profile(task, output), [encoder])
        integrity = {"file:size": file.size, "file:checksum": file.checksum}
        return Written(output, _asset(task, key, integrity), [facts], encoder.preview())

    def store_shard(
        self, task: GriddedTask, store: Store, output: Output, encoder: ImageEncoder, facts: Facts
    ) -> None:
        key = task.part_key(output.name, task.shard)
        pieces = None
        composer = store.composer
        if composer is not None and is_composed(task.grid.shape):
            stem = f"{task.pieces_prefix(output.name)}{task.shard:05d}"
            _, _, left, right = task.window
            alone = right - left == task.grid.shape[1]
            pieces = write_pieces(composer, stem, encoder.levels(), alone=alone)
        encoder.store_part(store, key, task.window, facts, pieces=pieces)

    def assemble(self, task: GriddedTask, store: Store, output: Output) -> Written:
        part_keys = [task.part_key(output.name, shard) for shard in range(task.shards)]
        key = task.output_key(output.name)
        profile = cog_profile(task, output)
        integrity, headers = assemble(
            store,
            part_keys,
            key,
            profile,
            average=not output.categorical,
            pieces_prefix=task.pieces_prefix(output.name),
        )
        made = replace(output, dtype=np.dtype(headers[0].dtype), nodata=headers[0].nodata)
        facts = [header.facts for header in headers]
        preview = read_previews(store, {output.name: (key, 1)})[output.name]
        return Written(made, _asset(task, key, integrity), facts, preview)


def _asset(task: GriddedTask, key: str, integrity: Integrity) -> dict[str, Any]:
    return {
        "href": task.href(key),
        "type": stac_items.COG_TYPE,
        "roles": ["data"],
        **integrity,
    }
