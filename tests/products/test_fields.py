"""Field chips of the sandbox: scenes, pixels, items, reports, and what goes wrong."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow.parquet as pq
import pystac
import pytest
import rasterio
import rustac
from rasterio.enums import Resampling
from rasterio.warp import reproject

from conftest import OF_ITS_TIME, tree
from known_fields import best, cloud, image, noon
from near import check_near
from scenebeam.errors import RequestError
from scenebeam.execution.driver import run
from scenebeam.planning.plan import read_plan
from scenebeam.planning.search import make_plan
from scenebeam.products.fields.cloud_report import measure_clouds
from scenebeam.products.fields.items import FTW, ftw_schema
from scenebeam.request import RunRequest
from scenebeam.sandbox.fields import SCENES, YEAR, write_calendar
from scenebeam.sandbox.server import Fault, serve
from scenebeam.storage import open_store

SIDE = 1600
BANDS = ("red", "green", "blue", "nir")


def write_items(path: Path, url: str) -> Path:
    """The scenes as an ItemCollection whose files lie at `url`."""
    items = [scene.item(url) for scene in SCENES]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return path


def rows(output: Path, epsg: int | None = 32634) -> list[dict[str, str]]:
    """What was said of the chips of a zone, by default that of the scenes; the other's chips are warped."""
    with (output / "chips_status.csv").open() as file:
        return [
            row
            for row in csv.DictReader(file)
            if epsg is None or crs_of(output, row["chip"]) == f"EPSG:{epsg}"
        ]


def crs_of(output: Path, chip: str) -> str:
    """By its item, or where that says nothing by its mask."""
    told = json.loads((output / chip / f"{chip}.json").read_text())["properties"].get("proj:code")
    if told is None:
        with rasterio.open(output / chip / f"{chip}_instance.tif") as file:
            told = f"EPSG:{file.crs.to_epsg()}"
    return str(told)


def window(output: Path, chip: str) -> tuple[float, float, int]:
    item = json.loads((output / chip / f"{chip}.json").read_text())
    _, _, left, _, _, top = item["properties"]["proj:transform"]
    return left, top, SIDE


@pytest.mark.parametrize(
    ("asked", "rule"),
    [
        ({}, {}),
        ({"product.pixel_check": True}, {"pixels": True, "most": 0.0}),
        ({"product.pixel_check": True, "product.cloud_cover_pixel": 3}, {"pixels": True, "most": 3.0}),
        ({"product.cloud_cover_scene": 4.7}, {"most": 4.7}),
        ({"product.cloud_cover_scene": 4, "product.buffer_days": 3, "product.buffer_expansion_size": 4},
         {"most": 4.0, "buffer": 3, "step": 4}),
    ],
    ids=str,
)  # fmt: skip
def test_every_chip_gets_the_scene_and_the_pixels_that_the_known_functions_say(
    fields_request: Callable[..., RunRequest], asked: dict[str, Any], rule: dict[str, Any]
) -> None:
    request = fields_request(**asked)
    assert run(request).state == "succeeded"
    output, by_id = Path(request.output), {scene.id: scene for scene in SCENES}
    found = rows(output)
    chosen = set()
    for row in found:
        where = window(output, row["chip"])
        expected = best(row["season"], where, **rule)
        assert row["scene"] == (expected.id if expected else ""), row
        assert row["status"] == ("success" if expected else "skipped")
        stem = output / row["chip"] / f"{row['chip']}_{row['season']}"
        if expected is None:
            assert not Path(f"{stem}_s2.json").exists()
            continue
        chosen.add(expected.id)
        with rasterio.open(f"{stem}_image_s2.tif") as file:
            assert file.descriptions == BANDS
            assert (file.nodata, set(file.dtypes), file.crs.to_epsg()) == (
                0,
                {"uint16"},
                by_id[expected.id].epsg,
            )
            assert set(file.scales) == {0.0001}
            assert set(file.offsets) == {0.0}
            for number, band in enumerate(BANDS, start=1):
                np.testing.assert_array_equal(
                    file.read(number), image(expected, band, where), err_msg=f"{row}"
                )
        if rule.get("pixels"):
            assert float(row["cloud_cover"]) == pytest.approx(cloud(expected, where), abs=1e-4)
    assert len(chosen) > 1
    assert len({row["chip"] for row in found if row["status"] == "success"}) > 10


def test_chips_of_the_next_zone_are_warped_as_gdal_does(
    fields_request: Callable[..., RunRequest], fields: Path
) -> None:
    request = fields_request()
    run(request)
    output, seen = Path(request.output), 0
    for row in rows(output, 32635):
        if not row["scene"]:
            continue
        seen += 1
        with rasterio.open(
            output / row["chip"] / f"{row['chip']}_{row['season']}_image_s2.tif"
        ) as image:
            for number, band in enumerate(BANDS, start=1):
                with rasterio.open(fields / row["scene"] / f"{band}.tif") as file:
                    expected = np.zeros(image.shape, np.uint16)
                    reproject(
                        file.read(1), expected, src_transform=file.transform, src_crs=file.crs, src_nodata=0,
                        dst_nodata=0, dst_transform=image.transform, dst_crs=image.crs, resampling=Resampling.bilinear,
                    )  # fmt: skip
                shift = 1000 if row["season"] == "harvest" else 0
                check_near(image.read(number).astype(int) + shift, expected)
    assert seen > 5


def test_masks_are_of_the_fields(fields_request: Callable[..., RunRequest], fields: Path) -> None:
    request = fields_request(**{"product.images": "none"})
    status = run(request)
    assert (status.state, status.requests) == ("succeeded", 0)
    output = Path(request.output)
    names = [f["id"] for f in json.loads((fields / "fields.geojson").read_text())["features"]]
    seen = set()
    for folder in sorted(output.glob("ftw-*")):
        stem = folder / folder.name
        item = json.loads(Path(f"{stem}.json").read_text())
        masks = {}
        for mask, dtype in (
            ("instance", "uint32"),
            ("semantic_2_class", "uint8"),
            ("semantic_3_class", "uint8"),
        ):
            with rasterio.open(f"{stem}_{mask}.tif") as file:
                assert file.dtypes == (dtype,)
                assert list(file.transform)[:6] == item["properties"]["proj:transform"]
                masks[mask], crs, transform = file.read(1), file.crs.to_epsg(), file.transform
        if crs != 32634:
            continue
        # Fields are 460 m squares in cells of 480 m, drawn in this very CRS.
        x = transform.c + (np.arange(SIDE // 10) + 0.5)[None, :] * 10
        y = transform.f - (np.arange(SIDE // 10) + 0.5)[:, None] * 10
        shape = (SIDE // 10, SIDE // 10)
        within = np.broadcast_to(
            (x % 480 > 10) & (x % 480 < 470) & (y % 480 > 10) & (y % 480 < 470), shape
        )
        known = {name: number for number, name in enumerate(names, start=1)}
        numbers = np.zeros(shape, np.int64)
        for row, column in np.argwhere(within):
            numbers[row, column] = known.get(
                f"{int(x[0, column] // 480)}-{int(y[row, 0] // 480)}", 0
            )
        np.testing.assert_array_equal(masks["instance"], numbers)
        np.testing.assert_array_equal(masks["semantic_2_class"], numbers > 0)
        seen |= set(np.unique(numbers)) - {0}
        three = masks["semantic_3_class"]
        assert set(np.unique(three)) <= {0, 1, 2}
        edge = np.zeros(shape, bool)
        edge[1:-1, 1:-1] = (numbers[1:-1, 1:-1] > 0) & (
            (numbers[:-2, 1:-1] != numbers[1:-1, 1:-1]) | (numbers[1:-1, 2:] != numbers[1:-1, 1:-1])
        )
        # Fields end where pixels do: the outline touches the pixel on the one side of it, or on the other.
        near = np.pad(three == 2, 1)
        near = near[1:-1, 1:-1] | near[:-2, 1:-1] | near[1:-1, 2:]
        assert near[edge].all()
        assert ((three == 2) <= (two_pixels_inside(numbers) == 9)).all()
        assert ((three == 1) <= (numbers > 0)).all()
    assert len(seen) > 100


def two_pixels_inside(numbers: np.ndarray) -> np.ndarray:
    """1 where all pixels within two belong to the same field, else 9."""
    same = np.zeros(numbers.shape, bool)
    same[2:-2, 2:-2] = numbers[2:-2, 2:-2] > 0
    for down in range(-2, 3):
        for right in range(-2, 3):
            same[2:-2, 2:-2] &= (
                np.roll(numbers, (down, right), (0, 1))[2:-2, 2:-2] == numbers[2:-2, 2:-2]
            )
    return np.where(same, 2, 9)


def test_presence_only_says_unknown_where_nothing_is_drawn(
    fields_request: Callable[..., RunRequest],
) -> None:
    request = fields_request(**{"product.images": "none", "product.grid.presence_only": True})
    assert run(request).state == "succeeded"
    for path in Path(request.output).glob("ftw-*/*_semantic_?_class.tif"):
        with rasterio.open(path) as file:
            assert set(np.unique(file.read(1))) <= ({1, 3} if "2_class" in path.name else {1, 2, 3})


def test_items_are_stac_and_ftw(fields_request: Callable[..., RunRequest]) -> None:
    request = fields_request(**{"product.include_alternatives": True, "checks.screenshot": True})
    assert run(request).state == "succeeded"
    output = Path(request.output)
    check = jsonschema.Draft7Validator(ftw_schema())
    paths = sorted(output.glob("ftw-*/*.json"))
    for path in paths:
        item = json.loads(path.read_text())
        assert FTW in item["stac_extensions"]
        check.validate(item)
        pystac.Item.from_dict({**item, "stac_extensions": []}).validate()
        assert item["id"] == path.stem
        for asset in item["assets"].values():
            if asset["href"].startswith("./"):
                assert (path.parent / asset["href"]).is_file()
        for link in item["links"]:
            if link["href"].startswith("."):
                assert (path.parent / link["href"]).resolve().is_file(), link
    (whole,) = [p for p in paths if p.name.endswith("planting_s2.json")][:1]
    item = json.loads(whole.read_text())
    chip = whole.parent.name
    assert {"red", "green", "blue", "nir", "scl", "clipped", "thumbnail"} <= item["assets"].keys()
    assert {link["rel"] for link in item["links"]} >= {"derived_from", "ftw:parent_chip"}
    assert item["properties"]["ftw:alternatives"]
    assert item["properties"]["ftw:season"] == "planting"
    parent = json.loads((whole.parent / f"{chip}.json").read_text())
    told = parent["properties"]
    assert {link["rel"] for link in parent["links"]} >= {"ftw:planting", "ftw:harvest"}
    assert told["start_datetime"] == item["properties"]["datetime"]
    assert (told["ftw:planting_day"], told["ftw:harvest_day"], told["ftw:calendar_year"]) == (
        96,
        298,
        YEAR,
    )
    assert (
        told["ftw:buffer_days"],
        told["ftw:pixel_check"],
        told["ftw:cloud_cover_scene_threshold"],
    ) == (
        14,
        False,
        10,
    )
    collection = pystac.Collection.from_file(str(output / "collection.json"))
    collection.validate()
    assert sorted(item.id for item in collection.get_items()) == sorted(
        p.stem for p in output.glob("ftw-*/*.json")
    )
    stored = rustac.read_sync(str(output / "items.parquet"))["features"]
    assert sorted(item["id"] for item in stored) == [
        path.stem for path in sorted(paths, key=lambda p: p.stem)
    ]


@pytest.mark.parametrize("breakage", ["season", "day", "link", "split"])
def test_the_ftw_schema_refuses_what_is_wrong(
    fields_request: Callable[..., RunRequest], breakage: str
) -> None:
    request = fields_request(**{"product.images": "select"})
    run(request)
    path = next(iter(sorted(Path(request.output).glob("ftw-*/*planting_s2.json"))))
    name = path.parent.name
    item = json.loads(
        (path if breakage in ("season", "link") else path.parent / f"{name}.json").read_text()
    )
    check = jsonschema.Draft7Validator(ftw_schema())
    check.validate(item)
    if breakage == "season":
        item["properties"]["ftw:season"] = "summer"
    elif breakage == "day":
        item["properties"]["ftw:planting_day"] = 400
    elif breakage == "split":
        item["properties"]["ftw:split"] = "training"
    else:
        item["links"] = [link for link in item["links"] if link["rel"] != "derived_from"]
    with pytest.raises(jsonschema.ValidationError):
        check.validate(item)


def test_select_then_download_gives_what_one_run_gives(
    fields_request: Callable[..., RunRequest], on_chips: Callable[..., RunRequest], tmp_path: Path
) -> None:
    at_once = on_chips(output=str(tmp_path / "at_once"))
    run(at_once)
    chosen = on_chips(**{"output": str(tmp_path / "in_two"), "product.images": "select"})
    assert run(chosen).state == "succeeded"
    assert not list(Path(chosen.output).glob("*/*.tif"))
    items = {
        path.name: json.loads(path.read_text()) for path in Path(chosen.output).glob("*/*_s2.json")
    }
    assert items
    assert not any("clipped" in item["assets"] for item in items.values())
    then = on_chips(output=str(tmp_path / "in_two"))
    assert run(then).state == "succeeded"
    assert tree(Path(at_once.output)) == tree(Path(then.output))
    assert run(chosen).state == "succeeded"  # choosing again takes nothing away
    assert tree(Path(at_once.output), but=(*OF_ITS_TIME, "plan.parquet", "report.json")) == tree(
        Path(then.output), but=(*OF_ITS_TIME, "plan.parquet", "report.json")
    )


def test_a_catalogue_is_brought_up_to_date_in_its_place(
    on_chips: Callable[..., RunRequest], chips: Path
) -> None:
    request = on_chips(run="imagery")
    before = {path.name: json.loads(path.read_text()) for path in chips.glob("ftw-*/*.json")}
    masks = {path.name: path.read_bytes() for path in chips.glob("ftw-*/*.tif")}
    assert run(request).state == "succeeded"
    here = Path(request.output)
    assert json.loads((here / "collection.json").read_text())["id"] == "austria"
    for name, item in before.items():
        after = json.loads((here / name.removesuffix(".json") / name).read_text())
        assert after["assets"] == item["assets"]
        assert {**after["properties"], **item["properties"]}.keys() == after["properties"].keys()
        assert after["properties"]["ftw:split"] == item["properties"]["ftw:split"]
    assert {
        path.name: path.read_bytes() for path in here.glob("ftw-*/*.tif") if path.name in masks
    } == masks
    assert {json.loads(path.read_text())["collection"] for path in here.glob("ftw-*/*.json")} == {
        "austria"
    }
    with pytest.raises(RequestError, match=r"resampling: 'bilinear' → 'nearest'"):
        run(on_chips(run="imagery", **{"product.resampling": "nearest"}))
    run(on_chips(run="imagery", **{"product.cloud_cover_scene": 1}))
    left = {row["scene"] for row in rows(here) if row["scene"]}
    assert left == {"S2A_34TGL_20210405_1_L2A"}
    images = {path.name for path in here.glob("ftw-*/*_s2.*")}
    assert len(images) == 2 * len(
        [row for row in rows(here, None) if row["scene"]]
    )  # no stale file
    for path in here.glob("ftw-*/ftw-*_2021.json"):
        links = {link["rel"] for link in json.loads(path.read_text())["links"]}
        assert "ftw:harvest" not in links


def test_a_table_alone_is_a_catalogue(
    on_chips: Callable[..., RunRequest], chips: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    items = [json.loads(path.read_text()) for path in sorted(chips.glob("ftw-*/ftw-*_2021.json"))]
    for item in items:
        for asset in item["assets"].values():
            asset["href"] = str(chips / item["id"] / asset["href"].removeprefix("./"))
    from scenebeam.stac_geoparquet import write_items

    (alone / "items.parquet").write_bytes(write_items(items))
    other = on_chips(
        **{"product.chips": str(alone / "items.parquet"), "output": str(tmp_path / "a")}
    )
    usual = on_chips(output=str(tmp_path / "b"))
    assert run(other).state == run(usual).state == "succeeded"
    pick = lambda output: {k: v for k, v in tree(Path(output)).items() if k.endswith(".tif")}  # noqa: E731
    assert pick(other.output) == pick(usual.output)
    assert len(pick(other.output)) > 20
    parent = json.loads(next(iter((tmp_path / "a").glob("ftw-*/ftw-*_2021.json"))).read_text())
    assert Path(parent["assets"]["instance"]["href"]).is_file()


def test_items_without_projection_take_their_masks_grid(
    on_chips: Callable[..., RunRequest], tmp_path: Path
) -> None:
    request = on_chips()
    here = Path(request.output)
    (here / "items.parquet").unlink()
    for path in here.glob("ftw-*/*.json"):
        item = json.loads(path.read_text())
        item["properties"] = {
            k: v for k, v in item["properties"].items() if not k.startswith("proj:")
        }
        path.write_text(json.dumps(item))
    assert run(request).state == "succeeded"
    for row in rows(here):
        if row["scene"]:
            stem = here / row["chip"] / row["chip"]
            with (
                rasterio.open(f"{stem}_{row['season']}_image_s2.tif") as image,
                rasterio.open(f"{stem}_instance.tif") as mask,
            ):
                assert (image.crs, image.transform, image.shape) == (
                    mask.crs,
                    mask.transform,
                    mask.shape,
                )


def test_a_mask_elsewhere_fails_its_chip_and_no_other(on_chips: Callable[..., RunRequest]) -> None:
    request = on_chips()
    here = Path(request.output)
    chip = next(row["chip"] for row in rows_after(request) if row["scene"])
    shutil.rmtree(here / "cells")
    for path in here.glob("ftw-*/*_s2.*"):
        path.unlink()
    path = here / chip / f"{chip}_instance.tif"
    with rasterio.open(path) as file:
        profile, pixels = file.profile, file.read()
    profile["transform"] = profile["transform"] @ profile["transform"].translation(0.5, 0)
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels)
    status = run(request)
    assert status.state != "succeeded"
    report = json.loads((here / "report.json").read_text())
    assert [one["chip"] for one in report["failed"]] == [chip]
    assert "but its item says 160 x 160" in report["failed"][0]["error"]
    assert report["successful"] > 10


def rows_after(request: RunRequest) -> list[dict[str, str]]:
    run(request)
    return rows(Path(request.output))


@pytest.mark.parametrize(
    ("breakage", "told"),
    [
        ("no mask", r"ftw-\S+ have no mask among their assets"),
        ("no grid", r"ftw-\S+ have neither a grid nor a mask that can be read"),
        ("rotated", "is rotated: north must be up"),
        ("no items", r"holds no chips"),
    ],
)
def test_chips_that_cannot_be_used_are_named(
    on_chips: Callable[..., RunRequest], breakage: str, told: str
) -> None:
    request = on_chips()
    here = Path(request.output)
    (here / "items.parquet").unlink()
    path = sorted(here.glob("ftw-*/*.json"))[0]
    item = json.loads(path.read_text())
    if breakage == "no mask":
        item["assets"] = {}
    elif breakage == "no grid":
        item["properties"] = {"datetime": item["properties"]["datetime"]}
        for mask in path.parent.glob("*.tif"):
            mask.unlink()
    elif breakage == "rotated":
        item["properties"]["proj:transform"][1] = 0.5
    else:
        collection = json.loads((here / "collection.json").read_text())
        collection["links"] = []
        (here / "collection.json").write_text(json.dumps(collection))
    path.write_text(json.dumps(item))
    with pytest.raises(RequestError, match=told):
        run(request)


def test_what_is_not_there_is_said(on_chips: Callable[..., RunRequest], tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"sc-sos-3x3-v2-cog.tiff cannot be read"):
        run(on_chips(**{"product.crop_calendar": str(tmp_path)}))
    with pytest.raises(RequestError, match=r"holds neither items.parquet nor collection.json"):
        run(on_chips(**{"product.chips": str(tmp_path)}))
    with pytest.raises(RequestError, match=r"no chip|none of the \d+ chips"):
        run(on_chips(area={"bbox": [0, 0, 1, 1]}))


def test_a_year_without_scenes(on_chips: Callable[..., RunRequest], stac_of_fields: str) -> None:
    request = on_chips(**{"product.year": 2023, "catalog": stac_of_fields})
    with pytest.raises(
        RequestError, match="Are there scenes within 56 days of planting and harvest in 2023"
    ):
        run(request)
    assert not (Path(request.output) / "run.json").exists()


@pytest.fixture
def stac_of_fields(fields: Path) -> Any:
    from conftest import stac_server

    with serve(fields) as server:
        catalog = write_items(fields / "served.json", server.url)
        with stac_server(catalog) as url:
            yield url


def test_an_api_is_asked_once_a_cell_and_season(
    on_chips: Callable[..., RunRequest], stac_of_fields: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scenebeam.catalog import item_search

    asked: list[dict[str, Any]] = []
    real = item_search._search_parameters

    def note(*given: Any) -> Iterator[dict[str, Any]]:
        for parameters in real(*given):
            asked.append(parameters)
            yield parameters

    monkeypatch.setattr(item_search, "_search_parameters", note)
    request = on_chips(catalog=stac_of_fields)
    plan = make_plan(request)
    assert len(asked) == 2 * 4  # four squares of 100 km meet here, on two sides of a zone's edge
    assert {scene for task in plan.tasks for scene in task.sources} == {
        scene.id for scene in SCENES
    }


def test_classifications_are_read_once_a_scene(
    on_chips: Callable[..., RunRequest], fields: Path
) -> None:
    with serve(fields) as server:
        catalog = write_items(Path(on_chips().output) / "served.json", server.url)
        request = on_chips(
            **{
                "catalog": str(catalog),
                "product.pixel_check": True,
                "product.include_alternatives": True,
            }
        )
        plan = make_plan(request)
        server.reset_counts()
        assert run(request).state == "succeeded"
        spans: dict[str, list[tuple[int, int]]] = {}
        for path, start, stop in server.ranges:
            if start > 0:
                spans.setdefault(path, []).append((start, stop))
        for path, ranges in spans.items():
            cells = sum(path.split("/")[1] in task.sources for task in plan.tasks)
            for one in (
                ranges
            ):  # each cell asks for what it needs once; two that meet may both need a block
                assert ranges.count(one) <= cells, path
        looked = {path.split("/")[1] for path in spans if path.endswith("scl.tif")}
        assert len(looked) == len(SCENES)


@pytest.mark.parametrize("on_missing", ["skip", "fail", "best-available"])
def test_chips_that_no_scene_will_do_for(
    on_chips: Callable[..., RunRequest], on_missing: str
) -> None:
    request = on_chips(**{"product.cloud_cover_scene": 0.5, "product.on_missing": on_missing})
    status = run(request)
    output = Path(request.output)
    report = json.loads((output / "report.json").read_text())
    found = rows(output)
    covered = [row for row in found if best(row["season"], window(output, row["chip"]), most=100)]
    assert len(covered) > 20
    if on_missing == "skip":
        assert (status.state, report["successful"]) == ("failed", 0)
        assert status.message.startswith("nothing was made: no cloud-free")
        assert all(row["status"] == "skipped" for row in found)
        reasons = {one["reason"] for one in report["skipped"]}
        assert "no cloud-free planting scene; no cloud-free harvest scene" in reasons
        assert all(one["candidates_checked"] >= 0 for one in report["skipped"])
        assert not list(output.glob("*/*_s2.*"))
    elif on_missing == "fail":
        assert status.state == "failed"
        assert len(report["failed"]) == report["total_processed"]
        assert not list(output.glob("*/*_s2.*"))
    else:
        assert status.state == "succeeded"
        for row in covered:
            where = window(output, row["chip"])
            least = min(
                s.cloud_cover
                for s in SCENES
                if abs(s.acquired - noon(row["season"])).days < 56 and s.cloud_cover
            )
            assert row["status"] == "success"
            assert float(row["cloud_cover_scene"]) == least, where
            assert row["message"] == "least cloudy scene; none meets the thresholds"


def test_clouds_are_measured_and_items_made_by_them(on_chips: Callable[..., RunRequest]) -> None:
    request = on_chips()
    run(request)
    output, by_id = Path(request.output), {scene.id: scene for scene in SCENES}
    store = open_store(request.output)
    plan = read_plan(store)
    assert plan is not None
    document = measure_clouds(plan.tasks, store, 0.0)
    assert document["total_processed"] > 20
    own = {row["chip"] for row in rows(output)}
    for one in document["images"]:
        if one["chip"] not in own:
            continue
        percent = cloud(by_id[one["scene"]], window(output, one["chip"]))
        assert one["cloud_cover"] == pytest.approx(percent, abs=1e-4)
        assert (one["image"] in document["above_threshold"]) == (percent > 0)
    assert document["above_threshold"]
    assert json.loads((output / "cloud-report.json").read_text()) == document


def test_a_scene_that_ends_inside_a_chip_is_not_taken(
    fields: Path, on_chips: Callable[..., RunRequest], tmp_path: Path
) -> None:
    """Its footprint says that it shows all; its pixels do not."""
    cut = replace(
        next(s for s in SCENES if s.cloud_cover < 1),
        cut=True,
        cloud_cover=0.2,
        acquired=noon("planting") - timedelta(days=2),
    )
    cut.write(tmp_path / "cut")
    items = [scene.item(str(fields)) for scene in SCENES]
    wrong = cut.item(str(tmp_path / "cut"))
    whole = next(item for item in items if item["id"] == SCENES[0].id)
    items.append({**wrong, "geometry": whole["geometry"], "bbox": whole["bbox"]})
    catalog = tmp_path / "items.json"
    catalog.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    request = on_chips(catalog=str(catalog))
    assert (
        run(request).state == "succeeded"
    )  # the item says that half of the scene is empty, so its classes are asked
    output = Path(request.output)
    scenes = {row["scene"] for row in rows(output) if row["season"] == "planting"}
    assert cut.id in scenes
    for row in rows(output):
        if row["season"] == "planting" and row["scene"]:
            expected = best("planting", window(output, row["chip"]), scenes=[*SCENES, cut])
            assert expected is not None, row
            assert row["scene"] == expected.id
    # Where the item says nothing of the kind, the chips themselves are found black, and take the next scene.
    items[-1]["properties"]["s2:nodata_pixel_percentage"] = 0.0
    catalog.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    request = on_chips(catalog=str(catalog), output=str(tmp_path / "other"))
    assert run(request).state == "succeeded"
    others = {(row["chip"], row["season"]): row for row in rows(tmp_path / "other")}
    assert {key: row["scene"] for key, row in others.items()} == {
        (row["chip"], row["season"]): row["scene"] for row in rows(output)
    }
    turned_down = [row for row in others.values() if "has no data in" in row["message"]]
    assert turned_down
    assert all(cut.id in row["message"] and row["scene"] not in (cut.id, "") for row in turned_down)


def test_a_broken_file_fails_its_chips_and_the_next_run_makes_them_alone(
    fields: Path, on_chips: Callable[..., RunRequest], tmp_path: Path
) -> None:
    with serve(fields) as server:
        catalog = write_items(tmp_path / "served.json", server.url)
        request = on_chips(catalog=str(catalog))
        server.faults.append(Fault(r"20210405.*nir\.tif", status=404))
        broken = run(request)
        assert broken.state == "failed"
        output = Path(request.output)
        report = json.loads((output / "report.json").read_text())
        assert report["failed"]
        assert all("404" in fault["error"] for fault in report["failed"])
        harvest = [
            row for row in rows(output) if row["season"] == "harvest" and row["status"] == "success"
        ]
        assert len(harvest) > 10
        server.faults.clear()
        server.reset_counts()
        assert run(request).state == "succeeded"
        assert not any("_202110" in path for path in server.requests)  # harvest stands


def test_a_classification_that_cannot_be_read_never_counts_as_clear(
    fields: Path, on_chips: Callable[..., RunRequest], tmp_path: Path
) -> None:
    lost = next(scene.id for scene in SCENES if "20210405" in scene.id)
    with serve(fields) as server:
        catalog = write_items(tmp_path / "served.json", server.url)
        server.faults.append(Fault(f"{lost}/scl", status=404))
        asked = {"catalog": str(catalog), "product.pixel_check": True, "product.images": "select"}
        request = on_chips(**asked, **{"product.buffer_days": 4, "product.buffer_expansions": 0})
        assert run(request).state == "succeeded"
    output, others = Path(request.output), [scene for scene in SCENES if scene.id != lost]
    for row in rows(output):
        where = window(output, row["chip"])
        expected = best(
            row["season"], where, pixels=True, most=0.0, buffer=4, times=0, scenes=others
        )
        assert row["scene"] == (expected.id if expected else "")
    told = [
        one
        for path in output.glob("cells/*/planting.json")
        for one in json.loads(path.read_text())["choices"]
    ]
    assert any("404" in one["unchecked"].get(lost, "") for one in told)
    assert any("could not be checked" in one["reason"] for one in told)


def test_a_server_that_is_unwell_is_asked_again(
    fields: Path, on_chips: Callable[..., RunRequest], tmp_path: Path
) -> None:
    with serve(fields) as server:
        catalog = write_items(tmp_path / "served.json", server.url)
        request = on_chips(**{"catalog": str(catalog), "product.pixel_check": True})
        server.faults += [
            Fault(r"scl\.tif", times=3, status=503),
            Fault(r"red\.tif", times=2, cut=10),
        ]
        assert run(request).state == "succeeded"
        served = {k: v for k, v in tree(Path(request.output)).items() if k.endswith(".tif")}
    local = on_chips(**{"product.pixel_check": True, "output": str(tmp_path / "local")})
    run(local)
    images = {k: v for k, v in tree(tmp_path / "local").items() if k.endswith(".tif")}
    assert images.items() <= served.items()
    assert len(images) > 20


def test_an_image_that_was_removed_is_made_again(on_chips: Callable[..., RunRequest]) -> None:
    request = on_chips()
    run(request)
    before = tree(Path(request.output))
    victim = sorted(Path(request.output).glob("*/*_image_s2.tif"))[3]
    victim.unlink()
    status = run(request)
    assert status.state == "succeeded"
    assert tree(Path(request.output)) == before


@pytest.mark.parametrize("runner", ["direct"])
def test_on_beam(fields_request: Callable[..., RunRequest], tmp_path: Path, runner: str) -> None:
    serial = fields_request(output=str(tmp_path / "serial"))
    beam = fields_request(output=str(tmp_path / "beam"), runner=runner)
    assert run(serial).state == run(beam).state == "succeeded"
    assert tree(tmp_path / "serial") == tree(tmp_path / "beam")


def test_in_a_bucket(on_chips: Callable[..., RunRequest], prefix: str, tmp_path: Path) -> None:

    local = on_chips(output=str(tmp_path / "local"))
    run(local)
    cloud_run = on_chips(output=prefix)
    assert run(cloud_run).state == "succeeded"
    store = open_store(prefix)
    names = {name for name in store.list() if name.endswith((".tif", "_s2.json"))}
    assert names == {
        name for name in tree(tmp_path / "local") if name.endswith((".tif", "_s2.json"))
    }
    for name in sorted(names)[:6]:
        assert store.read(name) == (tmp_path / "local" / name).read_bytes()


def test_a_catalogue_in_a_bucket_in_its_place(
    on_chips: Callable[..., RunRequest], prefix: str, tmp_path: Path
) -> None:

    store, here = open_store(prefix), Path(on_chips().output)
    for path in here.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            store.upload(str(path.relative_to(here)), path)
    assert run(on_chips(**{"product.chips": prefix, "output": prefix})).state == "succeeded"
    assert run(on_chips()).state == "succeeded"
    images = [name for name in tree(here) if name.endswith("_image_s2.tif")]
    assert len(images) > 40
    for name in images[::9]:
        assert store.read(name) == (here / name).read_bytes()
        item = name.replace("_image_s2.tif", "_s2.json")
        assert store.read(item) == (here / item).read_bytes()


def test_harvest_in_the_year_after(
    fields: Path, on_chips: Callable[..., RunRequest], tmp_path: Path
) -> None:
    """Planting in October, harvest in April: of a season that wraps the year."""
    calendar = write_calendar(tmp_path / "south", planting=298, harvest=96)
    later = [
        replace(scene, acquired=scene.acquired.replace(year=YEAR + 1))
        for scene in SCENES
        if scene.acquired.month < 6
    ]
    items = [scene.item(str(fields)) for scene in (*SCENES, *later)]
    catalog = tmp_path / "items.json"
    catalog.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    request = on_chips(
        **{
            "catalog": str(catalog),
            "product.crop_calendar": str(calendar),
            "product.images": "select",
        }
    )
    assert run(request).state == "succeeded"
    found = [row for row in rows(Path(request.output)) if row["scene"]]
    assert {row["scene"][10:16] for row in found if row["season"] == "planting"} == {"202110"}
    assert {row["scene"][10:14] for row in found if row["season"] == "harvest"} == {"2022"}


def test_raw_numbers_keep_their_shift_and_say_so(
    on_chips: Callable[..., RunRequest], tmp_path: Path
) -> None:
    raw = on_chips(**{"product.values": "raw", "output": str(tmp_path / "raw")})
    harmonized = on_chips(output=str(tmp_path / "harmonized"))
    assert run(raw).state == run(harmonized).state == "succeeded"
    for path in sorted((tmp_path / "raw").glob("*/*_image_s2.tif")):
        with (
            rasterio.open(path) as one,
            rasterio.open(tmp_path / "harmonized" / path.parent.name / path.name) as other,
        ):
            shift = 1000 if "harvest" in path.name else 0
            np.testing.assert_array_equal(one.read().astype(int) - shift, other.read())
            assert one.offsets[0] == pytest.approx(-shift * 0.0001)


def test_a_plan_of_chips_writes_nothing(on_chips: Callable[..., RunRequest]) -> None:
    request = on_chips()
    before = tree(Path(request.output))
    plan = make_plan(request)
    assert tree(Path(request.output)) == before
    assert plan.estimate.blocks > 0
    assert plan.estimate.memory < 2**30
    assert {task.id.partition("/")[2] for task in plan.tasks} == {"planting", "harvest"}


def test_the_plan_is_a_table(fields_request: Callable[..., RunRequest]) -> None:
    request = fields_request()
    run(request)
    table = (
        pq.ParquetFile(Path(request.output) / "plan.parquet")
        .read(columns=["task"])
        .column("task")
        .to_pylist()
    )
    cells = {name.partition("/")[0] for name in table}
    assert sorted(table) == sorted(
        f"{cell}/{step}" for cell in cells for step in ("masks", "planting", "harvest")
    )
    assert {cell[:5] for cell in cells} == {"34TGK", "34TGL", "35TKE", "35TKF"}
