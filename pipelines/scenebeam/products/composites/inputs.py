"""What composites read: the bands and the mask of each acquisition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from scenebeam.catalog.acquisition import Acquisition
from scenebeam.catalog.scene import Scene
from scenebeam.errors import RequestError
from scenebeam.imaging.bands import Band, describe_band
from scenebeam.imaging.masks import mask_bands, mask_rules
from scenebeam.products.composites.periods import Period
from scenebeam.products.composites.request import CompositeRequest
from scenebeam.products.composites.task import Observation
from scenebeam.raster.reduce import reducer
from scenebeam.request import RunRequest

_OF_METHODS = ("score", "emad", "smad", "bcmad")
"""Further bands that only some methods compute."""


@dataclass(frozen=True)
class Input:
    """What is read of one acquisition."""

    acquisition: Acquisition
    bands: Sequence[Band]
    """The bands in the order of their names, and then the mask."""
    observation: Observation


def describe(
    acquisition: Acquisition, names: Sequence[str], request: RunRequest[CompositeRequest]
) -> Input:
    """Describe what is read of an acquisition.

    Args:
        acquisition: The acquisition, with the scenes that are on the grid.
        names: Canonical names of the bands.
        request: The request.

    Raises:
        RequestError: Its files cannot be combined, or there is no such mask.
    """
    product = request.product
    rules = mask_rules(acquisition, request, product.mask)
    clouds = acquisition.cloud_cover
    observation = Observation(
        timestamp=acquisition.timestamp,
        when=acquisition.acquired,
        platform=acquisition.scenes[0].platform or "",
        cloud_cover=100.0 if clouds is None else clouds,
        in_period=True,
        rules=rules,
    )
    bands = []
    for name in names:
        band = describe_band(
            name,
            acquisition,
            request.checks,
            label=observation.label(name),
            values=product.values,
            resampling=product.resampling,
        )
        bands.append(band)
    bands += mask_bands(acquisition, rules, request, observation.mask_label)
    return Input(acquisition, bands, observation)


def common_encoding(name: str, index: int, inputs: Sequence[Input]) -> Band:
    """Return a band whose dtype, nodata value, scale and offset hold for all acquisitions.

    Raises:
        RequestError: They differ, or no acquisition has the band.
    """
    bands = [one.bands[index] for one in inputs if one.bands[index].sources]
    if not bands:
        raise RequestError(f"product.bands: no selected scene has {name}")
    encodings = {(band.dtype, repr(band.nodata), band.scale, band.offset) for band in bands}
    if len(encodings) > 1:
        described = "; ".join(
            f"dtype {dtype}, nodata {nodata}, scale {scale:g}, offset {offset:g}"
            for dtype, nodata, scale, offset in sorted(encodings)
        )
        raise RequestError(
            f"product.bands: the collections have different values of {name} ({described}); make "
            "one run of each collection"
        )
    return bands[0].model_copy(update={"sources": (), "absent": (), "label": name})


def check_methods(product: CompositeRequest, encodings: Sequence[Band]) -> None:
    """Check what can be combined and filled. Raises RequestError."""
    made = encodings[: len(product.bands)]
    without = [band.name for band in made if band.nodata is None]
    if product.fill and without:
        raise RequestError(
            f"product.fill: {', '.join(without)} has no nodata value that marks gaps; declare one "
            "in the collection record"
        )
    classes = [band.name for band in made if band.categorical]
    if classes and product.fill_name in ("linear", "whittaker"):
        raise RequestError(
            f"product.fill: {product.fill_name} would mix the classes of {', '.join(classes)}; use "
            "previous or next, or leave the band out"
        )
    name = product.method_name
    method = reducer(name)
    if classes and not method.takes_pixels:
        raise RequestError(
            f"product.method: the {name} of {', '.join(classes)} would mix classes; use "
            "first-clear, or leave the band out"
        )

    if "source" in product.extra and not method.takes_pixels:
        raise RequestError(f"product.extra: {name} combines scenes, so its pixels have no source")
    for extra in product.extra:
        if extra in _OF_METHODS and extra not in method.extra:
            raise RequestError(f"product.extra: {name} has no {extra}")


def inputs_of(period: Period, inputs: Sequence[Input]) -> list[Input]:
    """Return the acquisitions of a period, and then those of its fallback only."""
    own, others = [], []
    for one in inputs:
        when = one.acquisition.acquired
        if period.start <= when <= period.end:
            own.append(one)
        elif period.fallback is not None and period.fallback[0] <= when <= period.fallback[1]:
            outside = one.observation.model_copy(update={"in_period": False})
            others.append(replace(one, observation=outside))
    return [*own, *others]


def bands_of(inputs: Sequence[Input]) -> list[Band]:
    """Return all bands of some acquisitions, with their masks."""
    bands: list[Band] = []
    for one in inputs:
        bands += one.bands
    return bands


def scenes_of(inputs: Sequence[Input]) -> list[Scene]:
    """Return the scenes of a period, each once, in the order of its acquisitions."""
    scenes: dict[str, Scene] = {}
    for one in inputs:
        scenes.update((scene.id, scene) for scene in one.acquisition.scenes)
    return list(scenes.values())
