"""Features that cannot be used are left out and named; no file of them ends in a traceback."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from scenebeam.catalog.area import area_geometry
from scenebeam.errors import RequestError
from scenebeam.execution.driver import run
from scenebeam.products.fields.boundaries import Faults, _SeenIds, read_fields
from scenebeam.products.fields.lattice import chips_of_fields
from scenebeam.products.fields.request import ChipGridOptions
from scenebeam.products.landcover.aois import Aoi, read_aois
from scenebeam.products.landcover.request import LandcoverRequest
from scenebeam.request import Area, RunRequest
from scenebeam.vectors import read_area
from vector_files import collection, feature, write_vectors

GOOD = shapely.box(15.03, 47.87, 15.04, 47.88)
BOWTIE = shapely.Polygon([(10, 50), (10.01, 50.01), (10.01, 50), (10, 50.01)])
LINE = shapely.LineString([(10, 50), (10.01, 50)])
FLAT = shapely.Polygon([(15.07, 47.9), (15.08, 47.9), (15.09, 47.9)])
SAME_PLACE = shapely.Polygon([(15.07, 47.9)] * 4)


def polygon(*ring: list[Any]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [list(ring)]}


NOT_FINITE = "has a coordinate that is not a number"
WIDE = "is wider than half the Earth"
UNUSABLE = [
    pytest.param(FLAT, r"has no inside: Self-intersection.*", id="a polygon that is a line"),
    pytest.param(SAME_PLACE, r"has no inside: .*", id="a polygon that is a point"),
    pytest.param(
        shapely.MultiPolygon([FLAT, SAME_PLACE]),
        r"has no inside: .*",
        id="a multipolygon of lines",
    ),
    pytest.param(
        shapely.Point(10, 50),
        "is a Point with nothing inside: give a polygon",
        id="point",
    ),
    pytest.param(
        shapely.MultiPoint([(1, 2), (3, 4)]),
        "is a MultiPoint with nothing inside: give a polygon",
        id="points",
    ),
    pytest.param(LINE, "is a LineString with nothing inside: give a polygon", id="line"),
    pytest.param(
        shapely.MultiLineString([LINE]),
        "is a MultiLineString with nothing.*",
        id="lines",
    ),
    pytest.param(
        shapely.GeometryCollection([LINE]),
        "is a GeometryCollection with nothing.*",
        id="collection of lines",
    ),
    pytest.param(polygon([10, 50], [math.nan, 50], [10, 51], [10, 50]), NOT_FINITE, id="NaN"),
    pytest.param(polygon([10, 50], [math.inf, 50], [10, 51], [10, 50]), NOT_FINITE, id="inf"),
    pytest.param(polygon([10, 50], [10, -math.inf], [10, 51], [10, 50]), NOT_FINITE, id="-inf"),
    pytest.param(
        polygon([10, 50], [11, 50], [10, 50]),
        "is not GeoJSON: .*|has no inside.*",
        id="three points",
    ),
    pytest.param(polygon([10, 50], [11]), "is not GeoJSON: .*", id="one coordinate"),
    pytest.param(
        polygon(["a", "b"], [11, 50], [11, 51]),
        "is not GeoJSON: .*",
        id="text for numbers",
    ),
    pytest.param(
        polygon([10**400, 50], [11, 50], [11, 51], [10, 50]),
        ".*(not GeoJSON|not a number).*",
        id="huge number",
    ),
    pytest.param(
        {"type": "Hexagon", "coordinates": [[1, 2]]},
        "is not GeoJSON: .*",
        id="unknown type",
    ),
    pytest.param({"type": 7}, "is not GeoJSON: .*", id="type that is a number"),
    pytest.param({"coordinates": [[1, 2]]}, "is not GeoJSON: .*", id="no type"),
    pytest.param("POLYGON EMPTY", "is not GeoJSON: .*", id="text"),
    pytest.param([1, 2], "is not GeoJSON: .*", id="list"),
    pytest.param(shapely.segmentize(shapely.box(-170, 0, 170, 1), 10), WIDE, id="very wide"),
    pytest.param(shapely.segmentize(shapely.box(-180, -90, 180, -70), 10), WIDE, id="a pole"),
]
EMPTY = [
    pytest.param(None, id="null"),
    pytest.param(shapely.Polygon(), id="empty polygon"),
    pytest.param(shapely.MultiPolygon(), id="empty multipolygon"),
    pytest.param(shapely.GeometryCollection(), id="empty collection"),
    pytest.param({"type": "Polygon", "coordinates": []}, id="no rings"),
    pytest.param({"type": "Polygon", "coordinates": None}, id="null coordinates"),
    pytest.param({"type": "Polygon"}, id="no coordinates"),
]


def document(tmp_path: Path, *geometries: Any) -> str:
    features = [feature(one, f"n{number}") for number, one in enumerate(geometries)]
    (tmp_path / "f.geojson").write_text(json.dumps(collection(*features)))
    return str(tmp_path / "f.geojson")


def fields_of(path: str) -> tuple[list[int], list[Any], list[tuple[int, Any, str]]]:
    """Numbers, polygons, and the rows of the table of faults."""
    faults, numbers, found = Faults(), [], []
    for some, polygons in read_fields(path, faults):
        numbers += some.tolist()
        found += polygons.tolist()
    return numbers, found, [(row["field"], row["id"], row["fault"]) for row in faults.rows]


def aois_of(path: str) -> list[Aoi]:
    return read_aois(LandcoverRequest(kind="landcover", aois=path))


@pytest.mark.parametrize(("geometry", "told"), UNUSABLE)
def test_a_field_that_cannot_be_used_is_left_out_and_listed(
    tmp_path: Path,
    geometry: Any,
    told: str,
) -> None:
    path = document(tmp_path, GOOD, geometry, GOOD)
    numbers, found, faults = fields_of(path)
    assert numbers == [1, 3]
    assert all(one.equals(GOOD) for one in found)
    ((number, name, fault),) = faults
    assert (number, name) == (2, "n1")
    assert fault.endswith(": left out")
    assert re.fullmatch(told, fault.removesuffix(": left out"))
    assert chips_of_fields(path, ChipGridOptions(), 2024).faults.rows


@pytest.mark.parametrize("geometry", EMPTY)
def test_a_field_without_a_geometry_is_left_out_and_listed(tmp_path: Path, geometry: Any) -> None:
    numbers, _, faults = fields_of(document(tmp_path, GOOD, geometry))
    assert numbers == [1]
    assert faults == [(2, "n1", "no geometry: left out")]


@pytest.mark.parametrize(("geometry", "told"), UNUSABLE)
def test_an_area_of_interest_that_cannot_be_used_says_why(
    tmp_path: Path,
    geometry: Any,
    told: str,
) -> None:
    good, bad = aois_of(document(tmp_path, GOOD, geometry))
    assert (good.fault, good.name) == ("", "n0")
    assert bad.area is None
    assert re.fullmatch(f"its geometry (?:{told})", bad.fault)
    with pytest.raises(RequestError, match="none of 1 areas can be used; the first: its geometry"):
        aois_of(document(tmp_path, geometry))


@pytest.mark.parametrize("geometry", EMPTY)
def test_an_area_of_interest_without_a_geometry_says_so(tmp_path: Path, geometry: Any) -> None:
    assert [aoi.fault for aoi in aois_of(document(tmp_path, GOOD, geometry))] == [
        "",
        "its geometry is empty",
    ]


@pytest.mark.parametrize(
    ("geometry", "told"),
    [one for one in UNUSABLE if one.id not in ("very wide", "a pole")],
)
def test_what_of_an_area_is_left_out_is_named(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    geometry: Any,
    told: str,
) -> None:
    with caplog.at_level(logging.WARNING):
        found = read_area(document(tmp_path, GOOD, geometry))
    assert found["type"] == "GeometryCollection"
    assert re.search(rf"left out: feature 2 \(id n1\) (?:{told})", caplog.text)
    with pytest.raises(RequestError, match=r"holds no polygon: feature 1 \(id n0\)"):
        read_area(document(tmp_path, geometry))


@pytest.mark.parametrize("geometry", EMPTY)
def test_what_of_an_area_has_no_geometry_is_named(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    geometry: Any,
) -> None:
    with caplog.at_level(logging.WARNING):
        read_area(document(tmp_path, GOOD, geometry))
    assert "left out: feature 2 (id n1) is empty" in caplog.text
    with pytest.raises(RequestError, match=r"holds no polygon: feature 1 \(id n0\) is empty"):
        read_area(document(tmp_path, geometry))


@pytest.mark.parametrize(
    "bounds",
    [(500_000, 5_000_000, 500_100, 5_000_100), (10, 89, 11, 91), (359, 0, 361, 1)],
)
def test_places_that_are_not_in_degrees_are_refused_in_words(
    tmp_path: Path,
    bounds: tuple[float, ...],
) -> None:
    path = document(tmp_path, GOOD, shapely.box(*bounds))
    with pytest.raises(
        RequestError,
        match=r"field 2 \(id n1\) is outside the Earth: is its CRS",
    ):
        fields_of(path)
    with pytest.raises(
        RequestError,
        match=r"feature 2 \(id n1\) is not in degrees of longitude and latitude",
    ):
        read_area(path)
    good, bad = aois_of(path)
    assert good.fault == ""
    assert bad.fault == "its geometry is not in degrees of longitude and latitude (WGS 84)"


def test_a_hole_beyond_the_earth_is_outside_too(tmp_path: Path) -> None:
    """GEOS takes the bounds of a polygon from its outer ring."""
    holed = shapely.Polygon(GOOD.exterior, [shapely.box(5000, 1, 6000, 2).exterior])
    with pytest.raises(RequestError, match="field 2 .*is outside the Earth"):
        fields_of(document(tmp_path, GOOD, holed))
    assert "not in degrees" in aois_of(document(tmp_path, GOOD, holed))[1].fault


def test_a_hole_beyond_the_antimeridian_costs_its_field(tmp_path: Path) -> None:
    holed = shapely.Polygon(GOOD.exterior, [shapely.box(240, 47.1, 242, 47.2).exterior])
    path = document(tmp_path, GOOD, holed)
    numbers, _, ((number, _, fault),) = fields_of(path)
    assert (numbers, number) == ([1], 2)
    assert fault.startswith("cannot be split at the antimeridian")
    area = area_geometry(Area(geometry=read_area(path)))
    assert area.equals(GOOD)


def test_places_that_proj_cannot_bring_to_degrees_are_refused_in_words(tmp_path: Path) -> None:
    path = write_vectors(
        tmp_path / "f.geojson",
        [shapely.box(1e12, 1e12, 2e12, 2e12)],
        crs="EPSG:32633",
    )
    with pytest.raises(RequestError, match="outside the Earth"):
        fields_of(path)
    with pytest.raises(RequestError, match="not in degrees"):
        aois_of(path)


def test_a_file_without_a_field_that_can_be_used_names_the_first(tmp_path: Path) -> None:
    with pytest.raises(
        RequestError,
        match=r"no field of .* can be used; the first: field 1 \(id n0\) has no inside",
    ):
        fields_of(document(tmp_path, FLAT, None))
    with pytest.raises(RequestError, match=r"no field of .*f\.geojson can be used$"):
        fields_of(document(tmp_path))
    with pytest.raises(RequestError, match="holds no polygon: it has no features"):
        read_area(document(tmp_path))
    with pytest.raises(RequestError, match="no area of .* is left"):
        aois_of(document(tmp_path))


def test_members_of_a_collection_that_are_no_features(tmp_path: Path) -> None:
    (tmp_path / "f.geojson").write_text(
        json.dumps(collection(feature(GOOD), None, "x", [1], {}, feature(GOOD))),
    )
    path = str(tmp_path / "f.geojson")
    assert fields_of(path)[0] == [1, 6]
    assert [bool(aoi.fault) for aoi in aois_of(path)] == [False, True, True, True, True, False]
    assert len(read_area(path)["geometries"]) == 2
    (tmp_path / "f.geojson").write_text(
        json.dumps(collection(shapely.geometry.mapping(GOOD), feature(GOOD))),
    )
    assert len(read_area(path)["geometries"]) == 2


def test_fields_and_areas_that_cross_themselves_are_made_valid(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = document(tmp_path, BOWTIE)
    _, (found,), ((number, _, fault),) = fields_of(path)
    assert (number, fault.split(":")[0]) == (1, "made valid")
    with caplog.at_level(logging.WARNING):
        area = area_geometry(Area(geometry=read_area(path)))
    assert "made valid: feature 1 (id n0): Self-intersection" in caplog.text
    for one in (found, area):
        assert one.is_valid
        assert one.area == pytest.approx(shapely.make_valid(BOWTIE).area)


def test_an_area_of_interest_that_crosses_itself_is_left_to_its_author(tmp_path: Path) -> None:
    good, bad = aois_of(document(tmp_path, GOOD, BOWTIE))
    assert good.fault == ""
    assert re.fullmatch(
        r"its geometry is not valid: Self-intersection.*; repair it in the file", bad.fault
    )


def test_an_open_ring_is_closed(tmp_path: Path) -> None:
    ring = polygon([15.03, 47.87], [15.04, 47.87], [15.04, 47.88], [15.03, 47.88])
    _, (found,), faults = fields_of(document(tmp_path, ring))
    assert found.equals(GOOD)
    assert faults == []


def test_the_polygons_of_a_collection_are_a_field(tmp_path: Path) -> None:
    mixed = shapely.GeometryCollection(
        [LINE, GOOD, shapely.GeometryCollection([shapely.box(16, 47, 16.1, 47.1)])],
    )
    _, (found,), _ = fields_of(document(tmp_path, mixed))
    assert found.geom_type == "MultiPolygon"
    assert found.area == pytest.approx(GOOD.area + 0.01)


@pytest.mark.parametrize(
    "ring",
    [
        shapely.Polygon([(179.95, -17.05), (-179.95, -17.05), (-179.95, -16.95), (179.95, -16.95)]),
        shapely.box(179.95, -17.05, 180.05, -16.95),
        shapely.box(-180.05, -17.05, -179.95, -16.95),
        shapely.MultiPolygon(
            [shapely.box(179.95, -17.05, 180, -16.95), shapely.box(-180, -17.05, -179.95, -16.95)],
        ),
        shapely.MultiPolygon(
            [shapely.box(179.95, -17.05, 180, -16.95), shapely.box(180, -17.05, 180.05, -16.95)],
        ),
    ],
    ids=["jumps", "runs on to the east", "runs on to the west", "split", "split and runs on"],
)
def test_places_over_the_antimeridian_are_split(tmp_path: Path, ring: Any) -> None:
    path = document(tmp_path, ring)
    ((found),) = fields_of(path)[1]
    (aoi,) = aois_of(path)
    area = area_geometry(Area(geometry=read_area(path)))
    for one in (found, aoi.area, area):
        bounds = sorted(part.bounds for part in shapely.get_parts(one))
        assert np.allclose(
            bounds,
            [(-180, -17.05, -179.95, -16.95), (179.95, -17.05, 180, -16.95)],
            atol=1e-4,
        )
    chips = chips_of_fields(path, ChipGridOptions(), 2024).chips
    assert {chip.crs for chip in chips} == {"EPSG:32760", "EPSG:32701"}


def test_longitudes_from_0_to_360(tmp_path: Path) -> None:
    path = document(tmp_path, shapely.box(200, 10, 200.01, 10.01))
    assert fields_of(path)[1][0].equals(shapely.box(-160, 10, -159.99, 10.01)) or np.allclose(
        fields_of(path)[1][0].bounds,
        (-160, 10, -159.99, 10.01),
    )
    assert aois_of(path)[0].area is not None


def test_a_field_in_parts_on_both_sides_is_not_wide(tmp_path: Path) -> None:
    parts = shapely.MultiPolygon([shapely.box(170, 0, 171, 1), shapely.box(-171, 0, -170, 1)])
    _, (found,), faults = fields_of(document(tmp_path, parts))
    assert found.area == pytest.approx(2)
    assert faults == []


def test_ids_that_are_used_twice_are_listed_and_their_fields_stay(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = ["a", "b", "a", "a", None, None]
    features = [feature(GOOD, name) for name in names]
    path = tmp_path / "f.geojson"
    path.write_text(json.dumps(collection(*features)))
    numbers, _, faults = fields_of(str(path))
    assert numbers == [1, 2, 3, 4, 5, 6]
    assert faults == [(number, "a", "an earlier field has the same id") for number in (3, 4)]
    with caplog.at_level(logging.WARNING):
        aois_of(str(path))
    assert "areas 0, 2, 3 have the same id or name, a" in caplog.text
    assert "None" not in caplog.text


def test_ids_that_are_no_text(tmp_path: Path) -> None:
    ids = [1, "1", 1, [1], [1], {"a": 1}, 1.5, True]
    path = tmp_path / "f.geojson"
    path.write_text(json.dumps(collection(*[feature(GOOD, name) for name in ids])))
    _, _, faults = fields_of(str(path))
    assert {number for number, _, _ in faults} >= {3, 5}


def test_a_file_of_one_id_is_not_a_table_of_faults(tmp_path: Path) -> None:
    path = write_vectors(tmp_path / "f.parquet", [GOOD] * 3000, ["0"] * 3000)
    _, _, faults = fields_of(path)
    assert len(faults) == 1000
    assert faults[-1] == (1001, "0", "an earlier field has the same id; later ones are not listed")


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(0, 60), max_size=30), max_size=20))
def test_repeated_ids_are_those_seen_before(batches: list[list[int]]) -> None:
    seen, faults, number, before = _SeenIds(), Faults(), 1, set()
    expected = []
    for ids in batches:
        seen.record(np.arange(number, number + len(ids)), ids, faults)
        for one in ids:
            if one in before:
                expected.append(number)
            before.add(one)
            number += 1
    assert [row["field"] for row in faults.rows] == expected


def test_the_table_of_faults_is_published(
    fields_request: Callable[..., RunRequest],
    tmp_path: Path,
) -> None:
    """One polygon without an inside costs no other field."""
    path = document(tmp_path, GOOD, FLAT, None, BOWTIE, shapely.box(15.05, 47.87, 15.06, 47.885))
    changes = {"product.boundaries": path, "product.images": "none", "product.crop_calendar": None}
    assert run(fields_request(**changes)).state == "succeeded"
    table = (tmp_path / "out" / "field_faults.csv").read_text().splitlines()
    assert table[0] == "field,id,fault"
    assert {line.split(",")[0]: line.split(",")[1] for line in table[1:]} == {
        "2": "n1",
        "3": "n2",
        "4": "n3",
    }


@pytest.mark.parametrize("suffix", ["parquet", "geojson", "geojsonl", "gpkg", "shp"])
def test_every_format_tells_the_same_faults(tmp_path: Path, suffix: str) -> None:
    polygons = [GOOD, FLAT, None, BOWTIE]
    _, _, faults = fields_of(write_vectors(tmp_path / f"f.{suffix}", polygons, list("abcd")))
    told = [(number, name, fault.split(":")[0]) for number, name, fault in faults]
    expected = [(2, "b", "has no inside"), (3, "c", "no geometry"), (4, "d", "made valid")]
    if suffix == "shp":  # its writer may turn rings without an inside into no geometry
        told[0], expected[0] = (*told[0][:2], ""), (*expected[0][:2], "")
    assert told == expected


def test_wkb_that_is_none_is_listed(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "f.parquet"
    write_vectors(path, [GOOD, GOOD])
    table = pq.read_table(path)
    broken = table.set_column(
        1,
        "geometry",
        pa.array([shapely.to_wkb(GOOD), b"\x01\x03\0"], pa.binary()),
    )
    pq.write_table(broken.replace_schema_metadata(table.schema.metadata), path)
    numbers, _, faults = fields_of(str(path))
    assert numbers == [1]
    assert faults == [(2, "1", "cannot be read as WKB: left out")]


coordinate = st.one_of(
    st.floats(-400, 400),
    st.sampled_from([0.0, 180.0, -180.0, 90.0, -90.0, math.nan, math.inf, 1e300]),
)
ring = st.lists(st.tuples(coordinate, coordinate), min_size=0, max_size=7)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(ring, st.lists(ring, max_size=3)), min_size=1, max_size=4))
def test_whatever_the_coordinates_no_exception_but_ours(
    tmp_path_factory: pytest.TempPathFactory,
    shapes: list[Any],
) -> None:
    geometries = []
    for one in shapes:
        if one and isinstance(one[0], list):
            several = [[part] for part in one]
            geometries.append({"type": "MultiPolygon", "coordinates": several})
        else:
            geometries.append({"type": "Polygon", "coordinates": [one]})
    path = document(tmp_path_factory.mktemp("odd"), *geometries)
    readers: list[Callable[[str], Any]] = [
        fields_of,
        aois_of,
        lambda path: area_geometry(Area(geometry=read_area(path))),
    ]
    for reader in readers:
        try:
            found = reader(path)
        except RequestError:
            continue
        if reader is fields_of:
            assert all(polygon.is_valid and polygon.area > 0 for polygon in found[1])
            bounds = shapely.bounds(np.array(found[1], object))
            assert (abs(bounds) <= np.array([180, 90.001, 180, 90.001])).all()
