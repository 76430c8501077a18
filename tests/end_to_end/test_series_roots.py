"""Where the scenes of a time series lie: a folder, a bucket, and what an assets run has left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from scenebeam.errors import RequestError
from scenebeam.execution.driver import run
from scenebeam.planning.search import make_plan
from scenebeam.request import RunRequest
from scenebeam.storage import open_store
from series import item_of, level_of, row, series_request, stamp, statuses, tile, write_table

Make = Callable[..., RunRequest]
BEFORE = "20210610T092031Z"


def upload(folder: Path, place: str) -> None:
    """Copy all files below a folder to a bucket."""
    store = open_store(place)
    for path in sorted(folder.rglob("*.*")):
        store.upload(str(path.relative_to(folder)), path)


@pytest.mark.parametrize("product", ["mosaic", "stack", "index"])
def test_scenes_in_a_bucket(tmp_path: Path, prefix: str, product: str) -> None:
    for name, level in (("A", 0), ("B", 500)):
        item = {"s2:processing_baseline": "02.14"}
        tile(tmp_path / "raw", name, "B04", "B08", "SCL", level=level, item=item)
    upload(tmp_path / "raw", f"{prefix}/raw")
    write_table(tmp_path / "time_serie.csv", row("02", "B|A"), row("12", "A|nothing"))
    of: dict[str, dict[str, Any]] = {
        "mosaic": {"product": {"kind": "mosaic", "bands": ["red"]}},
        "stack": {
            "product": {"kind": "stack", "bands": ["B04", "B08"], "required": []},
            "grid": {},
        },
        "index": {"product": {"kind": "index", "index": "ndvi"}},
    }
    catalog = {"time_series": str(tmp_path / "time_serie.csv"), "root": f"{prefix}/raw/"}
    status = run(series_request(tmp_path, catalog=catalog, **of[product]))
    assert status.done >= 2, status.message
    if product == "mosaic":
        assert level_of(tmp_path, "02") == 500
        assert item_of(tmp_path, "12")["properties"]["scenebeam:complete"] is False
        values = item_of(tmp_path, "02")["properties"]["scenebeam:values"]
        assert values == "harmonized", "its item was read"


def test_table_scenes_and_products_in_a_bucket(tmp_path: Path, prefix: str) -> None:
    tile(tmp_path / "raw", "A")
    tile(tmp_path / "raw", "B")
    write_table(tmp_path / "time_serie.csv", row("02", "A"))
    upload(tmp_path, prefix)
    catalog = {"time_series": f"{prefix}/time_serie.csv", "root": f"{prefix}/raw"}
    request = series_request(tmp_path, catalog=catalog, output=f"{prefix}/out")
    assert run(request).tasks == 1
    write_table(tmp_path / "time_serie.csv", row("02", "A"), row("12", "B"))
    upload(tmp_path, prefix)
    status = run(request)
    assert (status.state, status.done) == ("succeeded", 2), "a table in a bucket may grow, too"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"time_series": "gs://bucket/nowhere/t.csv"}, "nowhere/t.csv: no such file"),
        ({"root": "https://example.com/raw"}, "neither a local path nor gs://"),
        ({"time_series": "s3://bucket/t.csv"}, "neither a local path nor gs://"),
    ],
)
def test_places_that_cannot_be_read_are_told(
    tmp_path: Path,
    emulator: str,
    change: dict[str, str],
    told: str,
) -> None:
    write_table(tmp_path / "time_serie.csv", row("02", "A"))
    catalog = {"time_series": str(tmp_path / "time_serie.csv"), "root": str(tmp_path), **change}
    with pytest.raises(RequestError, match=told):
        make_plan(series_request(tmp_path, catalog=catalog))


def test_a_table_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"cannot read the table .*time_serie\.csv"):
        make_plan(series_request(tmp_path))


@pytest.mark.parametrize("name", ["time_serie.csv", "time_series.csv", "my table.csv"])
def test_a_table_may_have_any_name(tmp_path: Path, name: str) -> None:
    tile(tmp_path / "raw", "A")
    write_table(tmp_path / name, row("02", "A"))
    catalog = {"time_series": str(tmp_path / name), "root": str(tmp_path / "raw")}
    run(series_request(tmp_path, catalog=catalog))
    assert statuses(tmp_path) == {stamp("02"): "success"}


@pytest.mark.parametrize("bands", [["B04", "SCL"], ["red", "scl"]])
@pytest.mark.parametrize("place", ["folder", "bucket", "bucket alone"])
def test_what_an_assets_run_wrote_is_a_root(
    make_request: Make, tmp_path: Path, request: pytest.FixtureRequest, bands: list[str], place: str
) -> None:
    """Its own table names the scenes, its items say what the files are, wherever these were put."""
    out = str(tmp_path / "archive")
    product: dict[str, Any] = {"kind": "assets", "bands": bands}
    if place != "folder":
        prefix = request.getfixturevalue("prefix")
        out = f"{prefix}/archive" if place == "bucket" else out
        product |= {"raw_storage_mode": "url_to_gcs_drop_local", "gcs": f"{prefix}/files"}
    archive = make_request(product=product, output=out, dates="2021")
    status = run(archive)
    assert status.state == "succeeded", status.message
    catalog = {"time_series": f"{out}/time_serie.csv", "root": f"{out}/raw"}
    mosaics = {"kind": "mosaic", "bands": ["red", "scl"]}
    wanted = {"dates": "2021", "product": mosaics, "grid": {"crs": "EPSG:32634"}}
    status = run(make_request(catalog=catalog, output=str(tmp_path / "series"), **wanted))
    assert (status.state, status.incomplete) == ("succeeded", 0), status.message
    assert run(make_request(output=str(tmp_path / "searched"), **wanted)).state == "succeeded"
    for band in ("red", "scl"):
        found = []
        for name in ("series", "searched"):
            with rasterio.open(tmp_path / name / "mosaics" / BEFORE / f"{band}.tif") as file:
                found.append(file.read(1))
        np.testing.assert_array_equal(*found)


def test_an_item_does_not_name_files_elsewhere(tmp_path: Path) -> None:
    """Only what scenebeam put into a bucket is read by the href of an item beside the files."""
    tile(tmp_path / "raw", "A", "B04", item={"eo:cloud_cover": 1.0})
    path = tmp_path / "raw" / "A" / "A.json"
    item = json.loads(path.read_text())
    item["assets"] = {
        "B08": {"href": "https://example.com/B08.tif", "scenebeam:index": 1},
        "SCL": {"href": "gs://bucket/SCL.tif"},
    }
    path.write_text(json.dumps(item))
    write_table(tmp_path / "time_serie.csv", row("02", "A"))
    product = {"kind": "mosaic", "bands": ["red", "nir", "scl"]}
    assert run(series_request(tmp_path, product=product)).incomplete == 1
    assert set(item_of(tmp_path, "02")["assets"]) == {"red", "thumbnail"}


@pytest.mark.parametrize("content", ["[]", "not json", '"text"'])
def test_an_item_that_is_none_is_told(tmp_path: Path, content: str) -> None:
    tile(tmp_path / "raw", "A")
    (tmp_path / "raw" / "A" / "A.json").write_text(content)
    write_table(tmp_path / "time_serie.csv", row("02", "A"))
    with pytest.raises(RequestError, match=r"A\.json"):
        make_plan(series_request(tmp_path))
