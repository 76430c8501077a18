"""Read the images of the chips of a cell, each block of each band once per scene."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from scenebeam.catalog.scene import Asset
from scenebeam.errors import CheckError
from scenebeam.imaging.bands import requested_resampling
from scenebeam.imaging.chip_images import ChipImage, check_image, is_plainly_usable, read_images
from scenebeam.imaging.chip_reader import open_sources
from scenebeam.imaging.chip_scenes import ChipScene, covers
from scenebeam.imaging.layered_reader import Pixels, all_bands, read_layer
from scenebeam.products.chips.choose import ImageChooser, nearest_scenes
from scenebeam.products.chips.image_spool import ImageSpool
from scenebeam.products.chips.request import IMAGE, ChipsRequest
from scenebeam.products.chips.samples import ImageStack
from scenebeam.products.chips.stacks import StackSpec
from scenebeam.products.chips.task import ChipRef, ChipsTask, OtherScenes
from scenebeam.raster.merge import cast_nodata, harmonize
from scenebeam.raster.validity import Array, valid_mask
from scenebeam.transfer.retry import Budget

Rejected = dict[int, dict[str, str]]
"""Index of a chip → scene → why its image cannot be used."""


class CellImages:
    """Reads the images of a cell into a spool."""

    def __init__(
        self, task: ChipsTask, chips: Sequence[ChipRef], spool: ImageSpool, budget: Budget
    ) -> None:
        self._task, self._chips, self._spool, self._budget = task, chips, spool, budget
        self._scenes = {scene.id: scene for scene in task.scenes}

    def read(self, chooser: ImageChooser) -> None:
        """Read the chosen images. In place of those that cannot be used, others are chosen.

        Raises:
            ReadError: A file cannot be read at the moment.
        """
        while True:
            wanted: dict[str, list[int]] = {}
            for number, choice in enumerate(chooser.choices):
                for scene in choice.images:
                    if not self._spool.has(IMAGE, number, scene):
                        wanted.setdefault(scene, []).append(number)
            rejected = self._read(IMAGE, self._scenes, wanted)
            if not rejected:
                return
            for number, reasons in rejected.items():
                chooser.choices[number].rejected |= reasons
            chooser.choose(sorted(rejected))

    def read_nearest(
        self, other: OtherScenes, images: Mapping[int, Sequence[str]]
    ) -> dict[int, list[str]]:
        """Read the images of another collection that are nearest in time to those of the chips.

        Args:
            other: The scenes of the collection.
            images: Index of a chip → ids of the scenes of its images.

        Returns:
            Index of a chip → ids of the scenes of the other images. A chip is left out if one of
            its images has none.

        Raises:
            ReadError: A file cannot be read at the moment.
        """
        task, boxes = self._task, self._task.boxes(self._chips)
        covered = {}
        for scene in other.scenes:
            covered[scene.id] = covers(scene, boxes, task.product.max_nodata, task.resolution)
        scenes = {scene.id: scene for scene in other.scenes}
        while True:
            nearest: dict[int, list[str]] = {}
            wanted: dict[str, list[int]] = {}
            for number, ids in images.items():
                times = [self._scenes[name].when for name in ids]
                reach = other.within_days or 0.0
                found = nearest_scenes(other.scenes, covered, number, times, reach)
                if "" in found:
                    continue
                nearest[number] = found
                for name in dict.fromkeys(found):
                    if not self._spool.has(other.name, number, name):
                        wanted.setdefault(name, []).append(number)
            rejected = self._read(other.name, scenes, wanted)
            if not rejected:
                return nearest
            for number, reasons in rejected.items():
                for name in reasons:
                    covered[name][number] = False

    def _read(
        self, name: str, scenes: Mapping[str, ChipScene], wanted: Mapping[str, Sequence[int]]
    ) -> Rejected:
        """Read scenes on chips into the spool; returns those that cannot be used."""
        rejected: Rejected = {}
        spec, product = self._task.stack(name), self._task.product
        ordered = sorted(wanted, key=lambda one: (scenes[one].when, one))
        # The headers of the next scene are read while the pixels of this one are.
        opened = {one: open_sources(scenes[one].bands, self._budget) for one in ordered[:1]}
        for position, one in enumerate(ordered):
            for following in ordered[position + 1 : position + 2]:
                opened[following] = open_sources(scenes[following].bands, self._budget)
            grids = {number: self._task.grid_of(self._chips[number]) for number in wanted[one]}
            images = read_images(
                scenes[one], opened.pop(one), grids, product.values, resampling_of(product)
            )
            for number, image in images:
                fault = image if isinstance(image, str) else self._fault(image, spec)
                if fault:
                    rejected.setdefault(number, {})[one] = fault
                elif isinstance(image, ChipImage):
                    self._spool.add(name, number, one, _as_stored(image, spec))
        return rejected

    def _fault(self, image: ChipImage, spec: StackSpec) -> str:
        """Say why an image cannot be used; empty if it can."""
        product = self._task.product
        if not np.can_cast(image.encoding.dtype, spec.dtype):
            found = image.encoding.dtype.name
            return f"its files are {found}, but the record of its collection says {spec.dtype}"
        if is_plainly_usable(image, self._task.checks):
            return ""
        try:
            check_image(image, product.max_nodata, "product.max_nodata", self._task.checks)
        except CheckError as error:
            return str(error)
        return ""

    def stack(
        self, name: str, number: int, scenes: Mapping[str, ChipScene], ids: Sequence[str]
    ) -> ImageStack:
        """Return the images of a chip from the spool."""
        pixels = np.stack([self._spool.get(name, number, one) for one in ids])
        times = [scenes[one].when for one in ids]
        return ImageStack(self._task.stack(name), pixels, times, [[one] for one in ids])


def _as_stored(image: ChipImage, spec: StackSpec) -> Array:
    """Return the pixels of an image in the dtype and with the nodata value of its stack."""
    dtype = np.dtype(spec.dtype)
    if dtype == image.pixels.dtype and spec.nodata == image.encoding.nodata:
        return image.pixels
    return cast_nodata(image.pixels, image.encoding.nodata, dtype, spec.nodata)


def resampling_of(product: ChipsRequest) -> Callable[[Asset], str]:
    """Return what gives a band its resampling method."""
    return lambda asset: requested_resampling(asset.band, product.resampling)


def read_undated(
    task: ChipsTask,
    other: OtherScenes,
    chips: Mapping[int, ChipRef],
    spool: ImageSpool,
    budget: Budget,
) -> set[int]:
    """Read one image of all scenes of a collection without dates, such as elevation.

    Args:
        task: The task of the cell.
        other: The scenes.
        chips: Index of a chip → the chip.
        spool: Gets the images, with an empty text for their scene.
        budget: Retries of the task's reads.

    Returns:
        Indices of the chips that the scenes cover.

    Raises:
        ReadError: A file cannot be read.
    """
    if not other.layer:
        return set()
    spec, raw = task.stack(other.name), task.product.values == "raw"

    def encode(asset: Asset, values: Array, nodata: float | None) -> Pixels:
        valid = valid_mask(values, nodata)
        return (values if raw else harmonize(values, valid, asset.add_offset, nodata)), valid

    numbers = list(chips)
    grids = [task.grid_of(chips[number]) for number in numbers]
    dtype, covered = np.dtype(spec.dtype), set()
    layer = read_layer(other.layer, grids, all_bands, encode, resampling_of(task.product), budget)
    for index, bands in layer:
        planes: list[Array] = []
        missing = 0.0
        for values, valid in bands:
            if valid is None:
                planes.append(values.astype(dtype))
                continue
            missing = max(missing, 100 * (1 - np.count_nonzero(valid) / valid.size))
            planes.append(np.where(valid, values, spec.fill).astype(dtype))
        if missing <= task.product.max_nodata:
            spool.add(other.name, numbers[index], "", np.stack(planes))
            covered.add(numbers[index])
    return covered
