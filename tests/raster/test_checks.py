"""Checks: what is fit to use, and what is not, by the numbers alone."""

from __future__ import annotations

import numpy as np
import pytest

from scenebeam.raster.checks import BandSpec, check_band
from scenebeam.raster.sample import Sample
from scenebeam.request import Checks

RNG = np.random.default_rng(5)
OPTICAL = BandSpec("optical", value_range=(0, 16_000))
LINEAR, DB = BandSpec("sar", "linear"), BandSpec("sar", "db")
LAND = RNG.normal(1500, 300, (400, 400)).clip(1, 9000).astype(np.uint16)
BACKSCATTER_DB = RNG.normal(-11, 4, (400, 400)).astype(np.float32)
BACKSCATTER = (10 ** (BACKSCATTER_DB / 10)).astype(np.float32)


def found(
    pixels: np.ndarray, spec: BandSpec, nodata: float | None = 0, **checks: object
) -> list[tuple[str, str]]:
    sample = Sample(pixels.size)
    sample.add(pixels, nodata)
    return [
        (one.level, one.check)
        for one in check_band("b", sample, spec, Checks.model_validate(checks))
    ]


def with_nodata(pixels: np.ndarray, fraction: float, nodata: float = 0) -> np.ndarray:
    return np.where(RNG.random(pixels.shape) < fraction, nodata, pixels).astype(pixels.dtype)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (LAND, []),
        (np.full_like(LAND, 1500), [("error", "blank")]),
        (LAND % 2 + 1500, [("error", "blank")]),  # spreads half a number
        (LAND % 5 + 1500, []),
        (np.zeros_like(LAND), [("error", "nodata")]),
        (with_nodata(LAND, 0.4), []),
        (with_nodata(LAND, 0.6), [("error", "nodata")]),
        (LAND + 40_000, [("warning", "range")]),
        (
            np.where(RNG.random(LAND.shape) < 0.005, 21_494, LAND).astype(np.uint16),
            [],
        ),  # some pixels of glint
    ],
)
def test_optical(pixels: np.ndarray, expected: list) -> None:
    assert found(pixels, OPTICAL) == expected


def test_thresholds_are_the_requests() -> None:
    assert found(LAND % 2 + 1500, OPTICAL, optical={"min_std_dev": 0.1}) == []
    assert found(with_nodata(LAND, 0.6), OPTICAL, max_nodata_percent=70) == []
    assert found(LAND, OPTICAL, optical={"value_range": [0, 1000]}) == [("warning", "range")]
    assert found(BACKSCATTER_DB, DB, None, sar={"min_std_dev_db": 5}) == [("error", "blank")]
    assert found(BACKSCATTER_DB, DB, None, sar={"backscatter_range_db": [-15, 0]}) == [
        ("warning", "range")
    ]


def test_reflectance_as_fractions_is_blank_only_where_it_is_constant() -> None:
    spec = BandSpec("optical", digital=False)
    assert found((LAND / 10_000).astype(np.float32), spec, None) == []
    assert found(np.full((50, 50), 0.1, np.float32), spec, None) == [("error", "blank")]


@pytest.mark.parametrize(
    ("pixels", "spec", "expected"),
    [
        (BACKSCATTER, LINEAR, []),
        (BACKSCATTER_DB, DB, []),
        (BACKSCATTER_DB, LINEAR, [("error", "unit")]),
        (BACKSCATTER, DB, [("error", "unit")]),
        (BACKSCATTER * 0 + 0.05, LINEAR, [("error", "blank")]),
        (BACKSCATTER_DB * 0.1 - 11, DB, [("error", "blank")]),  # too smooth for speckle
        (BACKSCATTER * 1000, LINEAR, [("warning", "range")]),
        (BACKSCATTER_DB - 40, DB, [("warning", "range")]),
        (BACKSCATTER_DB, BandSpec("sar"), [("note", "unit")]),
        (BACKSCATTER_DB * 0 - 11, BandSpec("sar"), [("error", "blank")]),
    ],
)
def test_radar_goes_by_the_declared_unit(
    pixels: np.ndarray, spec: BandSpec, expected: list
) -> None:
    assert found(pixels, spec, None) == expected


def test_calm_water_is_dark_and_only_a_warning() -> None:
    """Four looks of VH at -26 dB: the 1st percentile lies below -30 dB, and floods are the point."""
    water = RNG.gamma(4, 10**-2.6 / 4, (200, 200)).astype(np.float32)
    assert found(water, LINEAR, -32768) == [("warning", "range")]
    assert found(water, LINEAR, -32768, sar={"backscatter_range_db": [-40, 10]}) == []


def test_a_least_spread_of_zero_accepts_a_constant_band() -> None:
    constant, fractions = np.full_like(LAND, 1500), np.full((50, 50), 0.1, np.float32)
    zero = {"min_std_dev": 0}
    assert found(constant, OPTICAL, optical={"min_std_dev": 0.001}) == [("error", "blank")]
    assert found(constant, OPTICAL, optical=zero) == []
    assert found(fractions, BandSpec("optical", digital=False), None, optical=zero) == []
    assert found(with_nodata(constant, 0.6), OPTICAL, optical=zero) == [("error", "nodata")]
    assert found(BACKSCATTER * 0 + 0.05, LINEAR, None, sar={"min_std_dev_db": 0}) == []
    undeclared = found(BACKSCATTER * 0 + 0.05, BandSpec("sar"), None, sar={"min_std_dev_db": 0})
    assert undeclared == [("note", "unit")]


@pytest.mark.parametrize("word", [False, "off", "OFF", "false"])
def test_checks_that_are_off_accept_any_numbers(word: object) -> None:
    checks = Checks.model_validate(word)
    assert not checks.enabled
    assert checks == Checks.model_validate_json(checks.model_dump_json())
    for pixels in (np.zeros_like(LAND), np.full_like(LAND, 7), with_nodata(LAND, 0.9)):
        sample = Sample(pixels.size)
        sample.add(pixels, 0)
        assert check_band("b", sample, OPTICAL, checks) == []


@pytest.mark.parametrize("word", [True, "on", {}])
def test_checks_that_are_on_are_the_default(word: object) -> None:
    assert Checks.model_validate(word) == Checks()


@pytest.mark.parametrize("word", ["of", 0, None, []])
def test_no_other_word_turns_checks_off(word: object) -> None:
    with pytest.raises(ValueError, match="Checks"):
        Checks.model_validate(word)


def test_masked_pixels_are_no_data_in_a_sample() -> None:
    """Files with a mask band come as masked arrays."""
    junk = np.ma.MaskedArray(np.full((200, 200), 9999, np.uint16), mask=False)
    junk[:, :100] = np.ma.masked
    sample = Sample(junk.size)
    sample.add(junk, None)
    assert sample.nodata_percent == pytest.approx(50)
    assert type(sample.values) is np.ndarray


def test_radar_without_a_single_bright_target_is_still_linear() -> None:
    """A median below 50 says nothing of the unit: linear power is below 1 nearly everywhere."""
    assert found(with_nodata(BACKSCATTER * 0.3, 0.3, -32768), LINEAR, -32768) == []


def test_classes_may_be_all_the_same_but_must_be_there() -> None:
    spec = BandSpec("optical", constant_ok=True)
    assert found(np.full((300, 300), 6, np.uint8), spec) == []
    assert found(np.zeros((300, 300), np.uint8), spec) == [("error", "nodata")]


def test_what_no_record_describes_must_only_vary() -> None:
    assert found(with_nodata(LAND, 0.9), BandSpec()) == []
    assert found(np.full_like(LAND, 3), BandSpec()) == [("error", "blank")]


def test_a_few_pixels_say_nothing_of_how_they_spread() -> None:
    assert found(np.full((5, 5), 700, np.uint16), OPTICAL) == []


def test_a_sample_is_bounded_and_recalled() -> None:
    sample = Sample(4000 * 4000)
    for _ in range(8):
        sample.add(RNG.integers(1, 9000, (500, 4000), dtype=np.uint16), 0)
    assert 200_000 < sample.values.size < 300_000
    again = Sample.from_values(sample.values.tolist(), sample.total)
    assert (again.std_dev, again.nodata_percent) == (sample.std_dev, sample.nodata_percent)
