"""What plans of gridded products share: one grid for a series, and the scenes that are on it."""

from __future__ import annotations

from collections.abc import Sequence

from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.acquisition import Acquisition
from scenebeam.catalog.scene import Scene
from scenebeam.catalog.select import shares_ground
from scenebeam.imaging.bands import covered_area
from scenebeam.imaging.estimate import finest_resolution
from scenebeam.imaging.pixel_origin import shared_origin
from scenebeam.raster.grid import Grid, choose_grid
from scenebeam.request import RunRequest
from scenebeam.transfer.signing import effective_limits


def series_grid(
    acquisitions: Sequence[Acquisition],
    bands: Sequence[str],
    request: RunRequest,
    area: MultiPolygon | None,
) -> Grid:
    """Choose one grid for all images of a run.

    Args:
        acquisitions: Acquisitions with footprints.
        bands: Canonical names; the finest band decides the pixel size and the pixel lattice.
        request: The request.
        area: Area in degrees; None for all that the scenes cover.

    Raises:
        RequestError: The grid would be empty or too large, or no scene has a footprint.
        ReadError: A header that decides the pixel lattice may be readable later.
    """
    scenes: list[Scene] = []
    for acquisition in acquisitions:
        scenes += acquisition.scenes
    if area is None and request.grid.bounds is None:
        area = covered_area(scenes)
    return choose_grid(
        area,
        request.grid,
        finest_resolution(request, bands),
        origin=shared_origin(scenes, bands, request),
        max_pixels=effective_limits(request).max_pixels,
    )


def scenes_on_grid(acquisition: Acquisition, extent: BaseGeometry) -> tuple[Scene, ...]:
    """Return the scenes whose footprint overlaps a grid, or is not known.

    Args:
        acquisition: The acquisition.
        extent: Outline of the grid in degrees.
    """
    scenes = []
    for scene in acquisition.scenes:
        if scene.footprint is None or shares_ground(scene.footprint, extent):
            scenes.append(scene)
    return tuple(scenes)
