"""Masks: what hides a pixel, how hidden areas grow, and that cuts do not show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from scenebeam.raster.grid import Grid
from scenebeam.raster.masks import MaskBand, PixelTest, SceneMask
from scenebeam.raster.morphology import dilate, distance_to, erode, opened
from scenebeam.raster.reader import open_source
from scenebeam.sandbox.scenes import write_image
from scenebeam.transfer.retry import Budget

masks = arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def distances(mask: np.ndarray, limit: int) -> np.ndarray:
    """By comparing all pixels with all."""
    rows, columns = np.nonzero(mask)
    found = np.full(mask.shape, float(limit))
    for row, column in np.ndindex(mask.shape):
        if len(rows):
            nearest = np.sqrt(((rows - row) ** 2 + (columns - column) ** 2).min())
            found[row, column] = min(nearest, limit)
    return found


@given(mask=masks, limit=st.integers(0, 15))
def test_distances_are_exact(mask: np.ndarray, limit: int) -> None:
    np.testing.assert_allclose(distance_to(mask, limit), distances(mask, limit), rtol=1e-6)


@given(mask=masks, radius=st.integers(0, 5))
def test_dilation_erosion_and_opening(mask: np.ndarray, radius: int) -> None:
    far = 20
    grown = distances(mask, far) <= radius if mask.any() else mask
    np.testing.assert_array_equal(dilate(mask, radius), grown)
    shrunk = ~(distances(~mask, far) <= radius) if not mask.all() else mask
    np.testing.assert_array_equal(erode(mask, radius), shrunk)
    assert not (opened(mask, radius) & ~mask).any()


@pytest.mark.parametrize(
    ("test", "hidden"),
    [
        (PixelTest(drop=(3, 9)), [False, True, True, True, False]),
        (PixelTest(keep=(4, 5)), [False, True, True, True, False]),
        (PixelTest(bits=(0, 3)), [False, True, True, True, True]),
        (PixelTest(above=5), [False, True, True, False, True]),
    ],
    ids=["drop", "keep", "bits", "above"],
)
def test_what_hides_the_ground(test: PixelTest, hidden: list[bool]) -> None:
    """The second value is nodata, of which nothing is known."""
    values = np.array([[4, 0, 9, 3, 5]], np.uint8)
    assert test.hidden(values, 0)[0].tolist() == hidden
    assert test.hidden(values.astype(np.int32), 0)[0].tolist() == hidden


@pytest.fixture
def classes(tmp_path: Path) -> np.ndarray:
    """A file of 20 m pixels: specks, a large cloud, and a margin without data."""
    rng = np.random.default_rng(5)
    pixels = np.where(rng.random((200, 300)) < 0.01, 9, 4).astype(np.uint8)
    pixels[60:90, 100:160] = 9
    pixels[:, :7] = 0
    write_image(tmp_path / "scl.tif", pixels, "EPSG:32634", (600_000, 4_500_000), 20, 128)
    return pixels


@pytest.mark.parametrize(
    "test",
    [
        PixelTest(drop=(9,)),
        PixelTest(drop=(9,), dilate=120),
        PixelTest(drop=(9,), opening=40, erode=20, dilate=60),
    ],
    ids=["plain", "dilated", "opened"],
)
def test_chunks_and_shards_have_the_mask_of_the_whole(
    classes: np.ndarray, tmp_path: Path, test: PixelTest
) -> None:
    source = open_source(str(tmp_path / "scl.tif"), 1, Budget(private=True))
    whole = Grid((400, 600), Affine(10, 0, 600_000, 0, -10, 4_500_000), "EPSG:32634")
    fine = np.repeat(np.repeat(classes, 2, axis=0), 2, axis=1)
    # Beyond the image nothing is hidden, as nothing is known there.
    hidden = np.pad(fine == 9, 30)
    opening, eroded, dilated = test.radii(10)
    hidden = dilate(erode(opened(hidden, opening), eroded), dilated)[30:-30, 30:-30]
    expected = ~hidden & (fine != 0)
    for left, right in ((0, 600), (0, 250), (250, 600)):
        grid = whole[:, left:right]
        mask = SceneMask("scl", [MaskBand(source, 0, test)], grid, whole, users=1)
        for top in (0, 150, 300):
            bottom = min(top + 150, 400)
            found = mask.clear(top, bottom)
            np.testing.assert_array_equal(found, expected[top:bottom, left:right])
            mask.release(top)


def test_the_distance_to_hidden_ground_is_in_meters(classes: np.ndarray, tmp_path: Path) -> None:
    source = open_source(str(tmp_path / "scl.tif"), 1, Budget(private=True))
    whole = Grid((400, 600), Affine(10, 0, 600_000, 0, -10, 4_500_000), "EPSG:32634")
    bands = [MaskBand(source, 0, PixelTest(drop=(9,), opening=60))]
    mask = SceneMask("scl", bands, whole, whole, users=1, reach=500.0)
    found = mask.distance(0, 400)
    # The cloud is columns 200 to 319 and rows 120 to 179; its straight edges stay.
    assert found[150, 350] == pytest.approx(310)
    assert found[150, 250] == 0
    assert found[390, 590] == 500
