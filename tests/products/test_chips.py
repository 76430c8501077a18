"""Chips of places: known pixels in every layout, labels, dates, draws, splits, and what goes wrong."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
import zarr

import scenebeam.chips
from conftest import changed, tree
from known_chips import CROPS, SCENES, Window, crops, image, images
from scenebeam.errors import RequestError
from scenebeam.execution.driver import run
from scenebeam.planning.search import make_plan
from scenebeam.request import RunRequest
from scenebeam.requestfile import validate_request
from scenebeam.sandbox.scenes import COLLECTION

Make = Callable[..., RunRequest]
BANDS = ["red", "green", "blue", "nir"]
LAYOUTS = ("cogs", "webdataset", "parquet", "zarr")
BY_ID = {scene.id: scene for scene in SCENES}
PERIODS = [
    (datetime(2021, 4, 1), datetime(2021, 4, 30, 23, 59, 59, 999999)),
    (datetime(2021, 10, 1), datetime(2021, 10, 31, 23, 59, 59, 999999)),
]


@pytest.fixture
def chips_request(fields: Path, tmp_path: Path) -> Make:
    def make(**changes: Any) -> RunRequest:
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
        return validate_request(changed(document, changes))

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
    chosen = set()
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


def test_all_layouts_have_the_same_samples(chips_request: Make) -> None:
    found: list[dict[str, Any]] = []
    for layout in LAYOUTS:
        request = chips_request(**{"product.layout": layout})
        run(request, overwrite=True)
        samples = {one["id"]: one for one in scenebeam.chips.open(request.output, "train")}
        for sample in samples.values():
            sample["metadata"].pop("files", None)
            sample["metadata"].pop("masks", None)
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
    group = zarr.open_group(Path(request.output) / "chips.zarr" / "train", mode="r")
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
    whole = chips_request(**{"product.layout": layout, "output": str(tmp_path / "whole")})
    run(whole)
    request = chips_request(**{"product.layout": layout})
    from scenebeam.products.chips import make
    from scenebeam.storage import open_store
    from scenebeam.planning.reuse import load_or_create_plan

    store = open_store(request.output)
    plan = load_or_create_plan(request, store)
    assert len(plan.tasks) > 1

    class Killed(BaseException):
        pass

    def killed(*words: Any, **named: Any) -> bytes:
        raise Killed

    # Killed when all files of a cell are there, but not its record.
    with monkeypatch.context() as patched:
        patched.setattr(make.CellRecord, "to_bytes", killed)
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
    import pyogrio

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
