"""The observation in which a band or an index is lowest."""

from __future__ import annotations

from scenebeam.raster.reducers._extreme import Extreme


class Lowest(Extreme):
    """Take the observation in which a band or an index is lowest."""

    sign = -1.0


METHOD = Lowest
