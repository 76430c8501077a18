"""Fill the gaps of a series of images: from neighbors in time, or by smoothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scenebeam.raster.validity import Array


def fill_gaps(series: Array, days: Array, method: str, smoothness: float) -> Array:
    """Fill the gaps of a series.

    Args:
        series: float64 array of shape (periods, …), NaN where there is no data.
        days: Time of each period in days, ascending.
        method: `linear`: between the nearest periods before and after. `previous`, `next`: from the
            nearest period before or after. `whittaker`: smooth the whole series.
        smoothness: Lambda of `whittaker`.

    Returns:
        Array of the same shape. Gaps that the method cannot fill are still NaN: before the first
        and after the last period with data for `linear`, for example.
    """
    if method == "whittaker":
        return _whittaker(series, smoothness)
    known = ~np.isnan(series)
    places = np.arange(len(series)).reshape(-1, *[1] * (series.ndim - 1))
    before = np.maximum.accumulate(np.where(known, places, -1), axis=0)
    after = np.where(known, places, len(series))[::-1]
    after = np.minimum.accumulate(after, axis=0)[::-1]
    filler: Callable[[Array, Array, Array, Array], Array] = _FILLERS[method]
    return np.where(known, series, filler(series, days, before, after))


def _previous(series: Array, days: Array, before: Array, after: Array) -> Array:
    found = np.take_along_axis(series, np.maximum(before, 0), axis=0)
    return np.where(before < 0, np.nan, found)


def _next(series: Array, days: Array, before: Array, after: Array) -> Array:
    last = len(series) - 1
    found = np.take_along_axis(series, np.minimum(after, last), axis=0)
    return np.where(after > last, np.nan, found)


def _linear(series: Array, days: Array, before: Array, after: Array) -> Array:
    low, high = _previous(series, days, before, after), _next(series, days, before, after)
    time = np.asarray(days, float)
    begin, end = time[np.maximum(before, 0)], time[np.minimum(after, len(series) - 1)]
    here = time.reshape(-1, *[1] * (series.ndim - 1))
    share = np.where(end > begin, (here - begin) / np.where(end > begin, end - begin, 1), 0)
    return np.asarray(low + (high - low) * share)


_FILLERS = {"linear": _linear, "previous": _previous, "next": _next}


def _whittaker(series: Array, smoothness: float) -> Array:
    """Smooth series by Whittaker's method with second differences.

    Eilers 2003, "A perfect smoother", doi:10.1021/ac034173t: z minimizes the sum of w (y - z)^2
    plus lambda times the sum of squared second differences of z; w is 0 at gaps. Periods count as
    equally spaced. Series with fewer than two periods of data stay as they are.
    """
    periods = len(series)
    columns = series.reshape(periods, -1)
    weights = (~np.isnan(columns)).astype(float)
    fits = weights.sum(axis=0) >= 2
    if periods < 3 or not fits.any():
        return series
    differences = np.diff(np.eye(periods), 2, axis=0)
    penalty = smoothness * differences.T @ differences
    used = weights[:, fits]
    matrices = np.zeros((used.shape[1], periods, periods))
    matrices += penalty
    matrices[:, np.arange(periods), np.arange(periods)] += used.T
    right = np.nan_to_num(columns[:, fits]) * used
    smooth = columns.copy()
    smooth[:, fits] = np.linalg.solve(matrices, right.T[..., None])[..., 0].T
    return smooth.reshape(series.shape)
