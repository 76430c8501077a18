"""The bands that a task reads: their files in the scenes of acquisitions, as a plan stores them."""

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
from scenebeam.collections.record import Nodata
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
    """One band of one acquisition: the files of its scenes, and how to read and scale them."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    label: str
    """Unique among the bands of a task: the name, after the acquisition if there are several."""
    name: str
    """Canonical name of the band."""
    sources: tuple[AssetRef, ...]
    """The files in order of priority, highest first."""
    absent: tuple[str, ...]
    """Ids of the scenes that have no file of the band."""
    dtype: str
    nodata: Nodata
    scale: float
    offset: float
    resampling: str
    categorical: bool
    min_std_dev: float | None
    """A file whose standard deviation is no higher is blank; None for no such check."""


def describe_band(
    name: str,
    acquisition: Acquisition,
    checks: Checks,
    *,
    label: str,
    values: str,
    resampling: str | Mapping[str, str],
) -> Band:
    """Describe one band of an acquisition.

    Args:
        name: Canonical name of the band.
        acquisition: Its scenes, in order of priority.
        checks: Thresholds of a usable image.
        label: Name of the band within its task.
        values: `harmonized` or `raw`.
        resampling: One method for all bands, or band → method.

    Raises:
        RequestError: The files cannot be combined into one image.
    """
    assets: dict[str, Asset] = {}
    others: dict[str, list[Asset]] = {}
    absent = []
    for scene in acquisition.scenes:
        copies = [one.assets[name] for one in (scene, *scene.alternates) if name in one.assets]
        if copies:
            assets[scene.id], *others[scene.id] = copies
        else:
            absent.append(scene.id)
    _check_combinable(name, acquisition, list(assets.values()), values)
    # All files have the same encoding. Without any file, it does not matter.
    first = next(iter(assets.values()), None)
    scale, offset = scale_offset(first, values) if first else (1.0, 0.0)
    categorical = any(asset.categorical for asset in assets.values())
    return Band(
        label=label or name,
        name=name,
        sources=tuple(
            _source_ref(scene, asset, values, others[scene]) for scene, asset in assets.items()
        ),
        absent=tuple(absent),
        dtype=first.dtype if first else "uint8",
        nodata=first.nodata if first else None,
        scale=scale,
        offset=offset,
        resampling="nearest" if categorical else requested_resampling(name, resampling),
        categorical=categorical,
        min_std_dev=min_std_dev(first, checks) if first else None,
    )


def _source_ref(scene: str, asset: Asset, values: str, others: Sequence[Asset] = ()) -> AssetRef:
    alternates = []
    for other in others:
        same = (other.dtype, other.nodata, other.scale) == (asset.dtype, asset.nodata, asset.scale)
        # Raw pixels keep their offset, so copies with another one are other pixels.
        if same and (values != "raw" or other.add_offset == asset.add_offset):
            alternates.append(_source_ref(scene, other, values))
    return AssetRef(
        scene=scene,
        href=asset.href,
        index=asset.index,
        signing=asset.signing,
        add_offset=0 if values == "raw" else asset.add_offset,
        alternates=tuple(alternates),
    )


def _check_combinable(
    name: str, acquisition: Acquisition, assets: Sequence[Asset], values: str
) -> None:
    if len({(asset.nodata, asset.dtype) for asset in assets}) > 1:
        raise RequestError(
            f"{acquisition.timestamp}: the collections declare different nodata values or dtypes "
            f"of {name}; make one run of each collection"
        )
    offsets = {asset.add_offset for asset in assets}
    if values == "raw" and len(offsets) > 1:
        raise RequestError(
            f"{acquisition.timestamp}: some files of {name} have a radiometric offset of "
            f"{max(offsets)} and some do not; use product.values: harmonized"
        )


def declared_values(requested: str, scenes: Iterable[Scene], bands: Iterable[str]) -> str:
    """Return what a product declares about its values.

    Args:
        requested: `harmonized` or `raw`.
        scenes: The scenes that it is made of.
        bands: Canonical names of the bands that it takes of them.

    Returns:
        The requested values; `unknown` instead of `harmonized` if it is not known which
        radiometric offset a file has.
    """
    names = set(bands)
    for scene in scenes:
        for name in names & scene.assets.keys():
            if not scene.assets[name].add_offset_known and requested != "raw":
                return "unknown"
    return requested


def requested_resampling(name: str, resampling: str | Mapping[str, str]) -> str:
    """Return the resampling method that a request gives a band.

    Args:
        name: Canonical name of the band.
        resampling: One method for all bands, or band → method, where `nearest` is the default.
    """
    if isinstance(resampling, str):
        return resampling
    return {band.lower(): method for band, method in resampling.items()}.get(name, "nearest")


def scale_offset(asset: Asset, values: str) -> tuple[float, float]:
    """Return (scale, offset) of a band in a product.

    Physical values are scale * pixel + offset. In raw values the radiometric offset is still
    included, so `offset` subtracts it.

    Args:
        asset: The file.
        values: `harmonized` or `raw`.
    """
    return asset.scale, asset.offset - (asset.scale * asset.add_offset if values == "raw" else 0.0)


def min_std_dev(asset: Asset, checks: Checks) -> float | None:
    """Return the standard deviation up to which a file is blank; None for no such check.

    Digital numbers of an optical sensor have noise. Of other files, only constant ones are blank
    for sure.

    Args:
        asset: The file.
        checks: Thresholds of a usable image.
    """
    spec = band_spec(asset)
    if spec.constant_ok or not checks.enabled:
        return None
    if spec.sensor == "optical" and spec.digital:
        return checks.optical.min_std_dev or None
    return 0.0


def band_spec(asset: Asset) -> BandSpec:
    """Describe a band for the checks of `raster.checks`."""
    digital = np.dtype(asset.dtype).kind in "ui"
    return BandSpec(asset.sensor, asset.unit, asset.constant_ok, asset.value_range, digital)


def resolve_nodata(href: str, file: float | None, collection: float | None) -> float | None:
    """Return the nodata value of a file.

    Args:
        href: The file, for the message.
        file: Value that the file declares.
        collection: Value that the collection declares, which comes first.

    Raises:
        CheckError: Both are declared, and they differ.
    """
    if file is not None and collection is not None and not same_nodata(file, collection):
        raise CheckError(
            f"{href} declares nodata {file:g}, but its collection declares {collection:g}; "
            "correct the collection record"
        )
    return file if collection is None else collection


def keep_scenes(band: Band, scenes: set[str]) -> Band:
    """Return a band with the files of some scenes only."""
    return band.model_copy(
        update={
            "sources": tuple(source for source in band.sources if source.scene in scenes),
            "absent": tuple(scene for scene in band.absent if scene in scenes),
        }
    )


def fill_footprints(acquisitions: Iterable[Acquisition], limits: Limits) -> list[Acquisition]:
    """Read missing footprints from the files, as for scenes on disk without a STAC item.

    Args:
        acquisitions: Acquisitions of scenes.
        limits: Timeouts and retries.

    Returns:
        The acquisitions; a scene without a readable file still has no footprint.
    """
    filled = []
    for acquisition in acquisitions:
        scenes = []
        for scene in acquisition.scenes:
            known = scene.footprint is not None
            scenes.append(scene if known else replace(scene, footprint=_outline(scene, limits)))
        filled.append(replace(acquisition, scenes=tuple(scenes)))
    return filled


def _outline(scene: Scene, limits: Limits) -> BaseGeometry | None:
    """Return the outline of a scene's image in degrees, from the first file that opens."""
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
    """Return the union of footprints, in degrees.

    Raises:
        RequestError: No scene has a footprint.
    """
    footprints = [scene.footprint for scene in scenes if scene.footprint is not None]
    union = shapely.union_all(footprints)
    if union.is_empty:
        raise RequestError("no scene has a footprint; specify an area")
    # A union may leave lines and points beside the polygons.
    parts = getattr(union, "geoms", [union])
    return MultiPolygon([part for part in parts if part.geom_type == "Polygon"])


def common_properties(scenes: Sequence[Scene]) -> dict[str, Any]:
    """Return item properties that follow from the scenes: platform and cloud cover."""
    properties: dict[str, Any] = {}
    platforms = sorted({scene.platform for scene in scenes if scene.platform})
    if len(platforms) == 1:
        properties["platform"] = platforms[0]
    clouds = [scene.cloud_cover for scene in scenes if scene.cloud_cover is not None]
    if clouds:
        properties["eo:cloud_cover"] = max(clouds)
    return properties
