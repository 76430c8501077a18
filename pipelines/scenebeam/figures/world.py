"""World: coasts and borders as context of a map, without a network.

The lines are Natural Earth's at 1 : 110 million, in the public domain, rounded to 0.05 degrees.
They show where on Earth an area is, not on which side of a coast.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import shapely

Lines = np.ndarray[Any, Any]


@cache
def world_lines() -> dict[str, Lines]:
    """Read the lines, in degrees.

    Returns:
        `coasts` and `borders`, each an array of shapely LineStrings.
    """
    text = files("scenebeam.figures").joinpath("world.json").read_text()
    document = json.loads(text)
    lines = {}
    for kind in ("coasts", "borders"):
        found = []
        for differences in document[kind]:
            points = np.cumsum(np.array(differences).reshape(-1, 2), axis=0)
            found.append(shapely.LineString(points * document["unit"]))
        lines[kind] = np.array(found, object)
    return lines
