"""Images: the rasters of a modality's chips, and a small picture of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from scenebeam.imaging.publish_queue import Pending
from scenebeam.metadata import stac_items
from scenebeam.products.landcover.encoding import check_fit, cog_bands, encode_pixels
from scenebeam.products.landcover.lattice import ChipLattice
from scenebeam.products.landcover.layers import read_layer
from scenebeam.products.landcover.record import MadeFile
from scenebeam.products.landcover.request import Platform
from scenebeam.products.landcover.task import LandcoverTask, Layer
from scenebeam.raster.cog import CogProfile, small_cog
from scenebeam.raster.thumbnail import backscatter, classes, natural_colour, shaded
from scenebeam.raster.validity import Array, Mask
from scenebeam.storage import Store
from scenebeam.transfer.retry import Budget


def raster_name(task: LandcoverTask, layer: Layer, chip: int) -> str:
    """Name of a working raster."""
    return f"{task.output_prefix}/{layer.name(chip)}.tif"


def picture_name(task: LandcoverTask, layer: Layer, chip: int) -> str:
    """Name of its picture."""
    return f"{task.output_prefix}/{layer.name(chip)}.png"


def make_images(
    layer: Layer,
    lattice: ChipLattice,
    chips: Mapping[int, int],
    store: Store,
    budget: Budget,
    made: dict[str, MadeFile],
) -> dict[int, str]:
    """Publish one layer of some chips, given with their classes, and enter the files in `made`.

    Gives why for those that are not fit. Raises ReadError where a file cannot be read, StorageError where nothing can
    be published.
    """
    pending: Pending[int] = Pending()
    with pending:
        for chip, bands in _pixels(layer, lattice, chips, budget):
            pending.add(chip, _publish, layer, lattice, chip, bands, store, made)
    return {chip: f"{fault} {layer.platform}" for chip, fault in pending.failed.items()}


def _pixels(
    layer: Layer, lattice: ChipLattice, chips: Mapping[int, int], budget: Budget
) -> Iterator[tuple[int, list[tuple[Array, Mask | None]]]]:
    """(chip, pixels of each band and where they are data)."""
    recipe = lattice.task.recipes[layer.platform]
    if layer.platform == "lulc":  # it has been looked at: one class throughout
        side = lattice.task.chip_side("lulc")
        for chip, number in chips.items():
            yield chip, [(np.full((side, side), number, recipe.dtype), None)]
        return
    numbers = list(chips)
    found = read_layer(
        layer,
        [lattice.grid(chip, layer.platform) for chip in numbers],
        lambda scene: scene.bands,
        lambda asset, values, nodata: encode_pixels(asset, values, nodata, recipe),
        recipe.resampling,
        budget,
    )
    yield from ((numbers[place], bands) for place, bands in found)


def _publish(
    layer: Layer,
    lattice: ChipLattice,
    chip: int,
    bands: Sequence[tuple[Array, Mask | None]],
    store: Store,
    made: dict[str, MadeFile],
) -> None:
    """Check, encode and publish; the picture first: where the raster stands, both do. Raises CheckError."""
    task, recipe, assets = lattice.task, lattice.task.recipes[layer.platform], layer.scenes[0].bands
    check_fit(assets, bands, recipe, task.checks)
    pixels = np.stack([values.astype(recipe.dtype, copy=False) for values, _ in bands])
    tags = {"SCENEBEAM_VALUES": "physical" if pixels.dtype.kind == "f" else "harmonized"}
    profile = CogProfile.on(
        lattice.grid(chip, layer.platform),
        pixels.dtype,
        recipe.nodata,
        bands=cog_bands(assets, recipe),
        tags=tags
        | ({"SCENEBEAM_ACQUIRED": stac_items.rfc3339(layer.scenes[0].when)} if layer.date else {}),
    )
    if task.thumbnails:
        drawn = {
            band.description: values for band, values in zip(profile.bands, pixels, strict=True)
        }
        picture = _PICTURES[layer.platform](drawn, profile, task)
        _write(store, picture_name(task, layer, chip), picture, made)
    average = not any(asset.categorical for asset in assets)
    _write(store, raster_name(task, layer, chip), small_cog(pixels, profile, average=average), made)


def _write(store: Store, name: str, content: bytes, made: dict[str, MadeFile]) -> None:
    with store.open_write(name) as file:
        file.write(content)
    made[name] = MadeFile(size=file.size, checksum=file.checksum)


def _reflectance(bands: Mapping[str, Array], profile: CogProfile, task: LandcoverTask) -> bytes:
    scaled = {
        band.description: bands[band.description] * band.scale + band.offset
        for band in profile.bands
    }
    return natural_colour(scaled)


def _backscatter(bands: Mapping[str, Array], profile: CogProfile, task: LandcoverTask) -> bytes:
    return backscatter(bands)


def _shaded(bands: Mapping[str, Array], profile: CogProfile, task: LandcoverTask) -> bytes:
    return shaded(next(iter(bands.values())), profile.transform.a)


def _classes(bands: Mapping[str, Array], profile: CogProfile, task: LandcoverTask) -> bytes:
    return classes(
        next(iter(bands.values())), {number: one.color for number, one in task.classes.items()}
    )


_PICTURES: dict[Platform, Callable[[Mapping[str, Array], CogProfile, LandcoverTask], bytes]] = {
    "s2l2a": _reflectance,
    "s1rtc": _backscatter,
    "lc2l2": _reflectance,
    "dem": _shaded,
    "lulc": _classes,
}
