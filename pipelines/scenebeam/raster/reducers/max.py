"""The observation in which a band or an index is highest."""

from __future__ import annotations

from scenebeam.raster.reducers._extreme import Extreme


class Highest(Extreme):
    """Take the observation in which a band or an index is highest."""

    sign = 1.0


METHOD = Highest
