"""The lowest number of all sources."""

from __future__ import annotations

import numpy as np

from scenebeam.raster.merge_methods._masked import ExtremeMerge


class MinMerge(ExtremeMerge):
    """Take the lowest number of all sources."""

    is_better = np.less


METHOD = MinMerge
