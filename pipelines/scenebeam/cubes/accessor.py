"""`ds.scenebeam`: what a loaded cube will cost, and loading it with progress."""

from __future__ import annotations

from typing import Any

import xarray

from scenebeam.errors import RequestError
from scenebeam.execution.explain import describe, explain
from scenebeam.figures.notebook import render_card
from scenebeam.planning.plan import Plan
from scenebeam.progress import show_progress

PLAN = "scenebeam_plan"
"""Key of the plan in the encoding of a Dataset, which is not written to files."""


@xarray.register_dataset_accessor("scenebeam")  # type: ignore[no-untyped-call]
class CubeAccessor:
    """Methods of Datasets that `scenebeam.load` and `scenebeam.open` have made."""

    def __init__(self, dataset: xarray.Dataset) -> None:
        self._dataset = dataset

    def explain(self) -> dict[str, Any]:
        """Describe what loading all of the cube takes: see `scenebeam.explain`.

        Raises:
            RequestError: The Dataset was not made by `scenebeam.load`.
        """
        plan = self._dataset.encoding.get(PLAN)
        if not isinstance(plan, Plan):
            raise RequestError(
                "this Dataset has no plan: only what scenebeam.load returns can be explained"
            )
        return explain(plan)

    def load(self, *, progress: bool = True) -> xarray.Dataset:
        """Read all variables into memory, time by time, with a progress bar.

        Args:
            progress: Whether to show the bar.

        Returns:
            The Dataset in memory.
        """
        dataset = self._dataset
        if "time" not in dataset.dims:
            return dataset.load()
        count = dataset.sizes["time"]
        loaded = []
        with show_progress(quiet=not progress) as shown:
            for number in range(count):
                loaded.append(dataset.isel(time=[number]).load())
                if shown is not None:
                    shown(number + 1, count)
        if not loaded:
            return dataset.load()
        whole: xarray.Dataset = xarray.concat(
            loaded, "time", data_vars="minimal", coords="minimal", compat="override", join="exact"
        )
        return whole

    def __repr__(self) -> str:
        """Return the facts of `explain`, a line each."""
        lines = [f"{label}: {fact}" for label, fact in self._facts().items()]
        return "\n".join(lines) or "<a Dataset of scenebeam>"

    def _repr_html_(self) -> str:
        """Show in a notebook what loading the cube takes."""
        sizes = " x ".join(f"{size} {name}" for name, size in self._dataset.sizes.items())
        return render_card(f"Cube of {sizes}", self._facts())

    def _facts(self) -> dict[str, Any]:
        if PLAN not in self._dataset.encoding:
            return {}
        facts = describe(self.explain())
        shown = ("selection", "scenes", "blocks", "requests", "bytes to read", "time here")
        return {label: facts[label] for label in shown if facts[label]}
