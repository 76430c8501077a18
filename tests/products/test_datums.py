"""Places drawn in any CRS are where PROJ says: of another datum, projected, or in another unit."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
from pyproj import CRS, Geod, Transformer

from scenebeam.catalog.area import area_geometry
from scenebeam.errors import RequestError
from scenebeam.execution.driver import run
from scenebeam.products.fields.boundaries import Faults, read_fields
from scenebeam.products.fields.lattice import chips_of_fields
from scenebeam.products.fields.request import ChipGridOptions
from scenebeam.products.landcover.aois import read_aois
from scenebeam.products.landcover.request import LandcoverRequest
from scenebeam.request import Area, RunRequest
from scenebeam.vectors.crs import lonlat_transformer

WGS84 = Geod(ellps="WGS84")
AUSTRIA = [
    shapely.box(15.03, 47.87, 15.04, 47.88),
    shapely.box(15.05, 47.87, 15.06, 47.885),
    shapely.Polygon([(15.045, 47.86), (15.06, 47.86), (15.055, 47.868)]),
]
FRANCE = [shapely.box(2.30, 48.80, 2.31, 48.81)]
GREECE = [shapely.box(23.96, 40.56, 23.97, 40.57)]
CLOSE = 1.0
"""Meters: PROJ knows several transformations of most datums, which differ by less."""
PLACES = [
    pytest.param("EPSG:4312", AUSTRIA, 90, id="MGI, degrees of another datum"),
    pytest.param("EPSG:31287", AUSTRIA, 90, id="MGI, projected"),
    pytest.param("EPSG:4121", GREECE, 100, id="GGRS87"),
    pytest.param("EPSG:4807", FRANCE, 90, id="NTF of Paris, grads from another meridian"),
    pytest.param("EPSG:32633", AUSTRIA, 90, id="UTM"),
    pytest.param("EPSG:3857", AUSTRIA, 90, id="web mercator"),
]


def drawn_in(crs: Any, polygons: list[Any]) -> list[Any]:
    """Polygons in degrees of WGS 84 → the same places in another CRS."""
    there = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    return [shapely.transform(one, there.transform, interleaved=False) for one in polygons]


def geoparquet(path: Path, polygons: list[Any], **crs: Any) -> str:
    column = {"encoding": "WKB", "geometry_types": ["Polygon"], **crs}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    table = pa.table({"geometry": shapely.to_wkb(np.array(polygons)).tolist()})
    pq.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), path)
    return str(path)


def geojson(path: Path, polygons: list[Any], crs: Any = None) -> str:
    features = []
    for number, one in enumerate(polygons):
        geometry = shapely.geometry.mapping(one)
        features.append({"type": "Feature", "id": number, "properties": {}, "geometry": geometry})
    member = {} if crs is None else {"crs": crs}
    path.write_text(json.dumps({"type": "FeatureCollection", **member, "features": features}))
    return str(path)


def named(name: str) -> dict[str, Any]:
    return {"type": "name", "properties": {"name": name}}


def urn(code: str) -> dict[str, Any]:
    return named(f"urn:ogc:def:crs:EPSG::{code.removeprefix('EPSG:')}")


def fields_of(path: str) -> list[Any]:
    return [one for _, found in read_fields(path, Faults()) for one in found]


def metres_apart(some: list[Any], others: list[Any]) -> float:
    """The farthest that a vertex of the one lies from the nearest vertex of the other."""
    here, there = shapely.get_coordinates(some), shapely.get_coordinates(others)
    assert here.shape == there.shape
    farthest = 0.0
    for x, y in here:
        aside = np.full(len(there), x), np.full(len(there), y)
        farthest = max(farthest, float(np.min(WGS84.inv(*aside, *there.T)[2])))
    return farthest


@pytest.mark.parametrize(("crs", "polygons", "least"), PLACES)
@pytest.mark.parametrize("form", ["geoparquet", "urn", "name", "code"])
def test_fields_of_any_crs_lie_where_proj_says(
    tmp_path: Path, crs: str, polygons: list[Any], least: float, form: str
) -> None:
    there = drawn_in(crs, polygons)
    code = crs.removeprefix("EPSG:")
    if form == "geoparquet":
        path = geoparquet(tmp_path / "f.parquet", there, crs=CRS(crs).to_json_dict())
    else:
        members = {
            "urn": urn(crs),
            "name": named(crs),
            "code": {"type": "EPSG", "properties": {"code": int(code)}},
        }
        path = geojson(tmp_path / "f.geojson", there, members[form])
    assert metres_apart(fields_of(path), polygons) < CLOSE
    if CRS(crs).is_geographic and crs != "EPSG:4807":
        assert metres_apart(there, polygons) > least, "as WGS 84 it would be elsewhere"


@pytest.mark.parametrize("crs", ["EPSG:4326", "OGC:CRS84", "EPSG:4979", "EPSG:4258", "EPSG:4269"])
def test_where_proj_moves_nothing_not_one_bit_changes(tmp_path: Path, crs: str) -> None:
    """WGS 84 itself, and ETRS89 and NAD83 by the null transformations of EPSG."""
    polygons = [shapely.box(15.0301234567891, 47.8700000000001, 15.04, 47.88)]
    as_parquet = geoparquet(tmp_path / "f.parquet", polygons, crs=CRS(crs).to_json_dict())
    assert shapely.equals_exact(fields_of(as_parquet), polygons).all()
    as_json = geojson(tmp_path / "f.geojson", polygons, named(crs))
    assert shapely.equals_exact(fields_of(as_json), polygons).all()


def test_without_a_crs_coordinates_are_longitude_and_latitude(tmp_path: Path) -> None:
    for path in (
        geoparquet(tmp_path / "a.parquet", AUSTRIA),
        geoparquet(tmp_path / "b.parquet", AUSTRIA, crs=None),
        geojson(tmp_path / "a.geojson", AUSTRIA),
        geojson(tmp_path / "b.geojson", AUSTRIA, named("urn:ogc:def:crs:OGC:1.3:CRS84")),
    ):
        assert shapely.equals_exact(fields_of(path), AUSTRIA).all()


@pytest.mark.parametrize("form", ["geoparquet", "geojson"])
def test_chips_and_masks_of_mgi_are_those_of_its_wgs84_twin(
    fields_request: Callable[..., RunRequest], tmp_path: Path, form: str
) -> None:
    there = drawn_in("EPSG:4312", AUSTRIA)
    if form == "geoparquet":
        mgi = geoparquet(tmp_path / "mgi.parquet", there, crs=CRS("EPSG:4312").to_json_dict())
        twin = geoparquet(tmp_path / "twin.parquet", AUSTRIA)
    else:
        mgi = geojson(tmp_path / "mgi.geojson", there, urn("EPSG:4312"))
        twin = geojson(tmp_path / "twin.geojson", AUSTRIA)
    chips = []
    for path in (mgi, twin):
        found = chips_of_fields(path, ChipGridOptions(size=160), 2024).chips
        chips.append([(chip.name, chip.crs, chip.transform) for chip in found])
    assert chips[0] == chips[1]
    masks = []
    for name, path in (("mgi", mgi), ("twin", twin)):
        output = tmp_path / name
        changes = {"product.boundaries": path, "product.images": "none", "output": str(output)}
        request = fields_request(**changes, **{"product.crop_calendar": None})
        assert run(request).state == "succeeded"
        masks.append({file.name: file for file in sorted(output.glob("*/*.tif"))})
    assert masks[0].keys() == masks[1].keys()
    assert masks[0]
    for name in masks[0]:
        with rasterio.open(masks[0][name]) as one, rasterio.open(masks[1][name]) as other:
            assert (one.crs, one.transform) == (other.crs, other.transform)
            # Half a meter moves a few pixel centers over an edge, 94 m thousands of them.
            assert np.count_nonzero(one.read() != other.read()) <= 40, name


@pytest.mark.parametrize(
    "crs",
    [
        {"type": "link", "properties": {"href": "https://example.com/crs.prj"}},
        {"type": "name"},
        named("urn:ogc:def:crs:EPSG::99999999"),
        named("nonsense"),
        "EPSG:4312",
    ],
)
def test_a_crs_that_cannot_be_used_is_refused(tmp_path: Path, crs: Any) -> None:
    path = geojson(tmp_path / "f.geojson", AUSTRIA, crs)
    with pytest.raises(RequestError, match=r"product\.boundaries: .*f\.geojson: .*CRS"):
        fields_of(path)
    with pytest.raises(RequestError, match=r"product\.aois: .*f\.geojson: .*CRS"):
        read_aois(LandcoverRequest(kind="landcover", aois=path))


def test_a_datum_that_proj_does_not_know_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        lonlat_transformer("+proj=longlat +ellps=bessel")
    assert "knows no datum transformation" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        for known in ("EPSG:4312", "EPSG:32633", "EPSG:4258", "EPSG:4267"):
            lonlat_transformer(known)
    assert caplog.text == ""


@pytest.mark.parametrize(("crs", "polygons", "least"), PLACES)
def test_areas_of_interest_of_any_crs_lie_where_proj_says(
    tmp_path: Path, crs: str, polygons: list[Any], least: float
) -> None:
    path = geojson(tmp_path / "aois.geojson", drawn_in(crs, polygons), urn(crs))
    found = read_aois(LandcoverRequest(kind="landcover", aois=path))
    assert [aoi.fault for aoi in found] == [""] * len(polygons)
    areas = [aoi.area.geoms[0] for aoi in found if aoi.area is not None]
    assert len(areas) == len(found)
    assert metres_apart(areas, polygons) < CLOSE


@pytest.mark.parametrize(("crs", "polygons", "least"), PLACES)
def test_an_area_with_a_crs_lies_where_proj_says(
    crs: str,
    polygons: list[Any],
    least: float,
) -> None:
    (there,) = drawn_in(crs, polygons[:1])
    geometry = {**shapely.geometry.mapping(there), "crs": urn(crs)}
    found = area_geometry(Area(geometry=geometry))
    assert metres_apart([found.geoms[0]], polygons[:1]) < CLOSE


def test_a_projected_area_without_a_crs_is_still_refused() -> None:
    (there,) = drawn_in("EPSG:32633", AUSTRIA[:1])
    with pytest.raises(RequestError, match="not in meters"):
        area_geometry(Area(geometry=shapely.geometry.mapping(there)))
