"""The xarray backend: `xr.open_dataset("out/mine", engine="scenebeam")`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import xarray
from xarray.backends import BackendEntrypoint

from scenebeam.cubes.outputs import open_output
from scenebeam.planning.plan import RUN_FILE
from scenebeam.storage import open_store


class ScenebeamBackend(BackendEntrypoint):
    """Opens the output of a run."""

    description: ClassVar[str] = "Open the output of a scenebeam run"
    open_dataset_parameters: ClassVar[tuple[str, ...]] = (
        "filename_or_obj",
        "drop_variables",
        "bands",
        "mask_and_scale",
    )

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        bands: Sequence[str] | None = None,
        mask_and_scale: bool = True,
    ) -> xarray.Dataset:
        """Open an output: see `scenebeam.open`.

        Args:
            filename_or_obj: A folder or `gs://` prefix.
            drop_variables: Variables to leave out.
            bands: Bands to open; default: all.
            mask_and_scale: Whether to convert to float32 in physical units, as xarray does.
        """
        dropped = [drop_variables] if isinstance(drop_variables, str) else drop_variables
        dataset = open_output(os.fspath(filename_or_obj), bands, decode=mask_and_scale)
        return dataset.drop_vars(list(dropped or ()), errors="ignore")

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether it is a folder on this machine with a run in it."""
        if not isinstance(filename_or_obj, str | os.PathLike):
            return False
        folder = os.fspath(filename_or_obj)
        return os.path.isdir(folder) and open_store(folder).size(RUN_FILE) is not None
