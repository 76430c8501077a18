"""Numbers: a band's pixels as a modality's rasters hold them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scenebeam.catalog.scene import Asset
from scenebeam.errors import CheckError
from scenebeam.imaging.bands import min_std_dev, scale_offset
from scenebeam.products.landcover.task import Recipe
from scenebeam.raster.cog import CogBand
from scenebeam.raster.validity import Array, Mask, valid_mask
from scenebeam.request import Checks


def encode_pixels(
    asset: Asset, values: Array, nodata: float | None, recipe: Recipe
) -> tuple[Array, Mask | None]:
    """Pixels as read → as written: physical values where that is floating point, else harmonized digital numbers.

    Nodata is the recipe's; a valid pixel that would become it, or leave the dtype's range, becomes the nearest number
    that is data. Gives the pixels and where they are data (None: everywhere).
    """
    valid = valid_mask(values, nodata)
    dtype = np.dtype(recipe.dtype)
    moved: Array = (
        values.astype(np.float64 if values.dtype.kind == "f" or dtype.kind == "f" else np.int64)
        - asset.add_offset
    )
    finite = np.isfinite(moved)
    if not finite.all():
        valid = finite if valid is None else valid & finite
        moved[~finite] = 0
    if dtype.kind == "f":
        moved = moved * asset.scale + asset.offset
        found = moved.astype(dtype)
        found[found == dtype.type(recipe.nodata)] = np.nextafter(
            dtype.type(recipe.nodata), dtype.type(0)
        )
    else:
        limits = np.iinfo(dtype)
        found = np.clip(np.rint(moved), limits.min, limits.max).astype(dtype)
        found[found == dtype.type(recipe.nodata)] += 1 if recipe.nodata < limits.max else -1
    if valid is not None:
        found[~valid] = recipe.nodata
    return found, valid


def cog_bands(assets: Sequence[Asset], recipe: Recipe) -> tuple[CogBand, ...]:
    """What a raster says of its bands."""
    if np.dtype(recipe.dtype).kind == "f":
        return tuple(CogBand(asset.band) for asset in assets)
    return tuple(CogBand(asset.band, *scale_offset(asset, "harmonized")) for asset in assets)


def check_fit(
    assets: Sequence[Asset],
    bands: Sequence[tuple[Array, Mask | None]],
    recipe: Recipe,
    checks: Checks,
) -> None:
    """Raise CheckError, `nodata` or `blank`, where a raster has a hole or a band of it is one number throughout."""
    if any(valid is not None and not valid.all() for _, valid in bands):
        raise CheckError("nodata")
    for asset, (values, _) in zip(assets, bands, strict=True):
        least = min_std_dev(asset, checks)
        if least is not None and np.dtype(recipe.dtype).kind == "f":
            least *= abs(asset.scale)
        if least is not None and float(values.std(dtype=np.float64)) <= least:
            raise CheckError("blank")
