"""Whole runs of land-cover chips: interrupted, from an API, from a cached catalogue, on real files, by the command."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from rasterio.enums import Resampling
from rasterio.warp import reproject
from test_interrupts import run_killing

from conftest import landcover_document, stac_server, tree
from lives import Lives
from scenebeam.catalog.item_reader import scene_from_item
from scenebeam.cli import main
from scenebeam.collections import known_records
from scenebeam.execution.driver import run
from scenebeam.execution.explain import describe, explain
from scenebeam.planning.search import make_plan
from scenebeam.products.landcover.request import LandcoverRequest
from scenebeam.request import RunRequest
from scenebeam.requestfile import load_request, validate_request
from scenebeam.sandbox.server import Fault, serve
from scenebeam.stac_geoparquet import write_items

Make = Callable[..., RunRequest]
CONFIG = Path(__file__).parents[2] / "config" / "landcover-chips.yaml"


def released(folder: Path) -> dict[str, bytes]:
    """What a run has made: the chips and the release."""
    return {
        name: data
        for name, data in tree(folder).items()
        if name.startswith(("chips/", "processed/", "aoi_", "chip_"))
    }


FEW = {"product.chips_per_class": 1, "product.sampling_factor": 1}


@pytest.mark.slow
def test_killed_at_any_publication_and_gone_on_with_it_is_the_same(
    landcover_request: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every so many-th file is the last to be published, by turns on one worker and on many; then it is run again."""
    calm = released(Path(run(landcover_request(**FEW)).output))
    lives, times = Lives(monkeypatch), 0
    for number, allowed in enumerate(range(40, len(calm), 201)):
        output = tmp_path / f"killed{number}"
        request = landcover_request(output=str(output), **FEW)
        times += lives.die_twice(request, allowed, 7)
        workers = request.model_copy(
            update={"runner": request.runner.model_copy(update={"kind": "direct"})}
        )
        assert run(workers if number % 2 else request).state == "succeeded"
        assert released(output) == calm, f"killed after {allowed} files"
    assert times > 3


@pytest.mark.slow
def test_killed_at_random_moments(
    landcover_request: Make, landcover_run: Path, tmp_path: Path
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    pick = random.Random(seed)
    for attempt, runner in enumerate(["serial", "direct", "serial", "direct"]):
        killed = landcover_request(
            output=str(tmp_path / f"killed{attempt}"),
            runner=runner,
            **{"product.sampling_factor": 1},
        )
        run_killing(killed, tmp_path, [pick.uniform(1.0, 6.0) for _ in range(4)])
        assert released(Path(killed.output)) == released(landcover_run), f"seed {seed}"


@pytest.mark.slow
def test_from_an_api_and_from_a_cached_catalogue_it_is_the_same(
    landcover: Path, landcover_request: Make, tmp_path: Path
) -> None:
    calm = released(Path(run(landcover_request(**FEW)).output))
    with serve(landcover) as files:
        document = json.loads(
            (landcover / "items.json").read_text().replace(str(landcover), files.url)
        )
        (tmp_path / "items.json").write_text(json.dumps(document))
        (tmp_path / "items.parquet").write_bytes(write_items(document["features"]))
        with stac_server(tmp_path / "items.json") as url:
            for catalog in (url, str(tmp_path / "items.parquet")):
                status = run(
                    landcover_request(
                        catalog=catalog, output=str(tmp_path / f"out-{len(catalog)}"), **FEW
                    )
                )
                assert status.state == "succeeded"
                found = released(Path(status.output))
                assert found.keys() == calm.keys()
                # An API gives items links to themselves, which those of a file have not.
                rasters = [name for name in calm if name.endswith((".tif", ".png", ".csv"))]
                assert all(found[name] == calm[name] for name in rasters)


def test_each_block_is_fetched_once_a_step_and_tries_are_as_asked(
    landcover: Path, landcover_request: Make, tmp_path: Path
) -> None:
    with serve(landcover) as files:
        (tmp_path / "items.json").write_text(
            (landcover / "items.json").read_text().replace(str(landcover), files.url)
        )
        changes = {
            "catalog": str(tmp_path / "items.json"),
            "product.include": [0],
            "product.chips_per_class": 2,
        }
        assert run(landcover_request(output=str(tmp_path / "a"), **changes)).state == "succeeded"
        bodies = Counter((path, start) for path, start, _ in files.ranges if start > 16 * 1024)
        assert bodies
        assert max(bodies.values()) == 1
        files.faults = [Fault(r"vv\.tif", status=503)]
        fast = {**changes, "limits.retry_wait": 0.0}
        tries = {}
        for attempts in (1, 3):
            files.reset_counts()
            output = str(tmp_path / f"b{attempts}")
            status = run(
                landcover_request(output=output, **{**fast, "limits.max_attempts": attempts})
            )
            assert (status.state, status.failed) == ("failed", 1)
            told = json.loads((Path(output) / "aoi_metadata.geojson").read_text())["features"][0][
                "properties"
            ]
            assert told["status"] == "failed"
            assert f"after {attempts} tries" in told["reason"]
            tries[attempts] = files.requests
        files.faults = [Fault(r"vv\.tif", status=503, times=2)]
        assert (
            run(
                landcover_request(output=str(tmp_path / "b3"), **{**fast, "limits.max_attempts": 3})
            ).done
            == 1
        )


def test_an_area_that_fails_is_reported_and_the_others_are_released(
    landcover: Path, landcover_request: Make, tmp_path: Path
) -> None:
    scenes = tmp_path / "scenes"
    shutil.copytree(landcover, scenes)
    (scenes / "items.json").write_text(
        (scenes / "items.json").read_text().replace(str(landcover), str(scenes))
    )
    gone = scenes / "DEM_N40_E023" / "data.tif"  # the tile that only the western area lies on
    content = gone.read_bytes()
    gone.unlink()
    request = landcover_request(
        catalog=str(scenes / "items.json"),
        **{"product.chips_per_class": 1, "limits.max_failed": 0.5},
    )
    status = run(request)
    assert (status.state, status.done, status.failed) == ("partial", 1, 1)
    output = Path(request.output)
    told = json.loads((output / "aoi_metadata.geojson").read_text())["features"]
    assert [one["properties"]["status"] for one in told] == ["failed", "done"]
    assert "DEM_N40_E023" in told[0]["properties"]["reason"]
    before = json.loads((output / "processed/v1/manifest.json").read_text())["chips"]
    assert before
    gone.write_bytes(content)
    assert run(request).state == "succeeded"
    assert json.loads((output / "processed/v1/manifest.json").read_text())["chips"] > before


def test_real_maps_give_the_windows_and_the_relief_that_gdal_does(
    real_data: Path, tmp_path: Path
) -> None:
    cover = real_data / "esa-worldcover-2021" / "ESA_WorldCover_10m_2021_v200_N00E006_Map.tif"
    relief = real_data / "cop-dem-glo-30" / "Copernicus_DSM_COG_10_N00_00_E006_00_DEM.tif"
    ground = {"type": "Polygon", "coordinates": [[[6, 0], [7, 0], [7, 1], [6, 1], [6, 0]]]}

    def item(name: str, key: str, path: Path) -> dict[str, Any]:
        facts = {
            "type": "Feature",
            "stac_version": "1.0.0",
            "links": [],
            "geometry": ground,
            "bbox": [6, 0, 7, 1],
        }
        when = {"datetime": "2021-01-01T00:00:00Z"}
        return {
            **facts,
            "id": name,
            "collection": name,
            "properties": when,
            "assets": {key: {"href": str(path)}},
        }

    items = [item("worldcover", "map", cover), item("glo-30", "dem", relief)]
    (tmp_path / "items.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": items})
    )
    (tmp_path / "aois.json").write_text(
        json.dumps({"type": "Feature", "properties": {}, "geometry": ground})
    )
    names = {10: "tree cover", 80: "permanent water bodies"}
    request = {
        "catalog": str(tmp_path / "items.json"),
        "collections": [
            {
                "id": "worldcover",
                "dtype": "uint8",
                "nodata": 0,
                "bands": {
                    "land_cover": {"asset": "map", "resolution": 0.0000833333, "categorical": True}
                },
                "classes": {number: {"name": name} for number, name in names.items()},
            },
            {
                "id": "glo-30",
                "dtype": "float32",
                "bands": {
                    "elevation": {"asset": "dem", "resolution": 0.000277778, "constant_ok": True}
                },
            },
        ],
        "grid": {"crs": "EPSG:32632", "bounds": [219840, 960, 252480, 46080]},
        "product": {
            "kind": "landcover",
            "aois": str(tmp_path / "aois.json"),
            **dict.fromkeys(("s2l2a", "s1rtc", "lc2l2")),
            "dem": {"collection": "glo-30"},
            "lulc": {"collection": "worldcover", "dates": None, "classes": [10, 80]},
            "chips_per_class": 100,
            "sampling_factor": 1,
        },
        "output": str(tmp_path / "out"),
        "runner": "serial",
    }
    assert run(validate_request(request)).state == "succeeded"
    told = json.loads((tmp_path / "out/aoi_metadata.geojson").read_text())["features"][0][
        "properties"
    ]
    assert told["windows"] == 34 * 47
    assert told["homogeneous_windows"] == {"10": 141, "80": 606}
    assert told["rejected_windows"] == {}
    assert told["chips_by_class"] == {"tree cover": 100, "permanent water bodies": 100}
    flat = high = 0
    with rasterio.open(relief) as source:
        for path in sorted((tmp_path / "out/processed/v0.50.1").glob("dem_*.tif")):
            with rasterio.open(path) as chip:
                found = chip.read(1)
                expected = np.zeros_like(found)
                reproject(
                    rasterio.band(source, 1),
                    expected,
                    dst_transform=chip.transform,
                    dst_crs=chip.crs,
                    resampling=Resampling.bilinear,
                )
            np.testing.assert_array_equal(found, expected)
            flat += bool((found == 0).all())
            high += bool(found.max() > 100)
    assert flat > 90, "the sea is no hole"
    assert high > 50


@pytest.mark.skipif(shutil.which("gdalwarp") is None, reason="gdalwarp is not installed")
def test_gdalwarp_itself_makes_the_same_relief(real_data: Path, tmp_path: Path) -> None:
    """GDAL's own command, at its default error threshold, of the tile that the test above takes its chips from."""
    relief = real_data / "cop-dem-glo-30" / "Copernicus_DSM_COG_10_N00_00_E006_00_DEM.tif"
    corner = ["-te", "239040", "25920", "240000", "26880"]
    words = ["gdalwarp", "-q", "-t_srs", "EPSG:32632", *corner, "-tr", "30", "30", "-r", "bilinear"]
    subprocess.run([*words, str(relief), str(tmp_path / "chip.tif")], check=True)
    with rasterio.open(tmp_path / "chip.tif") as chip, rasterio.open(relief) as source:
        expected = np.zeros(chip.shape, np.float32)
        where = {"dst_transform": chip.transform, "dst_crs": chip.crs}
        reproject(rasterio.band(source, 1), expected, resampling=Resampling.bilinear, **where)
        np.testing.assert_array_equal(chip.read(1), expected)
        assert expected.max() > 100


def test_the_request_to_copy_is_the_default_dataset() -> None:
    product = load_request(CONFIG)[0].product
    assert isinstance(product, LandcoverRequest)
    assert product.kind == "landcover"
    assert product.version == "v0.50.1"
    assert (product.sample_size, product.chips_per_class, product.sampling_factor) == (96, 400, 1)
    assert list(product.modalities) == ["s2l2a", "s1rtc", "lc2l2", "dem", "lulc"]
    assert product.lulc.classes == [1, 2, 5, 7, 8, 11]
    assert product.s2l2a is not None
    assert len(product.s2l2a.bands) == 12
    defaults = type(product)(kind="landcover", aois=product.aois)
    for name, modality in product.modalities.items():
        assert modality == getattr(defaults, name), name


def test_real_items_are_scenes_with_what_chips_need(real_data: Path) -> None:
    records = {(record.provider, record.id): record for record in known_records()}

    def scenes(folder: str) -> list[Any]:
        provider, collection = folder.split("__")
        items = [
            json.loads(path.read_text())
            for path in sorted((real_data / "stac-items" / folder).glob("*.json"))
        ]
        return [scene_from_item(item, records[provider, collection]) for item in items]

    assert {scene.wrs for scene in scenes("planetary-computer__landsat-c2-l2")} >= {
        "084/068",
        "084/072",
    }
    assert all(scene.relative_orbit for scene in scenes("planetary-computer__sentinel-1-rtc"))
    for provider in ("planetary-computer", "earth-search"):
        for scene in scenes(f"{provider}__cop-dem-glo-30"):
            assert scene.assets["elevation"].constant_ok
            assert scene.assets["elevation"].nodata is None
    for scene in scenes("planetary-computer__io-lulc-annual-v02"):
        assert (scene.datetime.year, scene.assets["land_cover"].nodata) == (2023, 0)
        assert scene.assets["land_cover"].categorical
    [worldcover] = scenes("planetary-computer__esa-worldcover")
    assert worldcover.assets["land_cover"].href.endswith("_Map.tif")


def test_a_plan_tells_what_it_would_take(landcover_request: Make) -> None:
    plan = make_plan(landcover_request())
    assert [task.id for task in plan.tasks] == ["00000", "00001"]
    size = plan.estimate
    assert 1e4 < size.read_bytes < 10e6 < size.most_read_bytes < 1e10
    assert 1e5 < size.most_write_bytes < 1e9
    assert 200e6 < size.memory < 1e9
    facts = explain(make_plan(landcover_request(**{"product.include": [0, 3]})))
    assert facts["tasks"] == 2
    assert describe(facts)["cannot be made"][:2] == "1;"
    assert "00003: its geometry is not valid" in describe(facts)["cannot be made"]


def test_the_command_is_the_request(
    landcover: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = landcover_document(landcover, tmp_path / "unused")
    (tmp_path / "request.json").write_text(json.dumps(document))
    words = [
        "landcover",
        str(landcover / "aois.geojson"),
        "--catalog",
        str(landcover / "items.json"),
    ]
    words += [
        "--include",
        "0,1",
        "--exclude",
        "1",
        "--dataset-version",
        "v9",
        "--chips-per-class",
        "1",
        "--no-zip",
    ]
    words += [
        "--without",
        "s1rtc",
        "--without",
        "dem",
        "-o",
        str(tmp_path / "out"),
        "--runner",
        "serial",
    ]
    periods = json.dumps(document["product"]["periods"])
    sets = {
        "product.periods": periods,
        "product.s2l2a.bands": "[red, nir]",
        "product.lc2l2.bands": "[red]",
        "product.lulc.dates": "'2021'",
        "collections": json.dumps(document["collections"]),
    }
    for name, value in sets.items():
        words += ["--set", f"{name}={value}"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    assert "landcover: succeeded, 1 of 1 tasks done" in capsys.readouterr().out
    names = {path.name.split("_")[0] for path in (tmp_path / "out/processed/v9").glob("*.tif")}
    assert names == {"s2l2a", "lc2l2", "lulc"}
    assert not (tmp_path / "out/processed/v9.zip").exists()


def test_the_demo_makes_a_balanced_release_whose_archive_opens(tmp_path: Path) -> None:
    told = CliRunner().invoke(
        main, ["demo", "--product", "landcover", "--output", str(tmp_path / "demo")]
    )
    assert told.exit_code == 0, told.output
    assert "demo: succeeded, 2 of 2 tasks" in told.output
    folder = tmp_path / "demo/landcover/processed"
    with zipfile.ZipFile(folder / "demo.zip") as archive:
        assert archive.testzip() is None
        manifest = json.loads(archive.read("demo/manifest.json"))
    assert len({one["released"] for one in manifest["classes"]}) == 1
    assert not manifest["missing_classes"]
    assert manifest["chips"] >= 12
    files = [str(path) for path in sorted((folder / "demo").glob("*.tif"))]
    told = CliRunner().invoke(main, ["validate", *files])
    assert told.exit_code == 0, told.output
    assert told.output.count("valid  ") == 14 * manifest["chips"]
