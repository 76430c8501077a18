"""A batch of features from a vector file, in longitude and latitude."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import shapely
from pyproj import Transformer

BATCH = 20_000
"""Maximum number of features per batch, for formats that can be read in parts."""
LARGEST_FILE = 4 * 2**30
"""Maximum size of a vector file in bytes."""
EMPTY = "is empty"
NOT_FINITE = "has a coordinate that is not a number"

Geometries = np.ndarray[tuple[int], np.dtype[Any]]
"""1-D object array of shapely geometries; None for a missing geometry."""


@dataclass(frozen=True)
class Features:
    """A batch of features, in file order. All sequences have the same length."""

    ids: Sequence[Any]
    """The `id` of each feature (a member, a column or a primary key), or None."""
    names: Sequence[Any]
    """The `name` property of each feature, or None."""
    geometries: Geometries
    """2-D geometries in degrees of longitude and latitude (WGS 84); None where a fault is given."""
    faults: Sequence[str]
    """Why a feature has no geometry, as a verb phrase ("is empty"); "" if it has one."""
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Values of the attributes that were asked for; None where a feature has none."""


def build_features(
    ids: Sequence[Any],
    names: Sequence[Any],
    geometries: Geometries,
    faults: Sequence[str],
    to_lonlat: Transformer | None,
    columns: Mapping[str, Sequence[Any]],
) -> Features:
    """Build a batch: drop Z coordinates, reject unusable geometries, reproject to WGS 84.

    Args:
        ids: The id of each feature.
        names: The name of each feature.
        geometries: 1-D object array, in the CRS of the file.
        faults: Known fault of each feature, or "".
        to_lonlat: Transformation to longitude and latitude in degrees; None if the coordinates
            are already in WGS 84.
        columns: Values of attributes by name.

    Returns:
        The features. Those that are empty, or have a NaN or infinite coordinate, get a fault and
        no geometry.
    """
    all_faults = list(faults)
    flat = np.array(shapely.force_2d(geometries), object)
    coordinates, owners = shapely.get_coordinates(flat, return_index=True)
    not_finite = np.unique(owners[~np.isfinite(coordinates).all(axis=1)])
    flat[not_finite] = None
    for index in not_finite.tolist():
        all_faults[index] = NOT_FINITE
    for index in np.flatnonzero(shapely.is_missing(flat) | shapely.is_empty(flat)).tolist():
        flat[index] = None
        all_faults[index] = all_faults[index] or EMPTY
    if to_lonlat is not None:
        flat = np.asarray(shapely.transform(flat, to_lonlat.transform, interleaved=False))
    return Features(ids, names, flat, all_faults, columns)
