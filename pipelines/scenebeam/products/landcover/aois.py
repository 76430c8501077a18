"""AOIs: the areas of interest of a vector file, by their place in it; one that cannot be used says why."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import shapely
from shapely.geometry import MultiPolygon, Polygon

from scenebeam.errors import RequestError
from scenebeam.request import LandcoverRequest
from scenebeam.transfer.access import shown
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

    Areas that cross themselves are made valid, and areas of one name are told apart by their place:
    a warning names both.

    Args:
        request: Its `aois` is a vector file: a path on this machine, or an address.

    Raises:
        RequestError: The file cannot be read, an index is not in it, or no area of it can be used.
    """
    place = shown(request.aois)
    try:
        every = list(_read(request.aois))
    except RequestError as error:
        raise RequestError(f"product.aois: {error}") from None
    indices = {aoi.index for aoi, _ in every}
    for name, asked in (("include", request.include or []), ("exclude", request.exclude)):
        unknown = sorted(set(asked) - indices)
        if unknown:
            raise RequestError(f"product.{name}: {place} has areas 0 to {len(every) - 1}, not {unknown}")
    wanted = sorted((indices if request.include is None else set(request.include)) - set(request.exclude))
    if not wanted:
        raise RequestError(f"product.aois: no area of {place} is left by include and exclude")
    found = [every[index][0] for index in wanted]
    if all(aoi.fault for aoi in found):
        raise RequestError(f"product.aois: none of {len(found)} areas can be used; the first: {found[0].fault}")
    _warn(place, found, {aoi.index: mended for aoi, mended in every})
    return found


def _read(place: str) -> Iterator[tuple[Aoi, str]]:
    """All areas of a file, each with why it has been made valid, if it has."""
    index = 0
    for features in read_features(place):
        checked = check_polygons(features)
        for at, polygons in enumerate(checked.polygons):
            name, fault = _name(features, at), checked.faults[at]
            if fault:
                yield Aoi(index, name, None, f"its geometry {fault}"), ""
            else:
                yield Aoi(index, name, _joined(features.geometries[at], polygons)), checked.mended[at]
            index += 1


def _name(features: Features, at: int) -> str:
    return str(next((one for one in (features.ids[at], features.names[at]) if one), ""))


def _joined(written: Any, polygons: Any) -> MultiPolygon:
    """The polygons of an area; those of several that touch are one."""
    parts = shapely.get_parts(polygons)
    if written.geom_type != "Polygon":
        parts = shapely.get_parts(shapely.union_all(parts))
    return MultiPolygon([part for part in parts if isinstance(part, Polygon) and part.area > 0])


def _warn(place: str, areas: list[Aoi], mended: dict[int, str]) -> None:
    by_name: dict[str, list[str]] = {}
    for aoi in areas:
        if aoi.name:
            by_name.setdefault(aoi.name, []).append(str(aoi.index))
        if mended[aoi.index]:
            log.warning("product.aois: %s: area %d has been made valid: %s", place, aoi.index, mended[aoi.index])
    for name, indices in by_name.items():
        if len(indices) > 1:
            log.warning("product.aois: %s: areas %s have one id, %s", place, ", ".join(indices), name)
