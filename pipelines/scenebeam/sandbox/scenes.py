"""Sentinel-2-like scenes of the synthetic Earth, with the peculiarities of real archives.

By default, tiles in two UTM zones on two dates: one is cut by the edge of the swath, one comes in
two processings, and pixels after 2022-01-25 carry BOA_ADD_OFFSET.
"""

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
from scenebeam.sandbox.earth import Array

COLLECTION = "sentinel-2-l2a"
AREA = (23.93, 40.55, 24.07, 40.63)
"""West, south, east and north of an area that all tiles cover, across UTM zones 34 and 35."""
DATES = "2021-06-01/2022-07-01"
_PIXELS_AT_ONCE = 2**21
BOA_ADD_OFFSET = 1000
"""What pixels carry since processing baseline 04.00."""


@dataclass(frozen=True)
class SandboxScene:
    """A Sentinel-2 scene: its tile, its date, and its peculiarities."""

    tile: str
    epsg: int
    left: int
    top: int
    acquired: datetime
    baseline: str = "03.00"
    processed: str = "2021-06-20T00:00:00Z"
    cloud_cover: float = 10.0
    cut: bool = False
    """Whether the swath ends inside the tile: there is no data right of a diagonal."""
    error: int = 0
    """Added to all pixels of an older processing, which must not be selected."""
    size: int = 1024
    """Width and height in pixels of 10 m."""

    @property
    def id(self) -> str:
        """Id of the item, in the form of Earth Search."""
        return f"S2A_{self.tile}_{self.acquired:%Y%m%d}_{0 if self.error else 1}_L2A"

    @property
    def add_offset(self) -> int:
        """Offset of the pixels, by the processing baseline."""
        return BOA_ADD_OFFSET if self.baseline >= "04.00" else 0

    def pixel_centers(self, resolution: int) -> tuple[Array, Array]:
        """Return the centers of all pixels as an open mesh.

        Args:
            resolution: Meters per pixel.

        Returns:
            Eastings of shape (1, n) and northings of shape (n, 1), in whole meters.
        """
        count = self.size * 10 // resolution
        x = self.left + resolution // 2 + resolution * np.arange(count)
        y = self.top - resolution // 2 - resolution * np.arange(count)
        return x[None, :], y[:, None]

    def digital_numbers(self, band: str) -> Array:
        """Return a band as its file has it, with 0 for nodata; uint16, or uint8 for `scl`."""
        x, y = self.pixel_centers(earth.BANDS[band])
        added = 0 if band == "scl" else self.add_offset + self.error
        numbers = np.zeros((y.size, x.size), np.uint8 if band == "scl" else np.uint16)
        # Some rows at a time: the landscape takes many times the memory of a band.
        step = max(1, _PIXELS_AT_ONCE // x.size)
        for top in range(0, y.size, step):
            rows = y[top : top + step]
            pixels = earth.pixel(band, x, rows, earth.day_number(self.acquired)) + added
            numbers[top : top + step] = np.where(self.is_valid(x, rows), pixels, 0)
        return numbers

    def is_valid(self, easting: Array, northing: Array) -> Array:
        """Return where the scene has data, for places inside the tile. Boolean."""
        if not self.cut:
            return np.ones(np.broadcast_shapes(easting.shape, northing.shape), bool)
        side = self.size * 10
        # The swath ends at a line from three quarters of the upper edge to one quarter of the
        # lower edge. Multiplied by two, it can be computed in integers.
        return np.asarray((easting - self.left) * 2 < side * 3 // 2 - (self.top - northing))

    @property
    def footprint(self) -> Polygon:
        """Where the scene has data, in its CRS."""
        side = self.size * 10
        left, top, right, bottom = self.left, self.top, self.left + side, self.top - side
        if self.cut:
            corners = [(left, top), (left + side * 3 // 4, top), (left + side // 4, bottom)]
        else:
            corners = [(left, top), (right, top), (right, bottom)]
        return Polygon([*corners, (left, bottom)])

    def item(self, href: str) -> dict[str, Any]:
        """Return the scene as a STAC item.

        Args:
            href: Folder or URL that contains the scene's folder.
        """
        to_lonlat = Transformer.from_crs(self.epsg, 4326, always_xy=True)
        footprint = shapely.transform(
            shapely.segmentize(self.footprint, 500), to_lonlat.transform, interleaved=False
        )
        start, day = f"{self.acquired:%Y%m%dT%H%M%S}", earth.day_number(self.acquired)
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
                "datetime": f"{self.acquired:%Y-%m-%dT%H:%M:%SZ}",
                "platform": "sentinel-2a",
                "constellation": "sentinel-2",
                "eo:cloud_cover": self.cloud_cover,
                "grid:code": f"MGRS-{self.tile}",
                "proj:code": f"EPSG:{self.epsg}",
                "proj:epsg": self.epsg,
                "s2:datatake_id": f"GS2A_{start}_{day:06d}_N{self.baseline}",
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
        """Write the COGs of the scene into `folder/<id>/`.

        Args:
            folder: Parent of the scene's folder.
            bands: Bands to write.
            block: Block size of the COGs in pixels.
        """
        (folder / self.id).mkdir(parents=True, exist_ok=True)
        corner = (float(self.left), float(self.top))
        for band in bands:
            path = folder / self.id / f"{band}.tif"
            pixels, crs = self.digital_numbers(band), f"EPSG:{self.epsg}"
            write_image(path, pixels, crs, corner, earth.BANDS[band], block)


def write_image(
    path: Path,
    pixels: Array,
    crs: str,
    corner: tuple[float, float],
    resolution: float,
    block: int,
    nodata: float | None = 0,
) -> None:
    """Write a COG with one band, by GDAL's COG driver rather than by scenebeam's own writer.

    Args:
        path: The file.
        pixels: Array of shape (rows, columns).
        crs: CRS of the file.
        corner: x and y of the upper left corner.
        resolution: Size of a pixel in units of the CRS.
        block: Block size in pixels.
        nodata: Nodata value of the file.
    """
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
    # Before baseline 04.00: three tiles, one cut by the swath, one in the next UTM zone.
    SandboxScene("34TGL", 32634, 745_000, 4_502_000, _BEFORE, cloud_cover=5.0),
    SandboxScene("34TGK", 32634, 745_000, 4_494_000, _BEFORE, cloud_cover=8.0, cut=True),
    SandboxScene("35TKF", 32635, 244_000, 4_502_000, _BEFORE, cloud_cover=12.0),
    # After it: pixels carry the offset. One tile has an older processing, whose pixels are wrong.
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
    """Write scenes and their catalog.

    Args:
        folder: Where they are written.
        href: Folder or URL of the assets in the items; by default `folder`.
        scenes: The scenes.

    Returns:
        The path of an ItemCollection, `items.json`. A static catalog is next to it:
        `catalog.json`.
    """
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda scene: scene.write(folder), scenes))
    base = str(folder.resolve()) if href is None else href
    return write_catalog(folder, base, [scene.item(base) for scene in scenes])


def write_catalog(folder: Path, base: str, items: Sequence[dict[str, Any]]) -> Path:
    """Write items as an ItemCollection, `items.json`, and as a static catalog, `catalog.json`.

    The static catalog has relative hrefs, so it remains valid wherever the folder is moved or
    served.

    Args:
        folder: Where they are written.
        base: Folder or URL below which the hrefs of the items are.
        items: STAC items.

    Returns:
        The path of the ItemCollection.
    """
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    links = []
    for item in items:
        (folder / item["id"]).mkdir(exist_ok=True)
        assets = {}
        for name, asset in item["assets"].items():
            relative = asset["href"].replace(f"{base}/{item['id']}/", "./", 1)
            assets[name] = {**asset, "href": relative}
        (folder / item["id"] / "item.json").write_text(json.dumps({**item, "assets": assets}))
        href = f"./{item['id']}/item.json"
        links.append({"rel": "item", "href": href, "type": "application/json"})
    catalog = {
        "type": "Catalog",
        "stac_version": "1.0.0",
        "id": "sandbox",
        "description": "A small synthetic Earth",
        "links": links,
    }
    (folder / "catalog.json").write_text(json.dumps(catalog))
    return folder / "items.json"
