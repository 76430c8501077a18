"""What a task stores of scenes and of their files: small, frozen, and JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import shapely
from pydantic import BaseModel, ConfigDict
from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.scene import Asset, Scene
from scenebeam.raster.grid import project_footprint


class SceneRef(BaseModel):
    """A scene that a task reads. Products that need more of a scene subclass it."""

    model_config = ConfigDict(frozen=True)

    id: str
    when: datetime
    item_href: str | None
    identity: str = ""
    """What the scene is whatever its host; empty where one catalog is searched."""
    footprint: str | None
    """Hex WKB: in the CRS of the task's grid, or in degrees where its grid is not known yet."""

    @property
    def geometry(self) -> BaseGeometry | None:
        """The footprint."""
        return None if self.footprint is None else shapely.from_wkb(self.footprint)


class SceneFiles(SceneRef):
    """A scene with the files of its bands. Its footprint is in degrees."""

    bands: tuple[Asset, ...]
    """The bands of the raster, in the order of the request."""
    mask: Asset | None = None
    """The band of classes or flags that shows where the ground is clear."""


class AssetRef(BaseModel):
    """One band's file of one scene, as far as it takes to read it."""

    model_config = ConfigDict(frozen=True)

    scene: str
    """Id of the scene."""
    href: str
    """Unsigned href of the file."""
    index: int
    """Index of the band in the file, from 1."""
    signing: str
    add_offset: int
    """Subtracted from every valid pixel."""
    alternates: tuple[AssetRef, ...] = ()
    """The same file at other hosts, each with the rules of its own provider."""


def scene_fields(scene: Scene, crs: str | None = None) -> dict[str, Any]:
    """Return the fields of a SceneRef: its footprint in a CRS, or in degrees without one."""
    footprint = scene.footprint
    if footprint is not None and crs is not None:
        footprint = project_footprint(footprint, crs)
    return {
        "id": scene.id,
        "when": scene.datetime,
        "item_href": scene.item_href,
        "identity": scene.identity,
        "footprint": None if footprint is None else shapely.to_wkb(footprint, hex=True),
    }


def scene_ref(scene: Scene, crs: str | None = None) -> SceneRef:
    """Reference a scene: its footprint in a CRS, or in degrees without one."""
    return SceneRef(**scene_fields(scene, crs))
