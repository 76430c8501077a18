"""The output grid: from the area, snapped, split at seams and never stretched."""

from __future__ import annotations

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from scenebeam.catalog.area import area_geometry
from scenebeam.metadata.stac_items import grid_footprint, item_bbox
from scenebeam.raster.grid import choose_grid, project, project_footprint, utm_crs
from scenebeam.request import Area, GridRequest


@given(
    st.floats(-179, 178),
    st.floats(-79, 83),
    st.floats(0.001, 1.0),
    st.floats(0.001, 0.5),
    st.sampled_from([10.0, 20.0, 60.0, 7.5]),
)
def test_the_grid_covers_the_area_and_snaps_to_the_resolution(
    west: float, south: float, wide: float, high: float, resolution: float
) -> None:
    area = area_geometry(Area(bbox=(west, south, west + wide, south + high)))
    grid = choose_grid(area, GridRequest(), resolution)
    left, bottom, right, top = grid.bounds
    assert left % resolution == pytest.approx(0, abs=1e-6) or left % resolution == pytest.approx(
        resolution, abs=1e-6
    )
    bounds = project(area, grid.crs).bounds
    assert left <= bounds[0] + 1e-5
    assert bottom <= bounds[1] + 1e-5
    assert right >= bounds[2] - 1e-5
    assert top >= bounds[3] - 1e-5
    assert bounds[0] - left < resolution + 1e-5
    assert top - bounds[3] < resolution + 1e-5


@pytest.mark.parametrize(
    ("bbox", "code"),
    [
        ((23.0, 40.0, 23.5, 40.5), 32634),
        ((23.9, 40.0, 24.4, 40.5), 32635),
        ((-70.0, -30.0, -69.0, -29.0), 32719),
        ((179.5, -17.0, -179.9, -16.0), 32760),
        ((179.9, 10.0, -179.5, 11.0), 32601),
        ((10.0, 84.5, 20.0, 85.0), 32661),
        ((10.0, -85.0, 20.0, -84.5), 32761),
    ],
)
def test_the_zone_is_the_areas(bbox: tuple[float, float, float, float], code: int) -> None:
    assert utm_crs(area_geometry(Area(bbox=bbox))).to_epsg() == code


def test_a_grid_over_the_antimeridian_is_as_narrow_as_its_area() -> None:
    grid = choose_grid(area_geometry(Area(bbox=(179.9, 10.0, -179.9, 10.2))), GridRequest(), 10)
    assert grid.shape[1] * 10 == pytest.approx(0.2 * 111_320 * 0.985, rel=0.02)
    footprint = grid_footprint(grid)
    assert footprint["type"] == "MultiPolygon"
    west, south, east, north = item_bbox(footprint)
    assert west == pytest.approx(179.9, abs=0.01)
    assert east == pytest.approx(-179.9, abs=0.01)
    assert south == pytest.approx(10.0, abs=0.01)
    assert north == pytest.approx(10.2, abs=0.01)


def test_bounds_are_taken_as_they_are() -> None:
    asked = GridRequest(
        crs="EPSG:32621", resolution=30, bounds=(694_005, -2_832_795, 778_575, -2_766_615)
    )
    grid = choose_grid(None, asked, 10)
    assert grid.shape == (2206, 2819)
    assert tuple(grid.bounds) == asked.bounds


def test_a_footprint_that_a_crs_cannot_hold_promises_nothing() -> None:
    assert project_footprint(shapely.box(-179.95, -60, 179.95, 80), "EPSG:32634") is None
    near = project_footprint(shapely.box(23, 40, 24, 41), "EPSG:32634")
    assert near is not None
    assert near.is_valid
    assert near.area == pytest.approx(9.3e9, rel=0.05)
