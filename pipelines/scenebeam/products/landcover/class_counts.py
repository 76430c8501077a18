"""Count the chips that the areas of interest would give, by class and by threshold.

This answers how strict a request can be, before any chip is made: only the land-cover map is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scenebeam.catalog.selection import Selection
from scenebeam.errors import RequestError
from scenebeam.imaging.layered_reader import all_bands, keep_stored, read_layer
from scenebeam.products.base import PlanView
from scenebeam.products.landcover.lattice import build_grid
from scenebeam.products.landcover.plan import LandcoverScope, plan_areas
from scenebeam.products.landcover.request import LandcoverRequest
from scenebeam.products.landcover.task import LandcoverTask
from scenebeam.request import RunRequest
from scenebeam.transfer.retry import Budget
from scenebeam.transfer.signing import effective_limits

SHARES = (1.0, 0.95, 0.9, 0.8)
"""Values of `product.lulc.min_share` to count for."""
CLOUDS = (50.0, 30.0, 20.0, 10.0, 5.0)
"""Values of `product.s2l2a.max_cloud_cover` to count for, in percent."""
FACTORS = (1.0, 2.0, 4.0)
"""Values of `product.sampling_factor` to count for."""


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
        header = " " * width
        for share in chips:
            header += f"{share:>10}"
        lines = [
            f"{document['areas']} areas; chips by class, for each product.lulc.min_share:",
            header,
        ]
        for name in classes:
            line = f"{name:{width}}"
            for by_class in chips.values():
                line += f"{by_class[name]:>10,}"
            lines.append(line)
        return "\n".join([*lines, *_describe_thresholds(document, width)])


def _describe_thresholds(document: Mapping[str, Any], width: int) -> list[str]:
    lines = []
    if document["areas_by_cloud"]:
        counts = [f"{count:,} at {cloud} %" for cloud, count in document["areas_by_cloud"].items()]
        lines.append(f"areas with all dates, by product.s2l2a.max_cloud_cover: {', '.join(counts)}")
    lines.append("released, for each product.sampling_factor:")
    released = document["released"]
    for factor in next(iter(released.values())):
        line = f"{factor:{width}}"
        for by_factor in released.values():
            line += f"{by_factor[factor]:>10,}"
        lines.append(line)
    return lines


def count_classes(
    tasks: Sequence[LandcoverTask], product: LandcoverRequest, budget: Budget
) -> dict[str, Any]:
    """Read the land cover of all areas, and count the windows of each class.

    These are upper bounds: clouds and gaps, which only the other sensors' pixels show, can exclude
    some of the windows.

    Args:
        tasks: The tasks of a plan; those that cannot be made are not counted.
        product: The request.
        budget: Retries of the reads.

    Returns:
        `areas`: number of areas. `windows`: class → share → windows. `chips`: share → class →
        chips, with at most `chips_per_class` from each area. `released`: share → sampling factor →
        chips.

    Raises:
        ReadError: A map cannot be read.
    """
    usable = [task for task in tasks if not task.fault]
    names: dict[int, str] = {}
    windows, chips = _zero_counts(), _zero_counts()
    for task in usable:
        names |= {number: land_class.name for number, land_class in task.classes.items()}
        for share, counts in _count_windows(task, budget).items():
            windows[share] += counts
            for number, count in counts.items():
                chips[share][number] += min(count, product.chips_per_class)
    windows_by_class: dict[str, dict[str, int]] = {}
    chips_by_share: dict[str, dict[str, int]] = {}
    released_by_share: dict[str, dict[str, int]] = {}
    for share in SHARES:
        label = f"{share:g}"
        chips_by_share[label] = {}
        for number, name in sorted(names.items()):
            windows_by_class.setdefault(name, {})[label] = windows[share][number]
            chips_by_share[label][name] = chips[share][number]
        released_by_share[label] = _count_released(chips[share])
    return {
        "areas": len(usable),
        "windows": windows_by_class,
        "chips": chips_by_share,
        "released": released_by_share,
    }


def areas_by_cloud(
    request: RunRequest[LandcoverRequest], selection: Selection, search_scope: LandcoverScope
) -> dict[str, int]:
    """Count the areas that have all dates, by `product.s2l2a.max_cloud_cover`.

    No pixel is read: the plan is made again with each threshold.

    Args:
        request: The request.
        selection: The scenes that were found.
        search_scope: The areas of interest.

    Returns:
        Threshold in percent → number of areas, for the requested threshold and lower ones. Higher
        ones would need another search, because the search excludes cloudier scenes.
    """
    product = request.product
    if product.s2l2a is None:
        return {}
    requested = product.s2l2a.max_cloud_cover
    lower = [cloud for cloud in CLOUDS if cloud < requested]
    areas = {}
    for limit in sorted({requested, *lower}, reverse=True):
        sensor = product.s2l2a.model_copy(update={"max_cloud_cover": limit})
        changed_product = product.model_copy(update={"s2l2a": sensor})
        changed = request.model_copy(update={"product": changed_product})
        try:
            tasks = plan_areas(selection, changed, search_scope).tasks
        except RequestError:
            areas[f"{limit:g}"] = 0  # no area can be made
        else:
            areas[f"{limit:g}"] = sum(not task.fault for task in tasks)
    return areas


def _zero_counts() -> dict[float, Counter[int]]:
    """Return share → windows by class, all 0."""
    return {share: Counter() for share in SHARES}


def _count_released(chips: Counter[int]) -> dict[str, int]:
    """Return sampling factor → chips of a release; `all` is without one."""
    counts = [count for count in chips.values() if count]
    released = {"all": sum(counts)}
    for factor in FACTORS:
        limit = int(min(counts, default=0) * factor)
        released[f"{factor:g}"] = sum(min(count, limit) for count in counts)
    return released


def _count_windows(task: LandcoverTask, budget: Budget) -> dict[float, Counter[int]]:
    """Return share → number of windows by class, for one area."""
    lattice, side = build_grid(task, budget), task.chip_side("lulc")
    rows = sorted(set(lattice.cells[:, 0].tolist()))
    cells = set(map(tuple, lattice.cells.tolist()))
    totals = _zero_counts()
    # Rows of windows are read as `find_candidates` reads them, so that both see the same pixels.
    grids = [lattice.row_grid(row, "lulc") for row in rows]
    scenes = task.land_cover_layer.scenes
    pixels = read_layer(scenes, grids, all_bands, keep_stored, lambda asset: "nearest", budget)
    for index, [(values, valid)] in pixels:
        known = values if valid is None else np.where(valid, values, 0)
        windows = known.reshape(side, -1, side)
        inside = np.array([(rows[index], column) in cells for column in lattice.columns])
        for number in task.classes:
            counts = np.count_nonzero(windows == number, axis=(0, 2))[inside]
            for share in SHARES:
                required = share * side * side - 1e-6
                totals[share][number] += int(np.count_nonzero(counts >= required))
    return totals
