"""The same features in every format, from every kind of address, are the same."""

from __future__ import annotations

import json
import sqlite3
import sys
import zipfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from scenebeam.errors import RequestError
from scenebeam.products.fields.boundaries import Faults, read_fields
from scenebeam.products.fields.lattice import chips_of_fields
from scenebeam.products.fields.request import ChipGridOptions
from scenebeam.products.landcover.aois import read_aois
from scenebeam.products.landcover.request import LandcoverRequest
from scenebeam.request import Area
from scenebeam.requestfile import validate_request
from scenebeam.sandbox.server import Fault, serve
from scenebeam.vectors import features, read_features
from vector_files import FORMATS, collection, feature, write_ogr, write_vectors

FIELDS = [
    shapely.box(15.03, 47.87, 15.04, 47.88),
    shapely.Polygon([(15.045, 47.86), (15.06, 47.86), (15.055, 47.868)]),
    shapely.Polygon(
        shapely.box(15.05, 47.87, 15.06, 47.885).exterior,
        [shapely.box(15.052, 47.872, 15.054, 47.874).exterior],
    ),
    shapely.box(15.0301234567891, 47.8500000000001, 15.04, 47.852),
]


def read(path: str | Path) -> tuple[list[Any], list[Any]]:
    """Ids and geometries of a file."""
    ids: list[Any] = []
    geometries: list[Any] = []
    for some in read_features(str(path)):
        ids += some.ids
        geometries += some.geometries.tolist()
    return ids, geometries


def fields_of(path: str | Path) -> list[Any]:
    return [one for _, found in read_fields(str(path), Faults()) for one in found]


def aois_of(place: str) -> list[Any]:
    return read_aois(LandcoverRequest(kind="landcover", aois=place))


def area_of(place: str) -> Any:
    from scenebeam.catalog.area import area_geometry

    document = {
        "catalog": "earth-search",
        "collections": ["sentinel-2-l2a"],
        "area": {"geojson": place},
        "dates": "2023",
        "product": {"kind": "mosaic", "bands": ["red"]},
        "output": "out",
    }
    area = validate_request(document).area
    assert isinstance(area, Area)
    return area_geometry(area)


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_the_same_features(tmp_path: Path, suffix: str) -> None:
    names = ["a", "b", "c", "ä ö"]
    ids, found = read(write_vectors(tmp_path / f"f.{suffix}", FIELDS, names))
    assert ids == names
    assert all(shapely.equals_exact(shapely.normalize(found), shapely.normalize(FIELDS)))


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_the_same_chips(tmp_path: Path, suffix: str) -> None:
    usual = chips_of_fields(
        write_vectors(tmp_path / "usual.parquet", FIELDS),
        ChipGridOptions(size=160),
        2024,
    )
    found = chips_of_fields(
        write_vectors(tmp_path / f"f.{suffix}", FIELDS),
        ChipGridOptions(size=160),
        2024,
    )
    assert found.chips == usual.chips
    assert found.coverage == usual.coverage
    assert found.files.keys() == usual.files.keys()


@pytest.mark.parametrize("crs", ["EPSG:4312", "EPSG:31287", "EPSG:32633", "EPSG:3857"])
@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_may_have_any_crs(tmp_path: Path, suffix: str, crs: str) -> None:
    """Shapefile keeps the CRS as ESRI writes it: PROJ knows it again, its datum included."""
    there = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    drawn = [shapely.transform(one, there.transform, interleaved=False) for one in FIELDS]
    _, found = read(write_vectors(tmp_path / f"f.{suffix}", drawn, crs=crs))
    _, usual = read(write_vectors(tmp_path / "usual.parquet", drawn, crs=crs))
    assert shapely.hausdorff_distance(found, usual).max() < 1e-9
    # PROJ knows several transformations of some datums, which differ by up to a meter.
    assert shapely.hausdorff_distance(found, FIELDS).max() < 2e-5


@pytest.mark.parametrize("suffix", FORMATS)
def test_areas_of_interest_and_areas_take_every_format(tmp_path: Path, suffix: str) -> None:
    path = write_vectors(tmp_path / f"f.{suffix}", FIELDS, ["a", "b", "c", "d"])
    found = aois_of(path)
    assert [(aoi.name, aoi.fault) for aoi in found] == [(name, "") for name in "abcd"]
    whole = shapely.union_all(FIELDS)
    assert shapely.union_all([aoi.area for aoi in found]).equals(whole)
    assert area_of(path).equals(whole)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.tuples(
            st.floats(-179, 178),
            st.floats(-79, 82),
            st.floats(1e-4, 0.9),
            st.floats(1e-4, 0.9),
        ),
        min_size=1,
        max_size=8,
    ),
    st.permutations(FORMATS),
)
def test_from_one_format_to_the_next_not_one_bit_changes(
    tmp_path_factory: pytest.TempPathFactory,
    places: list[tuple[float, float, float, float]],
    order: list[str],
) -> None:
    folder = tmp_path_factory.mktemp("round")
    first = [shapely.box(x, y, x + width, y + height) for x, y, width, height in places]
    ids, geometries = [str(number) for number in range(len(first))], first
    for number, suffix in enumerate(order):
        ids, geometries = read(write_vectors(folder / f"{number}.{suffix}", geometries, ids))
    assert ids == [str(number) for number in range(len(first))]
    assert all(shapely.equals_exact(shapely.normalize(geometries), shapely.normalize(first)))


def test_the_first_bytes_tell_the_format_whatever_the_name(tmp_path: Path) -> None:
    for suffix in FORMATS:
        if suffix == "shp":
            continue  # the files beside it go by its name
        path = tmp_path / f"{suffix}.download"
        Path(write_vectors(tmp_path / f"f.{suffix}", FIELDS)).rename(path)
        assert len(read(path)[1]) == 4, suffix


# ---------------------------------------------------------------------------------------------
# GeoJSON


@pytest.mark.parametrize(
    ("document", "count"),
    [
        (collection(*map(feature, FIELDS)), 4),
        (feature(FIELDS[0]), 1),
        (shapely.geometry.mapping(FIELDS[0]), 1),
        (shapely.geometry.mapping(shapely.MultiPolygon(FIELDS)), 1),
        (shapely.geometry.mapping(shapely.GeometryCollection(FIELDS)), 4),
        (feature(shapely.GeometryCollection([shapely.Point(0, 0), FIELDS[0]])), 1),
        (collection(shapely.geometry.mapping(FIELDS[0])), 1),
    ],
    ids=[
        "collection",
        "feature",
        "polygon",
        "multipolygon",
        "geometries",
        "mixed",
        "geometry among features",
    ],
)
def test_every_object_of_geojson_is_read(
    tmp_path: Path,
    document: dict[str, Any],
    count: int,
) -> None:
    path = tmp_path / "f.geojson"
    path.write_text(json.dumps(document))
    assert len(fields_of(path)) == count
    assert chips_of_fields(str(path), ChipGridOptions(), 2024).chips
    assert len(aois_of(str(path))) == count


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("before", ["", "\x1e"], ids=["newline", "RFC 8142"])
@pytest.mark.parametrize("name", ["f.geojsonl", "f.ndjson", "f.json"])
def test_a_feature_a_line(tmp_path: Path, name: str, before: str, encoding: str) -> None:
    lines = [before + json.dumps(feature(one, number)) for number, one in enumerate(FIELDS)]
    lines.insert(2, "")
    (tmp_path / name).write_text("\r\n".join(lines), encoding=encoding)
    ids, found = read(tmp_path / name)
    assert ids == [0, 1, 2, 3]
    assert shapely.equals_exact(found, FIELDS).all()


def test_lines_are_read_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scenebeam.vectors.geojson.BATCH", 3)
    path = write_vectors(tmp_path / "f.geojsonl", FIELDS * 2)
    assert [len(some.ids) for some in read_features(path)] == [3, 3, 2]


def test_a_pretty_document_is_not_taken_for_lines(tmp_path: Path) -> None:
    path = tmp_path / "f.geojson"
    path.write_text(json.dumps(collection(*map(feature, FIELDS)), indent=1) + "\n\n")
    assert len(read(path)[1]) == 4


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "f.geojsonl"
    path.write_text(
        json.dumps(feature(FIELDS[0])) + "\n" + json.dumps(feature(FIELDS[1]))[:-9] + "\n",
    )
    with pytest.raises(RequestError, match="line 2"):
        read(path)


def test_lines_of_several_crs_are_refused(tmp_path: Path) -> None:
    lines = []
    for code in (4312, 4326):
        crs = {"type": "name", "properties": {"name": f"EPSG:{code}"}}
        lines.append(json.dumps({**feature(FIELDS[0]), "crs": crs}))
    (tmp_path / "f.geojsonl").write_text("\n".join(lines))
    with pytest.raises(RequestError, match="line 2: its CRS is not the first line's"):
        read(tmp_path / "f.geojsonl")


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "f.geojson"
    path.write_text(json.dumps(feature(FIELDS[0])), encoding="utf-8-sig")
    assert len(fields_of(path)) == 1
    assert area_of(str(path)).equals(FIELDS[0])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["f.geojson", "f.geojsonl"])
def test_other_encodings_are_refused_in_words(tmp_path: Path, name: str, encoding: str) -> None:
    (tmp_path / name).write_text(json.dumps(feature(FIELDS[0])), encoding=encoding)
    for reader in (fields_of, aois_of, area_of):
        with pytest.raises(RequestError, match="UTF-16 or UTF-32; write it in UTF-8"):
            reader(str(tmp_path / name))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "cannot be read as GeoJSON"),
        (b"[1]", "does not hold a GeoJSON object"),
        (b"<kml></kml>", "cannot be read as GeoJSON"),
        (b"id,wkt\n1,POINT(0 0)", "cannot be read as GeoJSON"),
        (b'{"type": "Topology"}', "its type is 'Topology'"),
        (b'{"type": ["a"]}', "its type is"),
        (b'{"type": "FeatureCollection", "features": {"a": 1}}', "no list of members"),
        (b'{"a":' * 5000, "nested"),
        (b'{"type": "Feature", "id": "\xff"}', "cannot be read as GeoJSON"),
        (b'{"type": "Polygon", "coordinates": [[[0,0],[1,0]', "cannot be read as GeoJSON"),
    ],
)
def test_what_is_not_geojson_is_refused_in_words(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "f.geojson").write_bytes(content)
    for reader in (fields_of, aois_of, area_of):
        with pytest.raises(RequestError, match=told):
            reader(str(tmp_path / "f.geojson"))


def test_a_geojson_area_stays_as_the_file_has_it(tmp_path: Path) -> None:
    """Runs resume by the fingerprint of their request, which has the geometry in it."""
    from scenebeam.vectors import read_area

    crs = {"type": "name", "properties": {"name": "EPSG:4326"}}
    geometries = [
        shapely.geometry.mapping(shapely.Point(1, 2)),
        {**shapely.geometry.mapping(FIELDS[0]), "bbox": [1, 2, 3, 4]},
    ]
    (tmp_path / "f.geojson").write_text(
        json.dumps(collection(*map(feature, [*geometries, None]), crs=crs)),
    )
    told = read_area(str(tmp_path / "f.geojson"))
    expected = {"type": "GeometryCollection", "geometries": geometries, "crs": crs}
    assert json.dumps(told) == json.dumps(json.loads(json.dumps(expected)))
    (tmp_path / "g.geojson").write_text(json.dumps(geometries[1]))
    assert read_area(str(tmp_path / "g.geojson")) == json.loads(json.dumps(geometries[1]))


# ---------------------------------------------------------------------------------------------
# GeoPackage, Shapefile, FlatGeobuf


def test_a_geopackage_of_several_layers_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "f.gpkg"
    for layer in ("fields", "roads"):
        write_ogr(path, FIELDS, list("abcd"), "EPSG:4326", layer=layer, append=path.exists())
    with pytest.raises(RequestError, match="holds the layers fields, roads"):
        read(path)


def test_tables_without_geometries_are_no_layers(tmp_path: Path) -> None:
    path = Path(write_vectors(tmp_path / "f.gpkg", FIELDS))
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE layer_styles (id INTEGER PRIMARY KEY, style TEXT)")
        file.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier) VALUES ('layer_styles', 'attributes', 'x')",
        )
    file.close()
    assert len(read(path)[1]) == 4
    (tmp_path / "empty.gpkg").unlink(missing_ok=True)
    with sqlite3.connect(tmp_path / "empty.gpkg") as file:
        file.execute("CREATE TABLE other (id INTEGER)")
    file.close()
    with pytest.raises(RequestError, match=r"empty\.gpkg"):
        read(tmp_path / "empty.gpkg")


def test_the_key_of_a_geopackage_is_the_id_where_there_is_no_other(tmp_path: Path) -> None:
    path = Path(write_vectors(tmp_path / "f.gpkg", FIELDS))
    with sqlite3.connect(path) as file:
        file.execute("ALTER TABLE f DROP COLUMN id")
    file.close()
    assert read(path)[0] == [1, 2, 3, 4]


def test_without_the_file_of_its_crs_a_shapefile_is_in_degrees(tmp_path: Path) -> None:
    write_vectors(tmp_path / "f.shp", FIELDS)
    (tmp_path / "f.prj").unlink()
    assert len(fields_of(tmp_path / "f.shp")) == 4
    there = Transformer.from_crs("EPSG:4326", "EPSG:32633", always_xy=True)
    drawn = [shapely.transform(one, there.transform, interleaved=False) for one in FIELDS]
    write_vectors(tmp_path / "m.shp", drawn, crs="EPSG:32633")
    (tmp_path / "m.prj").unlink()
    with pytest.raises(
        RequestError,
        match=r"field 1 \(id 0\) is outside the Earth: is its CRS",
    ):
        fields_of(tmp_path / "m.shp")
    with pytest.raises(RequestError, match="not in degrees"):
        aois_of(str(tmp_path / "m.shp"))
    with pytest.raises(RequestError, match="not in meters"):
        area_of(str(tmp_path / "m.shp"))


def test_a_shapefile_without_its_index_or_attributes(tmp_path: Path) -> None:
    write_vectors(tmp_path / "f.shp", FIELDS)
    (tmp_path / "f.dbf").unlink()
    assert read(tmp_path / "f.shp")[0] == [None] * 4
    (tmp_path / "f.shx").unlink()
    with pytest.raises(RequestError, match=r"f\.shp cannot be read as Shapefile"):
        read(tmp_path / "f.shp")


def test_a_shapefile_whose_crs_is_not_text_is_refused(tmp_path: Path) -> None:
    write_vectors(tmp_path / "f.shp", FIELDS)
    told = (tmp_path / "f.prj").read_bytes()
    (tmp_path / "f.prj").write_bytes(told.replace(b"WGS", b"\x80GS", 1))
    with pytest.raises(RequestError, match=r"f\.shp"):
        read(tmp_path / "f.shp")


def test_names_of_a_shapefile_may_be_in_capitals(tmp_path: Path) -> None:
    write_vectors(tmp_path / "f.shp", FIELDS, ["a", "b", "c", "d"])
    for suffix in (".shp", ".shx", ".dbf", ".prj"):
        (tmp_path / f"f{suffix}").rename(tmp_path / f"f{suffix.upper()}")
    assert read(tmp_path / "f.SHP")[0] == ["a", "b", "c", "d"]


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "names",
    [[], ["a.shp", "b/c.shp"], ["readme.txt"]],
    ids=["empty", "two", "none"],
)
def test_an_archive_holds_one_shapefile(tmp_path: Path, names: list[str]) -> None:
    path = zipped(tmp_path / "f.zip", dict.fromkeys(names, b""))
    with pytest.raises(
        RequestError,
        match="must hold one Shapefile|cannot be read as a zipped Shapefile",
    ):
        read(path)


def test_shadows_of_macos_are_no_shapefiles(tmp_path: Path) -> None:
    path = write_vectors(tmp_path / "f.zip", FIELDS)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/inside/._f.shp", b"\0")
    assert len(read(path)[1]) == 4


def test_an_archive_that_unpacks_to_too_much_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("scenebeam.vectors.zipped.LARGEST_FILE", 10**6)
    path = zipped(tmp_path / "f.zip", {"f.shp": b"\0\0\x27\x0a" + bytes(2 * 10**6)})
    assert path.stat().st_size < 10_000
    with pytest.raises(RequestError, match="unpacks to more than 1,000,000 bytes"):
        read(path)


@pytest.mark.parametrize("share", [0.02, 0.4, 0.6, 0.97])
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_that_is_cut_short_is_refused_in_words(
    tmp_path: Path,
    suffix: str,
    share: float,
) -> None:
    path = Path(write_vectors(tmp_path / f"f.{suffix}", FIELDS * 200))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    for reader in (fields_of, aois_of, area_of):
        with pytest.raises(RequestError, match=rf"f\.{suffix}"):
            reader(str(path))


@pytest.mark.parametrize("suffix", ["gpkg", "shp", "fgb", "zip", "parquet", "geojson"])
def test_a_file_that_is_something_else_is_refused_in_words(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"f.{suffix}"
    path.write_bytes(
        b'<OGRVRTDataSource><OGRVRTLayer name="a"><SrcDataSource>/etc/passwd</SrcDataSource>'
        b"</OGRVRTLayer></OGRVRTDataSource>",
    )
    with pytest.raises(RequestError, match=rf"f\.{suffix}"):
        read(path)


def test_a_database_that_is_no_geopackage_is_refused(tmp_path: Path) -> None:
    """GDAL has another driver for those of SpatiaLite, whose tables may stand for other files."""
    with sqlite3.connect(tmp_path / "f.db") as file:
        file.execute("CREATE TABLE fields (id INTEGER, geometry BLOB)")
    file.close()
    with pytest.raises(RequestError, match=r"f\.db"):
        read(tmp_path / "f.db")


def test_geopackages_that_say_that_they_have_no_crs_are_in_degrees(tmp_path: Path) -> None:
    path = Path(write_vectors(tmp_path / "f.gpkg", FIELDS, crs=None))
    for code in (0, -1):
        with sqlite3.connect(path) as file:
            file.execute("UPDATE gpkg_geometry_columns SET srs_id = ?", (code,))
            file.execute("UPDATE gpkg_contents SET srs_id = ?", (code,))
        file.close()
        assert shapely.equals_exact(
            shapely.normalize(fields_of(path)),
            shapely.normalize(FIELDS),
        ).all()


def test_curves_and_heights(tmp_path: Path) -> None:
    high = [shapely.force_3d(one, 100.0) for one in FIELDS]
    for suffix in ("parquet", "geojson", "gpkg", "fgb"):
        options = {"geometry_type": "Polygon Z"} if suffix == "fgb" else {}
        path = tmp_path / f"f.{suffix}"
        if suffix == "fgb":
            write_ogr(path, high, list("abcd"), "EPSG:4326", **options)
        else:
            write_vectors(path, high)
        found = fields_of(path)
        assert not shapely.has_z(found).any(), suffix
        assert shapely.equals_exact(shapely.normalize(found), shapely.normalize(FIELDS)).all()


def test_large_files_come_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scenebeam.vectors.ogr.BATCH", 7)
    monkeypatch.setattr("scenebeam.vectors.geoparquet.BATCH", 7)
    for suffix in ("parquet", "gpkg", "shp", "fgb"):
        path = write_vectors(tmp_path / f"f.{suffix}", FIELDS * 5)
        sizes = [len(some.ids) for some in read_features(path)]
        assert sizes == [7, 7, 6], suffix


def test_a_reader_that_stops_early_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    for suffix in ("gpkg", "zip", "fgb"):
        found = read_features(write_vectors(tmp_path / f"f.{suffix}", FIELDS))
        next(found)
        assert isinstance(found, Generator)
        found.close()
        assert not list((tmp_path / "scratch").iterdir())


def test_geojson_and_geoparquet_need_no_gdal(tmp_path: Path) -> None:
    import subprocess

    paths = [write_vectors(tmp_path / f"f.{suffix}", FIELDS) for suffix in ("parquet", "geojson")]
    code = (
        "import sys; from scenebeam.vectors import read_features\n"
        "for path in sys.argv[1:]: list(read_features(path))\n"
        "print([name for name in ('pyogrio', 'pandas', 'rasterio') if name in sys.modules])"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, *paths],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == "[]"


# ---------------------------------------------------------------------------------------------
# Addresses


@pytest.mark.parametrize("suffix", [one for one in FORMATS if one != "shp"])
def test_every_format_is_read_from_an_address(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
) -> None:
    (tmp_path / "bucket").mkdir()
    write_vectors(tmp_path / "bucket" / f"f.{suffix}", FIELDS)
    with serve(tmp_path) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        for place in (f"{server.url}/bucket/f.{suffix}", f"gs://bucket/f.{suffix}"):
            assert len(fields_of(place)) == 4
            assert [aoi.fault for aoi in aois_of(place)] == [""] * 4
            assert area_of(place).equals(shapely.union_all(FIELDS))


def test_a_file_url_is_a_file_of_this_machine(tmp_path: Path) -> None:
    path = write_vectors(tmp_path / "f.shp", FIELDS)
    assert len(read(f"file://{path}")[1]) == 4


def test_one_file_of_a_shapefile_at_an_address_is_refused(tmp_path: Path) -> None:
    write_vectors(tmp_path / "f.shp", FIELDS)
    with serve(tmp_path) as server:
        with pytest.raises(RequestError, match="one of the files of a Shapefile: zip them"):
            read(f"{server.url}/f.shp")


def test_an_address_that_does_not_answer_is_named_without_its_secrets(tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        server.faults.append(Fault("f.geojson", status=404))
        for reader in (fields_of, aois_of, area_of):
            with pytest.raises(RequestError, match=r"cannot read .*f\.geojson") as fault:
                reader(f"{server.url}/f.geojson?token=secret")
            assert "secret" not in str(fault.value)


def test_files_above_the_ceiling_are_refused_with_the_figure(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert features.LARGEST_FILE == 4 * 2**30
    monkeypatch.setattr("scenebeam.vectors.reader.LARGEST_FILE", 1000)
    path = write_vectors(tmp_path / "f.geojson", FIELDS * 5)
    with serve(tmp_path) as server:
        for place in (path, f"{server.url}/f.geojson"):
            for reader in (fields_of, aois_of, area_of):
                with pytest.raises(RequestError, match="more than the maximum of 1,000"):
                    reader(place)


def test_documents_above_the_ceiling_are_refused_and_lines_are_not(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("scenebeam.vectors.geojson.LARGEST_DOCUMENT", 500)
    with pytest.raises(
        RequestError,
        match="the maximum of 500 for one document; write it as GeoParquet, or one feature per line",
    ):
        read(write_vectors(tmp_path / "f.geojson", FIELDS))
    assert len(read(write_vectors(tmp_path / "f.geojsonl", FIELDS))[1]) == 4


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    for reader in (fields_of, aois_of, area_of):
        with pytest.raises(RequestError, match="cannot read .*Is a directory"):
            reader(str(tmp_path))


def test_numbers_follow_the_order_of_the_file(tmp_path: Path) -> None:
    for suffix in FORMATS:
        path = write_vectors(tmp_path / f"f.{suffix}", [*FIELDS[::-1], FIELDS[0]], list("edcba"))
        ((numbers, found),) = read_fields(path, Faults())
        assert numbers.tolist() == [1, 2, 3, 4, 5]
        assert np.array_equal(shapely.area(found), shapely.area([*FIELDS[::-1], FIELDS[0]])), suffix
