"""AOIs: the areas of interest of a vector file, by their place in it.

One that cannot be used says why.
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
    """One area of interest."""

    index: int
    """Its place in the file, from 0."""
    name: str
    """Its feature's id or name; empty where it has none."""
    area: MultiPolygon | None
    """In degrees, split at the antimeridian; None where it cannot be used."""
    fault: str = ""
    """Why it cannot."""

    @property
    def id(self) -> str:
        """`00007`: of folders and tables."""
        return f"{self.index:05}"


def read_aois(request: LandcoverRequest) -> list[Aoi]:
    """Read the areas that are asked for, in the order of the file.

    An area that crosses itself is not made valid, unlike a field: nobody knows what was meant.

    Args:
        request: Its `aois` is a vector file: a path on this machine, or an address.

    Raises:
        RequestError: The file cannot be read, an index is not in it, or no area of it can be used.
    """
    place = redact_url(request.aois)
    try:
        every = list(_read(request.aois))
    except RequestError as error:
        raise RequestError(f"product.aois: {error}") from None
    there = set(range(len(every)))
    include = there if request.include is None else set(request.include)
    for name, asked in (("include", include), ("exclude", set(request.exclude))):
        unknown = sorted(asked - there)
        if unknown:
            raise RequestError(
                f"product.{name}: {place} has areas 0 to {len(every) - 1}, not {unknown}",
            )
    found = [every[index] for index in sorted(include - set(request.exclude))]
    if not found:
        raise RequestError(f"product.aois: no area of {place} is left by include and exclude")
    if all(aoi.fault for aoi in found):
        told = f"none of {len(found)} areas can be used; the first: {found[0].fault}"
        raise RequestError(f"product.aois: {told}")
    _warn_of_repeated_names(place, found)
    return found


def _read(place: str) -> Iterator[Aoi]:
    """All areas of a file."""
    index = 0
    for features in read_features(place):
        checked = check_polygons(features)
        for at, polygons in enumerate(checked.polygons):
            fault, why = checked.faults[at], checked.repairs[at]
            if why:
                fault = f"is not valid: {why}; mend it"
            if fault:
                yield Aoi(index, _name(features, at), None, f"its geometry {fault}")
            else:
                area = _joined(features.geometries[at], polygons)
                yield Aoi(index, _name(features, at), area)
            index += 1


def _name(features: Features, at: int) -> str:
    return str(next((one for one in (features.ids[at], features.names[at]) if one), ""))


def _joined(written: Any, polygons: Any) -> MultiPolygon:
    """The polygons of an area; those of several that touch are one."""
    parts = shapely.get_parts(polygons)
    if written.geom_type != "Polygon":
        parts = shapely.get_parts(shapely.union_all(parts))
    return MultiPolygon([part for part in parts if isinstance(part, Polygon) and part.area > 0])


def _warn_of_repeated_names(place: str, areas: list[Aoi]) -> None:
    by_name: dict[str, list[str]] = {}
    for aoi in areas:
        if aoi.name:
            by_name.setdefault(aoi.name, []).append(str(aoi.index))
    for name, indices in by_name.items():
        if len(indices) > 1:
            told = ", ".join(indices)
            log.warning("product.aois: %s: areas %s have one id, %s", place, told, name)
