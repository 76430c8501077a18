"""Checks: is this band fit to use? Judged by a sample of its numbers; no file is opened here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from scenebeam.raster.sample import Sample, blank
from scenebeam.raster.validity import Array
from scenebeam.request import Checks

HIGH_PERCENTILE = 99
"""Of an optical band, held against the plausible range: single pixels of snow, glint and cloud pass any bound."""


@dataclass(frozen=True)
class BandSpec:
    """What the numbers of a band are known to be."""

    sensor: Literal["optical", "sar"] | None = None
    unit: Literal["linear", "db"] | None = None
    """Of a radar's numbers; None where nothing declares it."""
    constant_ok: bool = False
    """Whether one number throughout is nothing odd: classes, aerosol maps."""
    value_range: tuple[float, float] | None = None
    """Plausible numbers of an optical band."""
    digital: bool = True
    """Whether the numbers are whole, with a sensor's noise in them."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with an image, or looks so."""

    level: Literal["error", "warning", "note"]
    """A note tells what could not be looked at."""
    check: str
    """What was looked at: `blank`, `nodata`, `range`, `unit`, `band`, `order`, `source`, `block`, `file`."""
    band: str
    """Empty where it is the whole file's."""
    message: str


@dataclass(frozen=True)
class Statistics:
    """Of a sample of a band: a radar's in dB, all others in its own numbers."""

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
    """The figures that checks go by."""
    values = sample.values.astype(np.float64)
    negative = 100 * float((values < 0).mean()) if values.size else 0.0
    nodata = sample.nodata_percent
    if spec.sensor == "sar" and spec.unit == "linear" and values.size:
        nodata += (100 - nodata) * float(
            (values == 0).mean()
        )  # zero power is where nothing was seen
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
    """Linear backscatter in dB, without what has none (10 log10 of power); all else as it is."""
    if spec.sensor != "sar" or spec.unit != "linear":
        return values
    return np.asarray(10 * np.log10(values[values > 0]))


def check_band(band: str, sample: Sample, spec: BandSpec, checks: Checks) -> list[Finding]:
    """Judge a band by its sensor's checks. Returns what is wrong with it, the worst first.

    Optical: no data, too much nodata, blank, implausible numbers (a warning). Radar: no data, too much
    nodata, numbers that contradict the declared unit, less spread than speckle has, implausible
    backscatter (a warning: calm water is that dark). Of all else that there is data, and unless it may
    be `uniform`, that it is not one number throughout. Nothing is wrong where `checks` are off.
    """
    if not checks.enabled:
        return []
    found = statistics(sample, spec)
    if sample.total and not sample.values.size:
        return [
            Finding(
                "error",
                "nodata",
                band,
                "all nodata: there is nothing in it; leave the band or the scene out",
            )
        ]
    if spec.constant_ok:
        return []
    if spec.sensor == "sar":
        return _nodata(band, found, checks) + _judge_sar(band, sample, found, spec, checks)
    if spec.sensor == "optical":
        blanks = _blank_optical(band, sample, spec, checks)
        return _nodata(band, found, checks) + blanks + _range(band, found, spec, checks)
    return _blank(band, sample, 0.0)


def _blank(band: str, sample: Sample, least: float, hint: str = "") -> list[Finding]:
    reason = blank(sample, least)
    return [Finding("error", "blank", band, reason + hint)] if reason else []


def _blank_optical(band: str, sample: Sample, spec: BandSpec, checks: Checks) -> list[Finding]:
    least = checks.optical.min_std_dev
    if least == 0:
        return []
    if not spec.digital:
        return _blank(band, sample, 0.0)
    hint = "; if the scene is really like that, lower checks.optical.min_std_dev"
    return _blank(band, sample, least, hint)


def _nodata(band: str, found: Statistics, checks: Checks) -> list[Finding]:
    most = checks.max_nodata_percent
    if found.nodata_percent <= most:
        return []
    told = f"{found.nodata_percent:.1f} % is nodata, more than checks.max_nodata_percent = {most:g}"
    return [Finding("error", "nodata", band, told)]


def _range(band: str, found: Statistics, spec: BandSpec, checks: Checks) -> list[Finding]:
    bounds = checks.optical.value_range or spec.value_range
    if bounds is None or (bounds[0] <= found.low and found.high <= bounds[1]):
        return []
    told = (
        f"implausible: 98 % of its numbers lie between {found.low:.6g} and {found.high:.6g}, and {bounds[0]:g} to "
        f"{bounds[1]:g} is expected; is it another unit, or is an offset in it twice?"
    )
    return [Finding("warning", "range", band, told)]


def _judge_sar(
    band: str, sample: Sample, found: Statistics, spec: BandSpec, checks: Checks
) -> list[Finding]:
    if spec.unit is None:
        told = "nothing declares whether it is linear or dB: name its collection, and its backscatter is checked too"
        blanks = _blank(band, sample, 0.0) if checks.sar.min_std_dev_db > 0 else []
        return blanks or [Finding("note", "unit", band, told)]
    if spec.unit == "linear" and found.negative_percent > 1:
        told = f"declared linear, but {found.negative_percent:.0f} % is negative, as power never is: is it in dB?"
        return [Finding("error", "unit", band, told)]
    if spec.unit == "db" and found.negative_percent < 1 and found.count:
        told = "declared dB, but next to nothing in it is negative, as most backscatter is: is it linear?"
        return [Finding("error", "unit", band, told)]
    least, (low, high) = checks.sar.min_std_dev_db, checks.sar.backscatter_range_db
    findings = []
    if found.std_dev < least:
        told = (
            f"blank: it spreads {found.std_dev:.2f} dB, and speckle alone is {least:g} dB or more"
        )
        findings.append(Finding("error", "blank", band, told))
    elif found.low < low or found.high > high:
        told = (
            f"implausible: 98 % of its backscatter lies between {found.low:.1f} and {found.high:.1f} dB, "
            f"and {low:g} to {high:g} is expected; is the unit {spec.unit} right?"
        )
        findings.append(Finding("warning", "range", band, told))
    return findings
