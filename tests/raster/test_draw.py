"""Masks drawn of polygons: whose pixel it is, where the outline runs, and what two fields claim."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from rasterio.transform import from_origin

from scenebeam.raster.grid import Grid
from scenebeam.raster.rasterize import draw_masks

GRID = Grid((20, 30), from_origin(500_000, 5_000_000, 10, 10), "EPSG:32633")


def field(left: float, top: float, right: float, bottom: float) -> shapely.Polygon:
    """In pixels of the grid."""
    return shapely.box(
        500_000 + left * 10, 5_000_000 - bottom * 10, 500_000 + right * 10, 5_000_000 - top * 10
    )


def test_a_pixel_is_the_fields_that_its_centre_lies_in() -> None:
    drawn = draw_masks([field(2.4, 3.4, 7.4, 9.4)], [70_000], GRID, presence_only=False)
    expected = np.zeros((20, 30), np.uint32)
    expected[3:9, 2:7] = 70_000
    np.testing.assert_array_equal(drawn.instance, expected)
    np.testing.assert_array_equal(drawn.semantic_2_class, expected > 0)
    three = (expected > 0).astype(int)
    three[3:10, 2:8] = 2
    three[4:9, 3:7] = 1
    np.testing.assert_array_equal(drawn.semantic_3_class, three)
    assert drawn.overlap == 0


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_fields_the_first_in_the_file_has_the_pixel(order: tuple[int, int]) -> None:
    fields, numbers = [field(0, 0, 10, 10), field(5, 5, 15, 15)], [3, 8]
    drawn = draw_masks(
        [fields[n] for n in order], [numbers[n] for n in order], GRID, presence_only=False
    )
    assert (drawn.instance[:10, :10] == 3).all()
    assert (drawn.instance[10:15, 5:15] == 8).all()
    assert drawn.overlap == 25


def test_holes_are_no_field_and_have_a_boundary() -> None:
    whole = field(1, 1, 19, 19).difference(field(6.4, 6.4, 12.4, 12.4))
    drawn = draw_masks([whole], [1], GRID, presence_only=True)
    assert (drawn.semantic_2_class[7:12, 7:12] == 3).all()
    assert (drawn.semantic_3_class[8:11, 8:11] == 3).all()
    assert (drawn.semantic_3_class[6, 6:12] == 2).all()


def test_no_field_is_all_background() -> None:
    drawn = draw_masks([], [], GRID, presence_only=False)
    assert not drawn.instance.any()
    assert not drawn.semantic_3_class.any()
    assert drawn.instance.dtype == np.uint32
