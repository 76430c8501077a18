"""The highest number of all sources."""

from __future__ import annotations

import numpy as np

from scenebeam.raster.merge_methods._masked import ExtremeMerge


class MaxMerge(ExtremeMerge):
    """Take the highest number of all sources."""

    is_better = np.greater


METHOD = MaxMerge
