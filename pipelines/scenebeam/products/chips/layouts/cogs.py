"""COGs: a folder for each chip with its images, masks and item."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from scenebeam.metadata import stac_items
from scenebeam.metadata.item_tables import read_required
from scenebeam.products.chips.layouts.base import (
    Assets,
    EncodedSample,
    FilesLayout,
    StoredChip,
    StoredSample,
    chips_of,
    encode_image,
    encode_mask,
    file_fields,
)
from scenebeam.products.chips.request import IMAGE
from scenebeam.products.chips.samples import ChipSample, ImageStack
from scenebeam.raster.memory import read_tiff
from scenebeam.storage import Store

_SAMPLE = "sample.json"


class Cogs(FilesLayout):
    """`chips/<id>/<id>_image_<time>.tif`, `<id>_<label>.tif` and `sample.json`."""

    def encode(self, sample: ChipSample) -> EncodedSample:
        members: dict[str, bytes] = {}
        assets: Assets = {}
        names: dict[str, list[str]] = {}
        for stack in sample.stacks:
            names[stack.name] = []
            for image, when in enumerate(stack.labels):
                key = f"{stack.name}_{when}".rstrip("_")
                name = f"{sample.id}_{key}.tif"
                members[name] = encode_image(sample, stack, image)
                names[stack.name].append(name)
                assets[key] = {"name": name, **_image_asset(sample, stack)}
        for label, mask in sample.masks.items():
            name = f"{sample.id}_{label}.tif"
            members[name] = encode_mask(sample, label, mask)
            assets[label] = {"name": name, **_mask_asset(sample, label, mask.dtype.name)}
        document = {**sample.metadata(), "files": names, "masks": list(sample.masks)}
        members[_SAMPLE] = (json.dumps(document) + "\n").encode()
        return EncodedSample(members, assets)

    def append(self, sample: ChipSample, encoded: EncodedSample) -> Assets:
        records = {}
        for name, content in encoded.members.items():
            records[name] = self.publish(f"chips/{sample.id}/{name}", content)
        assets: Assets = {}
        for key, asset in encoded.assets.items():
            fields = {name: value for name, value in asset.items() if name != "name"}
            assets[key] = {**file_fields(records[asset["name"]]), **fields}
        return assets

    @staticmethod
    def read(store: Store, splits: Sequence[str], files: Sequence[str]) -> Iterator[StoredSample]:
        wanted = set(chips_of(store, splits))
        for key in files:
            if key.endswith(f"/{_SAMPLE}") and key.split("/")[-2] in wanted:
                yield partial(_read_chip, store, key)


def _read_chip(store: Store, key: str) -> StoredChip:
    folder = key.removesuffix(_SAMPLE)
    document = json.loads(read_required(store, key))
    images, masks = {}, {}
    for name, members in document.pop("files").items():
        contents = [read_required(store, f"{folder}{one}") for one in members]
        images[name] = np.stack([read_tiff(content) for content in contents])
    for label in document.pop("masks"):
        content = read_required(store, f"{folder}{document['id']}_{label}.tif")
        masks[label] = read_tiff(content)[0]
    return StoredChip(document["id"], images, masks, document)


def _image_asset(sample: ChipSample, stack: ImageStack) -> dict[str, object]:
    raster_bands = []
    for band in stack.bands:
        raster_bands.append(
            stac_items.raster_band(
                stack.pixels.dtype.name,
                stack.nodata,
                band.scale,
                band.offset,
                sample.task.resolution,
            )
        )
    role = "data" if stack.name == IMAGE else "auxiliary"
    return {
        "type": stac_items.COG_TYPE,
        "roles": [role],
        "bands": [{"name": band.description} for band in stack.bands],
        "raster:bands": raster_bands,
    }


def _mask_asset(sample: ChipSample, label: str, dtype: str) -> dict[str, object]:
    [source] = [one for one in sample.task.labels if one.name == label]
    classes = []
    for value, name in sorted(source.classes.items()):
        classes.append({"value": value, "name": name or label})
    asset: dict[str, object] = {
        "type": stac_items.COG_TYPE,
        "roles": ["data", "labels"],
        "raster:bands": [{"data_type": dtype, "spatial_resolution": sample.task.resolution}],
    }
    if classes and not source.instances:
        asset["classification:classes"] = classes
    return asset
