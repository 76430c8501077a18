"""Identify: which band is which in an image file, by what it says of itself."""

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


@dataclass(frozen=True)
class Identified:
    """One band of a file, and what is known of it."""

    index: int
    """From 1."""
    name: str
    """Our name, or `band 2` where nothing names it."""
    records: tuple[CollectionRecord, ...]
    """The collections that it may be of, by its name."""
    certain: bool
    """Whether its collection was named, and not guessed."""
    conflict: str = ""
    """Where its description says one thing and its file name another."""

    def spec(self, dtype: np.dtype[Any]) -> BandSpec:
        """What its numbers are known to be: all that the records which it may be of agree on."""
        digital = dtype.kind in "ui"
        return BandSpec(
            sensor=_agreed([record.band_sensor(self.name) for record in self.records]),
            unit=_agreed([record.unit for record in self.records]) if self.certain else None,
            constant_ok=bool(
                _agreed([record.may_be_constant(self.name) for record in self.records])
            ),
            # The range is of digital numbers: of a band in physical values it says nothing.
            value_range=_agreed([record.value_range for record in self.records])
            if digital
            else None,
            digital=digital,
        )

    @property
    def nodata(self) -> float | None:
        """By its collection, where that was named."""
        return self.records[0].band_nodata(self.name) if self.certain and self.records else None

    @property
    def reflectance(self) -> tuple[float, float] | None:
        """(scale, offset) of an optical band with a wavelength, as far as it is known."""
        scalings: tuple[float, float] | None = _agreed(
            [record.band_scaling(self.name) for record in self.records]
        )
        optical = _agreed([record.band_sensor(self.name) for record in self.records]) == "optical"
        return scalings if optical else None


def _agreed(values: Sequence[Any]) -> Any:
    """The one value of all, None where they differ or there is none."""
    return values[0] if values and all(value == values[0] for value in values) else None


def identify(
    href: str,
    descriptions: Sequence[str],
    record: CollectionRecord | None,
    expected: Sequence[str] = (),
) -> list[Identified]:
    """The bands of a file: by description in any case, else by the file's name where it has one band, else by
    position where it has just as many bands as are expected.
    """
    records = known_records() if record is None else (record,)
    by_file = by_file_name(href, records) if len(descriptions) == 1 else Named("", ())
    positions = _positions(len(descriptions), record, expected)
    found = []
    for number, text in enumerate(descriptions):
        name, fitting = by_name(text, records)
        conflict = ""
        if name:
            conflict = contradiction(name, fitting, by_file)
        if not name:
            name, fitting = by_file
        if not name and positions:
            name, fitting = by_name(positions[number], records)
            name = name or positions[number]
        found.append(
            Identified(
                number + 1,
                name or f"band {number + 1}",
                tuple(fitting),
                record is not None,
                conflict,
            )
        )
    return found


def _positions(
    count: int, record: CollectionRecord | None, expected: Sequence[str]
) -> Sequence[str]:
    candidates = [
        expected,
        *((record.required, record.default_bands) if record is not None else ()),
    ]
    return next((names for names in candidates if len(names) == count), ())


def contradiction(name: str, records: Sequence[CollectionRecord], by_file: Named) -> str:
    """What to say where a description and the name of a file are of one collection and two bands; else empty."""
    if (
        not by_file.name
        or by_file.name == name
        or not any(one is other for one in records for other in by_file.records)
    ):
        return ""
    return f"it is described as {name}, and its file's name says {by_file.name}"


class Named(NamedTuple):
    """Our name of a band, empty where nothing names it, and the collections that know it so."""

    name: str
    records: Sequence[CollectionRecord]


def by_name(text: str, records: Sequence[CollectionRecord]) -> Named:
    """Our name of a band, and the records that know it so; the first record's word where they differ."""
    fitting = [
        (name, record) for record in records if text and (name := record.band_name(text.strip()))
    ]
    if not fitting:
        return Named("", ())
    name = fitting[0][0]
    return Named(name, [record for other, record in fitting if other == name])


def by_file_name(href: str, records: Sequence[CollectionRecord]) -> Named:
    """By the last and longest part of a file's name that is the name of a band: `..._SR_B2.TIF`, `B04_10m.jp2`."""
    words = [
        word for word in re.split(r"[_\-. ]+", PurePosixPath(urlsplit(href).path).stem) if word
    ]
    for length in (3, 2, 1):
        for start in range(len(words) - length, -1, -1):
            found = by_name("_".join(words[start : start + length]), records)
            if found.name:
                return found
    return Named("", ())
