"""The task of the assets product: all files of one scene."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict

from scenebeam.catalog.scene import Asset
from scenebeam.imaging.fetch import file_suffix
from scenebeam.imaging.refs import SceneRef
from scenebeam.request import Checks
from scenebeam.tasks import Task

RAW = "raw"
"""Folder of the files: `raw/<scene>/<band>.tif`, the layout that a time series reads."""

DROP = "url_to_gcs_drop_local"
"""The mode that leaves no file here."""


class BandFile(BaseModel):
    """One band's file of a scene."""

    model_config = ConfigDict(frozen=True)

    label: str
    """The band as it was asked for (`B04`): the file bears it, and in lower case the tables do."""
    band: str
    asset: Asset | None
    """None where the catalogue has no file of the band."""

    @property
    def suffix(self) -> str:
        """Of the file's name."""
        return ".tif" if self.asset is None else file_suffix(self.asset)

    @property
    def name(self) -> str:
        """Of the file."""
        return f"{self.label}{self.suffix}"

    @property
    def column(self) -> str:
        """Ending of its columns in the tables."""
        return self.label.lower()


class AssetsTask(Task):
    """The files of one scene, and where they are to lie."""

    scene: SceneRef
    """The scene, with its footprint in degrees."""
    collection: str
    files: tuple[BandFile, ...]
    mode: str
    gcs: str | None
    """`gs://bucket/prefix` of the modes that need one."""
    checks: Checks
    properties: dict[str, Any]

    @property
    def lacking(self) -> tuple[str, ...]:
        """Bands that the scene has no file of."""
        return tuple(file.label for file in self.files if file.asset is None)

    @property
    def sources(self) -> tuple[str, ...]:
        """The scene."""
        return (self.scene.id,)

    @property
    def possible_outputs(self) -> Iterable[str]:
        """Files in the run's store, also where that is the bucket that they are dropped into."""
        return {*self.outputs, *(self.local_key(file) for file in self.files)}

    def local_key(self, file: BandFile) -> str:
        """Name of a file in the run's store."""
        return f"{RAW}/{self.scene.id}/{file.name}"

    def cloud_key(self, file: BandFile) -> str:
        """Name of a file below `gcs`."""
        return f"{self.scene.id}/{file.name}"
