"""The task of a gridded product: COGs of one name on one grid, or one shard of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from scenebeam.imaging.bands import Band
from scenebeam.imaging.cube_layout import ZARR_ROOT, CubeLayout, image_path
from scenebeam.imaging.refs import SceneRef
from scenebeam.imaging.shards import PARTS_PREFIX, Window
from scenebeam.imaging.thumbnails import THUMBNAIL
from scenebeam.tasks import CubeSlice, GridSpec, Task

_NOT_STATE = {
    *("id", "outputs", "estimate", "window", "shard", "shards", "cell", "one_by_one", "version"),
    "cube",
}
"""Fields that decide how a product is made, but not what it is."""
_OF_THE_HOST = {"eo:cloud_cover", "scenebeam:coverage"}
"""Properties that the hosts of a scene may state differently."""
_VERSION_DIGITS = 12
Missing = dict[str, dict[str, str]]
"""Label of a band → id of a scene → why its file is missing."""


class GriddedTask(Task):
    """COGs of one name on the whole grid, or on one shard of it."""

    name: str
    """Name of the folder and of the item: a timestamp, a scene or a period."""
    when: datetime
    collection: str
    folder: str
    """Folder of the product: `mosaics` or `indices`."""
    scenes: tuple[SceneRef, ...]
    bands: tuple[Band, ...]
    """The bands that are read."""
    grid: GridSpec
    """The whole grid."""
    window: Window
    """Rows and columns of the grid that this task makes."""
    shard: int
    """Number of the shard, by rows and then by columns."""
    shards: int
    """Number of shards of the whole grid."""
    cell: int
    """Pixels of which all cuts between shards are multiples; 0 for one shard."""
    values: str
    on_missing: str
    codec: str

    @property
    def ends(self) -> datetime | None:
        end = self.properties.get("end_datetime")
        return datetime.fromisoformat(end) if end else self.when

    def as_version(self, attempt: int = 1) -> GriddedTask:
        """Return the task with its files in a folder that is named by the state of its inputs.

        Another state has other files, so an item and its files always fit together: readers of the
        former item find the former files. The item itself keeps its name.
        """
        state = self.model_dump(mode="json", exclude=_NOT_STATE)
        identities = {ref.id: ref.identity for ref in self.scenes}
        if all(identities.values()):
            state |= self._state_whatever_the_host(identities)
        content = json.dumps(state, sort_keys=True).encode()
        version = hashlib.sha256(content).hexdigest()[:_VERSION_DIGITS]
        if attempt > 1:
            version = f"{version}-{attempt}"
        versioned = self.model_copy(update={"version": version})
        outputs = []
        for key in self.outputs:
            stays = key == self.item_path or key.startswith(ZARR_ROOT)
            outputs.append(key if stays else versioned.file_key(key.rpartition("/")[2]))
        return versioned.model_copy(update={"outputs": tuple(outputs)})

    def _state_whatever_the_host(self, identities: Mapping[str, str]) -> dict[str, Any]:
        """Return the fields that name files, by what the scenes are instead of where they are."""
        bands = []
        for band in self.bands:
            described = band.model_dump(mode="json", exclude={"sources", "absent"})
            for name, scenes in (
                ("sources", [source.scene for source in band.sources]),
                ("absent", band.absent),
            ):
                described[name] = [identities[scene] for scene in scenes]
            bands.append(described)
        properties = {
            name: value for name, value in self.properties.items() if name not in _OF_THE_HOST
        }
        scenes = list(identities.values())
        return {"scenes": scenes, "bands": bands, "properties": properties}

    def with_alternate(self, label: str, scene: str) -> GriddedTask | None:
        """Return the task with another host's file in place of one that cannot be read.

        Args:
            label: Label of the band.
            scene: Id of the scene.

        Returns:
            The task; None if no other host has the file.
        """
        bands = list(self.bands)
        for number, band in enumerate(bands):
            sources = list(band.sources)
            for place, source in enumerate(sources):
                if band.label == label and source.scene == scene and source.alternates:
                    first, *rest = source.alternates
                    sources[place] = first.model_copy(update={"alternates": tuple(rest)})
                    bands[number] = band.model_copy(update={"sources": tuple(sources)})
                    return self.model_copy(update={"bands": tuple(bands)})
        return None

    @property
    def product_prefix(self) -> str:
        """Folder of the product's item."""
        return f"{self.folder}/{self.name}/"

    def file_key(self, name: str) -> str:
        """Key of a file of the product."""
        return f"{self.product_prefix}{self.version}/{name}".replace("//", "/")

    def href(self, key: str) -> str:
        """Href of a file of the product in its item."""
        return f"./{key.removeprefix(self.product_prefix)}"

    @property
    def lacking(self) -> tuple[str, ...]:
        """Names of bands that no scene has a file of."""
        names = [band.name for band in self.bands if band.absent and not band.sources]
        return tuple(dict.fromkeys(names))

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(ref.id for ref in self.scenes)

    @property
    def source_identities(self) -> tuple[str, ...]:
        return tuple(ref.identity or ref.id for ref in self.scenes)

    @property
    def source_files(self) -> frozenset[tuple[str, str]]:
        files: set[tuple[str, str]] = set()
        for band in self.bands:
            files.update((band.label, source.scene) for source in band.sources)
        return frozenset(files)

    @property
    def pixel_layout(self) -> object:
        return self.grid, self.window

    def output_key(self, output: str) -> str:
        """Key of an output's COG."""
        return self.file_key(f"{output}.tif")

    def image_path(self, output: str) -> str:
        """Where readers find an output, relative to the folder of the run."""
        return self.output_key(output) if self.cube is None else image_path(self.cube, output)

    def is_computed(self, existing: set[str]) -> bool:
        """Whether the product is published, or the parts of this shard are stored."""
        if self.is_done(existing):
            return True
        parts = {self.part_key(name, self.shard) for name in self._images}
        return self.shards > 1 and bool(parts) and parts <= existing

    @property
    def _images(self) -> list[str]:
        """Names of the outputs that the plan foresees."""
        if self.cube is not None:
            return [band.name for band in self.cube.bands]
        return [PurePosixPath(key).stem for key in self.outputs if key.endswith(".tif")]

    @property
    def cube_id(self) -> str:
        return self.name

    def in_cube(self, slices: Mapping[str, CubeSlice]) -> GriddedTask:
        place = slices[self.name]
        layout = CubeLayout(self.grid.shape, place.cuts)
        levels = range(len(layout.levels))
        own, above = levels, range(0)
        if self.shards > 1:
            own, above = levels[: layout.shared], levels[layout.shared :]
        names = [band.name for band in place.bands]
        window = self.window if self.shards > 1 else None
        paths = layout.paths(place.index, names, own, window)
        paths += layout.paths(place.index, names, above)
        others = []
        for key in self.outputs:
            if not key.endswith(".tif") and not key.startswith(ZARR_ROOT):
                others.append(key)
        # What is staged is deleted after the commit, and is not part of the output.
        shards = [f"{ZARR_ROOT}{path}" for path in paths] if place.format == "zarr" else []
        outputs = (*shards, *others)
        return self.model_copy(update={"cube": place, "outputs": outputs})

    @property
    def thumbnail_key(self) -> str:
        """Key of the thumbnail of the outputs."""
        return self.file_key(THUMBNAIL)

    @property
    def version_parts(self) -> str:
        return self.parts_prefix

    @property
    def parts_prefix(self) -> str:
        """Folder of the parts of all shards."""
        # Shards that are cut in another way have other parts.
        cut = f"-{self.version}-{self.shards}-{self.cell}" if self.version else ""
        return f"{PARTS_PREFIX}{self.name}{cut}/"

    def part_key(self, output: str, shard: int) -> str:
        """Key of one shard of an output, until the COG is assembled."""
        return f"{self.output_parts(output)}{shard:05d}.part"

    def output_parts(self, output: str) -> str:
        """Start of the keys of the parts of an output, without those of their pieces."""
        return f"{self.parts_prefix}{output}."

    def pieces_prefix(self, output: str) -> str:
        """Folder of the pieces of an output: see `imaging.pieces`."""
        return f"{self.parts_prefix}pieces/{output}/"


def item_key(folder: str, name: str) -> str:
    """Return the key of the STAC item of a product."""
    return f"{folder}/{name}/{name}.json"


@dataclass(frozen=True)
class Output:
    """One COG of a task: how its pixels are encoded, and the bands that it is computed of."""

    name: str
    dtype: np.dtype[Any]
    nodata: float | None
    scale: float
    offset: float
    categorical: bool
    inputs: tuple[Band, ...]
    masks: tuple[Band, ...] = ()
    """The bands that mask its pixels."""
    index: bool = False
    """Whether it is a spectral index, such as NDVI."""
