"""The sandbox's land cover: five modalities over one area, each scene that should be taken, and some that should not.

Of the others the items alone are there: whoever takes one of them finds no file.
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
from scenebeam.sandbox.scenes import SandboxScene, write_catalogue, write_image

YEAR = 2021
EPSG, LEFT, TOP, SIDE = 32634, 745_000, 4_502_000, 15_360
"""The tile of Sentinel-2: its CRS, upper left corner and metres to a side."""
PERIODS = [
    f"{YEAR}-01/{YEAR}-03",
    f"{YEAR}-04/{YEAR}-06",
    f"{YEAR}-07/{YEAR}-09",
    f"{YEAR}-10/{YEAR}-12",
]
DAYS = tuple(
    datetime(YEAR, month, day, 9, 20, 31) for month, day in ((3, 9), (5, 8), (7, 14), (11, 4))
)
"""When the least cloudy scene of each period was taken."""
SAR_DAYS = tuple(
    day + timedelta(days=apart, hours=7) for day, apart in zip(DAYS, (2, -3, 1, 5), strict=True)
)
LANDSAT_DAYS = tuple(
    day + timedelta(days=apart) for day, apart in zip(DAYS, (7, -7, 39, 14), strict=True)
)
SEAM = 23.93
"""Longitude at which one tile of the elevation model ends and the next begins."""
CUT = 4_499_600
"""Northing at which one radar frame ends and the next begins."""
_SECOND = 1 / 3600
_LANDSAT_LEFT, _LANDSAT_TOP, _LANDSAT_SIZE = 744_885, 4_502_115, 524
LANDSAT_BANDS = ("blue", "green", "red", "nir08", "swir16", "swir22", "qa_pixel")


@dataclass(frozen=True)
class Image:
    """A file of one band, and the numbers in it."""

    band: str
    crs: str
    corner: tuple[float, float]
    resolution: float
    shape: tuple[int, int]
    numbers: Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any]], np.ndarray[Any, Any]]
    """(easting, northing) of the pixels' centres, whole metres → what the file holds."""
    nodata: float | None = None

    def pixels(self) -> np.ndarray[Any, Any]:
        """What the file holds."""
        x = self.corner[0] + (np.arange(self.shape[1]) + 0.5) * self.resolution
        y = self.corner[1] - (np.arange(self.shape[0]) + 0.5) * self.resolution
        if self.crs == "EPSG:4326":
            to_metres = Transformer.from_crs(4326, EPSG, always_xy=True)
            easting, northing = to_metres.transform(*np.meshgrid(x, y))
            return self.numbers(
                np.rint(easting).astype(np.int64), np.rint(northing).astype(np.int64)
            )
        return self.numbers(x.astype(np.int64)[None, :], y.astype(np.int64)[:, None])

    @property
    def outline(self) -> shapely.Polygon:
        """In its CRS."""
        left, top = self.corner
        return box(
            left, top - self.shape[0] * self.resolution, left + self.shape[1] * self.resolution, top
        )


@dataclass(frozen=True)
class Scene:
    """An item of some collection, and its files."""

    id: str
    collection: str
    images: tuple[Image, ...]
    properties: dict[str, Any]
    there: bool = True
    """Whether its files are written."""

    def item(self, href: str) -> dict[str, Any]:
        """As STAC, its files under the folder or URL `href`."""
        first = self.images[0]
        to_lonlat = Transformer.from_crs(first.crs, 4326, always_xy=True)
        ground = shapely.transform(first.outline, to_lonlat.transform, interleaved=False)
        return {
            "type": "Feature",
            "stac_version": "1.0.0",
            "stac_extensions": [],
            "id": self.id,
            "collection": self.collection,
            "geometry": mapping(ground),
            "bbox": list(ground.bounds),
            "links": [],
            "properties": self.properties,
            "assets": {
                image.band: {"href": f"{href}/{self.id}/{image.band}.tif"} for image in self.images
            },
        }

    def write(self, folder: Path) -> None:
        """Its files, under `folder/<id>/`."""
        (folder / self.id).mkdir(parents=True, exist_ok=True)
        for image in self.images:
            path = folder / self.id / f"{image.band}.tif"
            write_image(
                path, image.pixels(), image.crs, image.corner, image.resolution, 256, image.nodata
            )


def sentinel_2() -> Iterator[tuple[SandboxScene, bool]]:
    """Scenes, and whether they are the ones to take: the cloudier ones and those of a tile that ends early are not."""
    for number, day in enumerate(DAYS):
        yield (
            SandboxScene("34TGL", EPSG, LEFT, TOP, day, "05.00", cloud_cover=3.0, size=SIDE // 10),
            True,
        )
        worse = day + timedelta(days=5)
        yield (
            SandboxScene(
                "34TGL", EPSG, LEFT, TOP, worse, "05.00", cloud_cover=4.0, size=SIDE // 10
            ),
            False,
        )
        if number:
            clear = day + timedelta(days=2)
            yield (
                SandboxScene(
                    "34TGK", EPSG, LEFT, TOP, clear, "05.00", cloud_cover=0.0, size=SIDE // 10
                ),
                False,
            )


def sentinel_1() -> Iterator[Scene]:
    """Two frames of orbit 102 on each date; orbit 29, nearer, has none on the last."""
    for number, when in enumerate(SAR_DAYS):
        yield _radar(when, 102, "N", TOP, CUT)
        yield _radar(when + timedelta(seconds=25), 102, "S", CUT, TOP - SIDE)
        if number < len(SAR_DAYS) - 1:
            yield _radar(DAYS[number] + timedelta(hours=7), 29, "N", TOP, TOP - SIDE, there=False)


def _radar(
    when: datetime, orbit: int, frame: str, top: int, bottom: int, *, there: bool = True
) -> Scene:
    day, shape = earth.day_number(when), ((top - bottom) // 10, SIDE // 10)

    def numbers(name: str) -> Callable[..., np.ndarray[Any, Any]]:
        return lambda x, y: earth.backscatter(name, x, y, day)

    crs, corner = f"EPSG:{EPSG}", (LEFT, top)
    images = tuple(
        Image(name, crs, corner, 10, shape, numbers(name), -32768) for name in ("vv", "vh")
    )
    properties = {**_taken(when), "platform": "SENTINEL-1A", "sat:relative_orbit": orbit}
    return Scene(
        f"S1A_{when:%Y%m%dT%H%M%S}_{orbit}_{frame}_rtc", "sentinel-1-rtc", images, properties, there
    )


def landsat() -> Iterator[Scene]:
    """Path 184, row 32 near each date, and nearer but cloudier; of path 183 one alone."""
    for number, when in enumerate(LANDSAT_DAYS):
        yield _landsat(when, 184, 10.0)
        yield _landsat(when + timedelta(days=1), 184, 40.0, there=False)
        if number == 0:
            yield _landsat(when + timedelta(days=2), 183, 0.0, there=False)


def _landsat(when: datetime, path: int, cloud: float, *, there: bool = True) -> Scene:
    day = earth.day_number(when)

    def numbers(band: str) -> Callable[..., np.ndarray[Any, Any]]:
        return lambda x, y: earth.landsat(band, x, y, day).astype(np.uint16)

    corner, shape = (_LANDSAT_LEFT, _LANDSAT_TOP), (_LANDSAT_SIZE, _LANDSAT_SIZE)
    images = tuple(
        Image(
            band, f"EPSG:{EPSG}", corner, 30, shape, numbers(band), 1 if band == "qa_pixel" else 0
        )
        for band in LANDSAT_BANDS
    )
    properties = {
        **_taken(when),
        "platform": "landsat-8",
        "eo:cloud_cover": cloud,
        "landsat:wrs_path": str(path),
        "landsat:wrs_row": "032",
    }
    return Scene(
        f"LC08_L2SP_{path}032_{when:%Y%m%d}_02_T1", "landsat-c2-l2", images, properties, there
    )


def elevation() -> Iterator[Scene]:
    """Two tiles that meet at `SEAM`; like the real ones they declare no nodata."""
    for name, west, east in (("E023", 23.85, SEAM), ("E024", SEAM, 24.15)):
        shape = (round(0.25 / _SECOND), round((east - west) / _SECOND))
        image = Image("data", "EPSG:4326", (west, 40.68), _SECOND, shape,
                      lambda x, y: earth.elevation(x, y).astype(np.float32))  # fmt: skip
        yield Scene(
            f"DEM_N40_{name}", "cop-dem-glo-30", (image,), {"datetime": "2021-04-22T00:00:00Z"}
        )


def land_cover() -> Iterator[Scene]:
    """The map of the year, and that of the year before, which is not there."""
    for year in (YEAR, YEAR - 1):
        image = Image("data", f"EPSG:{EPSG}", (LEFT - 2000, TOP + 2000), 10, ((SIDE + 4000) // 10,) * 2,
                      lambda x, y: earth.land_class(x, y).astype(np.uint8), 0)  # fmt: skip
        span = {
            "datetime": None,
            "start_datetime": f"{year}-01-01T00:00:00Z",
            "end_datetime": f"{year + 1}-01-01T00:00:00Z",
        }
        yield Scene(f"34T-{year}", "io-lulc-annual-v02", (image,), span, there=year == YEAR)


def _taken(when: datetime) -> dict[str, str]:
    return {"datetime": f"{when:%Y-%m-%dT%H:%M:%SZ}"}


def records() -> list[CollectionRecord]:
    """The collections of the sandbox: as the Planetary Computer has them, but open to all."""
    wanted = ("sentinel-1-rtc", "landsat-c2-l2", "cop-dem-glo-30", "io-lulc-annual-v02")
    known = {(record.provider, record.id): record for record in known_records()}
    ours = [known["planetary-computer", name] for name in wanted]
    return [
        known["earth-search", "sentinel-2-l2a"],
        *(one.model_copy(update={"signing": "none"}) for one in ours),
    ]


def aois() -> dict[str, Any]:
    """Areas of interest: west and east of the tile, one that nobody has seen, one that crosses itself, an empty one."""
    to_lonlat = Transformer.from_crs(EPSG, 4326, always_xy=True)

    def ground(left: float, right: float) -> dict[str, Any]:
        square = box(LEFT + left, TOP - SIDE + 100, LEFT + right, TOP - 100)
        return dict(mapping(shapely.transform(square, to_lonlat.transform, interleaved=False)))

    bow = {
        "type": "Polygon",
        "coordinates": [[[24, 40], [24.1, 40.1], [24.1, 40], [24, 40.1], [24, 40]]],
    }
    far = dict(mapping(box(100.0, 10.0, 100.1, 10.1)))
    geometries = [
        ground(100, 7800),
        ground(7800, SIDE - 100),
        far,
        bow,
        {"type": "Polygon", "coordinates": []},
    ]
    names = ("west", "east", "far away", "bow tie", "empty")
    features = [
        {"type": "Feature", "properties": {"name": name}, "geometry": geometry}
        for name, geometry in zip(names, geometries, strict=True)
    ]
    return {"type": "FeatureCollection", "features": features}


def write_landcover(folder: Path, href: str | None = None) -> Path:
    """Scenes with their catalogue and `aois.geojson` under `folder`; gives the path of the ItemCollection."""
    folder.mkdir(parents=True, exist_ok=True)
    base = str(folder.resolve()) if href is None else href
    optical = list(sentinel_2())
    others = [*sentinel_1(), *landsat(), *elevation(), *land_cover()]
    for scene, taken in optical:
        if taken:
            scene.write(folder)
    for other in others:
        if other.there:
            other.write(folder)
    (folder / "aois.geojson").write_text(json.dumps(aois()))
    items = [*(scene.item(base) for scene, _ in optical), *(one.item(base) for one in others)]
    return write_catalogue(folder, base, items)
