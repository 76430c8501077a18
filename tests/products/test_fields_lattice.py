"""Field boundaries → chips: the lattice, its names, coverage, splits, and what is wrong with a file of fields."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from mgrs import MGRS
from pyproj import CRS, Transformer

from scenebeam.errors import RequestError
from scenebeam.imaging.chip_places import (
    assign_tiles,
    bounds_by_hemisphere,
    chip_footprints,
    mgrs_100km_squares,
)
from scenebeam.imaging.split import split_chips
from scenebeam.products.fields.boundaries import Faults, read_fields
from scenebeam.products.fields.lattice import FieldChips, _mgrs_name, chips_of_fields
from scenebeam.products.fields.request import ChipGridOptions, FieldsRequest
from scenebeam.products.fields.spool import fields_key
from scenebeam.request import RunRequest, Split


def write(path: Path, geometries: list[Any], ids: list[Any] | None = None) -> str:
    """GeoJSON or GeoParquet, by the name."""
    if path.suffix == ".parquet":
        geo = {
            "version": "1.1.0",
            "primary_column": "geometry",
            "columns": {"geometry": {"encoding": "WKB", "geometry_types": []}},
        }
        table = pa.table(
            {
                "geometry": pa.array(
                    [None if g is None else shapely.to_wkb(g) for g in geometries], pa.binary()
                )
            }
        )
        if ids:
            table = table.append_column("id", pa.array(ids))
        pq.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), path)
    else:
        features: list[dict[str, Any]] = [
            {"type": "Feature", "id": ids[n] if ids else None, "properties": {},
             "geometry": None if g is None else shapely.geometry.mapping(g)}
            for n, g in enumerate(geometries)
        ]  # fmt: skip
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return str(path)


def square(longitude: float, latitude: float, metres: float = 400) -> shapely.Polygon:
    side = metres / 111_000
    return shapely.box(longitude, latitude, longitude + side, latitude + side)


def made(tmp_path: Path, geometries: list[Any], **grid: Any) -> FieldChips:
    return chips_of_fields(
        write(tmp_path / "fields.parquet", geometries), ChipGridOptions(**grid), 2024
    )


def test_names_are_those_of_the_military_grid(tmp_path: Path) -> None:
    (chip,) = made(tmp_path, [square(17.9, 48.9, 100)]).chips
    assert chip.name.startswith("ftw-33UYQ")
    assert chip.name.endswith("_2024")
    assert (chip.crs, chip.shape) == ("EPSG:32633", (256, 256))
    assert chip.transform[2] % 2560 == chip.transform[5] % 2560 == 0
    x, y = chip.transform[2] + 1280, chip.transform[5] - 1280
    longitude, latitude = Transformer.from_crs(32633, 4326, always_xy=True).transform(x, y)
    assert chip.name[9:13] == f"{int(x // 1000) % 100:02d}{int(y // 1000) % 100:02d}"
    assert abs(longitude - 17.9) < 0.05
    assert abs(latitude - 48.9) < 0.03


@given(st.integers(1, 60), st.booleans(), st.integers(80, 250), st.integers(20, 3100))
def test_names_are_what_the_mgrs_library_says_inside_a_zone(
    zone: int, north: bool, column: int, row: int
) -> None:
    epsg = (32600 if north else 32700) + zone
    row = row if north else 3906 - row
    to_lonlat = Transformer.from_crs(epsg, 4326, always_xy=True)
    longitude, latitude = to_lonlat.transform((column + 0.5) * 2560, (row + 0.5) * 2560)
    exceptional = latitude > 55  # Norway and Svalbard have zones of their own
    inside = int((longitude + 180) // 6) + 1 == zone and (latitude >= 0) == north and latitude > -79
    assume(inside and not exceptional)
    told = MGRS().toMGRS(latitude, longitude, MGRSPrecision=2)
    assert _mgrs_name((epsg, column, row), 2560.0).lstrip("0") == told.lstrip("0")


@pytest.mark.parametrize("suffix", [".parquet", ".geojson"])
def test_both_forms_give_the_same_chips(tmp_path: Path, suffix: str) -> None:
    fields = [square(24.0 + n * 0.01, 40.5, 700) for n in range(-8, 8)]
    found = chips_of_fields(
        write(tmp_path / f"f{suffix}", fields, list(range(16))), ChipGridOptions(), 2021
    )
    usual = made(tmp_path, fields)
    assert [chip.name.replace("2021", "2024") for chip in found.chips] == [
        chip.name for chip in usual.chips
    ]
    assert found.coverage == usual.coverage


@settings(max_examples=60)
@example([(0.0, -0.0078125, 378.0)])
@example([(0.0, 6.0, 50.0)])
@example([(-36.025191539048016, -44.845149982045704, 8894.755178224399)])
@example([(-66.04324458626894, 81.31650787141407, 5226.212501370791)])
@given(
    st.lists(
        st.tuples(st.floats(-179.9, 179.5), st.floats(-79, 83), st.floats(50, 9000)),
        min_size=1,
        max_size=6,
    ),
)
def test_chips_cover_all_fields_once(
    tmp_path_factory: pytest.TempPathFactory, places: list[tuple[float, float, float]]
) -> None:
    fields = [square(x, y, size) for x, y, size in places]
    found = made(tmp_path_factory.mktemp("fields"), fields, min_coverage=0)
    shapes, centres = chip_footprints(found.chips)
    whole = shapely.union_all(shapely.buffer(shapes, 1e-4))
    assert all(whole.covers(field) for field in fields)
    assert len({chip.name for chip in found.chips}) == len(found.chips)
    for chip, (longitude, latitude) in zip(found.chips, centres, strict=True):
        at_edge = min((longitude + 180) % 6, -(longitude + 180) % 6) < 0.3 or abs(latitude) < 0.05
        zone = int((longitude + 180) // 6) % 60 + 1
        assert at_edge or chip.crs == f"EPSG:{(32600 if latitude >= 0 else 32700) + zone}"
    assert set(found.files) == {fields_key(name) for name in found.squares}


def test_coverage_is_what_fields_cover(tmp_path: Path) -> None:
    to_lonlat = Transformer.from_crs(32634, 4326, always_xy=True)

    def field(x: float, y: float, width: float, height: float) -> Any:
        box = shapely.segmentize(shapely.box(x, y, x + width, y + height), 50)
        return shapely.transform(box, to_lonlat.transform, interleaved=False)

    left, bottom = 260 * 2560, 1760 * 2560
    fields = [
        field(left, bottom, 1280, 2560),
        field(left + 2560, bottom, 256, 256),
        field(left - 100, bottom + 5120, 200, 2560),
    ]
    found = made(tmp_path, fields, min_coverage=1.5)
    told = {
        chip.transform[2:6:3]: share
        for chip, share in zip(found.chips, found.coverage, strict=True)
    }
    assert told[(left, bottom + 2560)] == pytest.approx(50, abs=0.05)
    assert (left + 2560.0, bottom + 2560.0) not in told  # one percent
    assert told[(left, bottom + 7680)] == pytest.approx(100 * 100 / 2560, abs=0.05)
    assert told[(left - 2560, bottom + 7680)] == pytest.approx(100 * 100 / 2560, abs=0.05)


def test_over_the_antimeridian(tmp_path: Path) -> None:
    around = shapely.Polygon(
        [(179.95, -17.05), (-179.95, -17.05), (-179.95, -16.95), (179.95, -16.95)]
    )
    found = made(tmp_path, [around])
    assert {chip.crs for chip in found.chips} == {"EPSG:32760", "EPSG:32701"}
    shapes, centres = chip_footprints(found.chips)
    assert (
        max(shapely.bounds(part)[2] - shapely.bounds(part)[0] for part in shapely.get_parts(shapes))
        < 1
    )
    boxes = bounds_by_hemisphere(shapes)
    assert len(boxes) == 2
    assert all(east - west < 1 for west, _, east, _ in boxes)
    assert {name[:2] for name in mgrs_100km_squares(centres)} <= {"60", "1K", "01"}


def test_invalid_fields_are_mended_and_noted(tmp_path: Path) -> None:
    bowtie = shapely.Polygon([(10, 50), (10.01, 50.01), (10.01, 50), (10, 50.01)])
    path = write(
        tmp_path / "f.parquet",
        [square(10.1, 50), bowtie, None, shapely.Polygon()],
        ["a", "b", "c", "d"],
    )
    faults = Faults()
    ((numbers, geometries),) = list(read_fields(path, faults))
    assert numbers.tolist() == [1, 2]
    assert all(shapely.is_valid(geometries))
    assert geometries[1].area == pytest.approx(shapely.make_valid(bowtie).area)
    assert [(row["field"], row["id"], row["fault"].split(":")[0]) for row in faults.rows] == [
        (3, "c", "no geometry"), (4, "d", "no geometry"), (2, "b", "made valid"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("geometry", "told"),
    [
        (shapely.Point(10, 50), "is a Point with nothing inside: give a polygon: left out"),
        (shapely.Polygon([(10, 50), (10.01, 50), (10, 50)]), r"has no inside: .*: left out"),
    ],
    ids=["point", "flat"],
)
def test_fields_that_cannot_be_used_are_left_out_and_listed(
    tmp_path: Path, geometry: Any, told: str
) -> None:
    faults = Faults()
    path = write(tmp_path / "f.parquet", [square(10, 50), geometry], ["a", "b"])
    ((numbers, _),) = list(read_fields(path, faults))
    assert numbers.tolist() == [1]
    (row,) = faults.rows
    assert (row["field"], row["id"]) == (2, "b")
    assert re.fullmatch(told, row["fault"])


def test_a_field_outside_of_the_earth_is_named(tmp_path: Path) -> None:
    metres = shapely.box(500_000, 5_000_000, 500_100, 5_000_100)
    path = write(tmp_path / "f.parquet", [square(10, 50), metres], ["a", "b"])
    with pytest.raises(RequestError, match=r"field 2 \(id b\) is outside the Earth"):
        list(read_fields(path, Faults()))


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"type": "FeatureCollection"}'])
def test_files_that_are_none_are_refused(tmp_path: Path, content: str) -> None:
    for name in ("f.parquet", "f.geojson"):
        (tmp_path / name).write_text(content)
        with pytest.raises(RequestError, match=f"{name} cannot be read as Geo"):
            chips_of_fields(str(tmp_path / name), ChipGridOptions(), 2024)
    with pytest.raises(RequestError, match="cannot read .*nowhere"):
        list(read_fields(str(tmp_path / "nowhere.geojson"), Faults()))


def test_a_projected_file_is_brought_to_degrees(tmp_path: Path) -> None:
    box = shapely.box(660_000, 5_400_000, 660_400, 5_400_400)
    crs = CRS.from_epsg(32633)
    geo = {"version": "1.1.0", "primary_column": "geometry",
           "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": crs.to_json_dict()}}}  # fmt: skip
    table = pa.table({"geometry": [shapely.to_wkb(box)]}).replace_schema_metadata(
        {"geo": json.dumps(geo)}
    )
    pq.write_table(table, tmp_path / "f.parquet")
    ((_, (found,)),) = list(read_fields(str(tmp_path / "f.parquet"), Faults()))
    back = shapely.transform(
        found, Transformer.from_crs(4326, 32633, always_xy=True).transform, interleaved=False
    )
    assert back.equals_exact(box, 1e-3)


@settings(max_examples=25, deadline=None)
@given(
    st.sets(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=2, max_size=250),
    st.integers(1, 6),
    st.integers(0, 5),
    st.sampled_from([(0.8, 0.1, 0.1), (0.34, 0.33, 0.33), (1.0, 0.0, 0.0)]),
)
def test_no_two_splits_touch(
    cells: set[tuple[int, int]], block: int, seed: int, shares: tuple[float, float, float]
) -> None:
    places = [(32633, 180 + column, 2000 + row) for column, row in sorted(cells)]
    shapes = shapely.box(
        *(
            np.array(
                [(c * 0.03, r * 0.02, c * 0.03 + 0.03, r * 0.02 + 0.02) for _, c, r in places]
            ).T
        )
    )
    asked = Split(train=shares[0], val=shares[1], test=shares[2], block=block, seed=seed)
    found = split_chips(places, np.asarray(shapes), asked)
    by_place = dict(zip(places, found, strict=True))
    for epsg, column, row in places:
        mine = by_place[epsg, column, row]
        if mine == "buffer":
            continue
        for right in (-1, 0, 1):
            for up in (-1, 0, 1):
                other = by_place.get((epsg, column + right, row + up), mine)
                assert other in (mine, "buffer")
    order = np.random.default_rng(seed).permutation(len(places))
    again = split_chips([places[n] for n in order], np.asarray(shapes)[order], asked)
    assert [again[list(order).index(n)] for n in range(len(places))] == found
    if shares[0] == 1.0:
        assert set(found) == {"train"}


def test_no_two_splits_touch_over_the_antimeridian_and_the_edges_of_zones(tmp_path: Path) -> None:
    for west, south in ((179.6, -17.2), (23.7, 40.4), (-0.3, 51.0)):
        band = shapely.box(west, south, west + 0.8, south + 0.4)
        if band.bounds[2] > 180:
            parts = [
                shapely.box(west, south, 180, south + 0.4),
                shapely.box(-180, south, west + 0.8 - 360, south + 0.4),
            ]
        else:
            parts = [band]
        found = made(tmp_path, parts, split=Split(train=0.4, val=0.3, test=0.3, block=3))
        shapes, _ = chip_footprints(found.chips)
        told = np.array(
            split_chips(found.cells, shapes, Split(train=0.4, val=0.3, test=0.3, block=3))
        )
        assert len(set(told)) == 4
        assert len({chip.crs for chip in found.chips}) == 2
        round_earth = (
            shapely.transform(shapes, lambda xy: np.column_stack([xy[:, 0] % 360, xy[:, 1]]))
            if west > 179
            else shapes
        )
        sides = [np.flatnonzero(told == name) for name in ("train", "val", "test")]
        for one in range(3):
            for other in range(one):
                away = shapely.distance(
                    round_earth[sides[one]][:, None], round_earth[sides[other]][None, :]
                )
                assert away.min() > 1e-6


def test_chips_go_to_the_tile_that_shows_them_deepest(tmp_path: Path) -> None:
    from dataclasses import replace

    from scenebeam.catalog.item_reader import scene_from_item
    from scenebeam.collections import known_records
    from scenebeam.sandbox.scenes import SCENES

    record = next(
        r for r in known_records() if (r.provider, r.id) == ("earth-search", "sentinel-2-l2a")
    )
    one = scene_from_item(SCENES[0].item("/x"), record, base="/x")
    assert one.footprint is not None
    west, south, east, north = one.footprint.bounds
    other = replace(
        one, tile="34TZZ", footprint=shapely.box(west + 0.05, south, east + 0.05, north)
    )
    places = [(west + 0.02, 0), (west + 0.1, 1), (east + 0.02, 1), (east + 0.2, None)]
    shapes = np.array([square(x, (south + north) / 2, 200) for x, _ in places], object)
    assert assign_tiles(shapes, ["home"] * 4, [one, other]) == [
        "home" if which is None else (one.tile, "34TZZ")[which] for _, which in places
    ]


def test_chips_lie_on_the_pixels_of_the_imagery(
    tmp_path: Path, fields_request: Callable[..., RunRequest[FieldsRequest]]
) -> None:
    """Landsat's edges are at 15 mod 30: so are those of its chips, and Sentinel-2's stay on multiples of 10."""
    from scenebeam.products.fields.scope import _imagery_origin

    changes = {
        "collections": ["landsat-c2-l2"],
        "product.bands": ["red"],
        "product.grid": {"size": 64, "resolution": 30},
    }
    assert _imagery_origin(fields_request(**changes)) == (15, 15)
    assert _imagery_origin(
        fields_request(**{**changes, "product.grid": {"size": 256, "resolution": 10}})
    ) == (0, 0)
    assert _imagery_origin(
        fields_request(collections=["sentinel-2-l2a"], **{"product.bands": ["red"]})
    ) == (0, 0)
    fields = [square(24.0, 40.5, 3000)]
    path = write(tmp_path / "fields.parquet", fields)
    plain = chips_of_fields(path, ChipGridOptions(size=64, resolution=30), 2024).chips
    moved = chips_of_fields(path, ChipGridOptions(size=64, resolution=30), 2024, (15.0, 15.0)).chips
    assert {(chip.transform[2] % 30, chip.transform[5] % 30) for chip in plain} == {(0, 0)}
    assert {(chip.transform[2] % 30, chip.transform[5] % 30) for chip in moved} == {(15, 15)}
