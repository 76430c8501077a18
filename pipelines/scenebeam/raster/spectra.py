"""Spectra: do the bands of an image make sense together, or has one taken another's place?

Each pixel's reflectance is held against what natural surfaces look like. Where that fits clearly better with two bands
exchanged than as they are, they probably are.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from scenebeam.raster.preview import resized
from scenebeam.raster.validity import Array

_BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
_SAME = {"nir08": "nir"}
# Reflectance at 0.49, 0.56, 0.66, 0.84, 1.61 and 2.2 micrometres, rounded: typical curves as in
# Campbell and Wynne 2011, "Introduction to Remote Sensing", 5th ed., ch. 17, and Hall and Riggs 2011 (snow).
_SURFACES = np.array(
    [
        [0.03, 0.06, 0.03, 0.40, 0.18, 0.08],  # dense vegetation
        [0.04, 0.08, 0.05, 0.30, 0.20, 0.11],  # grass, crops
        [0.06, 0.09, 0.11, 0.24, 0.28, 0.20],  # dry grass
        [0.09, 0.13, 0.18, 0.26, 0.34, 0.29],  # bare soil
        [0.17, 0.24, 0.34, 0.39, 0.48, 0.45],  # sand (a scene of the western Sahara)
        [0.12, 0.14, 0.16, 0.20, 0.23, 0.21],  # built-up
        [0.06, 0.05, 0.03, 0.015, 0.007, 0.005],  # clear water
        [0.09, 0.11, 0.10, 0.04, 0.015, 0.01],  # turbid water
        [0.60, 0.60, 0.61, 0.64, 0.42, 0.33],  # cloud
        [0.35, 0.34, 0.34, 0.40, 0.28, 0.22],  # thin cloud
        [0.93, 0.92, 0.90, 0.80, 0.12, 0.10],  # snow
        [0.05, 0.06, 0.07, 0.12, 0.18, 0.18],  # burnt ground
    ]
)
_PIXELS = 20_000
_LEAST = 500
_MARGIN = 0.03
"""Radians that an exchange must fit better by: found on the scenes of the tests, swapped and as they are."""


def swapped(
    pictures: Mapping[str, Array], reflectances: Mapping[str, tuple[float, float] | None]
) -> list[tuple[str, str]]:
    """(bands, message) for the pair of bands that have probably taken each other's place; empty where none has.

    `pictures` are 2-D numbers by band, NaN where there is none; `reflectances` their (scale, offset).
    """
    known = {}
    for name, scale_offset in reflectances.items():
        if scale_offset is not None and name in pictures and _SAME.get(name, name) in _BANDS:
            known[_SAME.get(name, name)] = (name, pictures[name], *scale_offset)
    columns = [number for number, band in enumerate(_BANDS) if band in known]
    if len(columns) < 4:
        return []
    rows = min(picture.shape[0] for _, picture, _, _ in known.values())
    across = min(picture.shape[1] for _, picture, _, _ in known.values())
    spectra = np.stack(
        [
            resized(known[_BANDS[number]][1], rows, across) * known[_BANDS[number]][2]
            + known[_BANDS[number]][3]
            for number in columns
        ],
        axis=-1,
    ).reshape(-1, len(columns))
    spectra = spectra[np.isfinite(spectra).all(axis=1) & (spectra > 0).all(axis=1)]
    if len(spectra) < _LEAST:
        return []
    spectra = spectra[:: max(1, len(spectra) // _PIXELS)]
    surfaces = _SURFACES[:, columns]
    as_they_are = _misfit(spectra, surfaces)
    best: tuple[float, tuple[int, ...]] = (as_they_are - _MARGIN, ())
    for one, other in combinations(range(len(columns)), 2):
        order = list(range(len(columns)))
        order[one], order[other] = other, one
        best = min(best, (_misfit(spectra[:, order], surfaces), (one, other)))
    if not best[1]:
        return []
    names = [known[_BANDS[columns[number]]][0] for number in best[1]]
    told = (
        f"{names[0]} and {names[1]} look exchanged: that way the spectra are like those of natural surfaces "
        f"({best[0]:.2f} rad apart in the mean), as they stand less so ({as_they_are:.2f})"
    )
    return [(" and ".join(names), told)]


def _misfit(spectra: Array, surfaces: Array) -> float:
    """Mean over pixels of the angle to the nearest surface (Kruse et al. 1993, the spectral angle mapper)."""
    ours = spectra / np.linalg.norm(spectra, axis=1, keepdims=True)
    theirs = surfaces / np.linalg.norm(surfaces, axis=1, keepdims=True)
    return float(np.arccos(np.clip(ours @ theirs.T, -1, 1)).min(axis=1).mean())
