"""The further bands of a composite: counts, days, sources, scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scenebeam.imaging.gridded_task import Output
from scenebeam.products.composites.task import CompositeTask
from scenebeam.raster.order_statistics import median
from scenebeam.raster.reduce import Reduced
from scenebeam.raster.validity import Array, Mask

_NO_SOURCE = 65535
_ENCODINGS: Mapping[str, tuple[str, float | None]] = {
    "observations": ("uint16", None),
    "day": ("uint16", 0),
    "source": ("uint16", _NO_SOURCE),
    "filled": ("uint8", 255),
}
"""Name → dtype and nodata value; the others are float32 with NaN."""


def extra_outputs(task: CompositeTask) -> list[Output]:
    """Describe the further bands of a task."""
    outputs = []
    for name in task.extra:
        dtype, nodata = _ENCODINGS.get(name, ("float32", float("nan")))
        # Numbers that name something must not be averaged in overviews.
        is_name = name in _ENCODINGS
        outputs.append(Output(name, np.dtype(dtype), nodata, 1.0, 0.0, is_name, task.bands))
    return outputs


def add_extras(
    task: CompositeTask,
    reduced: Reduced,
    has_any: Mask,
    count: Array,
    filled: Mask,
    has_data: Mask,
    sources: Array | None,
) -> list[Array]:
    """Compute the further bands of some rows.

    Args:
        task: The task.
        reduced: The composite.
        has_any: Where an observation has data in any band: (observations, rows, columns).
        count: Number of clear observations of the period, or of its fallback where that is used.
        filled: Where the fallback is used.
        has_data: Where the composite has data.
        sources: Place of the scene of each observation's pixels: (observations, rows, columns).

    Returns:
        The bands in the order of the request.
    """
    made: dict[str, Any] = {}
    for name in task.extra:
        if name == "observations":
            made[name] = count
        elif name == "day":
            made[name] = np.where(has_data, _days(task, reduced, has_any, filled), 0)
        elif name == "source":
            assert sources is not None
            assert reduced.taken is not None
            places = np.maximum(reduced.taken, 0).astype(np.intp)
            scenes = np.take_along_axis(sources, places[None], axis=0)[0]
            made[name] = np.where(has_data, scenes, _NO_SOURCE)
        elif name == "filled":
            made[name] = np.where(has_data, filled, 255)
        else:
            made[name] = np.where(has_data, reduced.extra[name], np.nan)
    dtypes = {name: _ENCODINGS.get(name, ("float32", None))[0] for name in task.extra}
    return [np.asarray(image, dtypes[name]) for name, image in made.items()]


def _days(task: CompositeTask, reduced: Reduced, has_any: Mask, filled: Mask) -> Array:
    """Return the day of the year of the pixel that was taken, or the median day."""
    days = np.array([observation.day for observation in task.observations], np.uint16)
    if reduced.taken is not None:
        return days[np.maximum(reduced.taken, 0)]
    in_period = np.array([observation.in_period for observation in task.observations])
    counts = has_any & (in_period[:, None, None] | filled)
    low, high = median(np.broadcast_to(days[:, None, None], counts.shape).copy(), counts)
    return np.rint((low.astype(np.float64) + high) / 2)
