"""The land cover data set: five modalities over one area, with scenes that must not be selected.

Scenes that must not be selected exist only as items, without files, so that selecting one of them
fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from pyproj import Transformer
from shapely.geometry import box, mapping

from scenebeam.collections import CollectionRecord, known_records
from scenebeam.sandbox import earth
from scenebeam.sandbox.earth import Array
from scenebeam.sandbox.scenes import SandboxScene, write_catalog, write_image

YEAR = 2021
EPSG, LEFT, TOP, SIDE = 32634, 745_000, 4_502_000, 15_360
"""The Sentinel-2 tile: its CRS, its upper left corner, and its width and height in meters."""
PERIODS = [
    f"{YEAR}-01/{YEAR}-03",
    f"{YEAR}-04/{YEAR}-06",
    f"{YEAR}-07/{YEAR}-09",
    f"{YEAR}-10/{YEAR}-12",
]
DAYS = tuple(
    datetime(YEAR, month, day, 9, 20, 31) for month, day in ((3, 9), (5, 8), (7, 14), (11, 4))
)
"""Acquisition times of the least cloudy scene in each period."""
SAR_DAYS = tuple(
    day + timedelta(days=apart, hours=7) for day, apart in zip(DAYS, (2, -3, 1, 5), strict=True)
)
LANDSAT_DAYS = tuple(
    day + timedelta(days=apart) for day, apart in zip(DAYS, (7, -7, 39, 14), strict=True)
)
SEAM = 23.93
"""Longitude of the edge between two tiles of the elevation model."""
CUT = 4_499_600
"""Northing of the edge between two radar frames."""
_ARC_SECOND = 1 / 3600
_LANDSAT_LEFT, _LANDSAT_TOP, _LANDSAT_SIZE = 744_885, 4_502_115, 524
"""Upper left corner in meters, and width and height in pixels: a grid of its own, as in reality."""
LANDSAT_BANDS = ("blue", "green", "red", "nir08", "swir16", "swir22", "qa_pixel")


@dataclass(frozen=True)
class SandboxImage:
    """A file with one band."""

    band: str
    crs: str
    corner: tuple[float, float]
    """x and y of the upper left corner."""
    resolution: float
    shape: tuple[int, int]
    """Rows, columns."""
    values: Callable[[Array, Array], Array]
    """Computes pixels from the eastings and northings of their centers, in whole meters."""
    nodata: float | None = None

    def pixels(self) -> Array:
        """Return the content of the file."""
        # Centers of the pixels, not their corners.
        x = self.corner[0] + (np.arange(self.shape[1]) + 0.5) * self.resolution
        y = self.corner[1] - (np.arange(self.shape[0]) + 0.5) * self.resolution
        if self.crs == "EPSG:4326":
            # The synthetic Earth is defined in meters. Rows and columns of a file in degrees are
            # not aligned with it, so every pixel is transformed.
            to_meters = Transformer.from_crs(4326, EPSG, always_xy=True)
            easting, northing = to_meters.transform(*np.meshgrid(x, y))
            x, y = np.rint(easting).astype(np.int64), np.rint(northing).astype(np.int64)
            return self.values(x, y)
        return self.values(x.astype(np.int64)[None, :], y.astype(np.int64)[:, None])

    @property
    def footprint(self) -> shapely.Polygon:
        """Bounds of the file, in its CRS."""
        left, top = self.corner
        rows, columns = self.shape
        return box(left, top - rows * self.resolution, left + columns * self.resolution, top)


@dataclass(frozen=True)
class SandboxItem:
    """An item of any collection."""

    id: str
    collection: str
    images: tuple[SandboxImage, ...]
    properties: dict[str, Any]
    has_files: bool = True
    """Whether its files are written."""

    def item(self, href: str) -> dict[str, Any]:
        """Return the STAC item.

        Args:
            href: Folder or URL that contains the item's folder.
        """
        first = self.images[0]
        to_lonlat = Transformer.from_crs(first.crs, 4326, always_xy=True)
        footprint = shapely.transform(first.footprint, to_lonlat.transform, interleaved=False)
        assets = {}
        for image in self.images:
            assets[image.band] = {"href": f"{href}/{self.id}/{image.band}.tif"}
        return {
            "type": "Feature",
            "stac_version": "1.0.0",
            "stac_extensions": [],
            "id": self.id,
            "collection": self.collection,
            "geometry": mapping(footprint),
            "bbox": list(footprint.bounds),
            "links": [],
            "properties": self.properties,
            "assets": assets,
        }

    def write(self, folder: Path) -> None:
        """Write the files into `folder/<id>/`."""
        (folder / self.id).mkdir(parents=True, exist_ok=True)
        for image in self.images:
            path = folder / self.id / f"{image.band}.tif"
            write_image(
                path, image.pixels(), image.crs, image.corner, image.resolution, 256, image.nodata
            )


def sentinel_2() -> Iterator[tuple[SandboxScene, bool]]:
    """Yield scenes, and whether they are to be selected.

    Of each period, the least cloudy scene that covers the area is. The others are a cloudier one
    of the same tile, and a clear one of another tile.
    """
    for number, day in enumerate(DAYS):
        yield _sentinel_2("34TGL", day, 3.0), True
        yield _sentinel_2("34TGL", day + timedelta(days=5), 4.0), False
        if number:
            yield _sentinel_2("34TGK", day + timedelta(days=2), 0.0), False


def _sentinel_2(tile: str, acquired: datetime, cloud: float) -> SandboxScene:
    return SandboxScene(
        tile, EPSG, LEFT, TOP, acquired, "05.00", cloud_cover=cloud, size=SIDE // 10
    )


def sentinel_1() -> Iterator[SandboxItem]:
    """Yield two frames of orbit 102 for each date, and closer ones of orbit 29, but for the last.

    All periods must use the same orbit, so orbit 29 must not be selected.
    """
    for number, when in enumerate(SAR_DAYS):
        yield _sentinel_1(when, 102, "N", TOP, CUT)
        yield _sentinel_1(when + timedelta(seconds=25), 102, "S", CUT, TOP - SIDE)
        # Orbit 29 is closer in time, but has no scene in the last period.
        if number < len(SAR_DAYS) - 1:
            closer = DAYS[number] + timedelta(hours=7)
            yield _sentinel_1(closer, 29, "N", TOP, TOP - SIDE, has_files=False)


def _sentinel_1(
    when: datetime, orbit: int, frame: str, top: int, bottom: int, *, has_files: bool = True
) -> SandboxItem:
    day, shape = earth.day_number(when), ((top - bottom) // 10, SIDE // 10)

    # A function per band: a lambda in the loop would see only the last band.
    def values(polarization: str) -> Callable[..., Array]:
        return lambda x, y: earth.backscatter(polarization, x, y, day)

    crs, corner, nodata = f"EPSG:{EPSG}", (LEFT, top), -32768
    images = tuple(
        SandboxImage(name, crs, corner, 10, shape, values(name), nodata) for name in ("vv", "vh")
    )
    properties = {"datetime": _text(when), "platform": "SENTINEL-1A", "sat:relative_orbit": orbit}
    item_id = f"S1A_{when:%Y%m%dT%H%M%S}_{orbit}_{frame}_rtc"
    return SandboxItem(item_id, "sentinel-1-rtc", images, properties, has_files)


def landsat() -> Iterator[SandboxItem]:
    """Yield a scene of path 184 near each date, a cloudier one, and a single one of path 183."""
    for number, when in enumerate(LANDSAT_DAYS):
        yield _landsat(when, 184, 10.0)
        yield _landsat(when + timedelta(days=1), 184, 40.0, has_files=False)
        if number == 0:
            yield _landsat(when + timedelta(days=2), 183, 0.0, has_files=False)


def _landsat(when: datetime, path: int, cloud: float, *, has_files: bool = True) -> SandboxItem:
    day = earth.day_number(when)

    def values(band: str) -> Callable[..., Array]:
        return lambda x, y: earth.landsat(band, x, y, day).astype(np.uint16)

    crs, corner, shape = (
        f"EPSG:{EPSG}",
        (_LANDSAT_LEFT, _LANDSAT_TOP),
        (_LANDSAT_SIZE, _LANDSAT_SIZE),
    )
    images = []
    for band in LANDSAT_BANDS:
        nodata = 1 if band == "qa_pixel" else 0
        images.append(SandboxImage(band, crs, corner, 30, shape, values(band), nodata))
    properties = {
        "datetime": _text(when),
        "platform": "landsat-8",
        "eo:cloud_cover": cloud,
        "landsat:wrs_path": str(path),
        "landsat:wrs_row": "032",
    }
    item_id = f"LC08_L2SP_{path}032_{when:%Y%m%d}_02_T1"
    return SandboxItem(item_id, "landsat-c2-l2", tuple(images), properties, has_files)


def elevation() -> Iterator[SandboxItem]:
    """Yield two tiles that meet at `SEAM`. Like the real ones, they declare no nodata value."""

    def values(x: Array, y: Array) -> Array:
        return earth.elevation(x, y).astype(np.float32)

    properties = {"datetime": "2021-04-22T00:00:00Z"}
    for name, west, east in (("E023", 23.85, SEAM), ("E024", SEAM, 24.15)):
        shape = (round(0.25 / _ARC_SECOND), round((east - west) / _ARC_SECOND))
        image = SandboxImage("data", "EPSG:4326", (west, 40.68), _ARC_SECOND, shape, values)
        yield SandboxItem(f"DEM_N40_{name}", "cop-dem-glo-30", (image,), properties)


def land_cover() -> Iterator[SandboxItem]:
    """Yield the map of `YEAR`, and that of the year before, which must not be selected."""

    def values(x: Array, y: Array) -> Array:
        return earth.land_class(x, y).astype(np.uint8)

    crs, corner, shape = f"EPSG:{EPSG}", (LEFT - 2000, TOP + 2000), ((SIDE + 4000) // 10,) * 2
    for year in (YEAR, YEAR - 1):
        image = SandboxImage("data", crs, corner, 10, shape, values, 0)
        properties = {
            "datetime": None,
            "start_datetime": f"{year}-01-01T00:00:00Z",
            "end_datetime": f"{year + 1}-01-01T00:00:00Z",
        }
        yield SandboxItem(
            f"34T-{year}", "io-lulc-annual-v02", (image,), properties, has_files=year == YEAR
        )


def _text(when: datetime) -> str:
    return f"{when:%Y-%m-%dT%H:%M:%SZ}"


def records() -> list[CollectionRecord]:
    """Return the collection records of the data set: the known ones, without URL signing."""
    known = {(record.provider, record.id): record for record in known_records()}
    found = [known["earth-search", "sentinel-2-l2a"]]
    for name in ("sentinel-1-rtc", "landsat-c2-l2", "cop-dem-glo-30", "io-lulc-annual-v02"):
        record = known["planetary-computer", name]
        found.append(record.model_copy(update={"signing": "none"}))
    return found


def aois() -> dict[str, Any]:
    """Return areas of interest as GeoJSON: two valid ones, and three that must be reported.

    The valid ones are the western and the eastern half of the tile. One of the others has no
    scenes, one intersects itself, and one is empty.
    """
    to_lonlat = Transformer.from_crs(EPSG, 4326, always_xy=True)

    def part_of_tile(left: float, right: float) -> dict[str, Any]:
        square = box(LEFT + left, TOP - SIDE + 100, LEFT + right, TOP - 100)
        return dict(mapping(shapely.transform(square, to_lonlat.transform, interleaved=False)))

    bow_tie = {
        "type": "Polygon",
        "coordinates": [[[24, 40], [24.1, 40.1], [24.1, 40], [24, 40.1], [24, 40]]],
    }
    geometries = {
        "west": part_of_tile(100, 7800),
        "east": part_of_tile(7800, SIDE - 100),
        "far away": dict(mapping(box(100.0, 10.0, 100.1, 10.1))),
        "bow tie": bow_tie,
        "empty": {"type": "Polygon", "coordinates": []},
    }
    features = []
    for name, geometry in geometries.items():
        features.append({"type": "Feature", "properties": {"name": name}, "geometry": geometry})
    return {"type": "FeatureCollection", "features": features}


def write_landcover(folder: Path, href: str | None = None) -> Path:
    """Write the scenes with their catalog and `aois.geojson`.

    Args:
        folder: Where they are written.
        href: Folder or URL of the assets in the items; by default `folder`.

    Returns:
        The path of the ItemCollection.
    """
    folder.mkdir(parents=True, exist_ok=True)
    base = str(folder.resolve()) if href is None else href
    items = []
    for scene, is_selected in sentinel_2():
        # Reading any of the others fails, which tests would notice.
        if is_selected:
            scene.write(folder)
        items.append(scene.item(base))
    for entry in (*sentinel_1(), *landsat(), *elevation(), *land_cover()):
        if entry.has_files:
            entry.write(folder)
        items.append(entry.item(base))
    (folder / "aois.geojson").write_text(json.dumps(aois()))
    return write_catalog(folder, base, items)
