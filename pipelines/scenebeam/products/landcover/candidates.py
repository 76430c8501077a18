"""Survey: which windows are of one class and clear on every date, and which of them become chips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from scenebeam.catalog.scene import Asset
from scenebeam.products.landcover.lattice import ChipLattice
from scenebeam.products.landcover.layers import as_read, read_layer
from scenebeam.products.landcover.task import Recipe, SceneFiles
from scenebeam.raster.indices import obscured
from scenebeam.raster.validity import Array
from scenebeam.transfer.retry import Budget


@dataclass
class Survey:
    """What the windows of an area are."""

    windows: int
    homogeneous: Counter[int] = field(default_factory=Counter)
    """Class → windows of it alone."""
    classes: dict[int, int] = field(default_factory=dict)
    """Chip → class: those that are of one of the classes asked for."""
    rejected: dict[int, str] = field(default_factory=dict)
    """Chip → why it is not fit for one: `cloud s2l2a`, `nodata dem`."""


def find_candidates(lattice: ChipLattice, budget: Budget) -> Survey:
    """Look at the land cover of all windows, and at the masks of those that are of one class.

    Raises ReadError where a file cannot be read.
    """
    task = lattice.task
    found = Survey(len(lattice.cells))
    for chip, number in _classes(lattice, budget):
        found.homogeneous[number] += 1
        if number in task.classes:
            found.classes[chip] = number
    for layer in task.dated:
        recipe = task.recipes[layer.platform]
        if not (recipe.keep_classes or recipe.reject_bits):
            continue
        candidates = sorted(found.classes.keys() - found.rejected.keys())
        grids = [lattice.grid(chip, layer.platform) for chip in candidates]
        for place, [(values, valid)] in read_layer(
            layer, grids, _mask, as_read, recipe.resampling, budget
        ):
            if valid is not None and not valid.all():
                found.rejected[candidates[place]] = f"nodata {layer.platform}"
            elif _is_obscured(values, recipe):
                found.rejected[candidates[place]] = f"cloud {layer.platform}"
    return found


def _classes(lattice: ChipLattice, budget: Budget) -> Iterator[tuple[int, int]]:
    """(chip, class) of windows that are of one class, as far as is asked for.

    A row of windows is read as one, all the way across: what it shows does not depend on where windows are cut.
    """
    task, size = lattice.task, lattice.task.chip_side("lulc")
    rows = sorted(set(lattice.cells[:, 0].tolist()))
    grids = [lattice.row_grid(row, "lulc") for row in rows]
    chips = {(row, column): chip for chip, (row, column) in enumerate(lattice.cells.tolist())}
    for place, [(values, valid)] in read_layer(
        task.land_cover, grids, bands_of, as_read, "nearest", budget
    ):
        known = values if valid is None else np.where(valid, values, 0)
        for number, land_class in _of_one_class(known.reshape(size, -1, size), task.min_share):
            chip = chips.get((rows[place], lattice.columns.start + number))
            if chip is not None:
                yield chip, land_class


def _of_one_class(windows: Array, min_share: float) -> Iterator[tuple[int, int]]:
    """(number, class) of the windows, (rows, number, columns), that are of one class; 0 is none."""
    if min_share == 1:
        least, most = windows.min(axis=(0, 2)), windows.max(axis=(0, 2))
        yield from (
            (number, int(least[number]))
            for number in np.flatnonzero((least == most) & (least > 0)).tolist()
        )
        return
    wanted = min_share * windows.shape[0] * windows.shape[2] - 1e-6
    for land_class in np.unique(windows).tolist():
        if land_class > 0:
            counts = np.count_nonzero(windows == land_class, axis=(0, 2))
            yield from (
                (number, int(land_class)) for number in np.flatnonzero(counts >= wanted).tolist()
            )


def bands_of(scene: SceneFiles) -> Sequence[Asset]:
    """All bands of a scene's raster."""
    return scene.bands


def _mask(scene: SceneFiles) -> Sequence[Asset]:
    assert scene.mask is not None, "a scene without its mask is not chosen"
    return [scene.mask]


def _is_obscured(values: Array, recipe: Recipe) -> bool:
    """Whether any pixel of a mask says that the ground is not to be seen."""
    if recipe.keep_classes:
        return not bool(np.isin(values, recipe.keep_classes).all())
    return bool(obscured(values, None, (), recipe.reject_bits).any())


def sample_chips(
    lattice: ChipLattice, classes: Mapping[int, int], rejected: Mapping[int, str]
) -> list[int]:
    """The chips to be made, in order of their numbers: of each class as many as are asked for, or all that there are.

    By a hash of the seed and the place: a window is drawn or not whatever becomes of the others, in every run.
    """
    by_class: dict[int, list[int]] = {}
    for chip in sorted(
        classes.keys() - rejected.keys(), key=lambda chip: sampling_key(lattice, chip)
    ):
        by_class.setdefault(classes[chip], []).append(chip)
    return sorted(
        chip for chips in by_class.values() for chip in chips[: lattice.task.chips_per_class]
    )


def sampling_key(lattice: ChipLattice, chip: int) -> bytes:
    """What decides between a chip and another: the same for the same place."""
    left, top = lattice.corner(chip)
    return blake2b(
        f"{lattice.task.seed}/{lattice.crs}/{left:.3f}/{top:.3f}".encode(), digest_size=16
    ).digest()
