"""Features: some rows of a vector file, in longitude and latitude."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from pyproj import Transformer

BATCH = 20_000
"""Features that are in memory at a time, where the format can be read in parts."""
LARGEST_FILE = 4 * 2**30
"""Bytes of a file, at most."""
EMPTY = "is empty"
NOT_FINITE = "has a coordinate that is not a number"

Geometries = np.ndarray[tuple[int], np.dtype[Any]]
"""Of shapely geometries; None where there is none."""


@dataclass(frozen=True)
class Features:
    """Some features of a file, in its order."""

    ids: Sequence[Any]
    """The id of each: a member, a column or a key of that name; None where it has none."""
    names: Sequence[Any]
    """Its property `name`, likewise."""
    geometries: Geometries
    """In degrees of longitude and latitude (WGS 84), without heights."""
    faults: Sequence[str]
    """Why it has no geometry, as the rest of a sentence; empty where it has one."""


def locate_features(
    ids: Sequence[Any],
    names: Sequence[Any],
    geometries: Geometries,
    faults: Sequence[str],
    to_lonlat: Transformer | None,
) -> Features:
    """Bring geometries as a file has them to longitude and latitude.

    Args:
        ids: The id of each feature.
        names: The name of each feature.
        geometries: In the CRS of the file.
        faults: What is known to be wrong with each.
        to_lonlat: What brings coordinates to degrees; None where they are longitude and latitude.

    Returns:
        The features. Those with a coordinate that is NaN or infinite have a fault, and no geometry.
    """
    told = list(faults)
    flat = np.array(shapely.force_2d(geometries), object)
    coordinates, owners = shapely.get_coordinates(flat, return_index=True)
    odd = np.unique(owners[~np.isfinite(coordinates).all(axis=1)])
    flat[odd] = None
    for index in odd.tolist():
        told[index] = NOT_FINITE
    for index in np.flatnonzero(shapely.is_missing(flat) | shapely.is_empty(flat)).tolist():
        flat[index] = None
        told[index] = told[index] or EMPTY
    if to_lonlat is not None:
        flat = np.asarray(shapely.transform(flat, to_lonlat.transform, interleaved=False))
    return Features(ids, names, flat, told)
