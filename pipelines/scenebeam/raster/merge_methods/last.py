"""The last source that has data."""

from __future__ import annotations

from scenebeam.raster.merge_methods.first import FirstMerge


class LastMerge(FirstMerge):
    """Take the last source that has data: the first one of the reversed order."""

    order = "reversed"


METHOD = LastMerge
