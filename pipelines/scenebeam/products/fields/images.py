"""Make the images of one season for all chips of a cell.

Chips are grouped by their scene, and the chips of one scene are read in the order of its file, so
that each compressed block is fetched and decoded once. Images are encoded and published on other
threads meanwhile, each before its item.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from affine import Affine

from scenebeam.catalog.scene import Asset
from scenebeam.errors import ReadError
from scenebeam.imaging.bands import requested_resampling
from scenebeam.imaging.chip_images import ChipImage, PixelEncoding, check_image, read_images
from scenebeam.imaging.chip_reader import open_sources
from scenebeam.imaging.publish_queue import EncodedChip, PublishQueue
from scenebeam.imaging.thumbnails import ThumbnailBand, render_thumbnail
from scenebeam.metadata import stac_items
from scenebeam.multihash import content_multihash
from scenebeam.products.fields.chips import mask_grid
from scenebeam.products.fields.choose import Choice
from scenebeam.products.fields.items import image_item
from scenebeam.products.fields.task import ChipRef, FieldsTask, is_outside_output
from scenebeam.raster.cog import CogProfile, small_cog
from scenebeam.raster.grid import same_crs
from scenebeam.raster.validity import Array
from scenebeam.storage import Store
from scenebeam.transfer.pools import io_threads
from scenebeam.transfer.retry import Budget


class MissingImages(NamedTuple):
    """Chips whose image could not be made, and why."""

    failed: dict[str, str]
    """The fault is in a file or a mask, which may be repaired."""
    unusable: dict[str, str]
    """The pixels of the scene cannot be used; another scene may do."""


def make_images(
    task: FieldsTask, choices: Sequence[Choice], store: Store, budget: Budget
) -> MissingImages:
    """Make the images of some chips of a cell, and publish each with its item.

    Args:
        task: The task of the cell.
        choices: The chips whose images are made. Each has a scene.
        store: Where the images are published.
        budget: The task's budget for retries.

    Returns:
        The chips whose image could not be made.

    Raises:
        ReadError: A file cannot be read at the moment, and a later attempt may succeed.
        StorageError: An image cannot be published.
    """
    chips = {chip.name: chip for chip in task.chips}
    failed: dict[str, str] = {}
    by_scene: dict[str, list[Choice]] = {}
    chosen_chips = [chips[choice.chip] for choice in choices]
    for choice, fault in zip(choices, _mask_faults(task, chosen_chips, store), strict=True):
        if fault:
            failed[choice.chip] = fault
        else:
            by_scene.setdefault(str(choice.scene), []).append(choice)
    chosen = [candidate for candidate in task.candidates if candidate.id in by_scene]
    # Request the headers of all scenes at once: one scene after another would wait for the network
    # each time.
    opened = {candidate.id: open_sources(candidate.bands, budget) for candidate in chosen}
    pending: PublishQueue[str] = PublishQueue(store)

    def resampling(asset: Asset) -> str:
        return requested_resampling(asset.band, task.product.resampling)

    with pending:
        for scene in chosen:
            scene_choices = by_scene[scene.id]
            grids = {}
            for number, choice in enumerate(scene_choices):
                grids[number] = task.grid_of(chips[choice.chip])
            images = read_images(scene, opened[scene.id], grids, task.product.values, resampling)
            for number, image in images:
                choice = scene_choices[number]
                if isinstance(image, str):
                    failed[choice.chip] = image
                else:
                    pending.add(choice.chip, _encode, task, chips[choice.chip], choice, image)
    return MissingImages(failed, pending.failed)


def _mask_faults(task: FieldsTask, chips: Sequence[ChipRef], store: Store) -> Iterator[str]:
    """Yield for each chip why its mask cannot be used; "" if it can, or if the run makes it."""

    def fault(chip: ChipRef) -> str:
        if not chip.mask:
            return ""
        href = chip.mask if is_outside_output(chip.mask) else store.uri_for(chip.mask)
        try:
            crs, transform, shape = mask_grid(href)
        except ReadError as error:
            if error.permanent:
                return f"its mask cannot be read: {error}"
            raise
        expected = task.grid_of(chip).transform
        # Transforms in metadata are often rounded.
        same_transform = expected.almost_equals(Affine(*transform), 1e-9)
        if same_crs(crs, task.crs) and shape == task.shape and same_transform:
            return ""
        return (
            f"its mask {chip.mask} has {shape[0]} x {shape[1]} pixels from {transform[2]:.10g}, "
            f"{transform[5]:.10g} in {crs[:20]}, but its item says {task.shape[0]} x "
            f"{task.shape[1]} from {chip.left:.10g}, {chip.top:.10g} in {task.crs}; correct one"
        )

    return io_threads().map(fault, chips)


def _encode(task: FieldsTask, chip: ChipRef, choice: Choice, read: ChipImage) -> EncodedChip:
    """Check and encode one image, and make its thumbnail and item.

    Raises:
        CheckError: The pixels cannot be used.
    """
    encoding = read.encoding
    statistics = check_image(read, task.product.nodata_max, "product.nodata_max", task.checks)
    profile = CogProfile.for_grid(
        task.grid_of(chip),
        encoding.dtype,
        encoding.nodata,
        codec=task.product.compression,
        bands=encoding.bands,
        tags={
            "SCENEBEAM_VALUES": task.product.values,
            "SCENEBEAM_ACQUIRED": stac_items.rfc3339(encoding.scene.when),
        },
    )
    image = small_cog(read.pixels, profile)
    files = {task.image_key(chip): image}
    asset = _asset(task, chip, encoding, statistics)
    asset |= {"file:size": len(image), "file:checksum": content_multihash(image)}
    thumbnail = None
    if task.checks.screenshot:
        key = task.thumbnail_key(chip)
        files[key] = _thumbnail(encoding, read.pixels)
        thumbnail = {
            "href": f"./{key.rpartition('/')[2]}",
            "type": "image/png",
            "roles": ["thumbnail"],
        }
    item = image_item(task, chip, choice, asset, thumbnail)
    return EncodedChip(files, {task.item_key(chip): stac_items.to_bytes(item)})


def _asset(
    task: FieldsTask,
    chip: ChipRef,
    encoding: PixelEncoding,
    statistics: Sequence[Mapping[str, float]],
) -> dict[str, Any]:
    """Return the STAC asset of an image, still without size and checksum."""
    raster_bands: list[dict[str, Any]] = []
    for band, band_statistics in zip(encoding.bands, statistics, strict=True):
        fields = stac_items.raster_band(
            encoding.dtype.name, encoding.nodata, band.scale, band.offset, task.pixel[0]
        )
        raster_bands.append({**fields, "statistics": band_statistics})
    names = [band.description for band in encoding.bands]
    return {
        "href": f"./{task.image_key(chip).rpartition('/')[2]}",
        "type": stac_items.COG_TYPE,
        "title": f"Clipped {len(names)}-band image ({','.join(names)})",
        "roles": ["data"],
        "bands": [{"name": name} for name in names],
        "raster:bands": raster_bands,
    }


def _thumbnail(encoding: PixelEncoding, pixels: Array) -> bytes:
    """Render a small PNG of an image."""
    bands = []
    for band, values in zip(encoding.bands, pixels, strict=True):
        known = np.where(values == encoding.nodata, np.nan, values.astype(np.float32))
        reflectance = known * band.scale + band.offset
        bands.append(ThumbnailBand(band.description, reflectance, is_scaled=band.scale != 1))
    return render_thumbnail(bands)
