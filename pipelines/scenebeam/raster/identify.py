"""Identify the bands of an image file by what it says about itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from scenebeam.collections import CollectionRecord, known_records
from scenebeam.raster.checks import BandSpec

_MAX_WORDS = 3
"""Words of a file name that can make up the name of a band."""


class NamedBand(NamedTuple):
    """Common name of a band, empty if unknown, and the collections that have such a band."""

    name: str
    records: Sequence[CollectionRecord]


_UNKNOWN = NamedBand("", ())


@dataclass(frozen=True)
class Identified:
    """One band of a file, and what is known about it."""

    index: int
    """Index in the file, from 1."""
    name: str
    """Common name, or `band <index>` if it is unknown."""
    records: tuple[CollectionRecord, ...]
    """Collections that the band may belong to, by its name."""
    certain: bool
    """Whether the collection was given, instead of guessed."""
    conflict: str = ""
    """How its description contradicts the name of the file; empty if it does not."""

    def spec(self, dtype: np.dtype[Any]) -> BandSpec:
        """Return what is known about the numbers: everything that all `records` agree on.

        Args:
            dtype: Dtype of the band.
        """
        digital = dtype.kind in "ui"
        value_range = None
        if digital:  # ranges are of digital numbers; they do not apply to physical values
            value_range = _agreed([record.value_range for record in self.records])
        constant_ok = _agreed([record.may_be_constant(self.name) for record in self.records])
        return BandSpec(
            sensor=self._sensor,
            unit=_agreed([record.unit for record in self.records]) if self.certain else None,
            constant_ok=bool(constant_ok),
            value_range=value_range,
            digital=digital,
        )

    @property
    def _sensor(self) -> Any:
        return _agreed([record.band_sensor(self.name) for record in self.records])

    @property
    def nodata(self) -> float | None:
        """Nodata value of the collection, if that was given."""
        return self.records[0].band_nodata(self.name) if self.certain and self.records else None

    @property
    def reflectance(self) -> tuple[float, float] | None:
        """(scale, offset) to reflectance of an optical band with a wavelength, if known."""
        scaling: tuple[float, float] | None = _agreed(
            [record.band_scale_offset(self.name) for record in self.records]
        )
        return scaling if self._sensor == "optical" else None


def _agreed(values: Sequence[Any]) -> Any:
    """The value that all agree on; None if they differ, or there are none."""
    return values[0] if values and all(value == values[0] for value in values) else None


def identify(
    href: str,
    descriptions: Sequence[str],
    record: CollectionRecord | None,
    expected: Sequence[str] = (),
) -> list[Identified]:
    """Identify the bands of a file.

    A band is named by its description; else by the name of the file, if that has a single band;
    else by its position, if there are exactly as many bands as expected.

    Args:
        href: The file.
        descriptions: Description of each band, empty strings where there is none.
        record: Collection of the file; None to consider all known ones.
        expected: Names of the bands that the file should have, in order.
    """
    records = known_records() if record is None else (record,)
    by_file = band_by_file_name(href, records) if len(descriptions) == 1 else _UNKNOWN
    positions = _names_by_position(len(descriptions), record, expected)
    identified = []
    for number, text in enumerate(descriptions):
        band, conflict = band_by_name(text, records), ""
        if band.name:
            conflict = contradiction(band.name, band.records, by_file)
        else:
            band = by_file
        if not band.name and positions:
            band = band_by_name(positions[number], records)
            band = NamedBand(band.name or positions[number], band.records)
        identified.append(
            Identified(
                index=number + 1,
                name=band.name or f"band {number + 1}",
                records=tuple(band.records),
                certain=record is not None,
                conflict=conflict,
            )
        )
    return identified


def _names_by_position(
    count: int, record: CollectionRecord | None, expected: Sequence[str]
) -> Sequence[str]:
    """The first list of names with `count` entries; empty if there is none."""
    candidates = [expected]
    if record is not None:
        candidates += [record.required, record.default_bands]
    for names in candidates:
        if len(names) == count:
            return names
    return ()


def contradiction(name: str, records: Sequence[CollectionRecord], by_file: NamedBand) -> str:
    """Return how a band's description contradicts the name of its file.

    Args:
        name: Common name of the band by its description.
        records: Collections that have such a band.
        by_file: The band by the name of the file.

    Returns:
        A message if both are of one collection, and different bands; else empty.
    """
    if not by_file.name or by_file.name == name:
        return ""
    for record in records:
        if any(record is other for other in by_file.records):
            return f"its description says {name}, but the name of its file says {by_file.name}"
    return ""


def band_by_name(text: str, records: Sequence[CollectionRecord]) -> NamedBand:
    """Look up a band's name or alias in collections; if they differ, the first one counts."""
    name = ""
    fitting: list[CollectionRecord] = []
    for record in records:
        record_name = record.band_name(text.strip()) if text else None
        if not record_name:
            continue
        name = name or record_name
        if record_name == name:
            fitting.append(record)
    return NamedBand(name, fitting) if name else _UNKNOWN


def band_by_file_name(href: str, records: Sequence[CollectionRecord]) -> NamedBand:
    """Find the band that a file is named after: `..._SR_B2.TIF`, `B04_10m.jp2`.

    It is the longest sequence of words that is the name of a band; the last one if there are
    several.
    """
    stem = PurePosixPath(urlsplit(href).path).stem
    words = [word for word in re.split(r"[_\-. ]+", stem) if word]
    for length in range(_MAX_WORDS, 0, -1):
        for start in range(len(words) - length, -1, -1):
            band = band_by_name("_".join(words[start : start + length]), records)
            if band.name:
                return band
    return _UNKNOWN
