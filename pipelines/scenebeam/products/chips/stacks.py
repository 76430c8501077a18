"""How the images of a collection are stored: the same for all chips of a run.

Layouts such as Zarr have one dtype, nodata value and set of bands for all chips, and statistics are
summed over all of them. So the files must agree, which the plan decides before the first is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from scenebeam.catalog.scene import Asset
from scenebeam.errors import RequestError
from scenebeam.imaging.bands import scale_offset
from scenebeam.raster.cog import CogBand
from scenebeam.raster.validity import fits


class StackSpec(BaseModel):
    """Bands, dtype and nodata value of the images of a collection."""

    model_config = ConfigDict(frozen=True)

    name: str
    """`image`, or the name of another collection in the request."""
    bands: tuple[tuple[str, float, float], ...]
    """Name, scale and offset of each band."""
    dtype: str
    nodata: float | None

    @property
    def cog_bands(self) -> tuple[CogBand, ...]:
        """The bands as a COG describes them."""
        return tuple(CogBand(*band) for band in self.bands)

    @property
    def fill(self) -> float:
        """The value of pixels without data, where they must have one."""
        return 0 if self.nodata is None else self.nodata

    @property
    def item_bytes(self) -> int:
        """Bytes of a pixel in all bands."""
        return len(self.bands) * np.dtype(self.dtype).itemsize


def stack_spec(name: str, files: Iterable[Sequence[Asset]], values: str) -> StackSpec | None:
    """Decide how the images of a collection are stored.

    Args:
        name: Name of the images.
        files: The bands of each scene, in the order of the request.
        values: `harmonized` or `raw`.

    Returns:
        None without any scene.

    Raises:
        RequestError: The scenes do not agree.
    """
    found: dict[tuple[Any, ...], Sequence[Asset]] = {}
    for bands in files:
        key = []
        for asset in bands:
            scaling = scale_offset(asset, values)
            key.append((asset.band, asset.dtype, asset.nodata, *scaling))
        found.setdefault(tuple(key), bands)
    if not found:
        return None
    if len(found) > 1:
        one, other = list(found)[:2]
        difference = next(pair for pair in zip(one, other, strict=False) if pair[0] != pair[1])
        described = " and ".join(_describe(*part) for part in difference)
        raise RequestError(
            f"product.bands: the files of {name} cannot be stored alike: {described}; make one run "
            "of each collection, or use values: harmonized"
        )
    [bands] = found.values()
    dtype = np.result_type(*(np.dtype(asset.dtype) for asset in bands))
    nodata = next((asset.nodata for asset in bands if asset.nodata is not None), None)
    if nodata is not None and not fits(nodata, dtype):
        raise RequestError(f"product.bands: nodata {nodata:g} of {name} is no {dtype.name}")
    described_bands = [(asset.band, *scale_offset(asset, values)) for asset in bands]
    return StackSpec(name=name, bands=tuple(described_bands), dtype=dtype.name, nodata=nodata)


def _describe(band: str, dtype: str, nodata: float | None, scale: float, offset: float) -> str:
    shown = "none" if nodata is None else f"{nodata:g}"
    return f"{band} as {dtype} (nodata {shown}, scale {scale:g}, offset {offset:g})"
