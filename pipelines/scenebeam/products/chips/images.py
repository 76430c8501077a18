"""Read the images of the chips of a cell, each block of each band once per scene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import shapely

from scenebeam.catalog.scene import Asset
from scenebeam.errors import CheckError
from scenebeam.imaging.bands import requested_resampling, scale_offset
from scenebeam.imaging.chip_images import ChipImage, check_image, read_images
from scenebeam.imaging.chip_reader import open_sources
from scenebeam.imaging.chip_scenes import ChipScene, covers
from scenebeam.imaging.layered_reader import all_bands, keep_stored, read_layer
from scenebeam.products.chips.choose import ImageChooser, nearest_scenes
from scenebeam.products.chips.image_spool import ImageSpool
from scenebeam.products.chips.request import IMAGE
from scenebeam.products.chips.samples import ImageStack
from scenebeam.products.chips.task import ChipRef, ChipsTask, OtherScenes
from scenebeam.raster.cog import CogBand
from scenebeam.raster.merge import cast_nodata
from scenebeam.raster.validity import Array
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

    def read_other(
        self, other: OtherScenes, images: Mapping[int, Sequence[str]]
    ) -> dict[int, list[str]]:
        """Read the images of another collection that are nearest to those of the chips.

        Args:
            other: The scenes of the collection.
            images: Index of a chip → ids of the scenes of its images.

        Returns:
            Index of a chip → ids of the scenes of the other images. A chip is left out if one of
            its images has none.

        Raises:
            ReadError: A file cannot be read at the moment.
        """
        task, side = self._task, self._task.side * self._task.resolution
        left = np.array([chip.left for chip in self._chips])
        top = np.array([chip.top for chip in self._chips])
        boxes = shapely.box(left, top - side, left + side, top)
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
        ordered = sorted(wanted, key=lambda one: (scenes[one].when, one))
        # The headers of the next scene are read while the pixels of this one are.
        opened = {one: open_sources(scenes[one].bands, self._budget) for one in ordered[:2]}
        for position, one in enumerate(ordered):
            for following in ordered[position + 1 : position + 2]:
                if following not in opened:
                    opened[following] = open_sources(scenes[following].bands, self._budget)
            grids = {number: self._task.grid_of(self._chips[number]) for number in wanted[one]}
            images = read_images(
                scenes[one], opened.pop(one), grids, self._task.product.values, self._resampling
            )
            for number, image in images:
                fault = image if isinstance(image, str) else self._fault(image)
                if fault:
                    rejected.setdefault(number, {})[one] = fault
                elif isinstance(image, ChipImage):
                    self._spool.add(name, number, one, self._pixels(name, image))
        return rejected

    def _fault(self, image: ChipImage) -> str:
        product = self._task.product
        try:
            check_image(image, product.max_nodata, "product.max_nodata", self._task.checks)
        except CheckError as error:
            return str(error)
        return ""

    def _pixels(self, name: str, image: ChipImage) -> Array:
        """Return the pixels in the dtype that all images of the collection have."""
        if name != IMAGE:
            return image.pixels
        dtype = np.dtype(self._task.dtype)
        if dtype == image.pixels.dtype and self._task.nodata == image.encoding.nodata:
            return image.pixels
        return cast_nodata(image.pixels, image.encoding.nodata, dtype, self._task.nodata)

    def _resampling(self, asset: Asset) -> str:
        return requested_resampling(asset.band, self._task.product.resampling)

    def stack(
        self, name: str, number: int, scenes: Mapping[str, ChipScene], ids: Sequence[str]
    ) -> ImageStack:
        """Return the images of a chip from the spool."""
        pixels = np.stack([self._spool.get(name, number, one) for one in ids])
        bands = band_descriptions(scenes[ids[0]].bands, self._task.product.values)
        nodata = self._task.nodata
        if name != IMAGE:
            nodata = _nodata(scenes[ids[0]].bands)
        times = [scenes[one].when for one in ids]
        return ImageStack(name, pixels, bands, nodata, times, [[one] for one in ids])


def read_undated(
    task: ChipsTask, other: OtherScenes, chips: Mapping[int, ChipRef], budget: Budget
) -> dict[int, ImageStack]:
    """Read one image of all scenes of a collection without dates, such as elevation.

    Args:
        task: The task of the cell.
        other: The scenes.
        chips: Index of a chip → the chip.
        budget: Retries of the task's reads.

    Returns:
        Index of a chip → its image. A chip outside of all scenes has none.

    Raises:
        ReadError: A file cannot be read.
    """
    if not other.layer:
        return {}
    numbers = list(chips)
    grids = [task.grid_of(chips[number]) for number in numbers]
    assets = other.layer[0].bands
    nodata = _nodata(assets)
    dtype = np.result_type(*(np.dtype(asset.dtype) for asset in assets))
    resampling = task.product.resampling
    method = resampling if isinstance(resampling, str) else "bilinear"
    names = [[scene.id for scene in other.layer]]
    stacks = {}
    for index, bands in read_layer(other.layer, grids, all_bands, keep_stored, method, budget):
        planes: list[Array] = []
        is_covered = False
        for asset, (values, valid) in zip(assets, bands, strict=True):
            if valid is None:
                is_covered = True
                planes.append(cast_nodata(values, asset.nodata, dtype, nodata))
                continue
            is_covered |= bool(valid.any())
            filled = np.where(valid, values, 0 if nodata is None else nodata)
            planes.append(filled.astype(dtype))
        if is_covered:
            described = band_descriptions(assets, task.product.values)
            stacks[numbers[index]] = ImageStack(
                other.name, np.stack(planes)[None], described, nodata, [], names
            )
    return stacks


def band_descriptions(assets: Sequence[Asset], values: str) -> tuple[CogBand, ...]:
    """Return name, scale and offset of bands."""
    return tuple(CogBand(asset.band, *scale_offset(asset, values)) for asset in assets)


def _nodata(assets: Sequence[Asset]) -> float | None:
    return next((asset.nodata for asset in assets if asset.nodata is not None), None)
