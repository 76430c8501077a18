from __future__ import annotations

import imagecodecs
import numpy as np
import pytest

from scenebeam.raster.thumbnail import backscatter, classes, natural_color, shaded


def drawn(png: bytes) -> np.ndarray:
    image = np.asarray(imagecodecs.png_decode(png))
    assert image.shape[2] == 3
    return image


def test_reflectance_is_red_green_and_blue_up_to_three_tenths() -> None:
    bands = {
        "blue": np.full((2, 3), 0.0),
        "green": np.full((2, 3), 0.15),
        "red": np.full((2, 3), 0.3),
        "nir": np.ones((2, 3)),
    }
    np.testing.assert_array_equal(drawn(natural_color(bands)), np.full((2, 3, 3), [255, 128, 0]))
    np.testing.assert_array_equal(
        drawn(natural_color({"nir": np.full((2, 2), 0.6)})), np.full((2, 2, 3), 255)
    )


def test_radar_is_vv_vh_and_their_ratio_in_decibels() -> None:
    power = {"vv": np.full((2, 2), 0.1), "vh": np.full((2, 2), 0.01)}  # -10, -20 and 10 dB
    expected = [128, round(255 * 6 / 21), round(255 * 10 / 15)]
    np.testing.assert_array_equal(drawn(backscatter(power)), np.full((2, 2, 3), expected))
    assert drawn(backscatter({"hh": np.zeros((2, 2))})).max() == 0


@pytest.mark.parametrize(
    ("across", "up", "brighter"), [(-1, 1, False), (1, -1, True), (1, 1, None), (-1, -1, None)]
)
def test_relief_is_lit_from_the_north_west(across: int, up: int, brighter: bool | None) -> None:
    """A plane that rises to the east and to the north by so much a metre."""
    rows, columns = np.mgrid[0:8, 0:8] * 30.0
    image = drawn(shaded(0.2 * (across * columns - up * rows), 30))[4, 4, 0]
    flat = round(255 * np.sin(np.radians(45)))
    light = (
        np.array([np.sin(np.radians(315)), np.cos(np.radians(315)), 1]) * np.sqrt(0.5) * [1, 1, 1]
    )
    normal = np.array([-0.2 * across, -0.2 * up, 1]) / np.sqrt(1 + 2 * 0.2**2)
    assert abs(int(image) - 255 * float(light @ normal)) <= 1
    assert brighter is None or (image > flat) == brighter
    assert drawn(shaded(np.zeros((4, 4)), 30)).tolist() == np.full((4, 4, 3), flat).tolist()


def test_classes_have_the_colours_of_their_makers() -> None:
    image = drawn(classes(np.array([[1, 2], [7, 1]]), {1: "#419bdf", 2: "#397d49"}))
    assert image.tolist() == [[[65, 155, 223], [57, 125, 73]], [[128, 128, 128], [65, 155, 223]]]
