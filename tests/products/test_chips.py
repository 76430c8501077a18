"""Chips of places: known pixels in every layout, labels, dates, draws, splits, and what goes wrong."""

from __future__ import annotations

import json
import math
import re
import tarfile
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pyproj
import pystac
import pytest
import rasterio
import rasterio.features
import shapely
import zarr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from mgrs import MGRS

import scenebeam.chips
from conftest import changed, tree
from known_chips import CROPS, SCENES, Window, crops, image, images
from scenebeam.errors import RequestError
from scenebeam.execution.driver import run
from scenebeam.multihash import content_multihash
from scenebeam.planning.reuse import load_or_create_plan
from scenebeam.planning.search import make_plan
from scenebeam.products.chips import plan as plans
from scenebeam.products.chips.draw import draw_chips
from scenebeam.products.chips.record import CellRecord
from scenebeam.products.chips.request import ChipsRequest, Draw
from scenebeam.products.chips.samples import ImageStack
from scenebeam.products.chips.scope import scope_of_places
from scenebeam.products.chips.stacks import StackSpec
from scenebeam.products.chips.statistics import ChipStatistics
from scenebeam.products.chips.windows import ChipWindows
from scenebeam.request import RunRequest
from scenebeam.requestfile import validate_request
from scenebeam.sandbox.scenes import COLLECTION
from scenebeam.stac_geoparquet import read_items
from scenebeam.storage import open_store

Make = Callable[..., RunRequest[ChipsRequest]]
BANDS = ["red", "green", "blue", "nir"]
LAYOUTS = ("cogs", "webdataset", "parquet", "zarr")
BY_ID = {scene.id: scene for scene in SCENES}
PERIODS = [
    (datetime(2021, 4, 1), datetime(2021, 4, 30, 23, 59, 59, 999999)),
    (datetime(2021, 10, 1), datetime(2021, 10, 31, 23, 59, 59, 999999)),
]


@pytest.fixture
def chips_request(fields: Path, tmp_path: Path) -> Make:
    def make(**changes: Any) -> RunRequest[ChipsRequest]:
        document: dict[str, Any] = {
            "run": "crops",
            "catalog": str(fields / "items.json"),
            "collections": [COLLECTION],
            "dates": ["2021-04", "2021-10"],
            "product": {
                "kind": "chips",
                "places": str(fields / "fields.geojson"),
                "draw": {"count": 12},
                "size": 64,
                "bands": BANDS,
                "labels": [
                    {"name": "crops", "vector": str(fields / "fields.geojson"), "column": "crop"},
                    {"name": "crop", "column": "crop"},
                ],
                "split": {"block": 4},
            },
            "output": str(tmp_path / "out"),
            "runner": "serial",
            "limits": {"retry_wait": 0.01},
        }
        return cast("RunRequest[ChipsRequest]", validate_request(changed(document, changes)))

    return make


def window_of(sample: dict[str, Any]) -> Window:
    west, _, east, north = sample["metadata"]["bounds"]
    return west, north, int(east - west)


def table(output: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(Path(output) / "chips.parquet").to_pylist()
    return rows


# Known pixels


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_and_labels_are_known_in_every_layout(chips_request: Make, layout: str) -> None:
    request = chips_request(**{"product.layout": layout})
    status = run(request)
    assert status.state == "succeeded"
    samples = list(scenebeam.chips.open(request.output))
    assert {sample["id"] for sample in samples} == {
        row["id"] for row in table(request.output) if row["images"]
    }
    assert len(samples) >= 8
    chosen: set[str] = set()
    for sample in samples:
        window = window_of(sample)
        expected = images(window, PERIODS)
        [*scenes] = sample["metadata"]["images"]["image"]["scenes"]
        assert [scene for [scene] in scenes] == [scene.id for scene in expected], sample["id"]
        assert [when.replace(tzinfo=None) for when in sample["time"]] == [
            scene.acquired for scene in expected
        ]
        chosen.update(scene.id for scene in expected)
        assert sample["image"].dtype == np.uint16
        assert sample["image"].shape == (len(expected), 4, 64, 64)
        for scene, pixels in zip(expected, sample["image"], strict=True):
            for band, values in zip(BANDS, pixels, strict=True):
                assert (values == image(scene, band, window)).all(), (sample["id"], band)
        assert (sample["mask"]["crops"] == crops(window)).all()
        # The place is a field, and the middle of its chip is on it.
        assert sample["mask"]["crops"][32, 32] == CROPS.index(sample["label"]["crop"]) + 1
    assert len(chosen) > 2


@pytest.mark.parametrize("layout", LAYOUTS)
def test_chips_of_every_layout_open_as_one_dataset(chips_request: Make, layout: str) -> None:
    request = chips_request(**{"product.layout": layout})
    run(request)
    dataset = scenebeam.open(request.output)
    samples = list(scenebeam.chips.open(request.output))
    assert dataset.image.dims == ("chip", "date", "band", "y", "x")
    assert dataset.sizes["chip"] == len(samples)
    assert dataset.id.values.tolist() == [sample["id"] for sample in samples]
    for number, sample in enumerate(samples):
        dates = len(sample["image"])
        np.testing.assert_array_equal(dataset.image[number, :dates], sample["image"])
        np.testing.assert_array_equal(dataset.crops[number], sample["mask"]["crops"])
        west, south, east, north = sample["bbox"]
        assert west < dataset.lon[number] < east
        assert south < dataset.lat[number] < north
        assert str(dataset.time[number, 0].values)[:19] == f"{sample['time'][0]:%Y-%m-%dT%H:%M:%S}"
    part = dataset.image[1:3, 0, 1, 5:9, ::-7]
    np.testing.assert_array_equal(part, dataset.image.values[1:3, 0, 1, 5:9, ::-7])
    chunked = scenebeam.open(request.output, ["crops"], chunks={"chip": 2})
    np.testing.assert_array_equal(chunked.crops, dataset.crops)


def test_all_layouts_have_the_same_samples(chips_request: Make) -> None:
    found: list[dict[str, Any]] = []
    for layout in LAYOUTS:
        request = chips_request(**{"product.layout": layout})
        run(request, overwrite=True)
        samples = {one["id"]: one for one in scenebeam.chips.open(request.output, "train")}
        found.append(samples)
    first = found[0]
    for others in found[1:]:
        assert others.keys() == first.keys()
        for name, sample in first.items():
            other = others[name]
            assert (sample["image"] == other["image"]).all()
            assert (sample["mask"]["crops"] == other["mask"]["crops"]).all()
            assert sample["metadata"] == other["metadata"]


def test_zarr_is_read_by_zarr(chips_request: Make) -> None:
    request = chips_request(**{"product.layout": "zarr"})
    run(request)
    rows = [row for row in table(request.output) if row["split"] == "train"]
    group: Any = zarr.open_group(Path(request.output) / "chips.zarr" / "train", mode="r")
    assert group["image"].shape == (len(rows), 2, 4, 64, 64)
    assert group["image"].metadata.dimension_names == ("chip", "date", "band", "y", "x")
    assert group["crops"].attrs["classes"] == {"1": "beet", "2": "maize", "3": "wheat"}
    samples = {one["id"]: one for one in scenebeam.chips.open(request.output, "train")}
    for row in rows:
        count = int(group["image_count"][row["number"]])
        assert count == row["images"]
        if not count:
            assert (group["image"][row["number"]] == 0).all()
            continue
        sample = samples[row["id"]]
        assert (group["image"][row["number"], :count] == sample["image"]).all()
        assert (group["crops"][row["number"]] == sample["mask"]["crops"]).all()
        times = group["time"][row["number"], :count]
        assert times.tolist() == [int(when.timestamp()) for when in sample["time"]]
        document = json.loads(bytes(group["metadata"][row["number"]]))
        assert document["id"] == row["id"]


def test_tar_files_are_read_by_webdataset(chips_request: Make) -> None:
    webdataset = pytest.importorskip("webdataset")
    request = chips_request(**{"product.layout": "webdataset"})
    run(request)
    shards = sorted(str(path) for path in Path(request.output).glob("train/*.tar"))
    found = {
        sample["json"]["id"]: sample for sample in webdataset.WebDataset(shards, shardshuffle=False).decode()
    }  # fmt: skip
    samples = {one["id"]: one for one in scenebeam.chips.open(request.output, "train")}
    assert found.keys() == samples.keys()
    for name, sample in samples.items():
        assert (found[name]["image.npy"] == sample["image"]).all()
        assert (found[name]["crops.npy"] == sample["mask"]["crops"]).all()


def test_tar_files_may_have_geotiffs(chips_request: Make) -> None:
    arrays = chips_request(**{"product.layout": "webdataset"})
    run(arrays)
    expected = {one["id"]: one for one in scenebeam.chips.open(arrays.output)}
    run(chips_request(**{"product.layout": "webdataset", "product.members": "tif"}), overwrite=True)
    found = {one["id"]: one for one in scenebeam.chips.open(arrays.output)}
    assert found.keys() == expected.keys()
    for name, sample in found.items():
        assert (sample["image"] == expected[name]["image"]).all()
        assert (sample["mask"]["crops"] == expected[name]["mask"]["crops"]).all()
    [shard, *_] = sorted(Path(arrays.output).glob("train/*.tar"))
    with tarfile.open(shard) as archive:
        member = next(one for one in archive if one.name.endswith(".image.tif"))
        file = archive.extractfile(member)
        assert file is not None
        with rasterio.MemoryFile(file.read()) as memory, memory.open() as dataset:
            assert dataset.count in (4, 8)
            assert dataset.descriptions[0].endswith(" red")
            assert dataset.scales[0] == 0.0001


def test_shards_are_no_larger_than_asked(chips_request: Make) -> None:
    for layout, suffix in (("webdataset", "tar"), ("parquet", "parquet")):
        request = chips_request(**{
            "product.layout": layout, "product.shard_size": "1MB", "product.size": 256, "product.split": None, "product.draw.count": 8,
        })  # fmt: skip
        run(request, overwrite=True)
        shards = list(Path(request.output).glob(f"all/*.{suffix}"))
        assert len(shards) > 3
        if layout == "webdataset":
            assert max(path.stat().st_size for path in shards) < 1_300_000
            with tarfile.open(shards[0]) as archive:
                assert all(member.mtime == 0 for member in archive)
        made = sum(1 for row in table(request.output) if row["images"])
        assert len(list(scenebeam.chips.open(request.output))) == made


# The same bytes, whoever makes them


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_run_in_pieces_ends_with_the_same_files(
    chips_request: Make, layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "LARGEST_CELL", 5)
    whole = chips_request(**{"product.layout": layout, "output": str(tmp_path / "whole")})
    run(whole)
    request = chips_request(**{"product.layout": layout})
    store = open_store(request.output)
    plan = load_or_create_plan(request, store)
    assert len(plan.tasks) > 1

    class Killed(BaseException):
        pass

    def killed(*words: Any, **named: Any) -> bytes:
        raise Killed

    # Killed when all files of a cell are there, but not its record.
    with monkeypatch.context() as patched:
        patched.setattr(CellRecord, "to_bytes", killed)
        with pytest.raises(Killed):
            run(request)
    again = chips_request(**{"product.layout": layout, "runner": "direct"})
    assert run(again).state == "succeeded"
    left, right = tree(tmp_path / "whole"), tree(Path(request.output))
    assert left.keys() == right.keys()
    volatile = ("plan.parquet", "report/index.html")
    assert not [key for key in left if left[key] != right[key] and not key.endswith(volatile)]


# Places


def test_places_come_from_any_file(chips_request: Make, fields: Path, tmp_path: Path) -> None:
    document = json.loads((fields / "fields.geojson").read_text())
    features = document["features"][:6]
    shapes = [shapely.geometry.shape(feature["geometry"]) for feature in features]
    names = [feature["id"] for feature in features]
    centers = [shapely.box(*one.bounds).centroid for one in shapes]
    points = tmp_path / "points.csv"
    points.write_text(
        "name;lon;lat\n"
        + "".join(f"{n};{c.x!r};{c.y!r}\n" for n, c in zip(names, centers, strict=True))
    )
    boxes = tmp_path / "boxes.parquet"
    bounds = np.array([one.bounds for one in shapes]).T
    pq.write_table(
        pa.table(
            {"name": names, **dict(zip(("west", "south", "east", "north"), bounds, strict=True))}
        ),
        boxes,
    )
    polygons = tmp_path / "polygons.geojson"
    polygons.write_text(
        json.dumps(
            {
                "type": "FeatureCollection",
                "features": [
                    {**feature, "properties": {"name": feature["id"]}} for feature in features
                ],
            }
        )
    )
    packed = tmp_path / "packed.gpkg"
    pyogrio.raw.write(
        packed,
        geometry=shapely.to_wkb(np.array(shapes)),
        field_data=[np.array(names, object)],
        fields=["name"],
        geometry_type="Polygon",
        crs="EPSG:4326",
        driver="GPKG",
    )
    found = []
    for path in (points, boxes, polygons, packed):
        request = chips_request(
            **{
                "product.places": str(path),
                "product.id_column": "name",
                "product.labels": [],
                "product.draw": {},
                "product.split": None,
            }
        )
        run(request, overwrite=True)
        found.append(
            {row["id"]: (row["left"], row["top"], row["images"]) for row in table(request.output)}
        )
    assert set(found[0]) == set(names)
    assert found[0] == found[1] == found[2] == found[3]


def places_file(path: Path, features: list[dict[str, Any]]) -> str:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return str(path)


@pytest.fixture
def features(fields: Path) -> list[dict[str, Any]]:
    document = json.loads((fields / "fields.geojson").read_text())
    found: list[dict[str, Any]] = document["features"][:5]
    return found


def test_places_that_cannot_be_used_are_named_and_the_others_made(
    chips_request: Make, features: list[dict[str, Any]], tmp_path: Path
) -> None:
    features[0]["geometry"] = None
    features[1]["geometry"] = {"type": "Polygon", "coordinates": []}
    features[2]["properties"]["crop"] = None
    path = places_file(tmp_path / "p.geojson", features)
    request = chips_request(**{"product.places": path, "product.draw": {}, "product.split": None})
    run(request)
    assert {row["id"] for row in table(request.output)} == {one["id"] for one in features[3:]}
    lines = (Path(request.output) / "place_faults.csv").read_text().splitlines()
    assert lines[1:4] == [
        f"1,{features[0]['id']},is empty: left out",
        f"2,{features[1]['id']},is empty: left out",
        f"3,{features[2]['id']},has no crop: left out",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda features: features[1].update(id=features[0]["id"]), "two places .* have the id"),
        (lambda features: features[0]["geometry"].update(type="Point", coordinates=[23, 140]), "outside the Earth"),
        (lambda features: [one["properties"].pop("crop") for one in features], "no values in the columns crop"),
        (lambda features: [one.update(geometry=None) for one in features], "no place of .* can be used; row 1 is empty"),
    ],
)  # fmt: skip
def test_files_of_places_that_are_refused(
    chips_request: Make, features: list[dict[str, Any]], tmp_path: Path, change: Any, said: str
) -> None:
    change(features)
    path = places_file(tmp_path / "p.geojson", features)
    with pytest.raises(RequestError, match=said):
        make_plan(chips_request(**{"product.places": path}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"product.grid": {}}, "give either places or grid"),
        ({"product.places": None, "product.grid": {}, "product.labels": [], "product.draw": {}}, "area: product.grid needs"),
        ({"dates": []}, "dates: give them"),
        ({"product.date_column": "when", "product.period": "month"}, "leave it out with date_column"),
        ({"product.size": 0}, "it must be from 1 to 4096"),
        ({"product.size": "10 km"}, "not a number of pixels"),
        ({"product.labels": [{"name": "a", "vector": "x", "raster": "y"}]}, "give one of vector, raster"),
        ({"product.labels": [{"name": "image", "column": "y"}]}, "image is in use already"),
        ({"product.labels": [{"name": "a", "collection": "esa-worldcover"}]}, "add esa-worldcover"),
        ({"product.draw": {"per_class": 3}}, "need the column of the classes"),
        ({"product.layout": "zarr", "product.choose": "all"}, "set count"),
        ({"grid": {"resolution": 10}}, "grid: leave it out"),
        ({"series": True, "area": {"bbox": [23, 40, 24, 41]}}, "makes everything at once"),
        ({"product.crs": "EPSG:1"}, "neither utm nor a valid CRS"),
        ({"product.bands": ["B99"]}, "unknown band 'B99'"),
        ({"product.places": "/nowhere.gpkg"}, "cannot read /nowhere.gpkg"),
        ({"product.labels": [{"name": "a", "raster": "/nowhere.tif"}]}, "product.labels: a: /nowhere.tif"),
    ],
)  # fmt: skip
def test_requests_that_are_refused(chips_request: Make, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        make_plan(chips_request(**changes))


# Where


def test_size_in_meters_and_chips_in_the_center(
    chips_request: Make, features: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = places_file(tmp_path / "p.geojson", features)
    common: dict[str, Any] = {
        "product.places": path,
        "product.draw": {},
        "product.labels": [],
        "product.split": None,
    }
    run(chips_request(**common, **{"product.size": "640m"}))
    [*snapped] = table(str(tmp_path / "out"))
    run(chips_request(**common, **{"product.size": 64, "product.snap": False}), overwrite=True)
    [*centered] = table(str(tmp_path / "out"))
    to_utm = pyproj.Transformer.from_crs(4326, 32634, always_xy=True)
    by_id = {one["id"]: shapely.geometry.shape(one["geometry"]).bounds for one in features}
    for one in snapped:
        [other] = [row for row in centered if row["id"] == one["id"]]
        assert one["left"] % 10 == one["top"] % 10 == 0
        assert abs(one["left"] - other["left"]) <= 5
        assert abs(one["top"] - other["top"]) <= 5
        west, south, east, north = by_id[other["id"]]
        x, y = to_utm.transform((west + east) / 2, (south + north) / 2)
        assert (other["left"], other["top"]) == pytest.approx((x - 320, y + 320), abs=1e-6)


AREA = [23.90, 40.58, 23.98, 40.64]
GRID: dict[str, Any] = {
    "product.places": None,
    "product.labels": [],
    "product.draw": {},
    "product.split": None,
    "area": {"bbox": AREA},
}


def test_a_grid_covers_an_area_with_chips_that_do_not_overlap(chips_request: Make) -> None:
    request = chips_request(**GRID, **{"product.grid": {}})
    run(request)
    rows = table(request.output)
    assert len({row["id"] for row in rows}) == len(rows) > 60
    area = shapely.box(*AREA)
    windows = {}
    to_lonlat = pyproj.Transformer.from_crs(32634, 4326, always_xy=True)
    for row in rows:
        assert row["crs"] == "EPSG:32634"
        assert row["left"] % 640 == row["top"] % 640 == 0
        assert row["id"] == f"32634_{row['left'] / 640:.0f}_{row['top'] / 640 - 1:.0f}"
        windows[row["left"], row["top"]] = shapely.box(
            row["left"], row["top"] - 640, row["left"] + 640, row["top"]
        )
    covered = shapely.transform(
        shapely.union_all(list(windows.values())), to_lonlat.transform, interleaved=False
    )
    assert covered.buffer(1e-6).contains(area)
    fewer = chips_request(**GRID, **{"product.grid": {"min_overlap": 1.0}})
    run(fewer, overwrite=True)
    inside = {row["id"] for row in table(fewer.output)}
    assert inside < {row["id"] for row in rows}
    for row in table(fewer.output):
        box = shapely.transform(
            windows[row["left"], row["top"]], to_lonlat.transform, interleaved=False
        )
        assert area.buffer(1e-9).contains(box)


def test_chips_of_a_grid_may_have_mgrs_references(chips_request: Make) -> None:
    request = chips_request(**GRID, **{"product.grid": {"kind": "mgrs"}})
    windows = scope_of_places(request).windows
    assert len(set(windows.ids)) == len(windows.ids) > 60
    for name, left, top in zip(windows.ids, windows.left, windows.top, strict=True):
        zone, hemisphere, x, y = MGRS().MGRSToUTM(name)
        # A reference of 10 m names a square, of which this is the center.
        assert (zone, hemisphere, x - 5, y - 5) == (34, "N", left, top - 640)


def test_chips_of_two_zones_are_those_of_their_own(chips_request: Make) -> None:
    request = chips_request(
        **{**GRID, "area": {"bbox": [23.98, 40.60, 24.02, 40.62]}},
        **{"product.grid": {"step": 640}},
    )
    scope = scope_of_places(request)
    zones = set(scope.windows.crs)
    assert zones == {"EPSG:32634", "EPSG:32635"}
    lon = shapely.get_x(shapely.centroid(scope.shapes))
    assert ((lon < 24) == (scope.windows.crs == "EPSG:32634")).all()


def test_major_tom_cells(chips_request: Make) -> None:
    request = chips_request(
        **{**GRID, "area": {"bbox": [23.5, 40.2, 24.5, 41.0]}},
        **{"product.grid": {"kind": "major-tom"}, "product.size": 1068},
    )
    scope = scope_of_places(request)
    names = list(scope.windows.ids)
    # 10 km from the equator along a meridian, and along the parallel: rows 447 to 456 north.
    height = 180 / math.ceil(math.pi * 6378137 / 10_000)
    for name, crs, left, top in zip(
        names, scope.windows.crs, scope.windows.left, scope.windows.top, strict=True
    ):
        row, column = re.fullmatch(r"(\d+)U_(\d+)R", name).groups()  # type: ignore[union-attr]
        latitude = int(row) * height
        width = 360 / math.ceil(2 * math.pi * 6378137 * math.cos(math.radians(latitude)) / 10_000)
        to_lonlat = pyproj.Transformer.from_crs(crs, 4326, always_xy=True)
        lon, lat = to_lonlat.transform(left, top - 10_680)
        assert (lon, lat) == pytest.approx((int(column) * width, latitude), abs=1e-4)
    assert "447U_" in {name[:5] for name in names} or names


# When


def test_each_place_has_its_own_date(
    chips_request: Make, features: list[dict[str, Any]], tmp_path: Path
) -> None:
    days = ["2021-04-06", "2021-04-16T12:00:00Z", "2021-10-20", "2021/10/27", "1999-01-01"]
    for feature, day in zip(features, days, strict=True):
        feature["properties"]["when"] = day
    path = places_file(tmp_path / "p.geojson", features)
    request = chips_request(**{
        "dates": [], "product.places": path, "product.date_column": "when", "product.window_days": 7,
        "product.choose": "nearest", "product.draw": {}, "product.labels": [], "product.split": None,
    })  # fmt: skip
    run(request)
    rows = {row["id"]: row for row in table(request.output)}
    assert rows[features[4]["id"]]["reason"] == "no scene covers it"
    samples = {one["id"]: one for one in scenebeam.chips.open(request.output)}
    for feature, day in zip(features[:4], days, strict=False):
        noon = datetime.fromisoformat(day[:10].replace("/", "-")) + timedelta(hours=12)
        start = noon - timedelta(days=7, hours=12)
        period = (start, start + timedelta(days=15) - timedelta(microseconds=1))
        if feature["id"] not in samples:
            continue
        sample = samples[feature["id"]]
        [expected] = images(window_of(sample), [period], by_time=True)
        assert sample["metadata"]["images"]["image"]["scenes"] == [[expected.id]]
    assert len(samples) >= 3
    for feature in features:
        feature["properties"]["when"] = "in spring"
    places_file(tmp_path / "p.geojson", features)
    with pytest.raises(RequestError, match="is 'in spring', which is not a date"):
        make_plan(request)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"product.count": 2}, {"count": 2}),
        ({"product.choose": "all"}, {"count": None}),
        ({"product.choose": "all", "product.max_cloud": 0}, {"count": None, "most": 0.0}),
        ({"product.choose": "nearest", "product.count": 2}, {"count": 2, "by_time": True}),
        ({"dates": "2021-03-15/2021-11-10", "product.period": "month"}, {"months": True}),
    ],
)  # fmt: skip
def test_which_images(chips_request: Make, changes: dict[str, Any], rule: dict[str, Any]) -> None:
    request = chips_request(**{"product.labels": [], **changes})
    run(request)
    periods = PERIODS
    if rule.pop("months", False):
        starts = [datetime(2021, 3, 15), *(datetime(2021, month, 1) for month in range(4, 12))]
        ends = [*starts[1:], datetime(2021, 11, 11)]
        periods = [(a, b - timedelta(microseconds=1)) for a, b in zip(starts, ends, strict=True)]
    samples = list(scenebeam.chips.open(request.output))
    for sample in samples:
        expected = images(window_of(sample), periods, **rule)
        found = sample["metadata"]["images"]["image"]["scenes"]
        assert [name for [name] in found] == [scene.id for scene in expected], sample["id"]
    assert len(samples) >= 6


def test_missing_chips_say_why_and_may_fail_or_be_cloudy(chips_request: Make) -> None:
    strict = {
        "dates": ["2021-03-21", "2021-11-01"],
        "product.max_cloud": 0,
        "product.min_images": 2,
        "product.draw.count": 60,
        "product.labels": [],
    }
    request = chips_request(**strict)
    status = run(request)
    rows = table(request.output)
    missing = [row for row in rows if not row["images"]]
    assert status.state == "succeeded"
    assert missing
    reasons = {re.sub(r"\d+", "N", row["reason"]) for row in missing}
    assert reasons <= {"too few of N scenes are clear (N measured)", "no scene covers it"}
    refused = run(chips_request(**strict, **{"product.on_missing": "fail"}), overwrite=True)
    assert refused.failed > 0
    assert (
        f"{missing[0]['id']}" in (Path(request.output) / "failures.csv").read_text()
        or refused.failed
    )
    relaxed = chips_request(**strict, **{"product.on_missing": "best-available"})
    run(relaxed, overwrite=True)
    left = [row for row in table(relaxed.output) if not row["images"]]
    assert {row["id"] for row in left} < {row["id"] for row in missing}


# Labels


def test_vector_labels_are_those_of_gdal(chips_request: Make, fields: Path, tmp_path: Path) -> None:
    document = json.loads((fields / "fields.geojson").read_text())
    for number, feature in enumerate(document["features"]):
        feature["properties"]["code"] = number % 5 + 3
    path = tmp_path / "labels.geojson"
    path.write_text(json.dumps(document))
    request = chips_request(**{"product.labels": [
        {"name": "code", "vector": str(path), "column": "code"},
        {"name": "touched", "vector": str(path), "column": "code", "all_touched": True, "background": 9},
        {"name": "edges", "vector": str(path), "boundary": 2},
        {"name": "ids", "vector": str(path), "instances": True},
    ]})  # fmt: skip
    run(request)
    to_utm = {crs: pyproj.Transformer.from_crs(4326, crs, always_xy=True) for crs in (32634, 32635)}
    for sample in scenebeam.chips.open(request.output):
        metadata = sample["metadata"]
        epsg = int(metadata["crs"].removeprefix("EPSG:"))
        west, _, _, north = metadata["bounds"]
        transform = Affine(10, 0, west, 0, -10, north)
        shapes = [
            shapely.transform(
                shapely.geometry.shape(one["geometry"]), to_utm[epsg].transform, interleaved=False
            )
            for one in document["features"]
        ]
        codes = [one["properties"]["code"] for one in document["features"]]

        def burn(
            values: Any, transform: Any = transform, shapes: Any = shapes, **options: Any
        ) -> np.ndarray:
            return rasterio.features.rasterize(
                zip(shapes, values, strict=True), (64, 64), transform=transform, **options
            )

        assert (sample["mask"]["code"] == burn(codes, fill=0, dtype="uint8")).all()
        assert (
            sample["mask"]["touched"] == burn(codes, fill=9, all_touched=True, dtype="uint8")
        ).all()
        assert sample["mask"]["ids"].dtype == np.uint32
        assert (
            sample["mask"]["ids"] == burn(range(1, len(shapes) + 1), fill=0, dtype="uint32")
        ).all()
        lines = [one.boundary for one in shapes]
        outline = rasterio.features.rasterize(
            lines, (64, 64), transform=transform, all_touched=True
        )
        inside = burn([1] * len(shapes), fill=0, dtype="uint8")
        assert (sample["mask"]["edges"] == np.where(outline, 2, inside)).all()


def test_chips_with_too_little_of_a_label_are_left_out(chips_request: Make, fields: Path) -> None:
    label = {"name": "crops", "vector": str(fields / "fields.geojson"), "column": "crop"}
    whole = chips_request(**{"product.labels": [label]})
    run(whole)
    shares = {
        one["id"]: 100 * (one["mask"]["crops"] > 0).mean()
        for one in scenebeam.chips.open(whole.output)
    }
    middle = sorted(shares.values())[len(shares) // 2]
    some = chips_request(**{"product.labels": [{**label, "min_share": middle}]})
    run(some, overwrite=True)
    kept = {one["id"] for one in scenebeam.chips.open(some.output)}
    assert kept == {name for name, share in shares.items() if share >= middle}
    reasons = {row["reason"] for row in table(some.output)}
    assert f"less than {middle:g} % of it has a class of crops" in reasons


def test_raster_labels_are_the_nearest_pixels(chips_request: Make, tmp_path: Path) -> None:
    path = tmp_path / "classes.tif"
    classes = np.random.default_rng(1).integers(1, 200, (300, 700), np.uint8)
    transform = Affine(25, 0, 744_000, 0, -25, 4_502_000)
    with rasterio.open(path, "w", driver="GTiff", width=700, height=300, count=1, dtype="uint8", crs="EPSG:32634", transform=transform, nodata=0) as file:  # fmt: skip
        file.write(classes, 1)
    request = chips_request(
        **{
            "product.crs": "EPSG:32634",
            "product.labels": [{"name": "cover", "raster": str(path)}],
            "product.draw.count": 60,
        }
    )
    run(request)
    rows = {row["id"]: row for row in table(request.output)}
    samples = {one["id"]: one for one in scenebeam.chips.open(request.output)}
    for sample in samples.values():
        left, top, _ = window_of(sample)
        x, y = left + 5 + 10 * np.arange(64), top - 5 - 10 * np.arange(64)
        columns, lines = (
            np.floor((x - 744_000) / 25).astype(int),
            np.floor((4_502_000 - y) / 25).astype(int),
        )
        expected = np.zeros((64, 64), np.uint8)
        inside = (lines[:, None] < 300) & (columns[None, :] < 700)
        known = classes[np.minimum(lines, 299)[:, None], np.minimum(columns, 699)[None, :]]
        expected[inside] = known[inside]
        assert (sample["mask"]["cover"] == expected).all()
    outside = [row for row in rows.values() if row["reason"] == "the label cover has no data there"]
    assert outside
    assert all(row["top"] < 4_502_000 - 7_500 + 640 for row in outside)


# Draws and splits


@given(
    names=st.lists(
        st.text("abcdefgh", min_size=1, max_size=6), min_size=1, max_size=60, unique=True
    ),
    count=st.integers(1, 30),
    seed=st.integers(0, 3),
    data=st.data(),
)
def test_a_draw_is_stable_and_balanced(
    names: list[str], count: int, seed: int, data: st.DataObject
) -> None:
    classes = [data.draw(st.sampled_from("xyz")) for _ in names]
    nothing = np.zeros(len(names))
    windows = ChipWindows(
        names,
        names,
        np.array(["EPSG:32634"] * len(names), object),
        nothing,
        nothing,
        1.0,
        {"c": classes},
    )
    few = draw_chips(windows, Draw(count=count, seed=seed)).tolist()
    more = draw_chips(windows, Draw(count=count + 5, seed=seed)).tolist()
    assert len(few) == min(count, len(names))
    assert set(few) <= set(more)
    reversed_names = windows.subset(np.arange(len(names))[::-1])
    again = draw_chips(reversed_names, Draw(count=count, seed=seed)).tolist()
    assert {reversed_names.ids[index] for index in again} == {names[index] for index in few}
    per_class = draw_chips(windows, Draw(per_class=3, column="c", seed=seed)).tolist()
    found = Counter(classes[index] for index in per_class)
    assert found == {name: min(3, classes.count(name)) for name in set(classes)}
    balanced = draw_chips(windows, Draw(balance=1.5, column="c", seed=seed)).tolist()
    smallest = min(classes.count(name) for name in set(classes))
    kept = Counter(classes[index] for index in balanced)
    assert kept == {
        name: min(math.floor(smallest * 1.5), classes.count(name)) for name in set(classes)
    }
    stratified = Counter(
        classes[index]
        for index in draw_chips(windows, Draw(count=count, column="c", seed=seed)).tolist()
    )
    largest = max(stratified.values())
    for name in set(classes):
        assert stratified[name] >= min(largest - 1, classes.count(name))


def test_no_chip_of_one_split_touches_one_of_another(chips_request: Make) -> None:
    request = chips_request(**{"product.draw": {}, "product.labels": [], "product.split.block": 2})
    run(request)
    rows = [row for row in table(request.output) if row["split"] != "buffer"]
    boxes = {}
    for row in rows:
        boxes[row["id"]] = (
            row["crs"],
            row["split"],
            shapely.box(row["left"], row["top"] - 640, row["left"] + 640, row["top"]),
        )
    for crs, split, box in boxes.values():
        for other_crs, other_split, other in boxes.values():
            if crs == other_crs and split != other_split:
                assert not box.intersects(other)
    seen: Counter[str] = Counter()
    for split in ("train", "val", "test"):
        seen.update(one["id"] for one in scenebeam.chips.open(request.output, split))
    assert set(seen.values()) == {1}
    assert set(seen) == {row["id"] for row in rows if row["images"]}


def test_splits_may_come_from_a_column(
    chips_request: Make, features: list[dict[str, Any]], tmp_path: Path
) -> None:
    for feature, name in zip(features, ["fit", "fit", "hold-out", "fit", "hold-out"], strict=True):
        feature["properties"]["fold"] = name
    path = places_file(tmp_path / "p.geojson", features)
    request = chips_request(
        **{"product.places": path, "product.split_column": "fold", "product.draw": {}}
    )
    run(request)
    assert {row["id"]: row["split"] for row in table(request.output)} == {
        one["id"]: one["properties"]["fold"] for one in features
    }
    with pytest.raises(RequestError, match=r"no chips of the split 'train'; it has fit, hold-out"):
        scenebeam.chips.open(request.output, "train")
    features[0]["properties"]["fold"] = "../up"
    places_file(tmp_path / "p.geojson", features)
    with pytest.raises(RequestError, match="is not a plain name of a split"):
        make_plan(request)


# Statistics, cards, reading back


def test_statistics_are_those_of_all_training_pixels(chips_request: Make) -> None:
    request = chips_request()
    run(request)
    chips = scenebeam.chips.open(request.output, "train")
    pixels = np.concatenate(
        [one["image"].transpose(1, 0, 2, 3).reshape(4, -1) for one in chips], axis=1
    )
    found = chips.statistics()["bands"]["image"]
    for band, values in zip(BANDS, pixels, strict=True):
        figures = found[band]
        assert figures["count"] == values.size
        assert figures["mean"] == pytest.approx(values.mean(dtype=np.float64), rel=1e-12)
        assert figures["std"] == pytest.approx(values.std(dtype=np.float64), rel=1e-12)
        assert (figures["min"], figures["max"]) == (values.min(), values.max())
        for percent in (2, 50, 98):
            assert figures[f"p{percent}"] == np.percentile(values, percent, method="inverted_cdf")
    card = (Path(request.output) / "README.md").read_text()
    assert "| train |" in card
    assert "| 1 | beet |" in card
    assert len(chips) == len(list(chips))


@given(
    st.lists(
        st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50), min_size=1, max_size=4
    )
)
def test_statistics_of_floats_merge(parts: list[list[float]]) -> None:
    together, merged = ChipStatistics(), ChipStatistics()
    when = [datetime(2021, 1, 1)]
    spec = StackSpec(name="image", bands=(("dem", 1.0, 0.0),), dtype="float32", nodata=None)
    for part in parts:
        pixels = np.array(part, np.float32).reshape(1, 1, 1, -1)
        stack = ImageStack(spec, pixels, when, [["x"]])
        alone = ChipStatistics()
        alone.add(stack)
        together.add(stack)
        merged.merge(alone.to_table())
    values = np.array([value for part in parts for value in part], np.float32).astype(np.float64)
    for found in (together, merged):
        figures = found.describe()["image"]["dem"]
        assert figures["count"] == len(values)
        assert figures["mean"] == pytest.approx(values.mean(), rel=1e-9, abs=1e-6)
        assert figures["std"] == pytest.approx(
            values.std(), rel=1e-5, abs=np.abs(values).max() * 1e-6
        )
        expected = np.percentile(values, 50, method="inverted_cdf")
        assert figures["p50"] == pytest.approx(expected, rel=0.008, abs=1e-30)


def test_items_describe_files(chips_request: Make) -> None:
    request = chips_request()
    run(request)
    manifest = {
        row["file"]: row
        for row in pq.read_table(Path(request.output) / "manifest.parquet").to_pylist()
    }
    on_disk = {
        str(path.relative_to(request.output)) for path in Path(request.output).glob("chips/*/*")
    }
    assert set(manifest) == on_disk
    items = list(read_items(Path(request.output) / "items.parquet"))
    assert {item["id"] for item in items} == {
        row["id"] for row in table(request.output) if row["images"]
    }
    for item in items:
        assert pystac.Item.from_dict(item).datetime is not None
        for asset in item["assets"].values():
            key = asset["href"].removeprefix("./")
            content = (Path(request.output) / key).read_bytes()
            assert asset["file:checksum"] == content_multihash(content) == manifest[key]["checksum"]
            with rasterio.open(Path(request.output) / key) as file:
                assert list(file.transform)[:6] == item["properties"]["proj:transform"]


def test_workers_of_a_loader_share_the_chips(chips_request: Make) -> None:
    request = chips_request(**{"product.layout": "webdataset"})
    run(request)
    chips = scenebeam.chips.open(request.output)
    parts = [chips.shard(number, 3) for number in range(3)]
    found = [one["id"] for part in parts for one in part]
    assert sorted(found) == sorted(one["id"] for one in chips)
    assert [len(part) for part in parts] == [len(list(part)) for part in parts]


def test_torch_gets_tensors(chips_request: Make) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    request = chips_request()
    run(request)
    chips = scenebeam.chips.to_torch(scenebeam.chips.open(request.output, "train"))
    loader = torch.utils.data.DataLoader(chips, batch_size=None, num_workers=2)
    found = {one["id"]: one for one in loader}
    assert len(found) == len(chips)
    assert all(one["image"].dtype == torch.int32 for one in found.values())


def test_what_holds_no_chips_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="has no chips"):
        scenebeam.chips.open(str(tmp_path))
