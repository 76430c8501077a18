"""Measure clouds and nodata over chips, in the pixels of a scene's classification.

A scene shows clouds in one of three kinds of band: a cloud probability in percent, a classification
with one class per pixel, or a quality band with one flag per bit. A probability does not tell
nodata from clear ground, so a classification or quality band is read beside it for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from scenebeam.catalog.scene import Asset
from scenebeam.errors import CheckError, ReadError
from scenebeam.imaging.chip_reader import ChipReader, open_sources
from scenebeam.imaging.chip_scenes import ChipScene, Clouds
from scenebeam.raster.grid import Grid
from scenebeam.raster.masks import PixelTest
from scenebeam.raster.validity import Array, valid_mask
from scenebeam.transfer.retry import Budget

CLEAR = 0.1
"""Cloud cover of a scene in percent below which all its chips count as clear."""
OVERCAST = 75.0
"""Cloud cover of a scene in percent above which it is suitable for none of its chips."""


@dataclass(frozen=True)
class ChipClouds:
    """What the pixels of a chip show in one scene, in percent; None if they have not been read."""

    cloud: float | None = None
    """Share of cloud among the pixels with data."""
    nodata: float | None = None
    """Share of pixels without data."""


@dataclass(frozen=True)
class SceneClouds:
    """What the classification of one scene shows over some chips."""

    chips: Mapping[int, ChipClouds] = field(default_factory=dict)
    """By index of the chip in the task. Empty if there is an error."""
    error: str = ""
    """Why the classification cannot be read, permanently; empty if it has been read."""


def measure_chip_clouds(
    scene: ChipScene, grids: Mapping[int, Grid], rules: Clouds, budget: Budget
) -> SceneClouds:
    """Measure the clouds of one scene over some chips.

    Each compressed block of the classification is fetched and decoded once, however many chips it
    covers.

    Args:
        scene: A scene with at least one band in `looked_at`.
        grids: Index of a chip in its task → its grid.
        rules: What counts as cloud.
        budget: The task's budget for retries.

    Raises:
        ReadError: A block cannot be read at the moment, and a later attempt may succeed.
    """
    assets = {asset.band: asset for asset in scene.looked_at}
    opened = open_sources(scene.looked_at, budget)
    chips: dict[int, ChipClouds] = {}
    try:
        with ChipReader(scene.looked_at, opened, grids, lambda asset: "nearest") as reader:
            for number in reader.file_order():
                pixels: dict[str, Array] = {}
                for band, (values, _) in zip(assets, reader.read(number), strict=True):
                    pixels[band] = values
                chips[number] = clouds_in(pixels, assets, rules)
    except CheckError as error:
        return SceneClouds(error=str(error))
    except ReadError as error:
        if error.permanent:
            return SceneClouds(error=str(error))
        raise
    return SceneClouds(chips)


def clouds_in(
    pixels: Mapping[str, Array], assets: Mapping[str, Asset], rules: Clouds
) -> ChipClouds:
    """Compute the share of cloud and of nodata in the pixels of a chip.

    Args:
        pixels: Band → array of shape (rows, columns). All bands have the same shape.
        assets: Band → its asset, for the nodata value.
        rules: What counts as cloud in each band.

    Returns:
        Both shares in percent, rounded to four decimals. A chip without any data counts as fully
        cloudy.
    """
    shape = next(iter(pixels.values())).shape
    valid = np.ones(shape, bool)
    cloudy = np.zeros(shape, bool)
    has_probability = not rules.probability.keys().isdisjoint(pixels)
    for band, values in pixels.items():
        if band in rules.probability:
            cloudy |= values >= rules.probability[band]
            continue
        mask = valid_mask(values, assets[band].nodata)
        if mask is not None:
            valid &= mask
        # Beside a probability, a classification only tells where there is data.
        if not has_probability:
            classes, bits = rules.classes.get(band, ()), rules.bits.get(band, ())
            cloudy |= PixelTest(drop=classes, bits=bits).hidden(values, None)
    count = int(np.count_nonzero(valid))
    cloud = 100 * np.count_nonzero(cloudy & valid) / count if count else 100.0
    return ChipClouds(round(float(cloud), 4), round(100 * (1 - count / valid.size), 4))
