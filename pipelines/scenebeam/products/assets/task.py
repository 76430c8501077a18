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
"""The storage mode that leaves no file on this machine."""


class BandFile(BaseModel):
    """The file of one band of a scene."""

    model_config = ConfigDict(frozen=True)

    label: str
    """The band as it is requested (`B04`). It names the file and, in lower case, the columns."""
    band: str
    """Canonical name of the band."""
    asset: Asset | None
    """None if the catalog has no file of the band."""

    @property
    def suffix(self) -> str:
        """Suffix of the file's name."""
        return ".tif" if self.asset is None else file_suffix(self.asset)

    @property
    def name(self) -> str:
        """Name of the file."""
        return f"{self.label}{self.suffix}"

    @property
    def column(self) -> str:
        """Suffix of its columns in the tables."""
        return self.label.lower()


class AssetsTask(Task):
    """The files of one scene, and where they are stored."""

    scene: SceneRef
    """The scene, with its footprint in degrees."""
    collection: str
    files: tuple[BandFile, ...]
    mode: str
    """Storage mode."""
    gcs: str | None
    """`gs://bucket/prefix`, for the storage modes that need one."""
    checks: Checks
    properties: dict[str, Any]
    """Properties of the STAC item."""

    @property
    def lacking(self) -> tuple[str, ...]:
        return tuple(file.label for file in self.files if file.asset is None)

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.scene.id,)

    @property
    def possible_outputs(self) -> Iterable[str]:
        # With DROP, files are not outputs, as they end in the bucket. But they may be on the way,
        # or the bucket may be the run's own store.
        return {*self.outputs, *(self.local_key(file) for file in self.files)}

    @property
    def files_prefix(self) -> str:
        """Folder of the files in the run's store."""
        return f"{RAW}/{self.scene.id}/"

    def local_key(self, file: BandFile) -> str:
        """Key of a file in the run's store."""
        return f"{self.files_prefix}{file.name}"

    @property
    def cloud_prefix(self) -> str:
        """Folder of the files below `gcs`."""
        return f"{self.scene.id}/"

    def cloud_key(self, file: BandFile) -> str:
        """Key of a file below `gcs`."""
        return f"{self.cloud_prefix}{file.name}"
