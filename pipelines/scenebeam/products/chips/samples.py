"""A finished chip, and what its files and items say about it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from scenebeam.metadata import stac_items
from scenebeam.products.chips.request import IMAGE
from scenebeam.products.chips.stacks import StackSpec
from scenebeam.products.chips.task import ChipRef, ChipsTask
from scenebeam.raster.cog import CogBand
from scenebeam.raster.grid import Grid
from scenebeam.raster.validity import Array


@dataclass(frozen=True)
class ImageStack:
    """The images of one collection of a chip, in order of time."""

    spec: StackSpec
    pixels: Array
    """Shape (time, bands, rows, columns)."""
    times: Sequence[datetime]
    """When each was taken; empty for one image of no date."""
    scenes: Sequence[Sequence[str]]
    """Ids of the scenes of each image."""
    clouds: Sequence[float | None] = ()
    """Cloud over the chip in percent, where it is known."""

    @property
    def name(self) -> str:
        """`image`, or the name of another collection in the request."""
        return self.spec.name

    @property
    def bands(self) -> tuple[CogBand, ...]:
        """Name, scale and offset of each band."""
        return self.spec.cog_bands

    @property
    def nodata(self) -> float | None:
        """Value of pixels without data."""
        return self.spec.nodata

    @property
    def labels(self) -> list[str]:
        """A name of each image for files: its time, or nothing without a date."""
        return [f"{when:%Y%m%dT%H%M%S}" for when in self.times] or [""]


@dataclass(frozen=True)
class ChipSample:
    """A finished chip."""

    task: ChipsTask
    ref: ChipRef
    stacks: Sequence[ImageStack]
    masks: Mapping[str, Array]
    """Label → mask of shape (rows, columns)."""

    @property
    def id(self) -> str:
        """Id of the chip."""
        return self.ref.id

    @property
    def grid(self) -> Grid:
        """The grid of its images and masks."""
        return self.task.grid_of(self.ref)

    @property
    def image(self) -> ImageStack:
        """The images of the bands of the request."""
        return self.stacks[0]

    @cached_property
    def values(self) -> dict[str, Any]:
        """Label column → the value of the place."""
        columns = json.loads(self.ref.values)
        named = {}
        for label in self.task.product.labels:
            if label.column in columns and not label.has_file:
                named[label.name] = columns[label.column]
        return named

    @cached_property
    def footprint(self) -> dict[str, Any]:
        """The outline in degrees, as GeoJSON."""
        return stac_items.grid_footprint(self.grid)

    def metadata(self) -> dict[str, Any]:
        """Return what a sample says beside its arrays, as JSON."""
        west, south, east, north = self.grid.bounds
        images = {}
        for stack in self.stacks:
            bands = []
            for band in stack.bands:
                scaled = {"name": band.description, "scale": band.scale, "offset": band.offset}
                bands.append(scaled)
            images[stack.name] = {
                "bands": bands,
                "nodata": stac_items.json_nodata(stack.nodata),
                "times": [stac_items.rfc3339(when) for when in stack.times],
                "scenes": [list(scenes) for scenes in stack.scenes],
            }
        document: dict[str, Any] = {
            "id": self.id,
            "place": self.ref.place,
            "crs": self.task.crs,
            "bounds": [west, south, east, north],
            "bbox": stac_items.item_bbox(self.footprint),
            "resolution": self.task.resolution,
            "images": images,
        }
        if self.ref.split:
            document["split"] = self.ref.split
        if self.image.clouds:
            document["images"][IMAGE]["cloud"] = list(self.image.clouds)
        if self.values:
            document["labels"] = self.values
        return document


def chip_item(sample: ChipSample, assets: Mapping[str, dict[str, Any]]) -> stac_items.Item:
    """Build the STAC item of a chip.

    Args:
        sample: The chip.
        assets: Its files. Their hrefs are relative to the folder of the output.
    """
    times = sorted(sample.image.times)
    properties: dict[str, Any] = {
        "start_datetime": stac_items.rfc3339(times[0]),
        "end_datetime": stac_items.rfc3339(times[-1]),
        "scenebeam:images": len(sample.image.pixels),
        **stac_items.grid_properties(sample.grid),
    }
    if sample.ref.split:
        properties["scenebeam:split"] = sample.ref.split
    for name, value in sample.values.items():
        properties[f"scenebeam:label_{name}"] = value
    sources = {scene: None for stack in sample.stacks for group in stack.scenes for scene in group}
    hrefs = {scene.id: scene.item_href for scene in sample.task.scenes}
    links = []
    for scene in sources:
        href = hrefs.get(scene) or "./scenes.parquet"
        links.append({"rel": "derived_from", "href": href, "title": scene})
    item = stac_items.make_item(
        sample.id,
        sample.task.dataset,
        times[0],
        sample.footprint,
        dict(assets),
        [],
        properties,
    )
    item["links"] = [*stac_items.collection_links("./"), *links]
    return item
