"""Check whether a band is fit for use, from a sample of its numbers. No file is opened here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from scenebeam.raster.sample import Sample, blank_reason
from scenebeam.raster.validity import Array
from scenebeam.request import Checks

HIGH_PERCENTILE = 99
"""Percentile that plausible ranges apply to; 100 minus it at the lower end.

Single pixels of snow, glint and cloud are beyond any range.
"""


@dataclass(frozen=True)
class BandSpec:
    """What is known about the numbers of a band."""

    sensor: Literal["optical", "sar"] | None = None
    unit: Literal["linear", "db"] | None = None
    """Unit of backscatter; None if nothing declares it."""
    constant_ok: bool = False
    """Whether a single number everywhere is normal, as for classes and aerosol maps."""
    value_range: tuple[float, float] | None = None
    """Plausible numbers of an optical band."""
    digital: bool = True
    """Whether the numbers are integers, with the noise of a sensor."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with an image, or looks wrong."""

    level: Literal["error", "warning", "note"]
    """A note says what could not be checked."""
    check: str
    """Check: `blank`, `nodata`, `range`, `unit`, `band`, `order`, `source`, `block` or `file`."""
    band: str
    """Name of the band; empty if the finding is about the whole file."""
    message: str


@dataclass(frozen=True)
class Statistics:
    """Statistics of a sample of a band: backscatter in dB, other bands in their own numbers."""

    count: int
    nodata_percent: float
    mean: float
    std_dev: float
    low: float
    """1st percentile."""
    high: float
    """99th percentile."""
    negative_percent: float
    """Of the numbers as they are in the file."""


def statistics(sample: Sample, spec: BandSpec) -> Statistics:
    """Compute the statistics that the checks compare with their thresholds."""
    values = sample.values.astype(np.float64)
    negative = 100 * float((values < 0).mean()) if values.size else 0.0
    nodata = sample.nodata_percent
    if spec.sensor == "sar" and spec.unit == "linear" and values.size:
        # Zero power means that nothing was measured.
        nodata += (100 - nodata) * float((values == 0).mean())
    values = decibels(values, spec)
    if not values.size:
        return Statistics(0, nodata, 0.0, 0.0, 0.0, 0.0, negative)
    low, high = np.percentile(values, [100 - HIGH_PERCENTILE, HIGH_PERCENTILE])
    return Statistics(
        int(values.size),
        round(nodata, 4),
        float(values.mean()),
        float(values.std()),
        float(low),
        float(high),
        negative,
    )


def decibels(values: Array, spec: BandSpec) -> Array:
    """Convert linear backscatter to dB (10 log10 of power); other numbers are returned unchanged.

    Numbers that have no logarithm are dropped.
    """
    if spec.sensor != "sar" or spec.unit != "linear":
        return values
    return np.asarray(10 * np.log10(values[values > 0]))


def check_band(band: str, sample: Sample, spec: BandSpec, checks: Checks) -> list[Finding]:
    """Check a band by the rules of its sensor.

    - All bands: some pixels must hold data.
    - Optical: not too much nodata, not blank, plausible numbers (a warning).
    - Radar: not too much nodata, numbers that agree with the declared unit, at least the spread of
      speckle, plausible backscatter (a warning: calm water is that dark).
    - Others: not a single number everywhere.
    - Bands with `constant_ok`: nothing else.

    Args:
        band: Name of the band, for the findings.
        sample: Sample of its numbers.
        spec: What is known about them.
        checks: Thresholds; if they are disabled, nothing is checked.

    Returns:
        What is wrong, worst first; empty if nothing is.
    """
    if not checks.enabled:
        return []
    figures = statistics(sample, spec)
    if sample.total and not sample.values.size:
        message = "all nodata: none of its pixels holds data; leave out the band or the scene"
        return [Finding("error", "nodata", band, message)]
    if spec.constant_ok:
        return []
    if spec.sensor == "sar":
        return _nodata(band, figures, checks) + _check_sar(band, sample, figures, spec, checks)
    if spec.sensor == "optical":
        blanks = _blank_optical(band, sample, spec, checks)
        return _nodata(band, figures, checks) + blanks + _range(band, figures, spec, checks)
    return _blank(band, sample, 0.0)


def _blank(band: str, sample: Sample, least: float, hint: str = "") -> list[Finding]:
    reason = blank_reason(sample, least)
    return [Finding("error", "blank", band, reason + hint)] if reason else []


def _blank_optical(band: str, sample: Sample, spec: BandSpec, checks: Checks) -> list[Finding]:
    least = checks.optical.min_std_dev
    if least == 0:
        return []
    if not spec.digital:  # the threshold is in digital numbers
        return _blank(band, sample, 0.0)
    hint = "; if the scene is really like that, lower checks.optical.min_std_dev"
    return _blank(band, sample, least, hint)


def _nodata(band: str, figures: Statistics, checks: Checks) -> list[Finding]:
    most, percent = checks.max_nodata_percent, figures.nodata_percent
    if percent <= most:
        return []
    message = f"{percent:.1f} % is nodata, more than checks.max_nodata_percent = {most:g}"
    return [Finding("error", "nodata", band, message)]


def _range(band: str, figures: Statistics, spec: BandSpec, checks: Checks) -> list[Finding]:
    bounds = checks.optical.value_range or spec.value_range
    if bounds is None or (bounds[0] <= figures.low and figures.high <= bounds[1]):
        return []
    message = (
        f"implausible: 98 % of its numbers are between {figures.low:.6g} and {figures.high:.6g}, "
        f"expected {bounds[0]:g} to {bounds[1]:g}; are they in another unit, or was an offset "
        "added twice?"
    )
    return [Finding("warning", "range", band, message)]


def _check_sar(
    band: str, sample: Sample, figures: Statistics, spec: BandSpec, checks: Checks
) -> list[Finding]:
    if spec.unit is None:
        blanks = _blank(band, sample, 0.0) if checks.sar.min_std_dev_db > 0 else []
        message = (
            "nothing declares whether it is linear or dB; name its collection to have its "
            "backscatter checked"
        )
        return blanks or [Finding("note", "unit", band, message)]
    wrong_unit = _wrong_unit(figures, spec)
    if wrong_unit:
        return [Finding("error", "unit", band, wrong_unit)]
    least, (low, high) = checks.sar.min_std_dev_db, checks.sar.backscatter_range_db
    if figures.std_dev < least:
        message = (
            f"blank: its standard deviation is {figures.std_dev:.2f} dB; speckle alone has "
            f"{least:g} dB or more"
        )
        return [Finding("error", "blank", band, message)]
    if figures.low < low or figures.high > high:
        message = (
            f"implausible: 98 % of its backscatter is between {figures.low:.1f} and "
            f"{figures.high:.1f} dB, expected {low:g} to {high:g}; is the unit {spec.unit} right?"
        )
        return [Finding("warning", "range", band, message)]
    return []


def _wrong_unit(figures: Statistics, spec: BandSpec) -> str:
    """Return how the numbers contradict the declared unit of backscatter; empty if they do not."""
    negative = figures.negative_percent
    if spec.unit == "linear" and negative > 1:
        return f"declared linear, but {negative:.0f} % is negative; power never is: is it in dB?"
    if spec.unit == "db" and negative < 1 and figures.count:
        return "declared dB, but hardly any number is negative; most backscatter is: is it linear?"
    return ""
