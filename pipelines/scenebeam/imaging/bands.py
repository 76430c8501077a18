"""Inputs: the files of scenes that a task reads, band by band, as a plan writes them down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import shapely
from pydantic import BaseModel, ConfigDict
from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.acquisition import Acquisition
from scenebeam.catalog.scene import Asset, Scene
from scenebeam.errors import CheckError, ReadError, RequestError
from scenebeam.imaging.refs import AssetRef
from scenebeam.metadata import stac_items
from scenebeam.raster.checks import BandSpec
from scenebeam.raster.reader import open_source
from scenebeam.raster.validity import same_nodata
from scenebeam.request import Checks, Limits
from scenebeam.tasks import GridSpec
from scenebeam.transfer.retry import Budget


class Band(BaseModel):
    """One band of one acquisition: its scenes' files, best first, and what their numbers mean."""

    model_config = ConfigDict(frozen=True)

    label: str
    """Unique among the bands of a task: the name, with the acquisition's where there are several."""
    name: str
    sources: tuple[AssetRef, ...]
    absent: tuple[str, ...]
    """Scenes of the acquisition that lack the band."""
    dtype: str
    nodata: float | None
    scale: float
    offset: float
    resampling: str
    categorical: bool
    min_std_dev: float | None
    """A file whose numbers spread no more than this is blank; None where nothing says so."""


def describe_band(
    name: str,
    acquisition: Acquisition,
    checks: Checks,
    *,
    label: str,
    values: str,
    resampling: str | Mapping[str, str],
) -> Band:
    """Describe one band of an acquisition: its files, and how to read and scale them.

    Args:
        name: Canonical name of the band.
        acquisition: The scenes, best first.
        checks: When an image is usable.
        label: Name of the band within its task.
        values: `harmonized` or `raw`.
        resampling: One method for all bands, or band → method.

    Raises:
        RequestError: The files cannot be combined into one image.
    """
    assets = {scene.id: scene.assets[name] for scene in acquisition.scenes if name in scene.assets}
    known: Sequence[Asset] = list(assets.values())
    if len({(asset.nodata, asset.dtype) for asset in known}) > 1:
        raise RequestError(
            f"{acquisition.timestamp}: the collections give {name} different nodata or dtype; run them apart"
        )
    shifts = {asset.add_offset for asset in known}
    raw = values == "raw"
    if raw and len(shifts) > 1:
        raise RequestError(
            f"{acquisition.timestamp}: some tiles of {name} carry a shift of {max(shifts)} and some do not; "
            "use product.values: harmonized"
        )
    categorical = any(asset.categorical for asset in known)
    scale, offset = scale_offset(known[0], values) if known else (1.0, 0.0)
    return Band(
        label=label or name,
        name=name,
        sources=tuple(
            AssetRef(
                scene=scene,
                href=a.href,
                index=a.index,
                signing=a.signing,
                add_offset=0 if raw else a.add_offset,
            )
            for scene, a in assets.items()
        ),
        absent=tuple(scene.id for scene in acquisition.scenes if name not in scene.assets),
        dtype=known[0].dtype if known else "uint8",
        nodata=known[0].nodata if known else None,
        scale=scale,
        offset=offset,
        resampling="nearest" if categorical else requested_resampling(name, resampling),
        categorical=categorical,
        min_std_dev=min_std_dev(known[0], checks) if known else None,
    )


def declared_values(asked: str, scenes: Iterable[Scene], bands: Iterable[str]) -> str:
    """What a product says of its numbers.

    Args:
        asked: `harmonized` or `raw`.
        scenes: The scenes that it is made of.
        bands: Names of the bands that it takes of them.

    Returns:
        As asked; `unknown` instead of `harmonized` where nothing says which shift pixels carry.
    """
    names = set(bands)
    for scene in scenes:
        for name in names & scene.assets.keys():
            if not scene.assets[name].add_offset_known and asked != "raw":
                return "unknown"
    return asked


def requested_resampling(name: str, asked: str | Mapping[str, str]) -> str:
    """How a request wants a band to be resampled, by one word for all or band by band."""
    if isinstance(asked, str):
        return asked
    return {key.lower(): value for key, value in asked.items()}.get(name, "nearest")


def scale_offset(asset: Asset, values: str) -> tuple[float, float]:
    """(scale, offset) of a band as it stands in a product: what harmonizing would take out is still in raw numbers."""
    return asset.scale, asset.offset - (asset.scale * asset.add_offset if values == "raw" else 0.0)


def min_std_dev(asset: Asset, checks: Checks) -> float | None:
    """Least spread of numbers that are not blank; None where any will do.

    Digital numbers of an optical sensor have noise; of anything else only a constant is surely blank.
    """
    spec = band_spec(asset)
    if spec.constant_ok or not checks.enabled:
        return None
    if spec.sensor == "optical" and spec.digital:
        return checks.optical.min_std_dev or None
    return 0.0


def band_spec(asset: Asset) -> BandSpec:
    """What checks go by."""
    digital = np.dtype(asset.dtype).kind in "ui"
    return BandSpec(asset.sensor, asset.unit, asset.constant_ok, asset.value_range, digital)


def resolve_nodata(href: str, file: float | None, collection: float | None) -> float | None:
    """The nodata value of a file: its own, or its collection's. Raises CheckError where the two contradict."""
    if file is not None and collection is not None and not same_nodata(file, collection):
        raise CheckError(
            f"{href} declares nodata {file:g}, its collection {collection:g}: which is it?"
        )
    return file if collection is None else collection


def keep_scenes(band: Band, scenes: set[str]) -> Band:
    """The band without the files of other scenes."""
    return band.model_copy(
        update={
            "sources": tuple(source for source in band.sources if source.scene in scenes),
            "absent": tuple(scene for scene in band.absent if scene in scenes),
        }
    )


def fill_footprints(acquisitions: Iterable[Acquisition], limits: Limits) -> list[Acquisition]:
    """Where the catalogue does not tell footprints (files on disk), the files do."""
    return [
        replace(
            one,
            scenes=tuple(
                s if s.footprint is not None else replace(s, footprint=_outline(s, limits))
                for s in one.scenes
            ),
        )
        for one in acquisitions
    ]


def _outline(scene: Scene, limits: Limits) -> BaseGeometry | None:
    """The image's outline in degrees, from the first of its files that opens."""
    for asset in scene.assets.values():
        try:
            source = open_source(asset.href, asset.index, Budget.of(limits), asset.signing)
        except ReadError:
            continue
        info = source.info
        source.close()
        spec = GridSpec(
            crs=info.crs, transform=tuple(info.transform)[:6], shape=(info.height, info.width)
        )
        return shapely.geometry.shape(stac_items.grid_footprint(spec.grid))
    return None


def covered_area(scenes: Iterable[Scene]) -> MultiPolygon:
    """All that scenes show, in degrees. Raises RequestError where none of them says where it is."""
    whole = shapely.union_all([scene.footprint for scene in scenes if scene.footprint is not None])
    if whole.is_empty:
        raise RequestError("none of the scenes says where it is: give an area")
    parts = getattr(whole, "geoms", [whole])
    return MultiPolygon([part for part in parts if part.geom_type == "Polygon"])


def common_properties(scenes: Sequence[Scene]) -> dict[str, Any]:
    """What an item tells of the scenes that it was made of."""
    clouds = [scene.cloud_cover for scene in scenes if scene.cloud_cover is not None]
    platforms = sorted({scene.platform for scene in scenes if scene.platform})
    return {
        **({"platform": platforms[0]} if len(platforms) == 1 else {}),
        **({"eo:cloud_cover": max(clouds)} if clouds else {}),
    }
