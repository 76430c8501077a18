"""The scene catalogue: asked for once, selected, and written down as tables that others read."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from click.testing import CliRunner
from pyproj import Transformer

from conftest import stac_server
from scenebeam.catalog.area import area_geometry
from scenebeam.catalog.queries import queries_for
from scenebeam.catalog.search import scenes_from_items, search_items
from scenebeam.cli import main
from scenebeam.errors import RequestError
from scenebeam.execution.driver import run, write_scenes
from scenebeam.planning.search import search
from scenebeam.planning.search_cache import read_search, write_search
from scenebeam.request import Area, RunRequest
from scenebeam.requestfile import validate_request
from scenebeam.sandbox.scenes import SCENES, write_sandbox
from scenebeam.sandbox.server import SandboxServer, serve
from scenebeam.storage import open_store

Make = Callable[..., RunRequest]
COLUMNS = {
    "scenes_catalog.csv": "id,datetime,cloud_cover,platform,constellation,collection",
    "timestamps_coverage.csv": "acq_datetime,coverage_frac,tiles_count,min_cloud,max_cloud,has_full_cover",
    "scenes_selected.csv": "anchor_date,acq_datetime,id,datetime,cloud_cover,platform,constellation,collection,"
    "coverage_frac_union,coverage_area_union",
    "time_serie.csv": "anchor_date,acq_datetime,tile_ids,tiles_count,cloud_score,coverage_frac,coverage_area",
}


def table(folder: Path | str, name: str) -> list[dict[str, str]]:
    with (Path(folder) / name).open(newline="") as file:
        return list(csv.DictReader(file))


def check_columns(folder: Path | str) -> None:
    for name, columns in COLUMNS.items():
        assert (Path(folder) / name).read_text().splitlines()[0] == columns


def test_the_command_writes_the_tables_and_no_plan(make_request: Make, tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    path.write_text(make_request().model_dump_json())
    told = CliRunner().invoke(main, ["scenes", str(path)])
    assert told.exit_code == 0, told.output
    assert "7 scenes found" in told.output
    check_columns(tmp_path / "out")
    assert len(table(tmp_path / "out", "scenes_catalog.csv")) == 7
    assert len(table(tmp_path / "out", "scenes_selected.csv")) == 6
    assert not (tmp_path / "out" / "run.json").exists()
    as_json = CliRunner().invoke(main, ["scenes", str(path), "--json"])
    assert len(json.loads(as_json.output)["time_serie"]) == 2


def test_a_run_writes_them_too(make_request: Make) -> None:
    request = make_request(**{"product.bands": ["scl"]})
    run(request)
    check_columns(request.output)


def test_the_numbers_are_those_of_the_scenes(make_request: Make) -> None:
    request = make_request(**{"select.full_cover_threshold": 1.0})
    found, _ = write_scenes(request)
    series = table(request.output, "time_serie.csv")
    assert found.search_scope.area is not None
    whole = shapely.box(*found.search_scope.area.bounds)
    assert [row["tiles_count"] for row in series] == ["3", "3"]
    assert [row["cloud_score"] for row in series] == ["12.0", "20.0"]
    assert series[0]["anchor_date"] == "2021-06-10", "its own day, where all are taken"
    west, south, east, north = whole.bounds
    metres = 111_320**2 * (east - west) * (north - south) * np.cos(np.radians((south + north) / 2))
    assert float(series[0]["coverage_area"]) == pytest.approx(metres, rel=0.01)
    assert [row["has_full_cover"] for row in table(request.output, "timestamps_coverage.csv")] == [
        "False",
        "False",
    ]
    assert [row["min_cloud"] for row in table(request.output, "timestamps_coverage.csv")] == [
        "5.0",
        "0.0",
    ]


def test_an_unknown_cloud_cover_is_an_empty_field(
    make_request: Make, sandbox: Path, tmp_path: Path
) -> None:
    items = json.loads((sandbox / "items.json").read_text())
    for item in items["features"]:
        if item["id"].startswith("S2A_35TKF_2021"):
            del item["properties"]["eo:cloud_cover"]
    path = tmp_path / "items.json"
    path.write_text(json.dumps(items))
    request = make_request(catalog=str(path))
    write_scenes(request)
    assert [row["cloud_score"] for row in table(request.output, "time_serie.csv")] == ["", "20.0"]
    assert table(request.output, "timestamps_coverage.csv")[0]["max_cloud"] == "8.0"


def test_a_mode_chooses_and_says_so(make_request: Make) -> None:
    request = make_request(**{"select.mode": "nearest-to-date", "select.anchors": ["2022-06-01"]})
    found, _ = write_scenes(request)
    (row,) = table(request.output, "time_serie.csv")
    assert (row["anchor_date"], row["acq_datetime"][:10]) == ("2022-06-01", "2022-06-15")
    assert "select.mode nearest-to-date left out 3" in found.selection.explain()
    assert len(table(request.output, "timestamps_coverage.csv")) == 2


def test_another_run_s_tables_are_not_overwritten(make_request: Make) -> None:
    run(make_request(**{"product.bands": ["scl"]}))
    with pytest.raises(RequestError, match="belongs to another request"):
        write_scenes(make_request(**{"product.bands": ["scl"], "dates": "2021"}))


# --- the answer is kept


@pytest.fixture
def counted(tmp_path: Path) -> Any:
    """A catalogue on the network that counts what it is asked, its scenes on local files."""
    folder = tmp_path / "catalog"
    folder.mkdir()
    with serve(folder) as served:
        write_sandbox(folder, served.url)
        yield served


def test_the_second_run_asks_no_catalogue(make_request: Make, counted: SandboxServer) -> None:
    catalog = f"{counted.url}/catalog.json"
    first = make_request(
        catalog=catalog, **{"product.bands": ["scl"], "select.max_cloud_cover": 15}
    )
    write_scenes(first)
    assert counted.requests.total() > 0
    counted.reset_counts()
    run(first)
    other = make_request(catalog=catalog, **{"product.bands": ["scl"]})
    run(other, overwrite=True)
    assert not [path for path in counted.requests if path.endswith(".json")], (
        "another filter is no other question"
    )
    counted.reset_counts()
    run(make_request(catalog=catalog, dates="2021", **{"product.bands": ["scl"]}), overwrite=True)
    assert [path for path in counted.requests if path.endswith(".json")], "other dates are"


def test_refresh_asks_again_and_makes_only_what_changed(
    make_request: Make, counted: SandboxServer
) -> None:
    catalog = f"{counted.url}/catalog.json"
    request = make_request(catalog=catalog, dates=["2021", "2022"], **{"product.bands": ["scl"]})
    late = [scene for scene in SCENES if scene.acquired.year == 2022]
    listing = counted.folder / "catalog.json"
    everything = json.loads(listing.read_text())
    early = [
        link for link in everything["links"] if not any(scene.id in link["href"] for scene in late)
    ]
    listing.write_text(json.dumps({**everything, "links": early}))
    assert run(request).tasks == 1
    listing.write_text(json.dumps(everything))
    assert run(request).tasks == 1, "the plan stands"
    stamp = Path(request.output, "mosaics/20210610T092031Z/scl.tif").stat().st_mtime_ns
    status = run(request, refresh=True)
    assert (status.state, status.tasks, status.done) == ("succeeded", 2, 2)
    assert Path(request.output, "mosaics/20210610T092031Z/scl.tif").stat().st_mtime_ns == stamp, (
        "not made again"
    )
    fewer = [link for link in everything["links"] if "34TGK_2021" not in link["href"]]
    listing.write_text(json.dumps({**everything, "links": fewer}))
    assert run(request, refresh=True).state == "succeeded"
    assert Path(request.output, "mosaics/20210610T092031Z/scl.tif").stat().st_mtime_ns > stamp, (
        "it has other tiles now"
    )


@pytest.fixture
def api(served_items: Path) -> Iterator[str]:
    """A real STAC API, its scenes on the network."""
    with stac_server(served_items) as url:
        yield url


def test_requests_to_a_catalogue_are_a_pause_apart(make_request: Make, api: str) -> None:
    request = make_request(catalog=api, dates=["2021-05", "2021-06", "2021-07", "2022-06"])
    start = time.monotonic()
    search(request)
    assert time.monotonic() - start > 0.4, "the landing page and four searches"


def test_scenes_are_asked_for_by_their_ids(make_request: Make, api: str) -> None:
    wanted = [SCENES[0].id, SCENES[1].id, "S2A_nowhere"]
    request = make_request(
        catalog=api,
        dates=[],
        **{"select.scenes": [{"id": name, "anchor": "2021-06-01"} for name in wanted]},
    )
    found = search(request)
    assert {item["id"] for item in found.items} == set(wanted[:2])
    assert {f"{one.anchor:%Y-%m-%d}" for one in found.selection.acquisitions} == {"2021-06-01"}


# --- recorded data


SENTINEL_2 = [
    "cdse__sentinel-2-l2a",
    "earth-search-v1__sentinel-2-c1-l2a",
    "earth-search-v1__sentinel-2-l2a",
    "planetary-computer__sentinel-2-l2a",
]


def recorded(real_data: Path, folder: str, tmp_path: Path, **select: Any) -> RunRequest:
    items = [
        json.loads(path.read_text())
        for path in sorted((real_data / "stac-items" / folder).glob("*.json"))
    ]
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    west, south, east, north = shapely.union_all(
        [shapely.geometry.shape(item["geometry"]) for item in items]
    ).bounds
    return validate_request(
        {
            "catalog": str(path),
            "collections": [items[0]["collection"]],
            "area": {"bbox": [west, south, east, north]}
            if east - west < 180
            else {"mgrs": ["60VUJ"]},
            "product": {"kind": "assets", "download_n": 0, "band_resolution": 20},
            "select": select,
            "output": str(tmp_path / "out"),
        }
    )


@pytest.mark.parametrize("folder", SENTINEL_2)
def test_recorded_items_give_the_tables_and_the_manifest(
    real_data: Path, folder: str, tmp_path: Path
) -> None:
    request = recorded(real_data, folder, tmp_path)
    assert run(request).state == "succeeded"
    check_columns(request.output)
    for row in table(request.output, "scenes_selected.csv"):
        assert row["constellation"].startswith("sentinel-2") or folder.startswith("planetary")
        assert row["platform"].startswith("sentinel-2")
        assert 0 < float(row["coverage_frac_union"]) <= 1
    for row in table(request.output, "assets_manifest_selected.csv"):
        assert row["available_scl"] == "True"
        if folder.startswith("cdse"):
            assert row["href_b04"].startswith("s3://eodata/")
            assert row["href_b04"].endswith("B04_20m.jp2"), "the resolution asked for"
            assert row["href_b08"].endswith("B08_10m.jp2"), "there is no other"
            assert row["local_b04"].endswith("/B04.jp2")


@pytest.mark.parametrize("folder", SENTINEL_2)
def test_kept_items_are_the_same_scenes(real_data: Path, folder: str, tmp_path: Path) -> None:
    request = recorded(real_data, folder, tmp_path)
    items = search_items(request, queries_for(request, None))
    store = open_store(str(tmp_path / "kept"))
    remote = request.model_copy(update={"catalog": "https://catalog.example/"})
    write_search(remote, items, store)
    kept = read_search(remote, store)
    assert kept is not None
    assert sorted(scenes_from_items(kept, remote), key=lambda s: s.id) == sorted(
        scenes_from_items(items, remote), key=lambda s: s.id
    )


def thessaloniki_items(real_data: Path) -> list[dict[str, Any]]:
    """Items of the scenes that were recorded as selected, where their tiles lie."""
    items = {}
    for row in table(real_data / "thessaloniki", "scenes_selected.csv"):
        tile = row["id"].split("_")[5][1:]
        geometry = shapely.geometry.mapping(area_geometry(Area(mgrs=[tile])))
        items[row["id"]] = {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": row["id"],
            "collection": "sentinel-2-l2a",
            "geometry": geometry,
            "bbox": list(shapely.geometry.shape(geometry).bounds),
            "properties": {
                "datetime": row["datetime"].replace(" ", "T"),
                "eo:cloud_cover": float(row["cloud_cover"]),
                "platform": row["platform"],
                "constellation": row["constellation"],
                "grid:code": f"MGRS-{tile}",
            },
            "links": [],
            "assets": {
                key: {"href": f"s3://eodata/{row['id']}/{key}.jp2"}
                for key in ("B04_10m", "B08_10m", "SCL_20m")
            },
        }
    return list(items.values())


def test_the_recorded_selection_comes_out_again(real_data: Path, tmp_path: Path) -> None:
    items = tmp_path / "items.json"
    items.write_text(
        json.dumps({"type": "FeatureCollection", "features": thessaloniki_items(real_data)})
    )
    before = table(real_data / "thessaloniki", "time_series.csv")
    with stac_server(items) as url:
        request = validate_request(
            {
                "catalog": url,
                "collections": ["sentinel-2-l2a"],
                "area": {"geojson": str(real_data / "thessaloniki" / "aoi.geojson")},
                "dates": "2023-02-02/2026-02-18",
                "select": {
                    "mode": "anchors",
                    "max_cloud_cover": 20,
                    "n_anchors": 18,
                    "window_days": 21,
                },
                "product": {"kind": "assets", "download_n": 0},
                "output": str(tmp_path / "out"),
            }
        )
        assert run(request).state == "succeeded"
    check_columns(tmp_path / "out")
    after = table(tmp_path / "out", "time_serie.csv")
    assert [row["acq_datetime"] for row in after] == [row["acq_datetime"] for row in before]
    for ours, theirs in zip(after, before, strict=True):
        days = np.datetime64(ours["anchor_date"]) - np.datetime64(theirs["anchor_date"])
        assert abs(days.astype(int)) <= 1, "the period's ends were not recorded to the day"
        assert set(ours["tile_ids"].split("|")) <= set(theirs["tile_ids"].split("|"))
        assert float(ours["coverage_frac"]) == pytest.approx(1.0, abs=0.01)
        assert float(ours["cloud_score"]) <= float(theirs["cloud_score"])


def test_the_recorded_table_of_scenes_makes_a_manifest(real_data: Path, tmp_path: Path) -> None:
    items = tmp_path / "items.json"
    items.write_text(
        json.dumps({"type": "FeatureCollection", "features": thessaloniki_items(real_data)})
    )
    before = table(real_data / "thessaloniki", "scenes_selected.csv")
    with stac_server(items) as url:
        words = [
            "assets",
            "--catalog",
            url,
            "--scenes",
            str(real_data / "thessaloniki" / "scenes_selected.csv"),
        ]
        told = CliRunner().invoke(
            main, [*words, "--download-n", "0", "--output", str(tmp_path / "out")]
        )
    assert told.exit_code == 0, told.output
    manifest = table(tmp_path / "out", "assets_manifest_selected.csv")
    assert {row["scene_id"] for row in manifest} == {row["id"] for row in before}
    clouds = [float(row["cloud_cover"]) for row in manifest]
    assert clouds == sorted(clouds)
    anchors = {
        row["id"]: row["anchor_date"] for row in table(tmp_path / "out", "scenes_selected.csv")
    }
    assert anchors == {row["id"]: row["anchor_date"] for row in before}


def test_the_recorded_time_series_feeds_mosaics_unchanged(real_data: Path, tmp_path: Path) -> None:
    series = real_data / "thessaloniki" / "time_series.csv"
    rows = table(real_data / "thessaloniki", "time_series.csv")
    for row in rows:
        for number, name in enumerate(row["tile_ids"].split("|")):
            tile = name.split("_")[5][1:]
            (tmp_path / "raw" / name).mkdir(parents=True, exist_ok=True)
            write_tile(tmp_path / "raw" / name / "B04.tif", tile, number + 1)
    request = validate_request(
        {
            "catalog": {"time_series": str(series), "root": str(tmp_path / "raw")},
            "collections": ["sentinel-2-l2a"],
            "area": {"geojson": str(real_data / "thessaloniki" / "aoi.geojson")},
            "grid": {"resolution": 500},
            "product": {"kind": "mosaic", "bands": ["red"]},
            "output": str(tmp_path / "out"),
            "runner": "serial",
        }
    )
    status = run(request)
    assert (status.state, status.tasks) == ("succeeded", len(rows))
    anchors = [row["anchor_date"] for row in table(tmp_path / "out", "time_serie.csv")]
    assert anchors == [row["anchor_date"] for row in rows]
    crs = set()
    for path in (tmp_path / "out" / "mosaics").glob("*/red.tif"):
        with rasterio.open(path) as file:
            crs.add(file.crs.to_epsg())
            assert (file.read(1) > 0).all(), "the tiles cover the whole area together"
    assert crs == {32634}, "one grid for the series, whichever tile comes first"


def write_tile(path: Path, tile: str, value: int) -> None:
    """A whole tile at 500 m."""
    zone = int(tile[:2])
    to_utm = Transformer.from_crs(4326, 32600 + zone, always_xy=True)
    outline = shapely.transform(
        area_geometry(Area(mgrs=[tile])), to_utm.transform, interleaved=False
    )
    left, top = outline.bounds[0], outline.bounds[3]
    size = 220
    profile = {
        "driver": "GTiff",
        "width": size,
        "height": size,
        "count": 1,
        "dtype": "uint16",
        "nodata": 0,
    }
    profile |= {"tiled": True, "blockxsize": 128, "blockysize": 128, "crs": f"EPSG:{32600 + zone}"}
    transform = rasterio.Affine(500, 0, round(left / 500) * 500, 0, -500, round(top / 500) * 500)
    with rasterio.open(path, "w", **profile, transform=transform) as file:
        file.write(np.full((size, size), value, np.uint16), 1)
