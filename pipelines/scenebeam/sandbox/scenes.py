"""The sandbox's scenes: tiles in two UTM zones on two dates, with the oddities that real archives have."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from affine import Affine
from pyproj import Transformer
from shapely.geometry import Polygon, mapping

from scenebeam.sandbox import earth

COLLECTION = "sentinel-2-l2a"
AREA = (23.93, 40.55, 24.07, 40.63)
"""West, south, east, north of a box that all tiles share, across the seam of UTM zones 34 and 35."""
DATES = "2021-06-01/2022-07-01"
SHIFT = 1000


@dataclass(frozen=True)
class SandboxScene:
    """One scene: where it lies, when it was taken, and what is odd in it."""

    tile: str
    epsg: int
    left: int
    top: int
    taken: datetime
    baseline: str = "03.00"
    processed: str = "2021-06-20T00:00:00Z"
    cloud_cover: float = 10.0
    cut: bool = False
    """The swath ends inside the tile: nothing right of a diagonal."""
    error: int = 0
    """Added to every pixel: an older processing that must not be taken."""
    size: int = 1024
    """Pixels of 10 m to a side."""

    @property
    def id(self) -> str:
        """As Earth Search names scenes."""
        return f"S2A_{self.tile}_{self.taken:%Y%m%d}_{0 if self.error else 1}_L2A"

    @property
    def shift(self) -> int:
        """What its pixels carry on top of the harmonized number."""
        return SHIFT if self.baseline >= "04.00" else 0

    def centres(self, resolution: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Easting (1, n) and northing (n, 1) of every pixel's centre, whole metres: an open mesh."""
        count = self.size * 10 // resolution
        x = self.left + resolution // 2 + resolution * np.arange(count)
        y = self.top - resolution // 2 - resolution * np.arange(count)
        return x[None, :], y[:, None]

    def numbers(self, band: str) -> np.ndarray[Any, Any]:
        """A band as its file holds it, 0 where there is no data."""
        resolution = earth.BANDS[band]
        x, y = self.centres(resolution)
        pixels = earth.pixel(band, x, y, earth.day_number(self.taken))
        if band != "scl":
            pixels = pixels + self.shift + self.error
        return np.where(self.seen(x, y), pixels, 0).astype(np.uint8 if band == "scl" else np.uint16)

    def seen(
        self, easting: np.ndarray[Any, Any], northing: np.ndarray[Any, Any]
    ) -> np.ndarray[Any, Any]:
        """Whether the sensor saw a place of the tile. Boolean."""
        if not self.cut:
            return np.ones(np.broadcast_shapes(easting.shape, northing.shape), bool)
        side = self.size * 10
        # Right of a line from three quarters along the upper edge to one quarter along the lower.
        return np.asarray((easting - self.left) * 2 < side * 3 // 2 - (self.top - northing))

    @property
    def outline(self) -> Polygon:
        """Where the scene has data, in its own CRS."""
        side = self.size * 10
        right, bottom = self.left + side, self.top - side
        if self.cut:
            return Polygon(
                [
                    (self.left, self.top),
                    (self.left + side * 3 // 4, self.top),
                    (self.left + side // 4, bottom),
                    (self.left, bottom),
                ]
            )
        return Polygon(
            [(self.left, self.top), (right, self.top), (right, bottom), (self.left, bottom)]
        )

    def item(self, href: str) -> dict[str, Any]:
        """The scene as a STAC item, its files under the folder or URL `href`."""
        to_lonlat = Transformer.from_crs(self.epsg, 4326, always_xy=True)
        footprint = shapely.transform(
            shapely.segmentize(self.outline, 500), to_lonlat.transform, interleaved=False
        )
        start = f"{self.taken:%Y%m%dT%H%M%S}"
        return {
            "type": "Feature",
            "stac_version": "1.0.0",
            "stac_extensions": [],
            "id": self.id,
            "collection": COLLECTION,
            "geometry": mapping(footprint),
            "bbox": list(footprint.bounds),
            "links": [],
            "properties": {
                "datetime": f"{self.taken:%Y-%m-%dT%H:%M:%SZ}",
                "platform": "sentinel-2a",
                "constellation": "sentinel-2",
                "eo:cloud_cover": self.cloud_cover,
                "grid:code": f"MGRS-{self.tile}",
                "proj:code": f"EPSG:{self.epsg}",
                "proj:epsg": self.epsg,
                "s2:datatake_id": f"GS2A_{start}_{earth.day_number(self.taken):06d}_N{self.baseline}",
                "s2:processing_baseline": self.baseline,
                "s2:generation_time": self.processed,
                "s2:nodata_pixel_percentage": 50.0 if self.cut else 0.0,
                "earthsearch:boa_offset_applied": False,
            },
            "assets": {band: self._asset(band, href) for band in earth.BANDS},
        }

    def _asset(self, band: str, href: str) -> dict[str, Any]:
        resolution = earth.BANDS[band]
        side = self.size * 10 // resolution
        return {
            "href": f"{href}/{self.id}/{band}.tif",
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "roles": ["data"],
            "proj:shape": [side, side],
            "proj:transform": [resolution, 0, self.left, 0, -resolution, self.top],
            "raster:bands": [{"nodata": 0, "data_type": "uint8" if band == "scl" else "uint16"}],
        }

    def write(
        self, folder: Path, bands: Sequence[str] = tuple(earth.BANDS), block: int = 256
    ) -> None:
        """Write the scene's COGs with GDAL's own driver, under `folder/<id>/`."""
        (folder / self.id).mkdir(parents=True, exist_ok=True)
        for band in bands:
            path = folder / self.id / f"{band}.tif"
            corner = (float(self.left), float(self.top))
            write_image(
                path, self.numbers(band), f"EPSG:{self.epsg}", corner, earth.BANDS[band], block
            )


def write_image(
    path: Path,
    pixels: np.ndarray[Any, Any],
    crs: str,
    corner: tuple[float, float],
    resolution: float,
    block: int,
    nodata: float | None = 0,
) -> None:
    """A COG of one band by GDAL's own driver; `corner` is the upper left."""
    with rasterio.open(
        path,
        "w",
        driver="COG",
        height=pixels.shape[0],
        width=pixels.shape[1],
        count=1,
        dtype=pixels.dtype,
        crs=crs,
        transform=Affine(resolution, 0, corner[0], 0, -resolution, corner[1]),
        nodata=nodata,
        compress="deflate",
        predictor=3 if pixels.dtype.kind == "f" else 2,
        level=1,
        blocksize=block,
        overviews="AUTO",
    ) as file:
        file.write(pixels, 1)


_BEFORE = datetime(2021, 6, 10, 9, 20, 31)
_AFTER = datetime(2022, 6, 15, 9, 20, 29)

SCENES: tuple[SandboxScene, ...] = (
    # Before the offset change: three tiles, one cut by the edge of the swath, one in the next zone.
    SandboxScene("34TGL", 32634, 745_000, 4_502_000, _BEFORE, cloud_cover=5.0),
    SandboxScene("34TGK", 32634, 745_000, 4_494_000, _BEFORE, cloud_cover=8.0, cut=True),
    SandboxScene("35TKF", 32635, 244_000, 4_502_000, _BEFORE, cloud_cover=12.0),
    # After it: pixels carry 1000 more. One tile comes in two processings; the older is wrong by 7.
    SandboxScene("34TGL", 32634, 745_000, 4_502_000, _AFTER, "04.00", "2022-06-20T00:00:00Z", 0.0),
    SandboxScene(
        "34TGL", 32634, 745_000, 4_502_000, _AFTER, "04.00", "2022-06-16T00:00:00Z", 0.0, error=7
    ),
    SandboxScene("34TGK", 32634, 745_000, 4_494_000, _AFTER, "04.00", "2022-06-20T00:00:00Z", 3.0),
    SandboxScene("35TKF", 32635, 244_000, 4_502_000, _AFTER, "04.00", "2022-06-20T00:00:00Z", 20.0),
)


def write_sandbox(
    folder: Path, href: str | None = None, scenes: Sequence[SandboxScene] = SCENES
) -> Path:
    """Write scenes and their catalogue under `folder`; assets are named under `href` (default: the folder itself).

    Gives the path of an ItemCollection, `items.json`. A static catalogue lies beside it as `catalog.json`.
    """
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda scene: scene.write(folder), scenes))
    base = str(folder.resolve()) if href is None else href
    return write_catalogue(folder, base, [scene.item(base) for scene in scenes])


def write_catalogue(folder: Path, base: str, items: Sequence[dict[str, Any]]) -> Path:
    """Items as an ItemCollection, `items.json`, whose path is given, and as a static catalogue, `catalog.json`.

    The ItemCollection names files under `base`; the static catalogue by where they lie from each item, so that it is
    good wherever the folder lies, and whoever serves it.
    """
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    for item in items:
        (folder / item["id"]).mkdir(exist_ok=True)
        assets = {
            name: {**asset, "href": asset["href"].replace(f"{base}/{item['id']}/", "./", 1)}
            for name, asset in item["assets"].items()
        }
        (folder / item["id"] / "item.json").write_text(json.dumps({**item, "assets": assets}))
    catalog = {
        "type": "Catalog",
        "stac_version": "1.0.0",
        "id": "sandbox",
        "description": "A small synthetic Earth",
        "links": [
            {"rel": "item", "href": f"./{item['id']}/item.json", "type": "application/json"}
            for item in items
        ],
    }
    (folder / "catalog.json").write_text(json.dumps(catalog))
    return folder / "items.json"
