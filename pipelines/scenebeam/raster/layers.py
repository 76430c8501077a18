"""What is composed onto a grid: the bands of the output, and the sources of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from shapely.geometry.base import BaseGeometry

from scenebeam.errors import SceneBeamError
from scenebeam.raster.masks import SceneMask
from scenebeam.raster.source import Source
from scenebeam.raster.validity import Array, Mask


@dataclass(frozen=True)
class Layer:
    """One source, ready to be composed onto a grid."""

    name: str
    """Scene of the source, for messages and reports."""
    source: Source
    add_offset: int = 0
    """Subtracted from every valid pixel."""
    footprint: BaseGeometry | None = None
    """Area with data, in the CRS of the grid; None for all of the image."""
    mask: SceneMask | None = None
    """Where the scene is clear; None for everywhere. Shared by all bands of the scene."""


class Demand(Protocol):
    """Says which pixels of a band are still wanted, when the bands before it are finished."""

    def wanted(self, top: int, bottom: int) -> Mask:
        """Return where rows [top, bottom) are wanted, once the caller of `compose` knows."""

    def close(self) -> None:
        """Let go of threads that wait: nothing more will be known."""


@dataclass(frozen=True)
class BandLayers:
    """One band of the output: its sources, and how they are merged."""

    name: str
    layers: Sequence[Layer]
    """Sources in order of priority, highest first."""
    dtype: np.dtype[Any]
    nodata: float | None
    resampling: str
    method: str
    """Merge method: a module of `merge_methods`."""
    min_std_dev: float | None = None
    """A source whose standard deviation is no higher is blank; None for no such check."""
    demand: Demand | None = None
    """Which pixels are wanted; None for all."""
    on_taken: Callable[[int, Array], None] | None = None
    """Called with the first row of a chunk, and the index of the layer of each pixel, from 0; -1
    where there is no data. Only for the method `first`."""


class LayerError(SceneBeamError):
    """A source cannot be used. `band` and `name` say which one, `cause` why."""

    kind = "LayerError"

    def __init__(self, band: str, name: str, cause: Exception) -> None:
        super().__init__(f"{band} of {name}: {cause}")
        self.band, self.name, self.cause = band, name, cause
