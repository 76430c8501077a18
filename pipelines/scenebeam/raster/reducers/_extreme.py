"""What methods share that take the observation with an extreme value of a band or an index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from scenebeam.raster.indices import evaluate, physical
from scenebeam.raster.order_statistics import first_true
from scenebeam.raster.reduce import Context, Selector, Stack
from scenebeam.raster.validity import Array, Mask
from scenebeam.request.expression import parse_expression


class Extreme(Selector):
    """Take the observation in which an expression of bands is highest or lowest.

    The expression is computed of physical values as float32. Of equal ones the first observation is
    taken; one in which it is not a number counts only where there is no other.
    """

    sign: ClassVar[float]
    extra = ("score",)

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._tree = parse_expression(context.parameters["expression"])
        self._variables: Mapping[str, str] = context.parameters["variables"]
        self._places = {band.name: place for place, band in enumerate(context.bands)}

    def choose(self, stack: Stack, complete: Mask) -> tuple[Array, Mapping[str, Array]]:
        variables = {}
        for variable, name in self._variables.items():
            band = self.context.bands[self._places[name]]
            pixels = stack.pixels[self._places[name]]
            variables[variable] = physical(pixels, None, band.scale, band.offset)
        score = evaluate(self._tree, variables)
        ranked = np.where(np.isnan(score), -np.inf, self.sign * score)
        # Lower than any complete observation.
        ranked = np.where(complete, np.maximum(ranked, np.finfo(np.float32).min), -np.inf)
        chosen = first_true(ranked == ranked.max(axis=0))
        return chosen, {"score": np.take_along_axis(score, chosen[None], axis=0)[0]}
