"""Draw: polygons → masks on a grid."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from rasterio.enums import MergeAlg
from rasterio.errors import NotGeoreferencedWarning
from rasterio.features import rasterize
from shapely.geometry.base import BaseGeometry

from scenebeam.raster.grid import Grid
from scenebeam.raster.validity import Array, Mask

# What is drawn on has its transform beside it.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module="rasterio.features")

BACKGROUND, FIELD, BOUNDARY, UNKNOWN = 0, 1, 2, 3


@dataclass(frozen=True)
class Masks:
    """Three masks of one grid, and how many pixels more than one field claims."""

    instance: Array
    """uint32: the number of the field, 0 where there is none."""
    semantic_2_class: Array
    """uint8: background (or unknown) and field."""
    semantic_3_class: Array
    """uint8: the same, and the fields' boundaries."""
    overlap: int


def draw_masks(
    fields: Sequence[BaseGeometry], numbers: Sequence[int], grid: Grid, *, presence_only: bool
) -> Masks:
    """Polygons in the grid's CRS → masks: a pixel is a field's if its centre lies inside, and boundary if the outline
    touches it. Of several fields on one pixel the one with the smallest number has it.
    """
    order = sorted(range(len(fields)), key=lambda index: -numbers[index])
    instance = _burn(
        [(fields[index], numbers[index]) for index in order], grid, np.dtype(np.uint32)
    )
    count = _burn(
        [(field, 1) for field in fields], grid, np.dtype(np.uint16), merge_alg=MergeAlg.add
    )
    outlines = [
        (outline, 1)
        for outline in shapely.boundary(np.asarray(fields, object))
        if not outline.is_empty
    ]
    boundary = _burn(outlines, grid, np.dtype(np.uint8), all_touched=True)
    two = np.where(instance > 0, FIELD, UNKNOWN if presence_only else BACKGROUND).astype(np.uint8)
    return Masks(
        instance,
        two,
        np.where(boundary, BOUNDARY, two).astype(np.uint8),
        int(np.count_nonzero(count > 1)),
    )


def inside(geometry: BaseGeometry, grid: Grid) -> Mask:
    """Which pixels of a grid have their center inside a geometry in its CRS. (rows, columns), boolean."""
    return np.asarray(_burn([(geometry, 1)], grid, np.dtype(np.uint8)) == 1)


def _burn(
    shapes: Sequence[tuple[BaseGeometry, int]], grid: Grid, dtype: np.dtype[Any], **how: Any
) -> Array:
    if not shapes:
        return np.zeros(grid.shape, dtype)
    return np.asarray(
        rasterize(
            shapes, out_shape=grid.shape, transform=grid.transform, fill=0, dtype=dtype, **how
        )
    )
