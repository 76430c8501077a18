"""Reduce the observations of a period to one image.

A method is a module of `reducers` with a subclass of `Reducer` as METHOD, and is known by the name
of its module. What the rest of the code has to know about a method are attributes of its class.

Some methods combine observations band by band (the median, for example). Others take all bands of a
pixel from one observation, so that its spectrum is one that was really measured.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import numpy as np

from scenebeam.raster.order_statistics import where
from scenebeam.raster.validity import Array, Mask, fits

NONE = -1
"""Index of no observation."""


@dataclass(frozen=True)
class BandValues:
    """What the numbers of a band mean."""

    name: str
    dtype: np.dtype[Any]
    nodata: float | None
    scale: float = 1.0
    offset: float = 0.0
    """Physical value = scale * number + offset."""


@dataclass(frozen=True)
class Context:
    """What a method may know of the observations beside their pixels."""

    bands: Sequence[BandValues]
    """The bands, in the order of the stack."""
    outputs: int
    """Number of bands, from the first, that the composite has; the others only help to choose."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of the method."""
    days: Sequence[int] = ()
    """Day of the year of each observation."""
    platforms: Sequence[str] = ()
    clouds: Sequence[float] = ()
    """Cloud cover of each observation in percent."""


@dataclass(frozen=True)
class Stack:
    """The observations of some rows, best scene first. Its arrays must not be changed."""

    pixels: Sequence[Array]
    """For each band an array of shape (observations, rows, columns)."""
    valid: Sequence[Mask]
    """For each band, of the same shape, where an observation is clear and has data."""
    distance: Array | None = None
    """Distance to hidden ground in meters, of the same shape; None unless the method asks."""

    @property
    def complete(self) -> Mask:
        """Where an observation has data in all bands."""
        complete: Mask = np.logical_and.reduce(self.valid)
        return complete


@dataclass(frozen=True)
class Reduced:
    """A composite of some rows."""

    pixels: Sequence[Array]
    """For each output band an array of shape (rows, columns) and of the band's dtype."""
    valid: Sequence[Mask]
    """For each output band, where it has data."""
    taken: Array | None = None
    """Index of the observation that each pixel is of, NONE where there is none; None for methods
    that combine observations."""
    extra: Mapping[str, Array] = field(default_factory=dict)
    """Further bands by name, float32, NaN where there is no data."""


class Reducer(ABC):
    """One method, ready for many chunks of rows. Safe to share between threads."""

    takes_pixels: ClassVar[bool] = True
    """Whether all bands of a pixel are of one observation."""
    is_ordered: ClassVar[bool] = False
    """Whether observations after the first complete one cannot change a pixel."""
    extra: ClassVar[tuple[str, ...]] = ()
    """Names of the further bands that it computes."""

    def __init__(self, context: Context) -> None:
        self.context = context

    @classmethod
    def reach(cls, parameters: Mapping[str, Any]) -> float:
        """Return the distance to hidden ground, in meters, up to which the method needs it."""
        return 0.0

    @abstractmethod
    def reduce(self, stack: Stack) -> Reduced:
        """Reduce the observations of some rows."""


class Selector(Reducer):
    """A method that takes each pixel from one observation."""

    @abstractmethod
    def choose(self, stack: Stack, complete: Mask) -> tuple[Array, Mapping[str, Array]]:
        """Choose an observation for each pixel.

        Args:
            stack: The observations.
            complete: Where they have data in all bands.

        Returns:
            Its index, of shape (rows, columns), which is ignored where no observation is complete;
            and further bands.
        """

    def reduce(self, stack: Stack) -> Reduced:
        complete = stack.complete
        chosen, extra = self.choose(stack, complete)
        has_data = np.asarray(complete.any(axis=0))
        pixels: list[Array] = []
        for band, pixels_of in zip(self.context.bands, stack.pixels, strict=True):
            if len(pixels) < self.context.outputs:
                values = np.take_along_axis(pixels_of, chosen[None], axis=0)[0]
                pixels.append(avoid_nodata(values, band, has_data))
        taken = np.where(has_data, chosen.astype(np.int16), np.int16(NONE))
        shown = {name: np.where(has_data, values, np.nan) for name, values in extra.items()}
        return Reduced(pixels, [has_data] * len(pixels), taken, shown)


def physical_values(stack: Stack, context: Context, valid: Mask) -> Array:
    """Return a stack as physical values, such as reflectance.

    Args:
        stack: The observations.
        context: Scale and offset of each band.
        valid: Where they count.

    Returns:
        float64 array of shape (bands, observations, rows, columns), NaN where `valid` is False.
    """
    values = np.empty((len(stack.pixels), *valid.shape))
    for target, band, pixels in zip(values, context.bands, stack.pixels, strict=True):
        np.multiply(pixels, band.scale, out=target)
        target += band.offset
        target[~valid] = np.nan
    return values


def to_numbers(values: Array, band: BandValues, valid: Mask) -> Array:
    """Convert results to the dtype of a band: integers are rounded half to even.

    A valid pixel never becomes nodata: it becomes the next number instead.

    Args:
        values: Numbers of the band, as floats.
        band: The band.
        valid: Where there is data; other pixels become nodata, or 0.
    """
    fill = 0 if band.nodata is None else band.nodata
    if band.dtype.kind == "f":
        return np.where(valid, values, fill).astype(band.dtype)
    limits = np.iinfo(band.dtype)
    rounded = np.rint(where(valid, values, np.zeros_like(values)))
    np.clip(rounded, limits.min, limits.max, out=rounded)
    return avoid_nodata(rounded.astype(band.dtype), band, valid)


def avoid_nodata(numbers: Array, band: BandValues, valid: Mask) -> Array:
    """Fill invalid pixels with nodata, and move valid ones that equal it by one."""
    nodata = band.nodata
    if nodata is None or not fits(nodata, band.dtype):
        return where(valid, numbers, np.zeros_like(numbers))
    if band.dtype.kind != "f":
        step = 1 if nodata < np.iinfo(band.dtype).max else -1
        hit = numbers == band.dtype.type(nodata)
        if hit.any():
            numbers = np.where(hit, band.dtype.type(nodata + step), numbers)
    return where(valid, numbers, np.full_like(numbers, nodata))


@cache
def reducer(name: str) -> type[Reducer]:
    """Import the class of a method.

    Args:
        name: `first-clear`, `median`, …: the name of a module of `reducers`, with dashes.
    """
    module = importlib.import_module(f"scenebeam.raster.reducers.{name.replace('-', '_')}")
    method: type[Reducer] = module.METHOD
    return method
