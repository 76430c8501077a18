"""Identify: which band is which in an image file, by what it says of itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
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
        return BandSpec(
            sensor=_agreed([record.sensor for record in self.records]),
            unit=_agreed([record.unit for record in self.records]) if self.certain else None,
            categorical=bool(_agreed([record.bands[self.name].categorical for record in self.records])),
            value_range=_agreed([record.value_range for record in self.records]),
            digital=dtype.kind in "ui",
        )

    @property
    def nodata(self) -> float | None:
        """By its collection, where that was named."""
        return self.records[0].band_nodata(self.name) if self.certain and self.records else None

    @property
    def reflectance(self) -> tuple[float, float] | None:
        """(scale, offset) of an optical band with a wavelength, as far as it is known."""
        scalings: tuple[float, float] | None = _agreed([record.band_scaling(self.name) for record in self.records])
        known = _agreed([record.sensor for record in self.records]) == "optical"
        waves = [record.bands[self.name].wavelength for record in self.records]
        return scalings if known and all(waves) else None


def _agreed(values: Sequence[Any]) -> Any:
    """The one value of all, None where they differ or there is none."""
    return values[0] if values and all(value == values[0] for value in values) else None


def identify(
    href: str, descriptions: Sequence[str], record: CollectionRecord | None, expected: Sequence[str] = ()
) -> list[Identified]:
    """The bands of a file: by description in any case, else by the file's name where it has one band, else by
    position where it has just as many bands as are expected.
    """
    records = known_records() if record is None else (record,)
    by_file = _by_file_name(href, records) if len(descriptions) == 1 else ("", ())
    positions = _positions(len(descriptions), record, expected)
    found = []
    for number, text in enumerate(descriptions):
        name, fitting = _by_name(text, records)
        conflict = ""
        if name and by_file[0] and by_file[0] != name and set(fitting) & set(by_file[1]):
            conflict = f"it is described as {name}, and the file's name says {by_file[0]}"
        if not name:
            name, fitting = by_file
        if not name and positions:
            name, fitting = _by_name(positions[number], records)
            name = name or positions[number]
        found.append(Identified(number + 1, name or f"band {number + 1}", tuple(fitting), record is not None, conflict))
    return found


def _positions(count: int, record: CollectionRecord | None, expected: Sequence[str]) -> Sequence[str]:
    candidates = [expected, *((record.required, record.default_bands) if record is not None else ())]
    return next((names for names in candidates if len(names) == count), ())


def _by_name(text: str, records: Sequence[CollectionRecord]) -> tuple[str, Sequence[CollectionRecord]]:
    """Our name of a band, and the records that know it so; the first record's word where they differ."""
    fitting = [(name, record) for record in records if text and (name := record.band_name(text.strip()))]
    if not fitting:
        return "", ()
    name = fitting[0][0]
    return name, [record for other, record in fitting if other == name]


def _by_file_name(href: str, records: Sequence[CollectionRecord]) -> tuple[str, Sequence[CollectionRecord]]:
    """By the last and longest part of a file's name that is the name of a band: `..._SR_B2.TIF`, `B04_10m.jp2`."""
    words = [word for word in re.split(r"[_\-. ]+", PurePosixPath(urlsplit(href).path).stem) if word]
    for length in (3, 2, 1):
        for start in range(len(words) - length, -1, -1):
            name, fitting = _by_name("_".join(words[start : start + length]), records)
            if name:
                return name, fitting
    return "", ()
