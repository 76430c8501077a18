"""Land-cover chips of the sandbox: which windows, which scenes, which pixels, and what is released."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import rustac
from rasterio.enums import Resampling
from rasterio.warp import reproject

from conftest import tree
from known_landcover import CHIP, EAST, WEST, centres, drawn, fit, homogeneous, land_class, windows
from scenebeam.errors import RequestError, StorageError
from scenebeam.execution.driver import run
from scenebeam.raster.validate import validate
from scenebeam.request import Checks, RunRequest
from scenebeam.sandbox import earth
from scenebeam.sandbox.landcover import DAYS, EPSG, LANDSAT_DAYS, SAR_DAYS
from scenebeam.storage import open_store

Make = Callable[..., RunRequest]
AREAS = {"00000": WEST, "00001": EAST}


def features(output: Path) -> dict[str, dict[str, Any]]:
    """What is told of each area of interest."""
    document = json.loads((output / "aoi_metadata.geojson").read_text())
    return {feature["properties"]["aoi"]: feature["properties"] for feature in document["features"]}


def rows(output: Path, name: str = "chip_metadata.csv") -> list[dict[str, str]]:
    with (output / name).open(newline="") as file:
        return list(csv.DictReader(file))


def chips(output: Path) -> list[dict[str, Any]]:
    """All released chips, with their window."""
    document = json.loads((output / "processed/v1/gelos_chip_tracker.geojson").read_text())
    found = []
    for feature in document["features"]:
        facts = feature["properties"]
        with rasterio.open(output / "processed/v1" / facts["lulc_files"][0]) as file:
            found.append({**facts, "window": (file.bounds.left, file.bounds.top)})
    return found


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return np.asarray(file.read())


def test_every_window_of_one_class_is_counted_and_the_drawn_are_chips(landcover_run: Path) -> None:
    for aoi, area in AREAS.items():
        told = features(landcover_run)[aoi]
        assert told["windows"] == len(windows(area))
        assert {int(k): n for k, n in told["homogeneous_windows"].items()} == homogeneous(area)
        expected = drawn(area, 2)
        record = json.loads((landcover_run / f"chips/{aoi}/chips.json").read_text())
        assert {
            (chip["left"], chip["top"]): chip["land_class"] for chip in record["chips"]
        } == expected
    rejected = features(landcover_run)["00001"]["rejected_windows"]
    assert sum(rejected.values()) == sum(homogeneous(EAST)[n] for n in (1, 2, 5, 7, 8, 11)) - len(
        fit(EAST)
    )
    assert {*rejected} == {"cloud s2l2a", "cloud lc2l2"}


def test_dates_are_of_one_tile_one_orbit_and_one_path(landcover_run: Path) -> None:
    for told in features(landcover_run).values():
        assert (told["mgrs_tile"], told["relative_orbit"], told["wrs_path_row"]) == (
            "34TGL",
            "102",
            "184/032",
        )
        assert (told["status"], told["reason"], told["epsg"]) == ("done", "", str(EPSG))
        assert told["s2l2a_dates"] == [f"{day:%Y-%m-%d}" for day in DAYS]
        assert told["s1rtc_dates"] == [f"{day:%Y-%m-%d}" for day in SAR_DAYS]
        assert told["lc2l2_dates"] == [f"{day:%Y-%m-%d}" for day in LANDSAT_DAYS]
        assert told["lulc_scene_ids"] == ["34T-2021"]


def test_sentinel_2_is_harmonized_in_16_bits(landcover_run: Path) -> None:
    for chip in chips(landcover_run):
        for name, when in zip(chip["s2l2a_files"], DAYS, strict=True):
            with rasterio.open(landcover_run / "processed/v1" / name) as file:
                assert (file.dtypes[0], file.nodata, file.shape) == ("int16", -999, (96, 96))
                assert file.descriptions == ("blue", "green", "red", "nir")
                assert (file.scales[0], file.offsets[0]) == (0.0001, 0.0)
                found = file.read()
            left, top = chip["window"]
            x, y = centres(left, top, 10)
            for band, values in zip(("blue", "green", "red", "nir"), found, strict=True):
                # The files carry 1000 more: it has been taken out.
                np.testing.assert_array_equal(
                    values, earth.pixel(band, x, y, earth.day_number(when))
                )


def test_radar_keeps_its_power_across_the_seam_of_its_frames(landcover_run: Path) -> None:
    several = 0
    for chip in chips(landcover_run):
        for name, when in zip(chip["s1rtc_files"], SAR_DAYS, strict=True):
            found = pixels(landcover_run / "processed/v1" / name)
            assert found.dtype == np.float32
            left, top = chip["window"]
            x, y = centres(left, top, 10)
            for band, values in zip(("vv", "vh"), found, strict=True):
                np.testing.assert_array_equal(
                    values, earth.backscatter(band, x, y, earth.day_number(when))
                )
        several += len(chip["s1rtc_scene_ids"]) == 8
        assert len(chip["s1rtc_scene_ids"]) in (4, 8)
    assert several, "no chip lies across the seam"


def warped(files: list[Path], like: Path, dtype: str) -> np.ndarray:
    """What GDAL's warper makes of files on a raster's grid, the first that reaches a place."""
    with rasterio.open(like) as target:
        found = np.full(target.shape, np.nan, dtype)
        for path in files:
            with rasterio.open(path) as file:
                one = np.full(target.shape, np.nan, np.float64)
                reproject(
                    file.read(1).astype(np.float64) if dtype == "float64" else file.read(1),
                    one,
                    src_transform=file.transform,
                    src_crs=file.crs,
                    dst_transform=target.transform,
                    dst_crs=target.crs,
                    dst_nodata=np.nan,
                    resampling=Resampling.bilinear,
                )
            found = np.where(np.isnan(found), one, found)
    return found


def test_landsat_is_reflectance_on_the_same_ground(landcover_run: Path, landcover: Path) -> None:
    for chip in chips(landcover_run)[::4]:
        for name, scene in zip(chip["lc2l2_files"], chip["lc2l2_scene_ids"], strict=True):
            path = landcover_run / "processed/v1" / name
            with rasterio.open(path) as file:
                assert (file.shape, file.res, file.dtypes[0]) == ((32, 32), (30, 30), "float32")
                left, top = chip["window"]
                assert tuple(file.bounds) == (left, top - CHIP, left + CHIP, top)
                found = file.read()
            for band, values in zip(("red", "nir08"), found, strict=True):
                numbers = warped([landcover / scene / f"{band}.tif"], path, "float64")
                # The file's digital numbers are rounded when they are interpolated.
                np.testing.assert_allclose(values, numbers * 2.75e-5 - 0.2, atol=0.51 * 2.75e-5)


def test_elevation_is_as_gdal_warps_it_and_the_sea_is_no_hole(
    landcover_run: Path, landcover: Path
) -> None:
    seas = seams = 0
    for chip in chips(landcover_run):
        path = landcover_run / "processed/v1" / chip["dem_files"][0]
        found = pixels(path)[0]
        expected = warped(
            [landcover / one / "data.tif" for one in chip["dem_scene_ids"]], path, "float64"
        )
        # Pixels shrink to three quarters from west to east, and how wide the kernel is then differs a little. Slopes
        # are steep: half a pixel off would be 1.7 m.
        np.testing.assert_allclose(found, expected, atol=1.0)
        seas += bool((found == 0).all())
        seams += len(chip["dem_scene_ids"]) == 2
        if chip["class"] == 1:
            assert found[4:-4, 4:-4].max() == 0
    assert seas, "no chip is all sea"
    assert seams, "no chip lies across the seam of the elevation model"


def test_every_chip_has_all_dates_of_every_modality(landcover_run: Path) -> None:
    for chip in chips(landcover_run):
        counts = {
            name: len(set(chip[f"{name}_files"]))
            for name in ("s2l2a", "s1rtc", "lc2l2", "dem", "lulc")
        }
        assert counts == {"s2l2a": 4, "s1rtc": 4, "lc2l2": 4, "dem": 1, "lulc": 1}
        for name in counts:
            for file, picture in zip(chip[f"{name}_files"], chip[f"{name}_thumbs"], strict=True):
                assert (landcover_run / "processed/v1" / file).exists()
                assert pixels(landcover_run / "processed/v1" / picture).shape[0] == 3
        assert chip["class"] == land_class(chip["window"])
        assert (
            pixels(landcover_run / "processed/v1" / chip["lulc_files"][0]) == chip["class"]
        ).all()
        assert (chip["epsg"], chip["status"]) == (EPSG, "released")


def test_files_are_named_as_users_know_them(landcover_run: Path) -> None:
    first = chips(landcover_run)[0]
    assert first["s2l2a_files"][0] == "s2l2a_000000_20210309.tif"
    assert first["s1rtc_thumbs"][0] == "s1rtc_000000_20210311.png"
    assert first["dem_files"] == ["dem_000000.tif"]
    working = {path.name for path in (landcover_run / f"chips/{first['aoi']}").iterdir()}
    assert f"s2l2a_{first['aoi_chip']:06}_0_20210309.tif" in working


def test_classes_are_balanced_and_ids_follow_each_other(landcover_run: Path) -> None:
    counts = Counter(chip["class"] for chip in chips(landcover_run))
    made = Counter(number for area in AREAS.values() for number in drawn(area, 2).values())
    assert {*counts.values()} == {min(made.values())}
    assert counts.keys() == made.keys()
    assert [chip["id"] for chip in chips(landcover_run)] == list(range(counts.total()))
    every = rows(landcover_run)
    assert len(every) == made.total()
    assert Counter(row["status"] for row in every) == {
        "released": counts.total(),
        "left out by sampling_factor": made.total() - counts.total(),
    }


def test_another_factor_releases_anew_and_makes_nothing(
    landcover_run: Path, landcover_request: Make
) -> None:
    output = Path(landcover_request().output)
    shutil.copytree(landcover_run, output)
    before = {path: path.stat().st_mtime_ns for path in (output / "chips").rglob("*")}
    for factor in (1.5, None, 1):
        status = run(landcover_request(**{"product.sampling_factor": factor}))
        assert (status.state, status.requests) == ("succeeded", 0)
        counts = Counter(chip["class"] for chip in chips(output))
        assert factor is None or max(counts.values()) == int(min(counts.values()) * factor)
        assert {path: path.stat().st_mtime_ns for path in (output / "chips").rglob("*")} == before
    assert tree(output / "processed") == tree(landcover_run / "processed")


def test_a_release_that_stands_is_left_alone(landcover_run: Path, landcover_request: Make) -> None:
    output = Path(landcover_request().output)
    shutil.copytree(landcover_run, output)
    before = {path: path.stat().st_mtime_ns for path in (output / "processed").rglob("*")}
    run(landcover_request(**{"product.sampling_factor": 1}))
    assert {path: path.stat().st_mtime_ns for path in (output / "processed").rglob("*")} == before


def test_the_archive_holds_the_release_and_the_manifest_its_checksums(landcover_run: Path) -> None:
    folder = landcover_run / "processed/v1"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["files"].keys() == {path.name for path in folder.iterdir()} - {"manifest.json"}
    with zipfile.ZipFile(landcover_run / "processed/v1.zip") as archive:
        assert archive.testzip() is None
        assert {*archive.namelist()} == {f"v1/{path.name}" for path in folder.iterdir()}
        for name, told in manifest["files"].items():
            content = archive.read(f"v1/{name}")
            assert content == (folder / name).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (
                told["size"],
                told["sha256"],
            )
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    digest, name = (landcover_run / "processed/v1.zip.sha256").read_text().split()
    assert digest == hashlib.sha256((landcover_run / "processed" / name).read_bytes()).hexdigest()
    assert manifest["chips"] == len(chips(landcover_run))
    assert {one["class"]: one["released"] for one in manifest["classes"]} == Counter(
        chip["class"] for chip in chips(landcover_run)
    )


def test_every_raster_of_the_release_is_fit_to_use(landcover_run: Path) -> None:
    files = sorted((landcover_run / "processed/v1").glob("*.tif"))
    assert len(files) == 14 * len(chips(landcover_run))
    for path in files:
        report = validate(str(path), Checks())
        assert report.valid, report.explain()
        assert not [finding for finding in report.findings if finding.level == "warning"], (
            report.explain()
        )


def test_every_item_is_stac(landcover_run: Path) -> None:
    folder = landcover_run / "processed/v1"
    collection = pystac.Collection.from_file(str(folder / "collection.json"))
    collection.validate()
    items = [
        json.loads((folder / f"chip_{chip['id']:06}.json").read_text())
        for chip in chips(landcover_run)
    ]
    assert {link.href for link in collection.links if link.rel == "item"} == {
        f"./{item['id']}.json" for item in items
    }
    for item in items:
        pystac.Item.from_dict({**item, "stac_extensions": []}).validate()
        assert item["collection"] == "v1"
        for asset in item["assets"].values():
            content = (folder / asset["href"]).read_bytes()
            assert asset["file:checksum"] == f"1220{hashlib.sha256(content).hexdigest()}"
        assert {link["title"] for link in item["links"] if link["rel"] == "derived_from"} >= {
            "34T-2021"
        }
    table = rustac.read_sync(str(folder / "items.parquet"))["features"]
    assert {item["id"]: item["properties"]["scenebeam:class"] for item in table} == {
        item["id"]: item["properties"]["scenebeam:class"] for item in items
    }


def test_tables_name_thumbnails_by_where_they_will_be_served(
    landcover_run: Path, landcover_request: Make
) -> None:
    output = Path(landcover_request().output)
    shutil.copytree(landcover_run, output)
    run(
        landcover_request(
            **{"product.sampling_factor": 1, "product.public_url": "https://chips.example/v1/"}
        )
    )
    released = rows(output / "processed/v1")
    assert released[0]["dem_thumbs"] == "https://chips.example/v1/dem_000000.png"
    assert len(released[0]["s2l2a_thumbs"].split("|")) == 4


def test_areas_that_cannot_be_made_say_why_and_the_others_are_made(landcover_request: Make) -> None:
    status = run(
        landcover_request(
            **{"product.include": None, "product.exclude": [1], "product.chips_per_class": 1}
        )
    )
    assert (status.state, status.done, status.skipped, status.failed) == ("succeeded", 1, 3, 0)
    told = features(Path(status.output))
    assert [told[aoi]["status"] for aoi in sorted(told)] == [
        "done",
        "skipped",
        "skipped",
        "skipped",
    ]
    assert "no Sentinel-2 tile has a scene with less than 30 % cloud" in told["00002"]["reason"]
    assert "Self-intersection" in told["00003"]["reason"]
    assert told["00004"]["reason"] == "its geometry is empty"


def test_without_any_area_that_can_be_made_nothing_is_made(landcover_request: Make) -> None:
    with pytest.raises(
        RequestError, match="none of 2 areas can be used; the first: its geometry is not valid"
    ):
        run(landcover_request(**{"product.include": [3, 4]}))
    with pytest.raises(
        RequestError, match="no area of interest can be made: area 00002: no Sentinel-2 tile"
    ):
        run(landcover_request(**{"product.include": [2]}))
    with pytest.raises(RequestError, match=r"areas 0 to 4, not \[7\]"):
        run(landcover_request(**{"product.include": [7]}))


def test_a_modality_that_does_not_overlap_is_named(
    landcover: Path, landcover_request: Make, tmp_path: Path
) -> None:
    document = json.loads((landcover / "items.json").read_text())
    for item in document["features"]:
        if item["collection"] == "cop-dem-glo-30":
            item["geometry"]["coordinates"] = [
                [[x + 1, y] for x, y in item["geometry"]["coordinates"][0]]
            ]
    (tmp_path / "items.json").write_text(json.dumps(document))
    with pytest.raises(RequestError, match="no elevation scene shows the area"):
        run(landcover_request(catalog=str(tmp_path / "items.json")))


@pytest.mark.parametrize("band", ["scl", "qa_pixel"])
def test_masks_are_among_the_rasters_only_where_they_are_asked_for(
    landcover_request: Make, band: str
) -> None:
    platform, others = ("s2l2a", ["red"]) if band == "scl" else ("lc2l2", ["red"])
    changes = {
        f"product.{platform}.bands": [*others, band],
        "product.include": [0],
        "product.chips_per_class": 1,
    }
    output = Path(run(landcover_request(**changes)).output)
    with rasterio.open(output / "processed/v1" / chips(output)[0][f"{platform}_files"][0]) as file:
        assert file.descriptions == ("red", band)
        found = file.read(2)
    assert {*np.unique(found).tolist()} <= ({4, 5, 6} if band == "scl" else {21824.0})


def hole(path: Path, window: tuple[float, float]) -> None:
    """A file with one pixel of a window missing; GDAL writes it anew, as the one there may be shared."""
    with rasterio.open(path) as file:
        values, profile = file.read(), file.profile
        row, column = file.index(window[0] + 455, window[1] - 455)
    values[:, row, column] = profile["nodata"]
    path.unlink()
    with rasterio.open(path, "w", **{**profile, "driver": "COG"}) as file:
        file.write(values)


def test_a_chip_with_a_hole_gives_way_to_the_next_of_its_class(
    landcover: Path, landcover_request: Make, tmp_path: Path
) -> None:
    scenes = tmp_path / "scenes"
    shutil.copytree(landcover, scenes)
    items = (scenes / "items.json").read_text().replace(str(landcover), str(scenes))
    (scenes / "items.json").write_text(items)
    expected = drawn(WEST, 2)
    victim = next(window for window in expected if expected[window] == 2 and window[1] > 4_500_100)
    hole(scenes / f"S1A_{SAR_DAYS[2]:%Y%m%dT%H%M%S}_102_N_rtc" / "vh.tif", victim)
    output = Path(
        run(
            landcover_request(catalog=str(scenes / "items.json"), **{"product.include": [0]})
        ).output
    )
    record = json.loads((output / "chips/00000/chips.json").read_text())
    found = {(chip["left"], chip["top"]): chip["land_class"] for chip in record["chips"]}
    assert victim not in found
    assert Counter(found.values()) == Counter(expected.values())
    assert len(found.keys() - expected.keys()) == 1
    assert record["rejected"]["nodata s1rtc"] == 1
    standing = {path.name for path in (output / "chips/00000").iterdir()}
    assert standing == {name for chip in record["chips"] for name in chip["files"]} | {"chips.json"}


def test_a_class_that_is_nowhere_is_told_and_left_out_of_the_balance(
    landcover_request: Make, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"product.lulc.classes": [7, 8], "product.include": [1], "product.sampling_factor": 1}
    output = Path(run(landcover_request(**changes)).output)
    manifest = json.loads((output / "processed/v1/manifest.json").read_text())
    assert manifest["missing_classes"] == ["built area"]
    assert manifest["chips"] == 2
    assert "no chip of built area in any area" in caplog.text


def test_without_any_chip_the_release_is_empty_and_says_so(landcover_request: Make) -> None:
    status = run(landcover_request(**{"product.lulc.classes": [7], "product.include": [1]}))
    assert (status.state, status.done) == ("failed", 1)
    assert status.message.startswith("nothing was made: no chip")
    output = Path(status.output)
    assert (
        features(output)["00001"]["reason"] == "no window is of one class and clear on every date"
    )
    manifest = json.loads((output / "processed/v1/manifest.json").read_text())
    assert (manifest["chips"], manifest["missing_classes"]) == (0, ["built area"])
    assert (rows(output), chips(output)) == ([], [])


def test_a_disk_too_small_for_the_archive_is_said_before(
    landcover_request: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = landcover_request(**{"product.include": [0], "product.chips_per_class": 1})
    usage = shutil.disk_usage("/")
    with monkeypatch.context() as small:
        small.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100_000))
        with pytest.raises(
            StorageError, match="its archive takes 3 MB, and the disk has 0 MB free"
        ):
            run(request)
    output = Path(request.output)
    assert not (output / "processed").exists()
    before = {path: path.stat().st_mtime_ns for path in (output / "chips").rglob("*.tif")}
    assert run(request).state == "succeeded"
    assert (output / "processed/v1.zip").exists()
    assert before
    assert before == {path: path.stat().st_mtime_ns for path in (output / "chips").rglob("*.tif")}


def test_without_archive_and_pictures_there_are_none(landcover_request: Make) -> None:
    changes = {
        "product.zip": False,
        "product.thumbnails": False,
        "product.include": [0],
        "product.chips_per_class": 1,
    }
    output = Path(run(landcover_request(**changes)).output)
    assert [path.name for path in (output / "processed").iterdir()] == ["v1"]
    assert not list(output.rglob("*.png"))


def test_many_workers_make_the_same_release(landcover_run: Path, landcover_request: Make) -> None:
    status = run(landcover_request(runner="direct", **{"product.sampling_factor": 1}))
    assert tree(Path(status.output)) == tree(landcover_run)


def test_a_bucket_holds_the_same_release(landcover_request: Make, prefix: str) -> None:
    few = {"product.include": [0], "product.chips_per_class": 1}
    here = Path(run(landcover_request(**few)).output)
    run(landcover_request(output=prefix, **few))
    store = open_store(prefix)
    expected = tree(here / "processed")
    assert store.list("processed/") == {f"processed/{name}" for name in expected}
    for name, content in expected.items():
        assert store.read(f"processed/{name}") == content, name


def test_seeds_draw_other_chips(landcover_request: Make) -> None:
    changes = {
        "product.include": [0],
        "product.chips_per_class": 2,
        "product.seed": 5,
        "product.dem": None,
    }
    output = Path(run(landcover_request(**changes)).output)
    record = json.loads((output / "chips/00000/chips.json").read_text())
    assert {(chip["left"], chip["top"]): chip["land_class"] for chip in record["chips"]} == drawn(
        WEST, 2, seed=5
    )
    assert drawn(WEST, 2, seed=5) != drawn(WEST, 2)


def test_retry_failed_asks_again_for_what_found_no_scenes(
    landcover: Path, landcover_request: Make, tmp_path: Path
) -> None:
    document = json.loads((landcover / "items.json").read_text())
    whole = json.dumps(document)
    east = json.loads((landcover / "aois.geojson").read_text())["features"][1]["geometry"][
        "coordinates"
    ][0]
    edge = min(x for x, _ in east)
    for item in document["features"]:
        # Of the first period there is nothing yet of the eastern half.
        if item["id"].startswith("S2A_34TGL_202103"):
            item["geometry"]["coordinates"] = [
                [[min(x, edge - 0.01), y] for x, y in item["geometry"]["coordinates"][0]]
            ]
    catalog = tmp_path / "items.json"
    catalog.write_text(json.dumps(document))
    request = landcover_request(catalog=str(catalog), **{"product.chips_per_class": 1})
    status = run(request)
    assert (status.done, status.skipped) == (1, 1)
    output = Path(request.output)
    before = {path: path.stat().st_mtime_ns for path in (output / "chips/00000").iterdir()}
    catalog.write_text(whole)
    assert run(request).skipped == 1, "a resumed run goes by its plan"
    status = run(request, retry_failed=True)
    assert (status.state, status.done, status.skipped) == ("succeeded", 2, 0)
    assert before == {path: path.stat().st_mtime_ns for path in (output / "chips/00000").iterdir()}
    assert {chip["aoi"] for chip in chips(output)} == {"00000", "00001"}


def test_another_class_list_is_another_dataset(
    landcover_run: Path, landcover_request: Make
) -> None:
    output = Path(landcover_request().output)
    shutil.copytree(landcover_run, output)
    other = landcover_request(**{"product.lulc.classes": [2, 5]})
    with pytest.raises(RequestError, match="belongs to another request"):
        run(other)
    assert run(other, overwrite=True).state == "succeeded"
    assert {chip["class"] for chip in chips(output)} == {2, 5}
    record = json.loads((output / "chips/00000/chips.json").read_text())
    standing = {path.name for path in (output / "chips/00000").iterdir()}
    assert standing == {name for chip in record["chips"] for name in chip["files"]} | {"chips.json"}


def test_times_are_those_of_the_scenes(landcover_run: Path) -> None:
    item = json.loads((landcover_run / "processed/v1/chip_000000.json").read_text())
    times = [
        datetime.fromisoformat(item["properties"][name])
        for name in ("start_datetime", "end_datetime")
    ]
    assert [f"{time:%Y-%m-%d}" for time in times] == ["2021-03-09", "2021-11-18"]
