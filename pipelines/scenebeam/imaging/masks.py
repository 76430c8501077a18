"""Masks of scenes: what a request asks for, as bands that a task reads, and what they hide."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from pydantic import BaseModel, ConfigDict

from scenebeam.catalog.acquisition import Acquisition
from scenebeam.catalog.bands import record_of
from scenebeam.collections import CollectionRecord
from scenebeam.errors import RequestError
from scenebeam.imaging.bands import Band, describe_band
from scenebeam.imaging.refs import AssetRef
from scenebeam.raster.grid import Grid
from scenebeam.raster.layers import BandLayers
from scenebeam.raster.masks import MaskBand, PixelTest, SceneMask
from scenebeam.request import RunRequest
from scenebeam.request.masks import Mask, MaskRequest

_PLAIN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+-]*")
OWN_MASK = "mask"
"""Name of the band that is a file of the user's own per scene."""


class MaskRule(BaseModel):
    """Which pixels are masked, by the values of one band: see `raster.masks.PixelTest`."""

    model_config = ConfigDict(frozen=True)

    band: str
    """Canonical name of the band, or OWN_MASK."""
    test: PixelTest
    path: str | None = None
    """Template of the files, if they are the user's own."""


def mask_rules(
    acquisition: Acquisition, request: RunRequest, mask: Mask, *, is_required: bool = True
) -> tuple[MaskRule, ...]:
    """Return the rules of an acquisition's collection.

    Args:
        acquisition: The acquisition; without scenes it has no rules.
        request: The request.
        mask: What it asks for.
        is_required: Whether a record without classes and bits is an error.

    Raises:
        RequestError: The collection has no such band, or names no classes.
    """
    if mask is False or not acquisition.scenes:
        return ()
    record = record_of(acquisition.scenes[0], request)
    asked = MaskRequest() if mask is True else mask
    shape = PixelTest(opening=asked.open, erode=asked.erode, dilate=asked.dilate)
    if asked.path is None and asked.band is None and asked.probability is None:
        rules = _rules_of_record(record, shape)
        if is_required and not rules:
            raise RequestError(
                f"product.mask: the record of {record.id} names no classes of clouds; name a mask, "
                "or give mask: false"
            )
        return rules
    name = OWN_MASK
    if asked.path is None:
        name = _band_name(record, asked.probability or asked.band or "")
    test = replace(
        shape,
        keep=tuple(asked.keep or ()),
        drop=tuple(asked.drop or ()),
        bits=tuple(asked.bits or ()),
        above=asked.above,
    )
    return (MaskRule(band=name, test=test, path=asked.path),)


def _rules_of_record(record: CollectionRecord, shape: PixelTest) -> tuple[MaskRule, ...]:
    rules = []
    for band, classes in record.mask_classes.items():
        rules.append(MaskRule(band=band, test=replace(shape, drop=tuple(classes))))
    for band, bits in record.mask_bits.items():
        rules.append(MaskRule(band=band, test=replace(shape, bits=tuple(bits))))
    return tuple(rules)


def _band_name(record: CollectionRecord, name: str) -> str:
    known = record.band_name(name)
    if known is None:
        raise RequestError(
            f"product.mask: {record.id} has no band {name}; it has {', '.join(record.bands)}"
        )
    return known


def mask_bands(
    acquisition: Acquisition,
    rules: Sequence[MaskRule],
    request: RunRequest,
    label: Callable[[str], str],
) -> list[Band]:
    """Describe the mask bands of an acquisition.

    Args:
        acquisition: Its scenes, in order of priority.
        rules: The rules of its collection.
        request: The request.
        label: Canonical name of a band → its label.
    """
    bands = []
    for rule in rules:
        if rule.path is not None:
            bands.append(_own_mask(acquisition, rule.path, label(rule.band)))
            continue
        described = describe_band(
            rule.band,
            acquisition,
            request.checks,
            label=label(rule.band),
            values="harmonized",
            resampling="nearest",
        )
        # Classes of one image are often all the same.
        bands.append(described.model_copy(update={"min_std_dev": None, "resampling": "nearest"}))
    return bands


def _own_mask(acquisition: Acquisition, path: str, label: str) -> Band:
    sources = []
    for scene in acquisition.scenes:
        # An id comes from a catalog, and must not lead to another folder or host.
        if _PLAIN_ID.fullmatch(scene.id) is None:
            raise RequestError(f"product.mask.path: {scene.id[:100]!r} cannot be a part of a path")
        href = path.replace("{id}", scene.id)
        sources.append(AssetRef(scene=scene.id, href=href, index=1, signing="none", add_offset=0))
    return Band(
        label=label,
        name=OWN_MASK,
        sources=tuple(sources),
        absent=(),
        dtype="uint8",
        nodata=None,
        scale=1.0,
        offset=0.0,
        resampling="nearest",
        categorical=True,
        min_std_dev=None,
    )


def apply_masks(
    bands: Sequence[BandLayers],
    rules: Mapping[str, MaskRule],
    layers: Mapping[str, BandLayers],
    grid: Grid,
    whole: Grid,
    reach: float = 0.0,
) -> tuple[list[BandLayers], dict[str, SceneMask]]:
    """Mask the sources of bands that are composed together.

    Args:
        bands: The bands.
        rules: Label of a mask band → its rule; empty for no mask.
        layers: The open bands by label.
        grid: The part of the output that is made.
        whole: The whole output.
        reach: Distance to masked pixels up to which it is needed, in meters. The caller then
            releases each chunk once more than the bands do.

    Returns:
        The bands, without the sources of scenes that have no readable mask; and id of a scene → its
        mask.
    """
    if not rules:
        return list(bands), {}
    users = Counter(layer.name for band in bands for layer in band.layers)
    by_scene: dict[str, list[MaskBand]] = {}
    for label, rule in rules.items():
        if label not in layers:
            continue
        for layer in layers[label].layers:
            band = MaskBand(layer.source, layers[label].nodata, rule.test)
            by_scene.setdefault(layer.name, []).append(band)
    masks = {}
    for scene, found in by_scene.items():
        if len(found) == len(rules) and scene in users:
            count = users[scene] + (1 if reach else 0)
            masks[scene] = SceneMask(next(iter(rules)), found, grid, whole, count, reach)
    return [_with_masks(band, masks) for band in bands], masks


def _with_masks(band: BandLayers, masks: Mapping[str, SceneMask]) -> BandLayers:
    masked = []
    for layer in band.layers:
        if layer.name in masks:
            masked.append(replace(layer, mask=masks[layer.name]))
    return replace(band, layers=masked)
