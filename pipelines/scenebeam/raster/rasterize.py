"""Rasterize polygons: masks on a grid."""

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

# rasterio burns into a dataset in memory, and warns where its transform is the identity. Geometries
# and grid share their coordinates, so nothing is missing. Filters of single calls are no way out:
# threads would undo each other's.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"rasterio\.features")

BACKGROUND, FIELD, BOUNDARY, UNKNOWN = 0, 1, 2, 3
"""Classes of the semantic masks."""


@dataclass(frozen=True)
class Masks:
    """Three masks of fields on one grid, and how much the fields overlap."""

    instance: Array
    """uint32: number of the field; 0 for none."""
    semantic_2_class: Array
    """uint8: background (or unknown) and field."""
    semantic_3_class: Array
    """uint8: the same, and boundaries of fields."""
    overlap: int
    """Pixels that belong to more than one field."""


def draw_masks(
    fields: Sequence[BaseGeometry], numbers: Sequence[int], grid: Grid, *, presence_only: bool
) -> Masks:
    """Rasterize fields.

    A pixel belongs to a field if its center is inside, and to the boundary if the outline touches
    it. If several fields contain a pixel, it goes to the one with the lowest number.

    Args:
        fields: Polygons in the CRS of the grid.
        numbers: Number of each field, from 1.
        grid: The grid.
        presence_only: Whether pixels outside of all fields are unknown instead of background.
    """
    # Later shapes are burned over earlier ones: the lowest number comes last.
    numbered = list(zip(fields, numbers, strict=True))
    numbered.sort(key=lambda field: -field[1])
    instance = _burn(numbered, grid, np.dtype(np.uint32))
    ones = [(field, 1) for field in fields]
    count = _burn(ones, grid, np.dtype(np.uint16), merge_alg=MergeAlg.add)
    boundary = _burn_outlines(fields, grid)
    two = np.where(instance > 0, FIELD, UNKNOWN if presence_only else BACKGROUND).astype(np.uint8)
    return Masks(
        instance=instance,
        semantic_2_class=two,
        semantic_3_class=np.where(boundary, BOUNDARY, two).astype(np.uint8),
        overlap=int(np.count_nonzero(count > 1)),
    )


def draw_classes(
    shapes: Sequence[BaseGeometry],
    classes: Sequence[int],
    grid: Grid,
    dtype: str,
    *,
    background: int = 0,
    boundary: int | None = None,
    all_touched: bool = False,
) -> Array:
    """Rasterize classes.

    A pixel has the class of the shape that its center is in; of several, that of the last one.

    Args:
        shapes: Polygons in the CRS of the grid.
        classes: Class of each.
        grid: The grid.
        dtype: Dtype of the result.
        background: Class of pixels outside of all shapes.
        boundary: Class of pixels that an outline touches; None for no such class.
        all_touched: A shape has all pixels that it touches.

    Returns:
        Array of the shape of the grid.
    """
    burned = list(zip(shapes, classes, strict=True))
    mask = _burn(burned, grid, np.dtype(dtype), fill=background, all_touched=all_touched)
    if boundary is not None:
        mask = np.where(_burn_outlines(shapes, grid), np.dtype(dtype).type(boundary), mask)
    return mask


def inside(geometry: BaseGeometry, grid: Grid) -> Mask:
    """Return which pixels of a grid have their center inside a geometry.

    Args:
        geometry: Polygon in the CRS of the grid.
        grid: The grid.

    Returns:
        Boolean array of the shape of the grid.
    """
    return np.asarray(_burn([(geometry, 1)], grid, np.dtype(np.uint8)) == 1)


def _burn_outlines(shapes: Sequence[BaseGeometry], grid: Grid) -> Array:
    """Return 1 where the outline of any polygon touches a pixel, and 0 elsewhere."""
    outlines = []
    for outline in shapely.boundary(np.asarray(shapes, object)):
        if not outline.is_empty:
            outlines.append((outline, 1))
    return _burn(outlines, grid, np.dtype(np.uint8), all_touched=True)


def _burn(
    shapes: Sequence[tuple[BaseGeometry, int]],
    grid: Grid,
    dtype: np.dtype[Any],
    fill: int = 0,
    **options: Any,
) -> Array:
    if not shapes:
        return np.full(grid.shape, fill, dtype)
    burned = rasterize(
        shapes, out_shape=grid.shape, transform=grid.transform, fill=fill, dtype=dtype, **options
    )
    return np.asarray(burned)
