"""Chips of odd input: names that collide, classes that do not fit, sensors that differ, places at the edge of the Earth."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
import pyproj
import pytest
import rasterio
import rasterio.features
import shapely
import zarr
from affine import Affine

import scenebeam
import scenebeam.chips
from conftest import changed
from scenebeam.errors import RequestError
from scenebeam.execution.driver import run
from scenebeam.planning.search import make_plan
from scenebeam.products.chips.layouts import cogs
from scenebeam.products.chips.request import ChipsRequest
from scenebeam.products.chips.scope import scope_of_places
from scenebeam.raster.memory import read_tiff
from scenebeam.request import RunRequest
from scenebeam.requestfile import validate_request
from scenebeam.sandbox.landcover import EPSG, LEFT, TOP, records
from scenebeam.sandbox.scenes import COLLECTION

Document = dict[str, Any]
Make = Callable[..., RunRequest[ChipsRequest]]
LAYOUTS = ("cogs", "webdataset", "parquet", "zarr")
X, Y = 748_000, 4_498_000
"""A place in the middle of the sandbox's fields, EPSG:32634."""


@pytest.fixture
def places(tmp_path: Path) -> Callable[[list[Document]], str]:
    """Write places, by default on a row of points in the middle of the fields."""

    def write(rows: list[Document]) -> str:
        to_lonlat = pyproj.Transformer.from_crs(32634, 4326, always_xy=True)
        features = []
        for number, row in enumerate(rows):
            lon, lat = row.pop("at", None) or to_lonlat.transform(X + 400 * number, Y)
            geometry = {"type": "Point", "coordinates": [lon, lat]}
            features.append(
                {
                    "type": "Feature",
                    "id": row.pop("id", None),
                    "properties": row,
                    "geometry": geometry,
                }
            )
        path = tmp_path / "places.geojson"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        return str(path)

    return write


@pytest.fixture
def make(fields: Path, tmp_path: Path, places: Callable[..., str]) -> Make:
    def request(rows: list[Document] | None = None, **changes: Any) -> RunRequest[ChipsRequest]:
        document: Document = {
            "run": "odd",
            "catalog": str(fields / "items.json"),
            "collections": [COLLECTION],
            "dates": ["2021-04", "2021-10"],
            "product": {
                "kind": "chips",
                "places": places([{}, {}, {}] if rows is None else rows),
                "size": 32,
                "bands": ["red", "nir"],
                "split": None,
            },
            "output": str(tmp_path / "out"),
            "runner": "serial",
        }
        return cast("RunRequest[ChipsRequest]", validate_request(changed(document, changes)))

    return request


def table(output: str) -> list[Document]:
    rows: list[Document] = pq.read_table(Path(output) / "chips.parquet").to_pylist()
    return rows


# Stores that hold all chips


def test_a_cell_without_scenes_changes_nothing_of_a_store(make: Make) -> None:
    far_north = {"at": (23.9, 43.6)}
    request = make([far_north, {}, {}], **{"product.layout": "zarr"})
    assert run(request).state == "succeeded"
    group: Any = zarr.open_group(Path(request.output) / "chips.zarr" / "all", mode="r")
    assert group["image"].shape == (3, 2, 2, 32, 32)
    assert [
        row["images"] for row in sorted(table(request.output), key=lambda row: row["number"])
    ] == [0, 2, 2]
    assert (group["image"][1] > 0).all()
    assert (group["image"][0] == 0).all()


@pytest.fixture
def two_sensors(landcover: Path, tmp_path: Path) -> Document:
    to_lonlat = pyproj.Transformer.from_crs(EPSG, 4326, always_xy=True)
    west, south = to_lonlat.transform(LEFT + 1_500, TOP - 5_000)
    east, north = to_lonlat.transform(LEFT + 4_500, TOP - 2_000)
    known = {record.id: record.model_dump(mode="json") for record in records()}
    return {
        "catalog": str(landcover / "items.json"),
        "collections": [known["sentinel-2-l2a"], known["landsat-c2-l2"]],
        "area": {"bbox": [west, south, east, north]},
        "dates": "2021",
        "product": {
            "kind": "chips",
            "grid": {"step": 1500},
            "size": 32,
            "bands": ["red", "nir"],
            "choose": "all",
            "max_cloud": 100,
            "split": None,
        },
        "output": str(tmp_path / "out"),
        "runner": "serial",
    }


def test_sensors_that_scale_differently_are_not_mixed(two_sensors: Document) -> None:
    with pytest.raises(
        RequestError, match=r"cannot be stored alike: .*red as uint16 \(nodata 0, scale"
    ):
        make_plan(validate_request(two_sensors))
    two_sensors["product"]["others"] = [
        {
            "name": "landsat",
            "collection": "landsat-c2-l2",
            "bands": ["red", "nir08"],
            "within_days": 40,
        }
    ]
    two_sensors["product"]["choose"] = "clearest"
    request = validate_request(two_sensors)
    assert run(request).state == "succeeded"
    for sample in scenebeam.chips.open(request.output):
        scales = {
            name: one["bands"][0]["scale"] for name, one in sample["metadata"]["images"].items()
        }
        assert scales == {"image": 0.0001, "landsat": 2.75e-05}
        for path in (Path(request.output) / "chips" / sample["id"]).glob("*_landsat_*.tif"):
            with rasterio.open(path) as file:
                assert file.scales == (2.75e-05, 2.75e-05)
                assert file.offsets == (-0.2, -0.2)


# Names


def test_ids_that_are_no_names_of_files_stay_apart_and_are_kept(make: Make) -> None:
    names = ["a.b", "a_b", "a/b", "Äcker", "東京", "x" * 200, -5, 1.0]
    for layout in LAYOUTS:
        request = make([{"id": name} for name in names], **{"product.layout": layout})
        run(request, overwrite=True)
        samples = list(scenebeam.chips.open(request.output))
        assert len(samples) == len(names)
        assert {one["metadata"]["place"] for one in samples} == {
            str(name) if name != 1.0 else "1" for name in names
        }
        assert all(len(one["id"]) <= 60 and one["id"].isascii() for one in samples)
        assert {row["place"] for row in table(request.output)} == {
            one["metadata"]["place"] for one in samples
        }
    with pytest.raises(RequestError, match="two places of .* have the id a"):
        make_plan(make([{"id": "a"}, {"id": "a"}]))
    with pytest.raises(RequestError, match="ids like ab and AB"):
        make_plan(make([{"id": "ab"}, {"id": "AB"}]))


@pytest.mark.parametrize("name", ["time", "metadata", "geometry", "image_red", "crs", "mask", "image_count"])  # fmt: skip
def test_names_of_layouts_are_not_those_of_labels(make: Make, name: str) -> None:
    with pytest.raises(RequestError, match=f"{name} is in use already"):
        make([{"v": 1}], **{"product.labels": [{"name": name, "column": "v"}]})


@pytest.mark.parametrize("name", ["cells", "Report", "a b", "é"])
def test_splits_are_folders_of_their_own(make: Make, name: str) -> None:
    with pytest.raises(RequestError, match="is not a plain name of a split"):
        make_plan(make([{"fold": name}], **{"product.split_column": "fold"}))


def test_without_a_training_split_all_chips_are_described(make: Make) -> None:
    request = make([{"fold": "one"}, {"fold": "two"}], **{"product.split_column": "fold"})
    run(request)
    assert (
        scenebeam.chips.open(request.output).statistics()["bands"]["image"]["red"]["count"]
        == 4 * 32 * 32
    )
    assert 'split="one"' in (Path(request.output) / "README.md").read_text()


# Classes


def polygons(path: Path, values: list[Any]) -> str:
    to_lonlat = pyproj.Transformer.from_crs(32634, 4326, always_xy=True)
    features = []
    for number, value in enumerate(values):
        box = shapely.box(X - 100 + 400 * number, Y - 100, X + 100 + 400 * number, Y + 100)
        geometry = shapely.transform(box, to_lonlat.transform, interleaved=False)
        features.append({"type": "Feature", "properties": {"k": value}, "geometry": shapely.geometry.mapping(geometry)})  # fmt: skip
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return str(path)


@pytest.mark.parametrize(
    ("values", "more", "said"),
    [
        ([-1, 1, 2], {}, "has the class -1; classes are whole numbers from 0"),
        ([0.5, 1, 2], {}, "has the class 0.5"),
        ([1, 2, "unknown"], {}, "numbers and texts such as 'unknown'"),
        ([0, 1, 2], {}, "the class 0, which is also the background"),
        ([1, 2, 255], {"background": 255}, "the class 255, which is also the background"),
        ([1, 2, 3], {"boundary": 3}, "the class 3, which is also the boundary"),
        ([1, 2, 70_000], {}, "has the class 70000"),
    ],
)
def test_classes_that_would_be_renumbered_or_lost_are_refused(
    make: Make, tmp_path: Path, values: list[Any], more: Document, said: str
) -> None:
    path = polygons(tmp_path / "k.geojson", values)
    label = {"name": "k", "vector": path, "column": "k", **more}
    with pytest.raises(RequestError, match=said):
        make_plan(make(**{"product.labels": [label]}))


@pytest.mark.parametrize("values", [[7, 300, 65_535], ["10", "20", "300"], [1.0, 2.0, 300.0]])
def test_classes_that_are_whole_numbers_stay(make: Make, tmp_path: Path, values: list[Any]) -> None:
    path = polygons(tmp_path / "k.geojson", values)
    request = make(**{"product.labels": [{"name": "k", "vector": path, "column": "k"}]})
    run(request)
    found = [one["mask"]["k"] for one in scenebeam.chips.open(request.output)]
    assert {mask.dtype.name for mask in found} == {"uint16"}
    assert sorted(int(mask[16, 16]) for mask in found) == sorted(
        int(float(value)) for value in values
    )


def test_instances_have_no_other_classes(make: Make, tmp_path: Path) -> None:
    path = polygons(tmp_path / "k.geojson", [1, 2, 3])
    with pytest.raises(RequestError, match="instances: leave out column, boundary and background"):
        make(
            **{"product.labels": [{"name": "k", "vector": path, "instances": True, "boundary": 2}]}
        )


def test_long_edges_bend_as_the_crs_does(make: Make, tmp_path: Path) -> None:
    """A parallel is no straight line in UTM: a box of 12 degrees ends where its parallel is."""
    to_lonlat = pyproj.Transformer.from_crs(32634, 4326, always_xy=True)
    _, latitude = to_lonlat.transform(X, Y)
    box = shapely.box(18, 40.0, 30, latitude)
    feature = {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(box)}
    path = tmp_path / "box.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    request = make(**{"product.labels": [{"name": "south", "vector": str(path)}]})
    run(request)
    seen = 0
    for sample in scenebeam.chips.open(request.output):
        west, _, _, north = sample["metadata"]["bounds"]
        x, y = np.meshgrid(west + 5 + 10 * np.arange(32), north - 5 - 10 * np.arange(32))
        _, lat = to_lonlat.transform(x, y)
        sure = np.abs(lat - latitude) > 1e-6
        assert (sample["mask"]["south"] == (lat < latitude))[sure].all()
        seen += 1
    assert seen == 3


def test_a_raster_of_floats_is_no_class_and_nan_is_no_data(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "yield.tif"
    values = np.random.default_rng(0).normal(5, 1, (100, 100)).astype(np.float32)
    values[:, 40:] = np.nan
    transform = Affine(10, 0, X - 320, 0, -10, Y + 500)
    with rasterio.open(path, "w", driver="GTiff", width=100, height=100, count=1, dtype="float32", crs="EPSG:32634", transform=transform, nodata=float("nan")) as file:  # fmt: skip
        file.write(values, 1)
    request = make(**{"product.labels": [{"name": "t", "raster": str(path), "min_share": 50}]})
    run(request)
    reasons = {row["place"]: row["reason"] for row in table(request.output)}
    assert reasons["000001"] == ""
    assert reasons["000002"] in (
        "less than 50 % of it has a class of t",
        "the label t has no data there",
    )
    assert "t" not in scenebeam.chips.open(request.output).statistics()["classes"]


def test_columns_of_csv_files_are_numbers(make: Make, tmp_path: Path) -> None:
    to_lonlat = pyproj.Transformer.from_crs(32634, 4326, always_xy=True)
    rows = [f"{n:03d},{to_lonlat.transform(X + 400 * n, Y)[0]},{to_lonlat.transform(X + 400 * n, Y)[1]},{n + 0.5}" for n in range(3)]  # fmt: skip
    (tmp_path / "p.csv").write_text("id,lon,lat,yield\n" + "\n".join(rows) + "\n")
    label = {"name": "y", "column": "yield"}
    request = make(**{"product.places": str(tmp_path / "p.csv"), "product.labels": [label]})
    run(request)
    assert {one["id"]: one["label"] for one in scenebeam.chips.open(request.output)} == {
        f"{n:03d}": {"y": n + 0.5} for n in range(3)
    }


# Places


def test_places_at_a_pole_are_left_out(make: Make) -> None:
    request = make([{"at": (10, 90)}, {"at": (10, -89.99)}, {}])
    run(request)
    assert [row["place"] for row in table(request.output)] == ["000003"]
    faults = (Path(request.output) / "place_faults.csv").read_text()
    assert faults.count("is within a degree of a pole: left out") == 2


def test_chips_of_one_pixel(make: Make) -> None:
    request = make(**{"product.size": 1})
    assert run(request).state == "succeeded"
    assert {one["image"].shape for one in scenebeam.chips.open(request.output)} == {(2, 2, 1, 1)}


@pytest.mark.parametrize(
    ("crs", "code"),
    [("epsg:3035", "EPSG:3035"), ("+proj=laea +lat_0=52 +lon_0=10", ""), (pyproj.CRS(3035).to_wkt(), "EPSG:3035")],
)  # fmt: skip
def test_a_crs_has_a_code(make: Make, crs: str, code: str) -> None:
    request = make(**{"product.crs": crs, "product.snap": False})
    if not code:
        with pytest.raises(RequestError, match="has no code"):
            make_plan(request)
        return
    run(request)
    assert {one["metadata"]["crs"] for one in scenebeam.chips.open(request.output)} == {code}


def test_major_tom_cells_at_the_antimeridian_are_counted_once(make: Make) -> None:
    changes = {"product.places": None, "product.grid": {"kind": "major-tom"}, "product.size": 256}
    request = make(**changes, area={"bbox": [179.7, 10, -179.7, 10.5]})
    windows = scope_of_places(request).windows
    corners = set(
        zip(windows.crs.tolist(), windows.left.tolist(), windows.top.tolist(), strict=True)
    )
    assert len(corners) == len(windows.ids) == len(set(windows.ids)) > 20
    assert set(windows.crs) == {"EPSG:32601", "EPSG:32660"}


def test_workers_decode_their_own_chips_only(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    request = make([{}] * 6)
    run(request)
    count = 0

    def counted(content: bytes) -> np.ndarray:
        nonlocal count
        count += 1
        return read_tiff(content)

    monkeypatch.setattr(cogs, "read_tiff", counted)
    chips = scenebeam.chips.open(request.output)
    seen = [one["id"] for number in range(3) for one in chips.shard(number, 3)]
    assert len(seen) == len(set(seen)) == 6
    assert count == 6 * 2


def test_cloudy_images_fill_up_what_is_missing_and_no_more(make: Make) -> None:
    rows: list[Document] = [{}] * 12
    common = {
        "dates": ["2021-03-20/2021-04-30", "2021-10"],
        "product.max_cloud": 0,
        "product.count": 6,
    }
    clear = make(rows, **common)
    run(clear)
    before = {row["id"]: row["images"] for row in table(clear.output)}
    relaxed = make(
        rows, **common, **{"product.on_missing": "best-available", "product.min_images": 3}
    )
    run(relaxed, overwrite=True)
    after = {row["id"]: row["images"] for row in table(relaxed.output)}
    assert after == {name: max(count, 3) for name, count in before.items()}
