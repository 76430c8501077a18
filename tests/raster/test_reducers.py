"""Each method of composites against an independent computation in NumPy, on random observations."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from scenebeam.raster.order_statistics import first_true, median, sorting_network, where
from scenebeam.raster.reduce import BandValues, Context, Reduced, Stack, reducer
from scenebeam.raster.reducers.geomedian import TOLERANCE, geometric_median

Case = tuple[np.ndarray, np.ndarray, BandValues]
"""Pixels of shape (bands, observations, rows, columns), where they are valid, and the encoding."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of NumPy: all NaN
        yield


@st.composite
def cases(draw: st.DrawFn) -> Case:
    dtype = np.dtype(draw(st.sampled_from(["uint8", "uint16", "int16", "float32"])))
    shape = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 9)),
        draw(st.integers(1, 4)),
        draw(st.integers(1, 5)),
    )
    if dtype.kind == "f":
        values = st.floats(-100, 100, width=16).filter(lambda number: number != -32)
        pixels = draw(arrays.arrays(dtype, shape, elements=values))
        nodata = draw(st.sampled_from([float("nan"), -32.0]))
    else:
        # Few different numbers, so that there are ties, and the ends of the range.
        limits: Any = np.iinfo(dtype.name)
        numbers = st.sampled_from([limits.min, 1, 2, 3, 5, 8, 100, limits.max])
        pixels = draw(arrays.arrays(dtype, shape, elements=numbers))
        nodata = draw(st.sampled_from([0.0, 4.0, float(limits.max)]))
    valid = draw(arrays.arrays(bool, shape))
    return pixels, valid, BandValues("red", dtype, nodata, 1e-4, 0.0)


def reduce_case(method: str, case: Case, **parameters: object) -> Reduced:
    pixels, valid, encoding = case
    names = ["red", "nir", "blue"]
    bands = [
        BandValues(name, encoding.dtype, encoding.nodata, encoding.scale, encoding.offset)
        for name in names[: len(pixels)]
    ]
    context = Context(bands, len(bands), parameters)
    return reducer(method)(context).reduce(Stack(list(pixels), list(valid)))


def encoded(values: np.ndarray, has_data: np.ndarray, encoding: BandValues) -> np.ndarray:
    """Rounded half to even; valid numbers never equal nodata."""
    nodata = encoding.nodata
    assert nodata is not None
    if encoding.dtype.kind == "f":
        return np.where(has_data, values, nodata).astype(encoding.dtype)
    rounded = np.rint(np.where(has_data, values, 0)).astype(np.int64)
    step = -1 if nodata == np.iinfo(encoding.dtype).max else 1
    rounded = np.where(rounded == nodata, rounded + step, rounded)
    return np.where(has_data, rounded, nodata).astype(encoding.dtype)


@pytest.mark.parametrize(
    ("method", "how"),
    [
        ("median", lambda stack: np.nanmedian(stack, axis=0)),
        ("mean", lambda stack: np.nanmean(stack, axis=0)),
        ("percentile", lambda stack: np.nanpercentile(stack, 30, axis=0)),
    ],
)
@given(case=cases())
@settings(max_examples=150)
def test_methods_that_combine_each_band(
    method: str, how: Callable[..., np.ndarray], case: Case
) -> None:
    pixels, valid, encoding = case
    found = reduce_case(method, case, percentile=30)
    assert found.taken is None
    for band, band_valid, image, has_data in zip(
        pixels, valid, found.pixels, found.valid, strict=True
    ):
        np.testing.assert_array_equal(has_data, band_valid.any(axis=0))
        values = how(np.where(band_valid, band.astype(np.float64), np.nan))
        expected = encoded(values, has_data, encoding)
        if encoding.dtype.kind == "f" or method == "percentile":
            # Sums of floats depend on their order, and interpolation on its form.
            close = 1 if encoding.dtype.kind != "f" else 1e-4
            np.testing.assert_allclose(
                image.astype(float), expected.astype(float), atol=close, rtol=1e-5
            )
        else:
            np.testing.assert_array_equal(image, expected)


def taken_by(score: np.ndarray, complete: np.ndarray) -> np.ndarray:
    """The first complete observation with the highest score; -1 where there is none."""
    best = np.full(score.shape[1:], -1)
    for place in np.ndindex(best.shape):
        for number in range(len(score)):
            if not complete[(number, *place)]:
                continue
            if best[place] < 0 or score[(number, *place)] > score[(best[place], *place)]:
                best[place] = number
    return best


@pytest.mark.parametrize("method", ["first-clear", "medoid", "max", "min"])
@given(case=cases())
@settings(max_examples=150)
def test_methods_that_take_whole_pixels(method: str, case: Case) -> None:
    pixels, valid, encoding = case
    complete = np.asarray(valid.all(axis=0))
    floats = pixels.astype(np.float64)
    if method == "first-clear":
        score = np.zeros(complete.shape)
    elif method == "medoid":
        middle = np.nanmedian(np.where(complete, floats, np.nan), axis=1)
        score = -((floats - middle[:, None]) ** 2).sum(axis=0)
    else:
        score = (1 if method == "max" else -1) * (pixels[0].astype(np.float32) * np.float32(1e-4))
    found = reduce_case(method, case, expression="red", variables={"red": "red"})
    expected = taken_by(score, complete)
    np.testing.assert_array_equal(found.taken, expected)
    for band, image in zip(pixels, found.pixels, strict=True):
        whole = np.take_along_axis(band, np.maximum(expected, 0)[None], axis=0)[0]
        np.testing.assert_array_equal(
            image, encoded(whole.astype(np.float64), expected >= 0, encoding)
        )


@given(
    spectra=arrays.arrays(np.float64, (3, 7, 4), elements=st.floats(0, 1, width=32)),
    count=st.integers(1, 7),
)
def test_no_point_is_nearer_to_all_spectra_than_the_geometric_median(
    spectra: np.ndarray, count: int
) -> None:
    """Its sum of distances is that of the best of many trial points, or less."""
    spectra = spectra.copy()
    spectra[:, count:] = np.nan
    center = geometric_median(spectra)

    def cost(points: np.ndarray) -> np.ndarray:
        return np.nansum(np.sqrt(((spectra - points[:, None]) ** 2).sum(axis=0)), axis=0)

    found = cost(center)
    rng = np.random.default_rng(0)
    for size in (1e-1, 1e-2, 1e-3):
        for _ in range(20):
            trial = center + rng.normal(0, size, center.shape)
            assert (found <= cost(trial) + 2e-4).all()
    for number in range(count):
        assert (found <= cost(spectra[:, number]) + 2e-4).all()


def test_the_geometric_median_of_known_points() -> None:
    """The Fermat point of an equilateral triangle, the middle of a line, and a single point."""
    corners = np.array([[0.0, 1.0, 0.5], [0.0, 0.0, np.sqrt(3) / 2]])
    line = np.array([[0.1, 0.2, 0.9], [0.1, 0.2, 0.9]])
    single = np.array([[0.3, np.nan, np.nan], [0.4, np.nan, np.nan]])
    spectra = np.stack([corners, line, single], axis=-1)
    expected = np.array([[0.5, 0.2, 0.3], [np.sqrt(3) / 6, 0.2, 0.4]])
    np.testing.assert_allclose(geometric_median(spectra), expected, atol=300 * TOLERANCE)


@given(case=cases())
@settings(max_examples=50)
def test_the_geomedian_of_one_observation_is_that_observation(case: Case) -> None:
    pixels, valid, encoding = case
    one = pixels[:, :1], valid[:, :1], encoding
    found = reduce_case("geomedian", one)
    complete = np.asarray(valid[:, 0].all(axis=0))
    for band, image in zip(pixels[:, 0], found.pixels, strict=True):
        expected = encoded(band.astype(np.float64), complete, encoding)
        np.testing.assert_allclose(image.astype(float), expected.astype(float), rtol=1e-6)
    assert np.isnan(found.extra["emad"][~complete]).all()
    np.testing.assert_allclose(found.extra["emad"][complete], 0, atol=1e-6)


def test_deviations_from_the_geomedian() -> None:
    """Against their definitions, for the observations of one pixel."""
    rng = np.random.default_rng(3)
    pixels = rng.integers(100, 5000, (3, 9, 1, 1)).astype(np.uint16)
    valid = np.ones(pixels.shape, bool)
    found = reduce_case("geomedian", (pixels, valid, BandValues("", pixels.dtype, 0, 1e-4)))
    x = pixels[:, :, 0, 0] * 1e-4
    center = geometric_median(x[:, :, None])[:, 0]
    euclidean = np.linalg.norm(x - center[:, None], axis=0)
    lengths = np.linalg.norm(x, axis=0) * np.linalg.norm(center)
    cosine = 1 - (x * center[:, None]).sum(axis=0) / lengths
    bray = np.abs(x - center[:, None]).sum(axis=0) / np.abs(x + center[:, None]).sum(axis=0)
    for name, distance in (("emad", euclidean), ("smad", cosine), ("bcmad", bray)):
        assert found.extra[name][0, 0] == pytest.approx(np.median(distance), rel=1e-5)


SCORE = {
    "weights": {"distance": 1.0, "day": 2.0, "sensor": 0.5, "opacity": 0.25},
    "required_distance": 1500.0,
    "target_day": 360,
    "sigma_days": 20.0,
    "sensors": {"landsat-7": 0.5},
}


def test_the_score_of_the_best_pixel() -> None:
    """Around the end of the year, with a distance, a platform and clouds that differ."""
    days, platforms, clouds = (5, 350, 358), ("landsat-8", "landsat-7", "landsat-8"), (0, 10, 40)
    distance = np.array([3000.0, 750.0, 150.0], np.float32).reshape(3, 1, 1)
    pixels = np.array([[[1]], [[2]], [[3]]], np.uint16)
    bands = [BandValues("red", pixels.dtype, 0)]
    context = Context(bands, 1, SCORE, days, platforms, clouds)
    valid = np.ones((3, 1, 1), bool)
    expected = []
    for number, day in enumerate(days):
        away = min(abs(day - 360), 365.25 - abs(day - 360))
        near = min(distance[number, 0, 0], 1500.0)
        scored = 1 / (1 + np.exp(-10 * (near / 1500 - 0.5)))
        scored += 2 * np.exp(-0.5 * (away / 20) ** 2)
        scored += 0.5 * (0.5 if platforms[number] == "landsat-7" else 1)
        expected.append((scored + 0.25 * (1 - clouds[number] / 100)) / 3.75)
    clipped = np.minimum(distance, np.float32(1500))
    found = reducer("best-pixel")(context).reduce(Stack([pixels], [valid], clipped))
    assert found.taken is not None
    assert found.taken[0, 0] == np.argmax(expected)
    assert found.extra["score"][0, 0] == pytest.approx(max(expected), rel=1e-5)


@given(size=st.integers(1, 33), data=st.data())
def test_a_network_brings_the_wanted_numbers_to_their_places(
    size: int, data: st.DataObject
) -> None:
    wanted = frozenset(data.draw(st.sets(st.integers(0, size - 1), min_size=1)))
    numbers = np.array(data.draw(st.lists(st.integers(0, 9), min_size=size, max_size=size)))
    planes = list(numbers)
    for low, high in sorting_network(size, wanted):
        planes[low], planes[high] = min(planes[low], planes[high]), max(planes[low], planes[high])
    ordered = np.sort(numbers)
    assert all(planes[place] == ordered[place] for place in wanted)


@given(case=cases())
def test_choosing_by_bits_is_choosing(case: Case) -> None:
    pixels, valid, _ = case
    one, other, mask = pixels[0, 0], pixels[-1, -1], valid[0, 0]
    np.testing.assert_array_equal(where(mask, one, other), np.where(mask, one, other))
    np.testing.assert_array_equal(first_true(valid[0]), valid[0].argmax(axis=0))


def test_numbers_at_the_ends_of_the_range_are_not_taken_for_padding() -> None:
    pixels = np.array([0, 65535, 0, 65535, 7], np.uint16).reshape(5, 1, 1)
    valid = np.array([True, True, True, False, False]).reshape(5, 1, 1)
    low, high = median(pixels, valid)
    assert low[0, 0] == high[0, 0] == 0
