"""Read the areas of interest of a vector file. An area is identified by its position in the file.

An area that cannot be used is not an error: it is kept, with the reason, and reported as skipped.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import shapely
from shapely.geometry import MultiPolygon, Polygon

from scenebeam.errors import RequestError
from scenebeam.products.landcover.request import LandcoverRequest
from scenebeam.transfer.signing import redact_url
from scenebeam.vectors import Features, check_polygons, read_features

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Aoi:
    """An area of interest."""

    index: int
    """Position in the file, from 0."""
    name: str
    """Id or name of the feature; empty if it has neither."""
    area: MultiPolygon | None
    """The area in degrees, split at the antimeridian; None if it cannot be used."""
    fault: str = ""
    """Why the area cannot be used."""

    @property
    def id(self) -> str:
        """Id in folders and tables: `00007`."""
        return f"{self.index:05}"


def read_aois(request: LandcoverRequest) -> list[Aoi]:
    """Read the areas that the request includes.

    Self-intersecting areas are not made valid, unlike fields: their intended shape is unknown.

    Args:
        request: The request; `aois` is the path or URL of a vector file.

    Returns:
        Areas in the order of the file.

    Raises:
        RequestError: The file cannot be read, an index is not in it, or no area can be used.
    """
    source = redact_url(request.aois)
    try:
        all_aois = list(_read(request.aois))
    except RequestError as error:
        raise RequestError(f"product.aois: {error}") from None
    known = set(range(len(all_aois)))
    include = known if request.include is None else set(request.include)
    exclude = set(request.exclude)
    for name, indices in (("include", include), ("exclude", exclude)):
        unknown = sorted(indices - known)
        if unknown:
            raise RequestError(
                f"product.{name}: {source} has areas 0 to {len(all_aois) - 1}, not {unknown}",
            )
    aois = [all_aois[index] for index in sorted(include - exclude)]
    if not aois:
        raise RequestError(f"product.aois: no area of {source} is left after include and exclude")
    if all(aoi.fault for aoi in aois):
        raise RequestError(
            f"product.aois: none of {len(aois)} areas can be used; the first: {aois[0].fault}"
        )
    _warn_of_repeated_names(source, aois)
    return aois


def _read(path: str) -> Iterator[Aoi]:
    """Yield all areas of a file."""
    index = 0
    for features in read_features(path):
        checked = check_polygons(features)
        for position, polygons in enumerate(checked.polygons):
            name = _name(features, position)
            fault, repair = checked.faults[position], checked.repairs[position]
            if repair:
                fault = f"is not valid: {repair}; repair it in the file"
            if fault:
                yield Aoi(index, name, None, f"its geometry {fault}")
            else:
                yield Aoi(index, name, _merge_parts(features.geometries[position], polygons))
            index += 1


def _name(features: Features, position: int) -> str:
    return str(features.ids[position] or features.names[position] or "")


def _merge_parts(geometry: Any, polygons: Any) -> MultiPolygon:
    """Collect the polygons of an area, and merge those that touch.

    Args:
        geometry: The geometry as it is in the file.
        polygons: The same, valid and split at the antimeridian.
    """
    parts = shapely.get_parts(polygons)
    # A single polygon needs no merging: its parts are on opposite sides of the antimeridian.
    if geometry.geom_type != "Polygon":
        parts = shapely.get_parts(shapely.union_all(parts))
    return MultiPolygon([part for part in parts if isinstance(part, Polygon) and part.area > 0])


def _warn_of_repeated_names(source: str, aois: list[Aoi]) -> None:
    indices_by_name: dict[str, list[str]] = {}
    for aoi in aois:
        if aoi.name:
            indices_by_name.setdefault(aoi.name, []).append(str(aoi.index))
    for name, indices in indices_by_name.items():
        if len(indices) > 1:
            log.warning(
                "product.aois: %s: areas %s have the same id or name, %s",
                source,
                ", ".join(indices),
                name,
            )
