"""Origins: the pixel lattice that the scenes of a run share, so that the grid lies on it and no
pixel is moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from scenebeam.catalog.bands import record_of
from scenebeam.catalog.scene import Asset, Scene
from scenebeam.errors import ReadError
from scenebeam.raster.grid import Origin, same_crs
from scenebeam.raster.reader import open_source
from scenebeam.request import RunRequest
from scenebeam.transfer.retry import Budget
from scenebeam.transfer.signing import effective_limits

_MOST_HEADERS = 4
"""That are read of one collection before its lattice is given up as unknown: its scenes may lie in
several zones.
"""
_WHOLE = 1e-3
"""Part of a pixel by which two lattices may be apart and still be the same."""


def shared_origin(scenes: Iterable[Scene], bands: Sequence[str], request: RunRequest) -> Origin:
    """Find the lattice of the finest of some bands, which all scenes must share.

    A collection's record says where its pixels lie; else the header of a file in the grid's CRS
    does.

    Returns:
        A function of the grid's CRS and pixel size, which gives the easting and northing of a
        pixel's edge in [0, size); (0, 0) where sources do not share a lattice, none of them lies in
        that CRS, or their pixels are no whole part or multiple of the grid's.
    """
    found = list(scenes)

    def origin(crs: str, resolution: float) -> tuple[float, float]:
        lattices = set()
        for collection in dict.fromkeys((scene.collection, scene.provider) for scene in found):
            own = [scene for scene in found if (scene.collection, scene.provider) == collection]
            lattice = _lattice(own, bands, request, crs)
            if lattice is not None:
                lattices.add(_on_grid(*lattice, resolution))
        return lattices.pop() if len(lattices) == 1 else (0.0, 0.0)

    return origin


def _lattice(
    scenes: Sequence[Scene], bands: Sequence[str], request: RunRequest, crs: str
) -> tuple[tuple[float, float], float] | None:
    """An edge of a pixel and the size of pixels of one collection's files in a CRS; None where
    nothing tells.
    """
    record = record_of(scenes[0], request)
    assets = [asset for scene in scenes if (asset := _finest(scene, bands)) is not None]
    if not assets:
        return None
    if record.pixel_origin is not None:
        return record.pixel_origin, assets[0].resolution
    budget = Budget.of(
        effective_limits(request).model_copy(update={"max_attempts": 2, "retry_seconds": 5})
    )
    step = max(1, len(assets) // _MOST_HEADERS)
    for asset in assets[::step][:_MOST_HEADERS]:
        try:
            info = open_source(asset.href, asset.index, budget, asset.signing).info
        except ReadError as error:
            if not error.permanent:
                raise  # a grid beside the lattice would be frozen with the plan
            continue  # making will name the fault
        square = info.transform.b == info.transform.d == 0 and info.transform.a == -info.transform.e
        if square and same_crs(info.crs, crs):
            return (info.transform.c, info.transform.f), info.transform.a
    return None


def _finest(scene: Scene, bands: Sequence[str]) -> Asset | None:
    there = [scene.assets[name] for name in bands if name in scene.assets]
    return min(there, key=lambda asset: asset.resolution, default=None)


def _on_grid(edge: tuple[float, float], pixel: float, resolution: float) -> tuple[float, float]:
    """Where the edges of a grid's pixels lie that fall on edges of a source's, modulo the smaller
    of the two.
    """
    fine, coarse = sorted((pixel, resolution))
    if abs(coarse / fine - round(coarse / fine)) > _WHOLE:
        return 0.0, 0.0
    x, y = (round(side % fine, 6) for side in edge)
    return (x if fine - x > _WHOLE * fine else 0.0), (y if fine - y > _WHOLE * fine else 0.0)
