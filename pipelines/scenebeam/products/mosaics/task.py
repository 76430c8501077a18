"""The task of a mosaic: one acquisition, all its bands, on the whole grid or on one shard of it."""

from __future__ import annotations

from scenebeam.products.gridded import GriddedTask


class MosaicTask(GriddedTask):
    """All bands of one acquisition, on the whole grid or on one shard of it."""

    method: str
