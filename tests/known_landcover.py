"""What the land-cover chips of the sandbox must be, worked out from the synthetic Earth alone."""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b

import numpy as np

from scenebeam.sandbox import earth
from scenebeam.sandbox.landcover import DAYS, EPSG, LANDSAT_DAYS, LEFT, SIDE, TOP

CHIP = 960
ASKED = (1, 2, 5, 7, 8, 11)
WEST, EAST = (100, 7800), (7800, SIDE - 100)
"""Left and right of the two areas of interest, in metres from the tile's corner; both begin and end 100 m inside."""


def centres(left: float, top: float, pixel: int, side: int = CHIP) -> tuple[np.ndarray, np.ndarray]:
    x = np.arange(left + pixel // 2, left + side, pixel).astype(np.int64)
    y = np.arange(top - pixel // 2, top - side, -pixel).astype(np.int64)
    return x[None, :], y[:, None]


def windows(area: tuple[int, int]) -> list[tuple[int, int]]:
    """Left and top of all windows inside an area, row by row: laid from the corner of the tile."""
    columns = range(-(-area[0] // CHIP), area[1] // CHIP)
    rows = range(-(-100 // CHIP), (SIDE - 100) // CHIP)
    return [(LEFT + column * CHIP, TOP - row * CHIP) for row in rows for column in columns]


def land_class(window: tuple[int, int]) -> int:
    """The class of a window, 0 where it has several."""
    found = np.unique(earth.land_class(*centres(*window, 10)))
    return int(found[0]) if len(found) == 1 else 0


def is_clear(window: tuple[int, int]) -> bool:
    """Whether neither sensor sees cloud or shadow in it on any date."""
    for day in DAYS:
        if np.isin(
            earth.scene_class(*centres(*window, 20), earth.day_number(day)), (3, 8, 9, 10)
        ).any():
            return False
    x, y = centres(*window, 30)
    # The flag of a pixel is that of the Landsat pixel under its centre: Landsat's grid lies 25 m off.
    x, y = (x - 744_885) // 30 * 30 + 744_885 + 15, 4_502_115 - (4_502_115 - y) // 30 * 30 - 15
    return not any(
        (earth.landsat("qa_pixel", x, y, earth.day_number(day)) != 21824).any()
        for day in LANDSAT_DAYS
    )


def homogeneous(area: tuple[int, int]) -> Counter[int]:
    """Class → windows that are of it alone."""
    return Counter(number for window in windows(area) if (number := land_class(window)))


def fit(area: tuple[int, int]) -> dict[tuple[int, int], int]:
    """Windows of the classes asked for that are clear on every date → their class."""
    return {w: land_class(w) for w in windows(area) if land_class(w) in ASKED and is_clear(w)}


def sampling_key(window: tuple[int, int], seed: int = 0) -> bytes:
    text = f"{seed}/EPSG:{EPSG}/{window[0]:.3f}/{window[1]:.3f}"
    return blake2b(text.encode(), digest_size=16).digest()


def drawn(area: tuple[int, int], most: int, seed: int = 0) -> dict[tuple[int, int], int]:
    """The chips of an area → their class."""
    chosen: dict[tuple[int, int], int] = {}
    taken: Counter[int] = Counter()
    for window, number in sorted(fit(area).items(), key=lambda pair: sampling_key(pair[0], seed)):
        if taken[number] < most:
            taken[number] += 1
            chosen[window] = number
    return chosen
