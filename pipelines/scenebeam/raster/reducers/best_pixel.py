"""The best available pixel: the observation with the highest score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scenebeam.raster.order_statistics import first_true
from scenebeam.raster.reduce import Selector, Stack
from scenebeam.raster.validity import Array, Mask

_STEEPNESS = 10.0
"""How steeply the score rises with the distance to clouds, over the required distance: Griffiths'
0.2 per pixel of a required distance of 50 pixels."""
_DAYS = 365.25


class BestPixel(Selector):
    """Take the observation with the highest score, a weighted mean of four scores from 0 to 1.

    After Griffiths et al. 2013, "A pixel-based Landsat compositing algorithm for large area land
    cover mapping", doi:10.1109/JSTARS.2012.2228167, and White et al. 2014, "Pixel-based image
    compositing for large-area dense time series applications and science",
    doi:10.1080/07038992.2014.945827:

    - `distance`: 1 / (1 + exp(-10 (d / required - 1/2))) of the distance d to masked ground, which
      counts as `required` beyond it.
    - `day`: exp(-((day - target) / sigma)^2 / 2), by the day of the year, around its end.
    - `sensor`: the preference of the platform, 1 unless the request says otherwise.
    - `opacity`: 1 - cloud cover of the scene / 100, a stand-in for White's opacity of the
      atmosphere, which few products still have.

    Of equal scores the first observation is taken.
    """

    extra = ("score",)

    @classmethod
    def reach(cls, parameters: Mapping[str, Any]) -> float:
        weights: Mapping[str, float] = parameters["weights"]
        return float(parameters["required_distance"]) if weights["distance"] else 0.0

    def choose(self, stack: Stack, complete: Mask) -> tuple[Array, Mapping[str, Array]]:
        weights: Mapping[str, float] = self.context.parameters["weights"]
        fixed = self._scene_scores()
        score = np.zeros(complete.shape, np.float32)
        score += fixed.astype(np.float32)[:, None, None]
        if stack.distance is not None and weights["distance"]:
            required = np.float32(self.context.parameters["required_distance"])
            share = stack.distance / required - np.float32(0.5)
            score += np.float32(weights["distance"]) / (1 + np.exp(-np.float32(_STEEPNESS) * share))
        score /= np.float32(sum(weights.values()))
        score[~complete] = -1
        chosen = first_true(score == score.max(axis=0))
        return chosen, {"score": np.take_along_axis(score, chosen[None], axis=0)[0]}

    def _scene_scores(self) -> Array:
        """Return the weighted sum of the scores that are the same all over an observation."""
        context, parameters = self.context, self.context.parameters
        weights: Mapping[str, float] = parameters["weights"]
        away = np.abs(np.asarray(context.days, float) - parameters["target_day"])
        away = np.minimum(away, _DAYS - away)
        total = weights["day"] * np.exp(-0.5 * (away / parameters["sigma_days"]) ** 2)
        preferences: Mapping[str, float] = parameters["sensors"]
        total += weights["sensor"] * np.array([preferences.get(p, 1.0) for p in context.platforms])
        total += weights["opacity"] * (1 - np.asarray(context.clouds, float) / 100)
        return np.asarray(total)


METHOD = BestPixel
