"""Find the windows that can become chips, and sample among them.

A window is a candidate if the land-cover map has a single class in it, and the masks of the dated
modalities are clear in it on every date. The land cover is read for all windows, the masks only for
those of a requested class, so most of the imagery is never read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from scenebeam.catalog.scene import Asset
from scenebeam.imaging.layered_reader import all_bands, keep_stored, read_layer
from scenebeam.imaging.refs import SceneFiles
from scenebeam.products.landcover.lattice import ChipLattice
from scenebeam.products.landcover.task import Layer, Recipe
from scenebeam.raster.masks import PixelTest
from scenebeam.raster.validity import Array
from scenebeam.transfer.retry import Budget


@dataclass
class Candidates:
    """The windows of an area that can become chips, and why others cannot."""

    windows: int
    """Number of windows inside the area."""
    homogeneous: Counter[int] = field(default_factory=Counter)
    """Class → number of windows of that class alone, whether or not it is requested."""
    classes: dict[int, int] = field(default_factory=dict)
    """Chip number → class, of the homogeneous windows of the requested classes."""
    rejected: dict[int, str] = field(default_factory=dict)
    """Chip number → why it cannot be a chip: `cloud s2l2a`, `nodata dem`."""


def find_candidates(lattice: ChipLattice, budget: Budget) -> Candidates:
    """Read the land cover of all windows, and the masks of those of a requested class.

    Args:
        lattice: The windows of the area.
        budget: Retries of the task's reads.

    Raises:
        ReadError: A file cannot be read.
    """
    task = lattice.task
    candidates = Candidates(len(lattice.cells))
    for chip, land_class in _classify(lattice, budget):
        candidates.homogeneous[land_class] += 1
        if land_class in task.classes:
            candidates.classes[chip] = land_class
    for layer in task.dated_layers:
        recipe = task.recipes[layer.platform]
        if recipe.keep_classes or recipe.reject_bits:
            # A window that one date rejects is not read on the dates after it.
            remaining = sorted(candidates.classes.keys() - candidates.rejected.keys())
            candidates.rejected |= _check_masks(lattice, layer, remaining, budget)
    return candidates


def _classify(lattice: ChipLattice, budget: Budget) -> Iterator[tuple[int, int]]:
    """Yield (chip number, class) of the windows of a single class."""
    task = lattice.task
    side = task.chip_side("lulc")
    rows = sorted(set(lattice.cells[:, 0].tolist()))
    # A row of windows is read as one grid, across the whole area. Where the map is warped, its
    # pixels then do not depend on where windows are cut, and it is warped once per row.
    grids = [lattice.row_grid(row, "lulc") for row in rows]
    chips = {tuple(cell): chip for chip, cell in enumerate(lattice.cells.tolist())}
    scenes = task.land_cover_layer.scenes
    pixels = read_layer(scenes, grids, all_bands, keep_stored, lambda asset: "nearest", budget)
    for index, [(values, valid)] in pixels:
        # Nodata becomes 0, which is no class: a window with a gap is never homogeneous.
        known = values if valid is None else np.where(valid, values, 0)
        windows = known.reshape(side, -1, side)
        for offset, land_class in _homogeneous_windows(windows, task.min_share):
            # The row extends over the bounds of the area; windows outside the area have no number.
            chip = chips.get((rows[index], lattice.columns.start + offset))
            if chip is not None:
                yield chip, land_class


def _homogeneous_windows(windows: Array, min_share: float) -> Iterator[tuple[int, int]]:
    """Yield (index, class) of the windows of which one class has at least a share.

    Args:
        windows: Classes, of shape (rows of pixels, windows, columns of pixels); 0 is no class.
        min_share: From more than 0.5 to 1; so at most one class can have it.
    """
    if min_share == 1:
        # The usual case, without a pass over the pixels for each class.
        lowest, highest = windows.min(axis=(0, 2)), windows.max(axis=(0, 2))
        for index in np.flatnonzero((lowest == highest) & (lowest > 0)).tolist():
            yield index, int(lowest[index])
        return
    # The tolerance accepts 0.9 of 100 pixels as 90, whatever the product is in binary.
    required = min_share * windows.shape[0] * windows.shape[2] - 1e-6
    for land_class in np.unique(windows).tolist():
        if land_class > 0:
            counts = np.count_nonzero(windows == land_class, axis=(0, 2))
            for index in np.flatnonzero(counts >= required).tolist():
                yield index, int(land_class)


def _check_masks(
    lattice: ChipLattice, layer: Layer, chips: Sequence[int], budget: Budget
) -> dict[int, str]:
    """Read the mask of a layer for some chips. Returns rejected chip → reason."""
    recipe = lattice.task.recipes[layer.platform]
    grids = [lattice.grid(chip, layer.platform) for chip in chips]
    rejected = {}
    masks = read_layer(
        layer.scenes, grids, _mask_band, keep_stored, lambda asset: recipe.resampling, budget
    )
    for index, [(values, valid)] in masks:
        if valid is not None and not valid.all():
            rejected[chips[index]] = f"nodata {layer.platform}"
        elif _has_cloud(values, recipe):
            rejected[chips[index]] = f"cloud {layer.platform}"
    return rejected


def _mask_band(scene: SceneFiles) -> Sequence[Asset]:
    assert scene.mask is not None, "scenes without their mask are not selected"
    return [scene.mask]


def _has_cloud(values: Array, recipe: Recipe) -> bool:
    """Whether any pixel of a mask has a class that is not kept, or a flag that is rejected."""
    if recipe.keep_classes:
        return not bool(np.isin(values, recipe.keep_classes).all())
    return bool(PixelTest(bits=recipe.reject_bits).hidden(values, None).any())


def sample_chips(
    lattice: ChipLattice, classes: Mapping[int, int], rejected: Mapping[int, str]
) -> list[int]:
    """Sample up to `chips_per_class` chips of each class.

    The sample consists of the chips with the smallest sampling keys, not of draws from a random
    generator. So rejecting a chip only adds the next one of its class and changes no other, and
    every run, resumed or not, ends with the same chips.

    Args:
        lattice: The windows of the area.
        classes: Chip number → class, of all candidates.
        rejected: Chip number → reason; these are not sampled.

    Returns:
        Chip numbers in ascending order.
    """
    candidates = classes.keys() - rejected.keys()
    by_class: dict[int, list[int]] = {}
    for chip in sorted(candidates, key=lambda chip: sampling_key(lattice, chip)):
        by_class.setdefault(classes[chip], []).append(chip)
    sample: list[int] = []
    for chips in by_class.values():
        sample += chips[: lattice.task.chips_per_class]
    return sorted(sample)


def sampling_key(lattice: ChipLattice, chip: int) -> bytes:
    """Return the key that orders chips in the sample: a hash of the seed and the location.

    Args:
        lattice: The windows of the area.
        chip: Number of the chip within its area.

    Returns:
        The 16-byte BLAKE2b digest of `seed/crs/left/top`, with coordinates in millimeters. The same
        location has the same key in every area, however its windows are numbered.
    """
    left, top = lattice.corner(chip)
    text = f"{lattice.task.seed}/{lattice.crs}/{left:.3f}/{top:.3f}"
    return blake2b(text.encode(), digest_size=16).digest()
