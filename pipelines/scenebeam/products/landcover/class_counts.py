"""Count the chips of each class that the areas of interest would give, by thresholds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scenebeam.catalog.select import Selection
from scenebeam.errors import RequestError
from scenebeam.products.base import PlanView
from scenebeam.products.landcover.candidates import bands_of
from scenebeam.products.landcover.lattice import build_grid
from scenebeam.products.landcover.layers import as_read, read_layer
from scenebeam.products.landcover.plan import LandcoverScope, plan_areas
from scenebeam.products.landcover.request import LandcoverRequest
from scenebeam.products.landcover.task import LandcoverTask
from scenebeam.request import RunRequest
from scenebeam.transfer.retry import Budget
from scenebeam.transfer.signing import effective_limits

SHARES = (1.0, 0.95, 0.9, 0.8)
"""Parts of a window that are of its class, at least: what `product.lulc.min_share` may be."""
CLOUDS = (50.0, 30.0, 20.0, 10.0, 5.0)
"""Percent: what `product.s2l2a.max_cloud_cover` may be."""
FACTORS = (1.0, 2.0, 4.0)
"""What `product.sampling_factor` may be."""


class ClassCounts(PlanView):
    """The option `--classes` of `scenebeam plan`."""

    help = "Land-cover chips: count the windows of each class, by thresholds. Reads the maps."

    def compute(
        self,
        request: RunRequest[LandcoverRequest],
        selection: Selection,
        search_scope: LandcoverScope,
        tasks: Sequence[LandcoverTask],
    ) -> dict[str, Any]:
        document = count_classes(tasks, request.product, Budget.of(effective_limits(request)))
        document["areas_by_cloud"] = areas_by_cloud(request, selection, search_scope)
        return document

    def describe(self, document: Mapping[str, Any]) -> str:
        chips, classes = document["chips"], list(document["windows"])
        width = max(len(name) for name in classes)
        lines = [
            f"{document['areas']} areas; chips by class, for each product.lulc.min_share:",
            f"{'':{width}}" + "".join(f"{share:>10}" for share in chips),
        ]
        for name in classes:
            counts = [f"{by_class[name]:>10,}" for by_class in chips.values()]
            lines.append(f"{name:{width}}" + "".join(counts))
        return "\n".join([*lines, *_describe_rest(document, width)])


def _describe_rest(document: Mapping[str, Any], width: int) -> list[str]:
    lines = []
    if document["areas_by_cloud"]:
        counts = [f"{count:,} at {cloud} %" for cloud, count in document["areas_by_cloud"].items()]
        lines.append(f"areas with all dates, by product.s2l2a.max_cloud_cover: {', '.join(counts)}")
    lines.append("released, for each product.sampling_factor:")
    released = document["released"]
    for factor in next(iter(released.values())):
        numbers = [f"{by_factor[factor]:>10,}" for by_factor in released.values()]
        lines.append(f"{factor:{width}}" + "".join(numbers))
    return lines


def count_classes(
    tasks: Sequence[LandcoverTask], product: LandcoverRequest, budget: Budget
) -> dict[str, Any]:
    """Read the land cover of all areas, and count.

    Clouds and holes, which only the pixels of the other sensors tell, may leave out some of the windows.

    Returns:
        `windows`: class → share → windows. `chips`: share → class → chips, as far as `chips_per_class` allows.
        `released`: share → sampling factor → chips, at most.

    Raises:
        ReadError: A map cannot be read.
    """
    usable = [task for task in tasks if not task.fault]
    names = {number: one.name for task in usable for number, one in task.classes.items()}
    windows: dict[float, Counter[int]] = {share: Counter() for share in SHARES}
    chips: dict[float, Counter[int]] = {share: Counter() for share in SHARES}
    for task in usable:
        for share, counts in _count(task, budget).items():
            windows[share] += counts
            chips[share] += Counter(
                {number: min(count, product.chips_per_class) for number, count in counts.items()}
            )
    return {
        "areas": len(usable),
        "windows": {
            names[n]: {f"{share:g}": windows[share][n] for share in SHARES} for n in sorted(names)
        },
        "chips": {
            f"{share:g}": {names[n]: chips[share][n] for n in sorted(names)} for share in SHARES
        },
        "released": {f"{share:g}": _released(chips[share]) for share in SHARES},
    }


def areas_by_cloud(
    request: RunRequest[LandcoverRequest], selection: Selection, search_scope: LandcoverScope
) -> dict[str, int]:
    """Count the areas that have dates enough, by `product.s2l2a.max_cloud_cover`: as asked, and lower.

    No pixel is read. Higher thresholds would need another search.
    """
    product = request.product
    if product.s2l2a is None:
        return {}
    asked = product.s2l2a.max_cloud_cover
    found = {}
    for most in sorted({asked, *(cloud for cloud in CLOUDS if cloud < asked)}, reverse=True):
        sensor = product.s2l2a.model_copy(update={"max_cloud_cover": most})
        changed = request.model_copy(
            update={"product": product.model_copy(update={"s2l2a": sensor})}
        )
        try:
            tasks = plan_areas(selection, changed, search_scope).tasks
        except RequestError:  # no area is left
            tasks = ()
        found[f"{most:g}"] = sum(not task.fault for task in tasks)
    return found


def _released(chips: Counter[int]) -> dict[str, int]:
    """Chips of a release by sampling factor, without one first."""
    there = [count for count in chips.values() if count]
    found = {"all": sum(there)}
    for factor in FACTORS:
        most = int(min(there, default=0) * factor)
        found[f"{factor:g}"] = sum(min(count, most) for count in there)
    return found


def _count(task: LandcoverTask, budget: Budget) -> dict[float, Counter[int]]:
    """Windows of an area by class, for each share."""
    lattice, size = build_grid(task, budget), task.chip_side("lulc")
    rows = sorted(set(lattice.cells[:, 0].tolist()))
    inside = set(map(tuple, lattice.cells.tolist()))
    found: dict[float, Counter[int]] = {share: Counter() for share in SHARES}
    grids = [lattice.row_grid(row, "lulc") for row in rows]
    for place, [(values, valid)] in read_layer(
        task.land_cover, grids, bands_of, as_read, "nearest", budget
    ):
        known = values if valid is None else np.where(valid, values, 0)
        windows = known.reshape(size, -1, size)
        there = np.array([(rows[place], column) in inside for column in lattice.columns])
        for number in task.classes:
            counts = np.count_nonzero(windows == number, axis=(0, 2))[there]
            for share in SHARES:
                found[share][number] += int(np.count_nonzero(counts >= share * size * size - 1e-6))
    return found
