"""Find the pixel lattice that the scenes of a run share.

If the output grid is on that lattice, pixels are copied instead of resampled. Sentinel-2
has its pixel edges at multiples of 10 m, Landsat at 15 m plus multiples of 30 m.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scenebeam.catalog.bands import record_of
from scenebeam.catalog.scene import Asset, Scene
from scenebeam.errors import ReadError
from scenebeam.raster.grid import Origin, same_crs
from scenebeam.raster.reader import open_source
from scenebeam.request import RunRequest
from scenebeam.transfer.retry import Budget
from scenebeam.transfer.signing import effective_limits

_MAX_HEADERS = 4
"""Headers of one collection to read until one is in the grid's CRS: scenes can be in several UTM
zones.
"""
_SAME = 1e-3
"""Part of a pixel by which two lattices may differ and still be the same."""


@dataclass(frozen=True)
class _Lattice:
    """The pixel lattice of a collection in one CRS."""

    edge: tuple[float, float]
    """Easting and northing of an edge of a pixel."""
    pixel: float
    """Pixel size."""


def shared_origin(scenes: Iterable[Scene], bands: Sequence[str], request: RunRequest) -> Origin:
    """Find the pixel lattice of the finest requested band, if all scenes share it.

    Args:
        scenes: The scenes of the run.
        bands: Canonical names of bands.
        request: The request. The records of its collections say where their pixels are; else the
            header of a file in the grid's CRS does.

    Returns:
        A function of the grid's CRS and pixel size. It returns easting and northing of a pixel edge
        in [0, size), and (0, 0) if the scenes do not share a lattice, none of them is in that CRS,
        or the pixel size of the grid is not a multiple or a fraction of theirs. It raises ReadError
        for a header that may be readable later.
    """
    by_collection: dict[tuple[str, str], list[Scene]] = {}
    for scene in scenes:
        by_collection.setdefault((scene.collection, scene.provider), []).append(scene)

    def origin(crs: str, resolution: float) -> tuple[float, float]:
        origins = set()
        for collection_scenes in by_collection.values():
            lattice = _find_lattice(collection_scenes, bands, request, crs)
            if lattice is not None:
                origins.add(_grid_origin(lattice, resolution))
        return origins.pop() if len(origins) == 1 else (0.0, 0.0)

    return origin


def _find_lattice(
    scenes: Sequence[Scene], bands: Sequence[str], request: RunRequest, crs: str
) -> _Lattice | None:
    """Return the lattice of one collection in a CRS; None if it is not known."""
    record = record_of(scenes[0], request)
    assets = []
    for scene in scenes:
        asset = _finest_asset(scene, bands)
        if asset is not None:
            assets.append(asset)
    if not assets:
        return None
    if record.pixel_origin is not None:
        return _Lattice(record.pixel_origin, assets[0].resolution)
    limits = effective_limits(request).model_copy(update={"max_attempts": 2, "retry_seconds": 5})
    budget = Budget.of(limits)
    # Spread the few headers over all scenes: neighbors in the list are often of the same zone.
    step = max(1, len(assets) // _MAX_HEADERS)
    for asset in assets[::step][:_MAX_HEADERS]:
        try:
            info = open_source(asset.href, asset.index, budget, asset.signing).info
        except ReadError as error:
            if not error.permanent:
                # Otherwise a grid that is off the lattice would be frozen with the plan.
                raise
            continue  # the task reports it
        transform = info.transform
        is_square = transform.b == transform.d == 0 and transform.a == -transform.e
        if is_square and same_crs(info.crs, crs):
            return _Lattice((transform.c, transform.f), transform.a)
    return None


def _finest_asset(scene: Scene, bands: Sequence[str]) -> Asset | None:
    assets = [scene.assets[name] for name in bands if name in scene.assets]
    return min(assets, key=lambda asset: asset.resolution, default=None)


def _grid_origin(lattice: _Lattice, resolution: float) -> tuple[float, float]:
    """Return the origin of a grid whose pixel edges coincide with those of a lattice.

    It is counted modulo the smaller one of the two pixel sizes.
    """
    fine, coarse = sorted((lattice.pixel, resolution))
    if abs(coarse / fine - round(coarse / fine)) > _SAME:
        return 0.0, 0.0
    x, y = (round(side % fine, 6) for side in lattice.edge)
    # An edge just below `fine` is 0, as far as floating point allows.
    return (x if fine - x > _SAME * fine else 0.0), (y if fine - y > _SAME * fine else 0.0)
