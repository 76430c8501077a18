"""Render: turn bands into pictures for people, with limits that many pictures can share.

Three bands are drawn in color, an index with a ramp of colors, classes in the colors of their
legend, and anything else in gray. Pixels without data are transparent.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import imagecodecs
import numpy as np

from scenebeam.raster.validity import Array

Limits = tuple[float, float]
"""Values that are drawn at the two ends of a scale: black and white, or the ends of the ramp."""
_COMPOSITES = (
    ("red", "green", "blue"),
    ("visual_red", "visual_green", "visual_blue"),
    ("nir", "red", "green"),
    ("nir08", "red", "green"),
    ("swir16", "nir", "red"),
    ("nir", "red", "red"),
)
_POLARIZATIONS = ("vv", "vh", "hh", "hv")
_OUTER, _INNER = (1, 99), (25, 75)
"""Percentiles that limit the scale of an image."""
_REACH = 3.0
"""Most distance of a limit from the nearer quartile, in distances of the quartiles."""
_WHITE = {
    **dict.fromkeys(("blue", "green", "red"), 0.3),
    **dict.fromkeys(("nir", "nir08", "swir16"), 0.5),
    "swir22": 0.45,
}
"""Reflectance that is drawn white: vegetation and soil are brighter in the infrared."""
_GAMMA = 0.8
"""Exponent of the brightness of color pictures."""
RAMP: tuple[tuple[float, str], ...] = (
    (0.0, "#24507c"),
    (0.35, "#6a9fc0"),
    (0.5, "#c9b183"),
    (0.6, "#e3d38c"),
    (0.75, "#86b35c"),
    (0.9, "#2f7d3b"),
    (1.0, "#12572b"),
)
"""Colors of an index by their place on the scale. Of normalized differences, from -1 to 1, water is
blue, soil is brown, and vegetation is green. No color is close to white or black, the ground of a
page.
"""


@dataclass(frozen=True)
class Style:
    """How an image is drawn."""

    kind: Literal["color", "ramp", "classes", "gray"]
    bands: tuple[str, ...]
    """Three bands of a color picture, else one."""

    @property
    def is_radar(self) -> bool:
        """Whether the band is backscatter, which is drawn in dB."""
        return self.bands[0] in _POLARIZATIONS


def choose_style(
    names: Collection[str],
    *,
    categorical: Collection[str] = (),
    indices: Collection[str] = (),
) -> Style:
    """Choose how to draw an image: true color, else false color, an index, radar, gray, classes.

    Args:
        names: Names of its bands; at least one.
        categorical: Those that hold classes or flags.
        indices: Those that hold an index, such as NDVI.
    """
    measured = [name for name in names if name not in categorical]
    for composite in _COMPOSITES:
        if all(name in measured for name in composite):
            return Style("color", composite)
    for name in measured:
        if name in indices:
            return Style("ramp", (name,))
    for polarization in _POLARIZATIONS:
        if polarization in measured:
            return Style("gray", (polarization,))
    if measured:
        return Style("gray", (measured[0],))
    return Style("classes", (next(iter(names)),))


def measure_limits(values: Array, *, has_outliers: bool = True) -> Limits | None:
    """Measure the limits of one image: percentiles 1 and 99.

    Where outliers are likely, the limits are not further from the quartiles than three times the
    distance between them. A cloud over a part of the image is therefore drawn white, and leaves the
    ground as bright as it is.

    Args:
        values: Pixels of one band, NaN where there is no data.
        has_outliers: Whether clouds may be among them.

    Returns:
        The limits; None if there is no data.
    """
    known = values[np.isfinite(values)]
    if not known.size:
        return None
    first, last, low, high = np.percentile(known, [*_OUTER, *_INNER])
    reach = _REACH * (high - low)
    if has_outliers and reach > 0:
        first, last = max(first, low - reach), min(last, high + reach)
    return float(first), float(last)


def common_limits(measured: Sequence[Limits]) -> Limits:
    """Combine the limits of several images: the median of each end.

    Args:
        measured: Limits of the images; (0, 1) if there are none.
    """
    if not measured:
        return 0.0, 1.0
    low, high = np.median(np.array(measured), axis=0)
    return float(low), float(high)


def balanced_limits(style: Style, limits: Sequence[Limits]) -> list[Limits]:
    """Return limits that keep the colors: those of true color are the same for all three bands.

    Args:
        style: How the image is drawn.
        limits: Limits of each band of the style.
    """
    if style.bands not in _COMPOSITES[:2]:
        return list(limits)
    lowest, highest = min(low for low, _ in limits), max(high for _, high in limits)
    return [(lowest, highest)] * len(limits)


def index_limits(limits: Limits) -> Limits:
    """Return the limits of an index: -1 and 1 if its values lie between, as all its pictures do.

    Args:
        limits: The limits of its values.
    """
    return (-1.0, 1.0) if limits[0] >= -1 and limits[1] <= 1 else limits


def reflectance_limits(band: str) -> Limits | None:
    """Return the reflectance of a band that is drawn black and white, the same for all images.

    Args:
        band: Common name of the band.

    Returns:
        The limits; None if the band is not one that pictures are usually made of.
    """
    return (0.0, _WHITE[band]) if band in _WHITE else None


def draw(
    style: Style,
    bands: Sequence[Array],
    limits: Sequence[Limits],
    colors: Mapping[int, str] | None = None,
) -> Array:
    """Draw an image.

    Args:
        style: How.
        bands: 2-D arrays of the bands of the style, of one shape, NaN where there is no data.
        limits: Limits of each band; not used for classes.
        colors: Class → its color, such as `#419bdf`; classes without one are gray.

    Returns:
        uint8 array of shape (rows, columns, 4): RGB and opacity.
    """
    known = np.logical_and.reduce([np.isfinite(band) for band in bands])
    if style.kind == "classes":
        image = draw_classes(bands[0], known, colors or {})
    elif style.kind == "ramp":
        image = _draw_ramp(scale(bands[0], limits[0]))
    else:
        # The eye sees differences between dark surfaces better than screens show them.
        gamma = _GAMMA if style.kind == "color" else 1.0
        channels = []
        for band, pair in zip(bands, limits, strict=True):
            channels.append(np.rint(255 * scale(band, pair) ** gamma))
        if len(channels) == 1:
            channels = channels * 3
        image = np.stack(channels, axis=-1)
    opacity = np.where(known, 255, 0)
    return np.concatenate([image, opacity[..., None]], axis=-1).astype(np.uint8)


def scale(values: Array, limits: Limits) -> Array:
    """Scale values to 0 … 1 between limits; 0 where they are NaN."""
    low, high = limits
    span = max(high - low, 1e-9)
    return np.asarray(np.clip((np.nan_to_num(values, nan=low) - low) / span, 0, 1))


def to_decibels(backscatter: Array) -> Array:
    """Convert backscatter to dB, unless it is in dB already; NaN where power is not positive.

    Power is never negative. In dB, most of an image is.
    """
    if np.nanmin(backscatter, initial=0.0) < 0:
        return backscatter
    positive = np.where(backscatter > 0, backscatter, np.nan)
    return np.asarray(10 * np.log10(positive))


def _draw_ramp(scaled: Array) -> Array:
    places = [place for place, _ in RAMP]
    channels = []
    for channel in range(3):
        values = [rgb(color)[channel] for _, color in RAMP]
        channels.append(np.rint(np.interp(scaled, places, values)))
    return np.stack(channels, axis=-1)


def draw_classes(numbers: Array, known: Array, colors: Mapping[int, str]) -> Array:
    """Draw classes in their colors; those without one are gray.

    Args:
        numbers: 2-D array of classes.
        known: Boolean array, where there is data.
        colors: Class → its color, such as `#419bdf`.

    Returns:
        uint8 array of shape (rows, columns, 3).
    """
    image = np.full((*numbers.shape, 3), 128, np.uint8)
    for number in np.unique(numbers[known]).astype(int).tolist():
        if number in colors:
            image[numbers == number] = rgb(colors[number])
    return image


def rgb(color: str) -> tuple[int, int, int]:
    """Convert a color such as `#419bdf` to red, green and blue from 0 to 255."""
    red, green, blue = bytes.fromhex(color[1:7])
    return red, green, blue


def encode_png(image: Array) -> bytes:
    """Encode an image as PNG.

    Args:
        image: uint8 array of shape (rows, columns, channels): gray or RGB. With two or four
            channels, the last one is opacity.
    """
    # The fastest level: a thumbnail is 3 % larger, in less than half of the time.
    return bytes(imagecodecs.png_encode(_copied(image), level=1))


def encode_webp(image: Array) -> bytes:
    """Encode an image as WebP, in about a tenth of the bytes of a PNG, with some loss.

    Args:
        image: uint8 array of shape (rows, columns, 4): RGB and opacity.
    """
    return bytes(imagecodecs.webp_encode(_copied(image), level=85, lossless=False, method=1))


def _copied(image: Array) -> Array:
    """Copy an image with the usual strides.

    NumPy calls an image of one pixel contiguous whatever its strides are, but the encoders do not.
    """
    return np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape)
