"""Load: a request as a lazy cube, planned and computed on access, with nothing written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xarray

from scenebeam.cubes.accessor import PLAN
from scenebeam.cubes.dataset import Chunks, TimeSlice, make_dataset
from scenebeam.cubes.lazy import WindowReader
from scenebeam.errors import RequestError
from scenebeam.imaging.cube import CubeImage, common_bands
from scenebeam.imaging.shards import Window
from scenebeam.planning.plan import Plan
from scenebeam.products import product_of
from scenebeam.raster.validity import Array
from scenebeam.request import RunRequest
from scenebeam.tasks import CubeBand, Task
from scenebeam.transfer.retry import Budget
from scenebeam.transfer.signing import effective_limits
from scenebeam.transfer.signing.accounts import use_accounts


@dataclass(frozen=True)
class TaskBand:
    """A band of a planned image: reading a window of it makes that part of the product."""

    request: RunRequest
    task: Task
    band: CubeBand

    def read(self, window: Window) -> Array:
        # In a process of dask, nothing has been set up by a driver.
        use_accounts(self.request.accounts)
        product = product_of(self.request.product.kind)
        budget = Budget.of(effective_limits(self.request))
        pixels: Array = product.read_window(self.task, self.band, window, budget)
        return pixels


def load_plan(
    plan: Plan,
    bands: Sequence[str] | None = None,
    *,
    decode: bool = False,
    chunks: Chunks = None,
) -> xarray.Dataset:
    """Make a lazy cube of a plan.

    Args:
        plan: The plan.
        bands: Bands to load; default: all.
        decode: Whether to convert to float32 in physical units, with NaN where there is no data.
        chunks: Chunks of dask arrays; None: lazy without dask.

    Returns:
        A Dataset with one variable per band, of dimensions (time, y, x): see `make_dataset`.

    Raises:
        RequestError: The images are no cube, or there is no such band.
    """
    images = _images(plan)
    grids = {image.grid for image, _ in images}
    if len(grids) != 1:
        raise RequestError(
            f"the images are on {len(grids)} grids, which are no one array: give grid.crs and "
            "grid.resolution"
        )
    common = common_bands([*image.bands.values()] for image, _ in images)
    unknown = [name for name in bands or () if name not in common]
    if unknown:
        raise RequestError(f"there is no band {unknown[0]}; there are {', '.join(common)}")
    wanted = [common[name] for name in bands or common]
    slices = []
    for image, task in images:
        readers = _readers(plan.request, task, image, common)
        slices.append(TimeSlice(image.id, image.when, readers, image.properties))
    dataset = make_dataset(grids.pop().grid, wanted, slices, decode=decode, chunks=chunks)
    estimate = plan.estimate
    dataset.attrs["cost"] = (
        f"reads about {estimate.read_bytes / 1e6:,.1f} MB in {estimate.requests:,} requests, as a "
        "whole: see ds.scenebeam.explain()"
    )
    dataset.encoding[PLAN] = plan
    return dataset


def _images(plan: Plan) -> list[tuple[CubeImage, Task]]:
    """Return the images of a plan in the order of time, each with its task."""
    product = product_of(plan.request.product.kind)
    images: dict[str, tuple[CubeImage, Task]] = {}
    for task in plan.tasks:
        found = product.cube_images(task)
        if len(found) > 1:
            raise RequestError(
                "product.fill: pixels depend on all periods of the series; run the request, and "
                "open its output"
            )
        if not task.sources:
            continue  # a period without scenes, of which a run makes nothing
        # Shards are parts of one image: a window of it is made without regard to them.
        images.setdefault(found[0].id, (found[0], task))
    return sorted(images.values(), key=lambda pair: (pair[0].when, pair[0].id))


def _readers(
    request: RunRequest, task: Task, image: CubeImage, common: Mapping[str, CubeBand]
) -> dict[str, WindowReader]:
    readers: dict[str, Any] = {}
    for name in image.bands:
        readers[name] = TaskBand(request, task, common[name])
    return readers
