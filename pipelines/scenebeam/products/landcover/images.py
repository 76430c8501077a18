"""Make the rasters of a modality's chips, and a thumbnail of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scenebeam.catalog.scene import Asset
from scenebeam.imaging.layered_reader import Pixels, all_bands, read_layer
from scenebeam.imaging.publish_queue import EncodedChip, PublishQueue
from scenebeam.metadata import stac_items
from scenebeam.multihash import content_multihash
from scenebeam.products.landcover.encoding import check_fit, cog_bands, encode_pixels
from scenebeam.products.landcover.lattice import ChipLattice
from scenebeam.products.landcover.record import FileRecord
from scenebeam.products.landcover.request import Platform
from scenebeam.products.landcover.task import LandcoverTask, Layer
from scenebeam.raster.cog import CogProfile, small_cog
from scenebeam.raster.thumbnail import backscatter, classes, natural_color, shaded
from scenebeam.raster.validity import Array
from scenebeam.storage import Store
from scenebeam.transfer.retry import Budget

Published = dict[str, FileRecord]
"""Key in the store → size and checksum, of all files of an area that exist."""


def raster_key(task: LandcoverTask, layer: Layer, chip: int) -> str:
    """Return the key of a working raster in the store."""
    return f"{task.output_prefix}/{layer.working_name(chip)}.tif"


def thumbnail_key(task: LandcoverTask, layer: Layer, chip: int) -> str:
    """Return the key of a working raster's thumbnail in the store."""
    return f"{task.output_prefix}/{layer.working_name(chip)}.png"


def make_images(
    layer: Layer,
    lattice: ChipLattice,
    chips: Mapping[int, int],
    store: Store,
    budget: Budget,
    published: Published,
) -> dict[int, str]:
    """Make and publish the rasters and thumbnails of one layer.

    Args:
        layer: The layer.
        lattice: The windows of the area.
        chips: Chip number → class, of the chips to make.
        store: Where files are published.
        budget: Retries of the task's reads.
        published: Published files are added to it.

    Returns:
        Chip number → reason (`nodata dem`, `blank s2l2a`), of the chips that are not usable.

    Raises:
        ReadError: A file cannot be read.
        StorageError: A file cannot be published.
    """
    pending: PublishQueue[int] = PublishQueue(store)
    encoder = _Encoder(layer, lattice, published)
    with pending:
        for chip, bands in _read_chips(layer, lattice, chips, budget):
            pending.add(chip, encoder.encode, chip, bands)
    return {chip: f"{fault} {layer.platform}" for chip, fault in pending.failed.items()}


def _read_chips(
    layer: Layer, lattice: ChipLattice, chips: Mapping[int, int], budget: Budget
) -> Iterator[tuple[int, list[Pixels]]]:
    """Yield (chip number, encoded pixels of each band)."""
    recipe = lattice.task.recipes[layer.platform]
    if layer.platform == "lulc":
        # The map has been read already. Its raster is the class of the chip throughout, even if
        # `min_share` allows a few pixels of other classes.
        side = lattice.task.chip_side("lulc")
        for chip, land_class in chips.items():
            yield chip, [(np.full((side, side), land_class, recipe.dtype), None)]
        return

    def encode(asset: Asset, values: Array, nodata: float | None) -> Pixels:
        return encode_pixels(asset, values, nodata, recipe)

    numbers = list(chips)
    grids = [lattice.grid(chip, layer.platform) for chip in numbers]
    scenes = layer.scenes

    def resampling(asset: Asset) -> str:
        return recipe.resampling

    for index, bands in read_layer(scenes, grids, all_bands, encode, resampling, budget):
        yield numbers[index], bands


@dataclass(frozen=True)
class _Encoder:
    """Checks and encodes the chips of one layer."""

    layer: Layer
    lattice: ChipLattice
    published: Published
    """Files are added as they are encoded."""

    def encode(self, chip: int, bands: Sequence[Pixels]) -> EncodedChip:
        """Encode the raster of a chip and its thumbnail.

        Raises:
            CheckError: The chip is not usable.
        """
        task, layer = self.lattice.task, self.layer
        recipe, assets = task.recipes[layer.platform], layer.scenes[0].bands
        check_fit(assets, bands, recipe, task.checks)
        pixels = np.stack([values.astype(recipe.dtype, copy=False) for values, _ in bands])
        tags = {"SCENEBEAM_VALUES": "physical" if pixels.dtype.kind == "f" else "harmonized"}
        if layer.date:
            tags["SCENEBEAM_ACQUIRED"] = stac_items.rfc3339(layer.scenes[0].when)
        profile = CogProfile.for_grid(
            self.lattice.grid(chip, layer.platform),
            pixels.dtype,
            recipe.nodata,
            bands=cog_bands(assets, recipe),
            tags=tags,
        )
        # Categories must not be averaged in overviews.
        average = not any(asset.categorical for asset in assets)
        files = {raster_key(task, layer, chip): small_cog(pixels, profile, average=average)}
        if task.thumbnails:
            thumbnail = _render_thumbnail(layer.platform, pixels, profile, task)
            files[thumbnail_key(task, layer, chip)] = thumbnail
        for key, content in files.items():
            self.published[key] = FileRecord(size=len(content), checksum=content_multihash(content))
        return EncodedChip(files)


def _render_thumbnail(
    platform: Platform, pixels: Array, profile: CogProfile, task: LandcoverTask
) -> bytes:
    by_name = {}
    for band, values in zip(profile.bands, pixels, strict=True):
        by_name[band.description] = values
    return _RENDERERS[platform](by_name, profile, task)


def _render_reflectance(
    bands: Mapping[str, Array], profile: CogProfile, task: LandcoverTask
) -> bytes:
    reflectance = {}
    for band in profile.bands:
        reflectance[band.description] = bands[band.description] * band.scale + band.offset
    return natural_color(reflectance)


def _render_backscatter(
    bands: Mapping[str, Array], profile: CogProfile, task: LandcoverTask
) -> bytes:
    return backscatter(bands)


def _render_elevation(
    bands: Mapping[str, Array], profile: CogProfile, task: LandcoverTask
) -> bytes:
    return shaded(next(iter(bands.values())), profile.transform.a)


def _render_classes(bands: Mapping[str, Array], profile: CogProfile, task: LandcoverTask) -> bytes:
    colors = {number: land_class.color for number, land_class in task.classes.items()}
    return classes(next(iter(bands.values())), colors)


_RENDERERS: dict[Platform, Callable[[Mapping[str, Array], CogProfile, LandcoverTask], bytes]] = {
    "s2l2a": _render_reflectance,
    "s1rtc": _render_backscatter,
    "lc2l2": _render_reflectance,
    "dem": _render_elevation,
    "lulc": _render_classes,
}
