"""From an existing time series, with scenes on local disk instead of a catalogue."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from rasterio.transform import from_origin

from known import check
from scenebeam.catalog.timeseries import parse_series, read_series_scenes
from scenebeam.collections import CollectionRecord, known_records
from scenebeam.errors import RequestError
from scenebeam.execution.driver import run
from scenebeam.request import RunRequest
from scenebeam.requestfile import validate_request
from scenebeam.sandbox.scenes import SCENES
from scenebeam.storage import open_store

BEFORE = sorted((s for s in SCENES if s.acquired.year == 2021), key=lambda s: s.id)


def request_for(table: Path, root: Path, out: Path, **more: object) -> RunRequest:
    return validate_request(
        {
            "catalog": {"time_series": str(table), "root": str(root)},
            "collections": ["sentinel-2-l2a"],
            "product": {"kind": "mosaic", "bands": ["red", "scl"]},
            "grid": {"crs": "EPSG:32634"},
            "output": str(out),
            "runner": "serial",
            **more,
        }
    )


def table(path: Path, *ids: str, header: str = "anchor_date,acq_datetime,tile_ids") -> Path:
    lines = [f'2021-06-09,2021-06-10 09:20:31.024000+00:00,"{one}"' for one in ids]
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


@pytest.mark.parametrize("separator", ["|", ",", ";", "; "])
def test_tile_lists_of_every_style(sandbox: Path, tmp_path: Path, separator: str) -> None:
    ids = [scene.id for scene in BEFORE]
    path = table(tmp_path / "time_serie.csv", separator.join([*ids, ids[0]]))
    request = request_for(path, sandbox, tmp_path / "out")
    status = run(request)
    assert (status.state, status.tasks) == ("succeeded", 1)
    # The first tile of the table comes first.
    check(tmp_path / "out/mosaics/20210610T092031Z/red.tif", BEFORE, "red")
    with rasterio.open(tmp_path / "out/mosaics/20210610T092031Z/red.tif") as file:
        assert file.width * 10 > 10_240, "the grid covers all tiles where no area is given"


def test_a_tile_that_is_not_on_disk_is_missing(sandbox: Path, tmp_path: Path) -> None:
    path = table(tmp_path / "time_series.csv", f"{BEFORE[1].id}|S2A_34TXX_20210610_0_L2A")
    request = request_for(path, sandbox, tmp_path / "out")
    assert run(request).incomplete == 1
    (row, _) = csv.DictReader((tmp_path / "out/timestamps_aggregation_band_report.csv").open())
    assert "S2A_34TXX_20210610_0_L2A" in row["message"]
    strict = request_for(
        path,
        sandbox,
        tmp_path / "strict",
        product={"kind": "mosaic", "bands": ["red"], "on_missing": "fail"},
    )
    assert run(strict).state == "failed"


def test_no_tile_on_disk_at_all(sandbox: Path, tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "nothing_here", BEFORE[0].id)
    path.write_text(path.read_text().replace("2021-06-10", "2021-06-11", 1))
    request = request_for(path, sandbox, tmp_path / "out", limits={"max_failed": 0.5})
    assert run(request).state == "partial"
    rows = list(csv.DictReader((tmp_path / "out/timestamps_aggregation_status.csv").open()))
    assert [row["status"] for row in rows] == ["success", "failed_no_tiles"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("acq_datetime,tiles\n2021-06-10,x\n", "lacks the columns tile_ids"),
        ("acq_datetime,tile_ids\nyesterday,x\n", "line 2: acq_datetime 'yesterday'"),
        ("acq_datetime,tile_ids\n2021-06-10,../../etc\n", "is not the id of a scene"),
        ("acq_datetime,tile_ids\n", "has no rows"),
    ],
)
def test_a_table_that_is_none_is_told(sandbox: Path, tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(RequestError, match=told):
        run(request_for(tmp_path / "t.csv", sandbox, tmp_path / "out"))


def test_the_recorded_series_is_understood(real_data: Path, tmp_path: Path) -> None:
    """Its tiles are not here, so nothing can be made; but every row becomes a timestamp with its tiles."""
    request = request_for(
        real_data / "thessaloniki" / "time_series.csv", tmp_path, tmp_path / "out"
    )
    request = request.model_copy(
        update={
            "area": validate_request(
                {**request.model_dump(), "area": {"bbox": [22.85, 40.55, 23.05, 40.75]}}
            ).area
        }
    )
    status = run(request)
    assert status.state == "failed"
    rows = list(csv.DictReader((tmp_path / "out/timestamps_aggregation_status.csv").open()))
    recorded = list(csv.DictReader((real_data / "thessaloniki" / "time_series.csv").open()))
    assert len(rows) == len(recorded)
    assert rows[0] == {"timestamp": "20230202T092109Z", "status": "failed_no_tiles"}


ESA = "S2B_MSIL2A_20230202T092109_N0510_R093_T34TFL_20240815T155145"
OLD = "S2B_MSIL2A_20210202T092109_N0214_R093_T34TFL_20210202T155145"
NEEDS_NO_ITEM = {
    ESA: 1000,
    "S2B_MSIL2A_20230202T092109_N0400_R093_T34TFL_20230202T155145": 1000,
    "S2A_MSIL1C_20230202T092109_N0509_R093_T34TFL_20230202T155145.SAFE": 1000,
    "S2C_MSIL2A_20260202T092109_N0512_R093_T34TFL_20260202T155145": 1000,
    OLD: 0,
    "S2A_MSIL2A_20210202T092109_N0301_R093_T34TFL_20210202T155145": 0,
}
TELL_NOTHING = [
    "S2A_34TGL_20230202_0_L2A",
    "S2B_T34TFL_20230202T092109_L2A",
    "S2B_MSIL2A_20230202T092109_R093_T34TFL_20240815T155145",
    "S2B_MSIL2A_20230202T092109_N9999_R093_T34TFL_20240815T155145",
    "copy-of-S2B_MSIL2A_20230202T092109_N0510_R093_T34TFL_20240815T155145",
    "N0510",
    "mine",
]
RED, NIR = 300, 3300
"""Harmonized: an NDVI of 0.833."""


def raw_scene(
    root: Path, name: str, add_offset: int = 1000, item: dict[str, Any] | None = None
) -> None:
    """Files of a scene as they were downloaded, of about one number a band."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(7).integers(0, 9, (64, 64))
    classes = np.full((64, 64), 4, np.uint8)
    bands: dict[str, np.ndarray] = {
        "B04": noise + RED + add_offset,
        "B08": noise * 3 + NIR + add_offset,
        "SCL": classes,
    }
    for band, pixels in bands.items():
        profile: dict[str, Any] = {
            "dtype": "uint8" if band == "SCL" else "uint16",
            "nodata": 0,
            "count": 1,
        }
        with rasterio.open(
            folder / f"{band}.tif",
            "w",
            driver="GTiff",
            width=64,
            height=64,
            crs="EPSG:32634",
            transform=from_origin(600_000, 4_500_000, 10, 10),
            **profile,
        ) as file:
            file.write(pixels.astype(profile["dtype"]), 1)
    if item is not None:
        (folder / f"{name}.json").write_text(json.dumps(item))


def made(tmp_path: Path, product: dict[str, Any], *ids: str, name: str = "out") -> dict[str, Any]:
    """Run a product over raw scenes of one day; its only item, with `path` of its folder."""
    path = table(tmp_path / "time_serie.csv", "|".join(ids))
    grid = {} if product["kind"] == "stack" else {"crs": "EPSG:32634"}
    request = request_for(path, tmp_path / "raw", tmp_path / name, product=product, grid=grid)
    status = run(request)
    assert status.state == "succeeded", status.message
    (found,) = (tmp_path / name).glob("*/*/*.json")
    return {**json.loads(found.read_text()), "path": found.parent}


def said_of_values(item: dict[str, Any], file: str) -> tuple[str, str, str]:
    """What an item, its row of the table and the tag of its file say."""
    rows = pq.read_table(item["path"].parents[1] / "items.parquet").to_pylist()
    with rasterio.open(item["path"] / file) as image:
        tag = image.tags()["SCENEBEAM_VALUES"]
    return item["properties"]["scenebeam:values"], rows[0]["scenebeam:values"], tag


MOSAIC = {"kind": "mosaic", "bands": ["red"]}
NDVI = {"kind": "index", "index": "ndvi", "mask": False}
STACK = {"kind": "stack", "bands": ["B04", "B08"], "format": "geotiff"}
HARMONIZED = ("harmonized",) * 3
UNKNOWN = ("unknown",) * 3


@pytest.mark.parametrize("scene", NEEDS_NO_ITEM)
def test_the_baseline_of_a_product_id_says_what_pixels_carry(tmp_path: Path, scene: str) -> None:
    raw_scene(tmp_path / "raw", scene, NEEDS_NO_ITEM[scene])
    item = made(tmp_path, NDVI, scene)
    assert said_of_values(item, "ndvi.tif") == HARMONIZED
    with rasterio.open(item["path"] / "ndvi.tif") as file:
        assert float(np.nanmean(file.read(1))) == pytest.approx(0.833, abs=0.01)
    item = made(tmp_path, MOSAIC, scene, name="mosaic")
    assert said_of_values(item, "red.tif") == HARMONIZED
    with rasterio.open(item["path"] / "red.tif") as file:
        pixels = file.read(1, masked=True)
    assert RED <= pixels.min() <= pixels.max() < RED + 9


@pytest.mark.parametrize("scene", TELL_NOTHING)
def test_where_nothing_says_what_pixels_carry_values_are_unknown(
    tmp_path: Path, scene: str, caplog: pytest.LogCaptureFixture
) -> None:
    raw_scene(tmp_path / "raw", scene)
    with caplog.at_level(logging.WARNING):
        item = made(tmp_path, MOSAIC, scene)
    assert said_of_values(item, "red.tif") == UNKNOWN
    assert f"1 of 1 scenes (the first: {scene}): it is unknown whether" in caplog.text
    with rasterio.open(item["path"] / "red.tif") as file:
        assert file.read(1, masked=True).min() >= RED + 1000, "they are read as they are"


@pytest.mark.parametrize(("product", "file"), [(NDVI, "ndvi.tif"), (STACK, "mine.tif")])
def test_indices_and_stacks_of_unknown_values_say_so(
    tmp_path: Path,
    product: dict[str, Any],
    file: str,
) -> None:
    raw_scene(tmp_path / "raw", "mine")
    assert said_of_values(made(tmp_path, product, "mine"), file) == UNKNOWN


def test_a_stack_of_a_product_id_is_harmonized(tmp_path: Path) -> None:
    raw_scene(tmp_path / "raw", ESA)
    item = made(tmp_path, STACK, ESA)
    assert said_of_values(item, f"{ESA}.tif") == HARMONIZED
    with rasterio.open(item["path"] / f"{ESA}.tif") as file:
        assert RED <= file.read(1, masked=True).min() < RED + 9
        assert NIR <= file.read(2, masked=True).min() < NIR + 99


def test_one_tile_of_unknown_values_makes_its_mosaic_unknown(tmp_path: Path) -> None:
    raw_scene(tmp_path / "raw", ESA)
    raw_scene(tmp_path / "raw", "mine")
    assert said_of_values(made(tmp_path, MOSAIC, ESA, "mine"), "red.tif") == UNKNOWN


def test_what_carries_no_shift_is_never_unknown(tmp_path: Path) -> None:
    raw_scene(tmp_path / "raw", "mine")
    classes = {"kind": "mosaic", "bands": ["scl"]}
    assert said_of_values(made(tmp_path, classes, "mine"), "scl.tif") == HARMONIZED
    raw = made(tmp_path, {**MOSAIC, "values": "raw"}, "mine", name="raw-values")
    assert said_of_values(raw, "red.tif") == ("raw",) * 3


@pytest.mark.parametrize(
    ("properties", "add_offset"),
    [
        ({"s2:processing_baseline": "05.10"}, 1000),
        ({"s2:processing_baseline": "02.14"}, 0),
        ({"s2:processing_baseline": "05.10", "earthsearch:boa_offset_applied": True}, 0),
        ({"s2:processing_baseline": "05.10", "earthsearch:boa_offset_applied": False}, 1000),
        ({"earthsearch:boa_offset_applied": True}, 0),
        ({"s2:processing_baseline": None}, None),
        ({"eo:cloud_cover": 3.0}, None),
    ],
)
def test_an_item_of_a_catalog_beside_the_files_counts(
    tmp_path: Path, properties: dict[str, Any], add_offset: int | None
) -> None:
    """Saved from Earth Search, whose record says what its flag means."""
    assets = {name: {"href": f"{name}.tif"} for name in ("red", "nir", "scl", "swir16")}
    item = {"id": "mine", "properties": properties, "assets": assets}
    raw_scene(tmp_path / "raw", "mine", item=item)
    (found,) = scenes_of(tmp_path, "mine")
    red = found.assets["red"]
    assert (red.add_offset if red.add_offset_known else None) == add_offset
    assert found.assets["scl"].add_offset_known


def test_an_item_of_our_own_counts_before_the_id(tmp_path: Path) -> None:
    item = {"id": ESA, "properties": {}, "assets": {"B04": {"scenebeam:shift": 0}}}
    raw_scene(tmp_path / "raw", ESA, item=item)
    (found,) = scenes_of(tmp_path, ESA)
    red, nir = found.assets["red"], found.assets["nir"]
    assert (red.add_offset, red.add_offset_known) == (0, True)
    assert (nir.add_offset, nir.add_offset_known) == (1000, True), (
        "the item does not tell of this file"
    )


OURS = [record for record in known_records() if record.id == "sentinel-2-l2a"]


def scenes_of(tmp_path: Path, *ids: str, records: list[CollectionRecord] = OURS) -> list[Any]:
    path = table(tmp_path / "time_serie.csv", "|".join(ids))
    rows = parse_series(path.read_bytes(), str(path))
    return list(read_series_scenes(rows, records, open_store(str(tmp_path / "raw"))))


def test_without_a_shift_rule_nothing_is_unknown(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    raw_scene(tmp_path / "raw", "mine")
    bands = {"red": {"asset": "B04", "resolution": 10}}
    record = CollectionRecord.model_validate({"id": "other", "dtype": "uint16", "bands": bands})
    with caplog.at_level(logging.WARNING):
        (found,) = scenes_of(tmp_path, "mine", records=[record])
    assert (found.assets["red"].add_offset, found.assets["red"].add_offset_known) == (0, True)
    assert caplog.text == ""


def test_many_unknown_scenes_are_one_warning(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ("a", "b", ESA):
        raw_scene(tmp_path / "raw", name)
    with caplog.at_level(logging.WARNING):
        scenes_of(tmp_path, "a", "b", ESA)
    assert len(caplog.records) == 1
    assert "2 of 3 scenes (the first: a)" in caplog.text
