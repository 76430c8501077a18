"""Encode pixels as the rasters of a modality store them, and check that a chip is usable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scenebeam.catalog.scene import Asset
from scenebeam.errors import CheckError
from scenebeam.imaging.bands import min_std_dev, scale_offset
from scenebeam.imaging.layered_reader import Pixels
from scenebeam.products.landcover.task import Recipe
from scenebeam.raster.cog import CogBand
from scenebeam.raster.validity import Array, valid_mask
from scenebeam.request import Checks


def encode_pixels(asset: Asset, values: Array, nodata: float | None, recipe: Recipe) -> Pixels:
    """Convert stored values to the values of a modality's rasters.

    Rasters of a floating-point dtype hold physical values (reflectance, power, meters), those of an
    integer dtype harmonized digital numbers.

    Args:
        asset: The band: its radiometric offset, scale and offset.
        values: Stored values, 2-D.
        nodata: Nodata value of `values`; None if every value is valid.
        recipe: Dtype and nodata value of the rasters.

    Returns:
        Pixels of the recipe's dtype and nodata value, and where they are valid (None: everywhere).
        A valid pixel that would equal the nodata value becomes the adjacent value; one outside the
        range of an integer dtype becomes its lowest or highest value.
    """
    valid = valid_mask(values, nodata)
    dtype = np.dtype(recipe.dtype)
    is_float = dtype.kind == "f"
    # Unsigned values minus the offset can be negative: subtract in a wider signed type.
    wide = np.float64 if values.dtype.kind == "f" or is_float else np.int64
    harmonized: Array = values.astype(wide) - asset.add_offset
    finite = np.isfinite(harmonized)
    if not finite.all():
        # NaN is nodata whatever the file declares. It cannot be cast to an integer, hence the 0.
        valid = finite if valid is None else valid & finite
        harmonized[~finite] = 0
    encoded: Array
    if is_float:
        encoded = (harmonized * asset.scale + asset.offset).astype(dtype)
        adjacent = np.nextafter(dtype.type(recipe.nodata), dtype.type(0))
        encoded[encoded == dtype.type(recipe.nodata)] = adjacent
    else:
        limits = np.iinfo(dtype)
        encoded = np.clip(np.rint(harmonized), limits.min, limits.max).astype(dtype)
        step = 1 if recipe.nodata < limits.max else -1
        encoded[encoded == dtype.type(recipe.nodata)] += step
    if valid is not None:
        encoded[~valid] = recipe.nodata
    return encoded, valid


def cog_bands(assets: Sequence[Asset], recipe: Recipe) -> tuple[CogBand, ...]:
    """Return name, scale and offset of each band, as they are written to the raster's header."""
    if np.dtype(recipe.dtype).kind == "f":
        # Physical values need no scale.
        return tuple(CogBand(asset.band) for asset in assets)
    return tuple(CogBand(asset.band, *scale_offset(asset, "harmonized")) for asset in assets)


def check_fit(
    assets: Sequence[Asset], bands: Sequence[Pixels], recipe: Recipe, checks: Checks
) -> None:
    """Check that a raster has no gap and that no band of it is blank.

    Args:
        assets: The bands.
        bands: Encoded pixels of each band, as `encode_pixels` returns them.
        recipe: The recipe they were encoded by.
        checks: The request's image checks.

    Raises:
        CheckError: Its message is `nodata` (a pixel is missing) or `blank` (a band has one value).
    """
    for _, valid in bands:
        if valid is not None and not valid.all():
            raise CheckError("nodata")
    for asset, (values, _) in zip(assets, bands, strict=True):
        limit = min_std_dev(asset, checks)
        if limit is not None and np.dtype(recipe.dtype).kind == "f":
            # The limit is in digital numbers, the pixels are scaled.
            limit *= abs(asset.scale)
        if limit is not None and float(values.std(dtype=np.float64)) <= limit:
            raise CheckError("blank")
