"""Images: a season's imagery of all chips of a cell, each block of each band fetched and decoded once a scene."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from scenebeam.catalog.scene import Asset
from scenebeam.errors import CheckError, ReadError
from scenebeam.imaging.bands import asked_resampling, min_std_dev, scale_offset
from scenebeam.imaging.chip_reader import ChipReader, open_sources
from scenebeam.imaging.publish_queue import Pending
from scenebeam.metadata import stac_items
from scenebeam.products.fields.chips import mask_grid
from scenebeam.products.fields.choose import Choice
from scenebeam.products.fields.items import image_item
from scenebeam.products.fields.task import Candidate, ChipRef, FieldsTask, is_elsewhere
from scenebeam.raster.cog import CogBand, CogProfile, small_cog
from scenebeam.raster.grid import same_crs
from scenebeam.raster.merge import cast_nodata, harmonize
from scenebeam.raster.preview import preview
from scenebeam.raster.source import Source
from scenebeam.raster.validity import Array, valid_mask
from scenebeam.storage import Store
from scenebeam.transfer.pools import io_threads
from scenebeam.transfer.retry import Budget


@dataclass(frozen=True)
class PixelEncoding:
    """How the numbers of a scene's chips are written: one dtype and one nodata value for all bands."""

    candidate: Candidate
    dtype: np.dtype[Any]
    nodata: float | None
    own: Sequence[float | None]
    """Nodata of each band's file."""
    values: str
    """`harmonized` or `raw`."""

    @cached_property
    def bands(self) -> tuple[CogBand, ...]:
        """What an image says of its bands."""
        return tuple(
            CogBand(asset.band, *scale_offset(asset, self.values)) for asset in self.candidate.bands
        )

    def settle(self, band: int, values: Array) -> Array:
        """A band's numbers as they stand in the image."""
        own = self.own[band]
        if self.values != "raw":
            values = harmonize(
                values, valid_mask(values, own), self.candidate.bands[band].add_offset, own
            )
        return cast_nodata(values, own, self.dtype, self.nodata)


class NoImages(NamedTuple):
    """Why some chips have no image, by chip."""

    failed: dict[str, str]
    """What a file or a mask has to do with: it may be mended."""
    unfit: dict[str, str]
    """What the pixels of the scene are like: another may do."""


def make_images(
    task: FieldsTask, choices: Sequence[Choice], store: Store, budget: Budget
) -> NoImages:
    """Publish the images of some of a cell's chips with their items; tells why some have none.

    Raises ReadError where a file may be read later, StorageError where nothing can be published.
    """
    chips = {chip.name: chip for chip in task.chips}
    failed: dict[str, str] = {}
    by_scene: dict[str, list[Choice]] = {}
    for choice, fault in zip(
        choices, _masks_fit(task, [chips[one.chip] for one in choices], store), strict=True
    ):
        if fault:
            failed[choice.chip] = fault
        else:
            by_scene.setdefault(str(choice.scene), []).append(choice)
    chosen = [candidate for candidate in task.candidates if candidate.id in by_scene]
    # All headers at once: over a slow line they would take longer one scene after another.
    opened = {candidate.id: open_sources(candidate.bands, budget) for candidate in chosen}
    pending: Pending[str] = Pending()
    with pending:
        for candidate in chosen:
            for choice, result in _read(
                task, candidate, opened[candidate.id], by_scene[candidate.id], chips
            ):
                if isinstance(result, str):
                    failed[choice.chip] = result
                    continue
                numbers, pixels = result
                pending.add(
                    choice.chip, _publish, task, chips[choice.chip], choice, numbers, pixels, store
                )
    return NoImages(failed, pending.failed)


def _masks_fit(task: FieldsTask, chips: Sequence[ChipRef], store: Store) -> Iterator[str]:
    """For each chip why its mask does not lie on its grid; empty where it does, or where the run makes the mask."""

    def fault(chip: ChipRef) -> str:
        if not chip.mask:
            return ""
        try:
            crs, transform, shape = mask_grid(
                chip.mask if is_elsewhere(chip.mask) else store.path(chip.mask)
            )
        except ReadError as error:
            if error.permanent:
                return f"its mask cannot be read: {error}"
            raise
        grid = task.grid_of(chip)
        if (
            same_crs(crs, task.crs)
            and shape == task.shape
            and grid.transform.almost_equals(transform, 1e-9)
        ):
            return ""
        return (
            f"its mask {chip.mask} has {shape[0]} x {shape[1]} pixels from {transform[2]:.10g}, {transform[5]:.10g} in "
            f"{crs[:20]}, its item says {task.shape[0]} x {task.shape[1]} from {chip.left:.10g}, {chip.top:.10g} in "
            f"{task.crs}: which is it?"
        )

    return io_threads().map(fault, chips)


def _read(
    task: FieldsTask,
    candidate: Candidate,
    opened: Sequence[Future[Source]],
    choices: Sequence[Choice],
    chips: Mapping[str, ChipRef],
) -> Iterator[tuple[Choice, tuple[PixelEncoding, Array] | str]]:
    """(choice, how numbers are written and (bands, rows, columns), or why there is no image), in the files' order."""
    grids = {n: task.grid_of(chips[choice.chip]) for n, choice in enumerate(choices)}
    try:
        reader = ChipReader(candidate.bands, opened, grids, lambda asset: _resampling(task, asset))
    except (ReadError, CheckError) as error:
        if isinstance(error, ReadError) and not error.permanent:
            raise
        for choice in choices:
            yield choice, str(error)
        return
    with reader:
        encoding = _encoding(task, candidate, reader)
        for number in reader.file_order():
            try:
                bands = reader.read(number)
            except ReadError as error:
                if not error.permanent:
                    raise
                yield choices[number], str(error)
                continue
            pixels = [encoding.settle(band, values) for band, (values, _) in enumerate(bands)]
            yield choices[number], (encoding, np.stack(pixels))


def _encoding(task: FieldsTask, candidate: Candidate, reader: ChipReader) -> PixelEncoding:
    dtype = np.result_type(*(source.info.dtype for source in reader.sources))
    first = next((value for value in reader.nodata if value is not None), None)
    return PixelEncoding(candidate, dtype, first, reader.nodata, task.product.values)


def _resampling(task: FieldsTask, asset: Asset) -> str:
    return asked_resampling(asset.band, task.product.resampling)


def _publish(
    task: FieldsTask,
    chip: ChipRef,
    choice: Choice,
    numbers: PixelEncoding,
    pixels: Array,
    store: Store,
) -> None:
    """Check, encode and publish one image. The item comes first, the image last: where that stands the chip is whole.

    Raises CheckError where the image is not fit to use.
    """
    statistics = _statistics(task, numbers, pixels)
    profile = CogProfile.on(
        task.grid_of(chip),
        numbers.dtype,
        numbers.nodata,
        codec=task.product.compression,
        bands=numbers.bands,
        tags={
            "SCENEBEAM_VALUES": task.product.values,
            "SCENEBEAM_ACQUIRED": stac_items.rfc3339(numbers.candidate.when),
        },
    )
    asset: dict[str, Any] = {
        "href": f"./{task.image_name(chip).rpartition('/')[2]}",
        "type": stac_items.COG_TYPE,
        "title": f"Clipped {len(pixels)}-band image ({','.join(band.description for band in numbers.bands)})",
        "roles": ["data"],
        "bands": [{"name": band.description} for band in numbers.bands],
        "raster:bands": [
            {
                **stac_items.raster_band(
                    numbers.dtype.name, numbers.nodata, band.scale, band.offset, task.pixel[0]
                ),
                "statistics": told,
            }
            for band, told in zip(numbers.bands, statistics, strict=True)
        ],
    }
    picture = _picture(task, chip, numbers, pixels, store) if task.checks.screenshot else None
    with store.open_write(task.image_name(chip)) as file:
        file.write(small_cog(pixels, profile))
        asset |= {"file:size": file.size, "file:checksum": file.checksum}
        store.write(
            task.item_name(chip),
            stac_items.to_bytes(image_item(task, chip, choice, asset, picture)),
        )
        # Only here, where the block ends, does the image appear.


def _picture(
    task: FieldsTask, chip: ChipRef, numbers: PixelEncoding, pixels: Array, store: Store
) -> dict[str, Any]:
    """Publish a small picture of an image; its asset."""
    drawn = {
        band.description: np.where(values == numbers.nodata, np.nan, values.astype(np.float32))
        for band, values in zip(numbers.bands, pixels, strict=True)
    }
    store.write(task.picture_name(chip), preview(drawn))
    name = task.picture_name(chip).rpartition("/")[2]
    return {"href": f"./{name}", "type": "image/png", "roles": ["thumbnail"]}


def _statistics(task: FieldsTask, numbers: PixelEncoding, pixels: Array) -> list[dict[str, float]]:
    """Of each band, for its asset. Raises CheckError where a chip is black, blank or full of holes."""
    valid = (
        np.ones(pixels.shape, bool)
        if numbers.nodata is None
        else pixels != numbers.dtype.type(numbers.nodata)
    )
    empty = 100 * (1 - float(valid.any(axis=0).mean()))
    if empty > task.product.nodata_max:
        raise CheckError(
            f"{empty:.2f} % of it has no data in {numbers.candidate.id}, more than product.nodata_max = "
            f"{task.product.nodata_max:g}: its footprint says otherwise"
        )
    told = []
    for asset, values, there in zip(numbers.candidate.bands, pixels, valid, strict=True):
        share = 100 * float(there.mean())
        if 100 - share > task.checks.max_nodata_percent:
            raise CheckError(
                f"{asset.band} of {numbers.candidate.id}: {100 - share:.1f} % is nodata, more than "
                f"checks.max_nodata_percent = {task.checks.max_nodata_percent:g}"
            )
        some = values if share == 100 else values[there]
        mean, deviation = float(some.mean(dtype=np.float64)), float(some.std(dtype=np.float64))
        least = min_std_dev(asset, task.checks)
        if least is not None and deviation <= least:
            raise CheckError(
                f"{asset.band} of {numbers.candidate.id} is blank here: {mean:g} throughout"
            )
        told.append(
            {
                "minimum": float(some.min()),
                "maximum": float(some.max()),
                "mean": round(mean, 4),
                "stddev": round(deviation, 4),
                "valid_percent": round(share, 4),
            }
        )
    return told
