"""Names of the merge methods; `raster.merge` implements them."""

from __future__ import annotations

from typing import Literal

MergeMethod = Literal["first", "last", "min", "max", "mean", "median"]
