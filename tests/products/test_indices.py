"""Indices of the sandbox: every pixel worked out from the synthetic Earth, masked and put together over time."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from rio_cogeo import cog_validate

from conftest import tree
from known import first, layers
from scenebeam.errors import RequestError
from scenebeam.execution.driver import run
from scenebeam.imaging.virtual import block_table, write_vrts
from scenebeam.planning.search import make_plan
from scenebeam.request import Limits, RunRequest
from scenebeam.sandbox import earth
from scenebeam.sandbox.scenes import SandboxScene, write_sandbox
from scenebeam.sandbox.server import Fault, SandboxServer

Make = Callable[..., RunRequest]
BEFORE, AFTER = "20210610T092031Z", "20220615T092029Z"
GRID = {"crs": "EPSG:32634", "resolution": 10, "bounds": [748_000, 4_492_000, 754_500, 4_500_000]}
"""Inside one zone: every pixel is known exactly."""
CLOUDY = (3, 8, 9, 10)


@pytest.fixture
def index_request(make_request: Make) -> Make:
    def make(**changes: Any) -> RunRequest:
        product = {"kind": "index", "index": "ndvi", "resampling": "nearest"}
        return make_request(
            **{"product": product, "grid": GRID, "select": {"platform": "sentinel-2a"}, **changes}
        )

    return make


def image(request: RunRequest, name: str, index: str = "ndvi") -> Path:
    return Path(request.output) / "indices" / name / f"{index}.tif"


def item_of(request: RunRequest, name: str) -> dict[str, Any]:
    return json.loads((Path(request.output) / "indices" / name / f"{name}.json").read_text())


def truth(
    path: Path, scenes: list[SandboxScene], formula: Callable[..., np.ndarray], *bands: str
) -> np.ndarray:
    """The formula of the merged bands as reflectance, NaN under clouds and where nothing is."""
    stacks = {band: first(layers(path, scenes, band)) for band in (*bands, "scl")}
    seen = np.all([stacks[band] > 0 for band in bands], axis=0)
    with np.errstate(all="ignore"):
        found = formula(*(stacks[band] * 1e-4 for band in bands))
    return np.where(seen & (stacks["scl"] > 0) & ~np.isin(stacks["scl"], CLOUDY), found, np.nan)


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        assert file.dtypes == ("float32",)
        assert np.isnan(file.nodata)
        return file.read(1)


def ranked(
    year: int, *tiles: str, scenes: tuple[SandboxScene, ...] | None = None
) -> list[SandboxScene]:
    from scenebeam.sandbox.scenes import SCENES

    found = [
        s for s in scenes or SCENES if s.acquired.year == year and s.tile in tiles and not s.error
    ]
    return sorted(found, key=lambda scene: scene.cloud_cover)


def normalized(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one - other) / (one + other)


def test_ndvi_before_and_after_the_offset_change(index_request: Make) -> None:
    """+1000 is in the later scenes' pixels; the reflectance is of the same Earth."""
    request = index_request()
    assert run(request).state == "succeeded"
    for name, year in ((BEFORE, 2021), (AFTER, 2022)):
        path = image(request, name)
        expected = truth(path, ranked(year, "34TGL", "34TGK"), normalized, "nir", "red")
        np.testing.assert_allclose(read(path), expected, atol=2e-6)
        assert np.isnan(expected).any(), "a cloud stands in the area"
        assert cog_validate(path, strict=True) == (True, [], [])
        item = item_of(request, name)
        assert item["properties"]["scenebeam:masked_by"] == ["scl"]
        pystac.Item.from_dict({**item, "stac_extensions": []}).validate()


@pytest.mark.parametrize(
    ("index", "formula", "bands"),
    [
        ("ndwi", normalized, ("green", "nir")),
        ("mndwi", normalized, ("green", "swir16")),
        ("NBR", normalized, ("nir", "swir22")),
        ("evi", lambda n, r, b: 2.5 * (n - r) / (n + 6 * r - 7.5 * b + 1), ("nir", "red", "blue")),
    ],
)
def test_indices_by_name(
    index_request: Make, index: str, formula: Callable, bands: tuple[str, ...]
) -> None:
    request = index_request(**{"product.index": index, "dates": "2021"})
    assert run(request).state == "succeeded"
    path = image(request, BEFORE, index.lower())
    expected = truth(path, ranked(2021, "34TGL", "34TGK"), formula, *bands)
    np.testing.assert_allclose(read(path), expected, atol=5e-6)


def test_an_expression_of_band_names(index_request: Make) -> None:
    text = "where(B08 > 2 * red, sqrt(nir), -1) + 0 * B11 ** 2"
    request = index_request(
        product={"kind": "index", "expression": text, "mask": False, "resampling": "nearest"},
        dates="2021",
    )
    assert run(request).state == "succeeded"
    path = image(request, BEFORE, "expression")
    nir, red, swir = (
        first(layers(path, ranked(2021, "34TGL", "34TGK"), b)) for b in ("nir", "red", "swir16")
    )
    seen = (nir > 0) & (red > 0) & (swir > 0)
    expected = np.where(nir > 2 * red, np.sqrt(nir * 1e-4), -1)
    np.testing.assert_allclose(read(path), np.where(seen, expected, np.nan), atol=1e-6)


def test_one_image_per_scene(index_request: Make) -> None:
    request = index_request(**{"product.per": "scene", "dates": "2021"})
    status = run(request)
    assert (status.state, status.tasks) == ("succeeded", 3)
    for scene in ranked(2021, "34TGL", "34TGK"):
        path = image(request, scene.id)
        np.testing.assert_allclose(
            read(path), truth(path, [scene], normalized, "nir", "red"), atol=2e-6
        )


@pytest.fixture(scope="session")
def season(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[SandboxScene, ...]]:
    """One tile on many days: three in May, one in June, two in August."""
    days = [(5, 2), (5, 12), (5, 22), (6, 11), (8, 5), (8, 20)]
    scenes = tuple(
        SandboxScene(
            "34TGL",
            32634,
            745_000,
            4_502_000,
            datetime(2023, m, d, 9, 20),
            cloud_cover=float(d),
            size=512,
        )
        for m, d in days
    )
    folder = tmp_path_factory.mktemp("season")
    return write_sandbox(folder, scenes=scenes), scenes


SMALL = {"crs": "EPSG:32634", "resolution": 10, "bounds": [746_000, 4_498_000, 749_000, 4_501_000]}


def first_valid(stack: np.ndarray, axis: int) -> np.ndarray:
    """The first layer that is not NaN."""
    assert axis == 0
    found = stack[0]
    for layer in stack[1:]:
        found = np.where(np.isnan(found), layer, found)
    return found


@pytest.mark.parametrize(
    ("composite", "merged"),
    [
        ("median", np.nanmedian),
        ("max", np.nanmax),
        ("mean", np.nanmean),
        ("min", np.nanmin),
        ("first", first_valid),
    ],
)
def test_composites_by_month(
    index_request: Make, season: Any, composite: str, merged: Callable
) -> None:
    catalog, scenes = season
    request = index_request(
        catalog=str(catalog), grid=SMALL, area=None, dates="2023",
        **{"product.per": "month", "product.composite": composite},
    )  # fmt: skip
    assert run(request).state == "succeeded"
    months = {"2023-05": scenes[:3], "2023-06": scenes[3:4], "2023-08": scenes[4:]}
    assert {path.parent.name for path in Path(request.output).glob("indices/*/ndvi.tif")} == set(
        months
    )
    for name, inside in months.items():
        path = image(request, name)
        stack = np.array([truth(path, [scene], normalized, "nir", "red") for scene in inside])
        with (
            np.errstate(all="ignore"),
            pytest.warns(RuntimeWarning) if np.isnan(stack).all(axis=0).any() else _calm(),
        ):
            np.testing.assert_allclose(read(path), merged(stack, axis=0), atol=2e-6)
    properties = item_of(request, "2023-05")["properties"]
    assert properties["start_datetime"] == "2023-05-01T00:00:00Z"
    assert properties["end_datetime"].startswith("2023-05-31T23:59:59")
    assert properties["scenebeam:acquisitions"] == 3


def _calm() -> Any:
    from contextlib import nullcontext

    return nullcontext()


def test_a_month_with_too_few_scenes_gives_way_to_its_quarter(
    index_request: Make, season: Any
) -> None:
    catalog, scenes = season
    request = index_request(
        catalog=str(catalog), grid=SMALL, area=None, dates="2023",
        **{"product.per": "month", "product.min_scenes_per_period": 2},
    )  # fmt: skip
    assert run(request).state == "succeeded"
    with (Path(request.output) / "indices_status.csv").open() as file:
        found = {row["name"]: int(row["acquisitions"]) for row in csv.DictReader(file)}
    assert found == {"2023-Q2": 4, "2023-05": 3, "2023-Q3": 2, "2023-08": 2}
    assert "too few" in item_of(request, "2023-Q2")["properties"]["scenebeam:period"]
    path = image(request, "2023-Q2")
    stack = np.array([truth(path, [scene], normalized, "nir", "red") for scene in scenes[:4]])
    seen = ~np.isnan(stack).all(axis=0)
    np.testing.assert_allclose(read(path)[seen], np.nanmedian(stack[:, seen], axis=0), atol=2e-6)


def test_dnbr_is_before_less_after(index_request: Make, season: Any) -> None:
    catalog, scenes = season
    request = index_request(
        catalog=str(catalog),
        grid=SMALL,
        area=None,
        dates=["2023-05", "2023-08"],
        **{"product.index": "dnbr"},
    )
    assert run(request).state == "succeeded"
    path = image(request, "20230501-20230831", "dnbr")
    sides = []
    for inside in (scenes[:3], scenes[4:]):
        stack = np.array([truth(path, [scene], normalized, "nir", "swir22") for scene in inside])
        hidden = np.isnan(stack).all(axis=0)
        stack[:, hidden] = 0
        sides.append(np.where(hidden, np.nan, np.nanmedian(stack, axis=0)))
    np.testing.assert_allclose(read(path), sides[0] - sides[1], atol=2e-6)


def test_shards_and_runners_give_the_same_numbers(
    index_request: Make, season: Any, tmp_path: Path
) -> None:
    catalog, _ = season
    same = {
        "catalog": str(catalog),
        "grid": {**SMALL, "bounds": [745_000, 4_497_000, 750_120, 4_502_000]},
        "area": None,
    }
    trees = []
    for number, (runner, memory) in enumerate(
        (("serial", "1GiB"), ("serial", "300MB"), ("direct", "300MB"))
    ):
        request = index_request(
            **same, dates="2023", runner=runner, output=str(tmp_path / str(number)),
            **{"product.per": "quarter", "limits.memory": memory},
        )  # fmt: skip
        assert run(request).state == "succeeded"
        trees.append(read(image(request, "2023-Q2")))
        with rasterio.open(image(request, "2023-Q2")) as file:
            assert file.overviews(1) or max(file.shape) <= 512
    np.testing.assert_array_equal(trees[0], trees[1])
    np.testing.assert_array_equal(trees[1], trees[2])
    assert len(list(tmp_path.glob("*/parts/**/*.part"))) == 0


def test_the_same_bytes_again(index_request: Make, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert run(index_request(output=str(tmp_path / name), dates="2021")).state == "succeeded"
    assert {k: v for k, v in tree(tmp_path / "one").items() if "indices/" in k} == {
        k: v for k, v in tree(tmp_path / "two").items() if "indices/" in k
    }


def test_a_tile_that_is_gone_is_left_out_and_named(
    index_request: Make, served_items: Path, server: SandboxServer
) -> None:
    server.faults.append(Fault("S2A_34TGK_20210610_1_L2A/scl.tif", status=404))
    seam = {
        "catalog": str(served_items),
        "dates": "2021",
        "grid": {**GRID, "bounds": [748_000, 4_491_000, 750_000, 4_493_000]},
        "select": {"scenes": [{"id": f"S2A_{tile}_20210610_1_L2A"} for tile in ("34TGL", "34TGK")]},
    }
    request = index_request(**seam)
    status = run(request)
    assert (status.state, status.incomplete) == ("succeeded", 1)
    missing = item_of(request, BEFORE)["assets"]["ndvi"]["scenebeam:missing"]
    assert [one["scene"] for one in missing] == ["S2A_34TGK_20210610_1_L2A"]
    found = read(image(request, BEFORE))
    path = image(request, BEFORE)
    whole = truth(path, ranked(2021, "34TGL", "34TGK"), normalized, "nir", "red")
    upper = np.array(layers(path, ranked(2021, "34TGL"), "nir")[0] > 0)
    np.testing.assert_allclose(found[upper], whole[upper], atol=2e-6)
    assert (~upper).sum() > 10_000
    assert np.isnan(found[~upper]).all(), "without its classification a tile might show clouds"
    server.faults.append(Fault("34TGL_20210610_1_L2A/scl.tif", status=404))
    refused = run(index_request(**seam, output=f"{request.output}2"))
    assert refused.state == "failed"
    assert "no acquisition has all bands" in refused.message


def test_an_area_is_read_by_block_and_the_virtual_index_foretells_it(
    index_request: Make, served_items: Path, server: SandboxServer, tmp_path: Path
) -> None:
    grid = {
        "crs": "EPSG:32634",
        "resolution": 10,
        "bounds": [747_000, 4_499_000, 749_000, 4_500_500],
    }
    request = index_request(catalog=str(served_items), grid=grid, dates="2021")
    server.reset_counts()
    plan = make_plan(request)
    table = block_table(plan.tasks, Limits(private_addresses=True))
    headers = server.bytes_sent
    assert sum(server.requests.values()) == 3, "planning and counting blocks share the headers"
    assert {(row["scene"], row["band"].partition("/")[2]) for row in table.rows} == {
        ("S2A_34TGL_20210610_1_L2A", band) for band in ("nir", "red", "scl")
    }
    server.reset_counts()
    assert run(request).state == "succeeded"
    told = sum(row["bytes"] for row in table.rows)
    assert server.bytes_sent <= told + 3 * headers, "pixels as foretold, and headers"
    assert sum(row["requests"] for row in table.rows) <= sum(server.requests.values())
    whole = sum(
        (server.folder / "S2A_34TGL_20210610_1_L2A" / f"{b}.tif").stat().st_size
        for b in ("nir", "red", "scl")
    )
    assert told < 0.5 * whole
    write_vrts(plan.tasks, tmp_path / "vrts", Limits(private_addresses=True))
    with rasterio.open(tmp_path / "vrts" / f"{BEFORE}.vrt") as file:
        assert file.shape == (150, 200)
        assert list(file.descriptions) == ["nir", "red", "scl"]
        with rasterio.open(image(request, BEFORE)) as ours:
            assert (file.transform, file.crs) == (ours.transform, ours.crs)
        nir, red = (file.read(number).astype(float) for number in (1, 2))
        found = read(image(request, BEFORE))
        clear = ~np.isnan(found)
        np.testing.assert_allclose(normalized(nir, red)[clear], found[clear], atol=1e-6)


def test_the_virtual_index_of_two_zones_has_warped_files(
    index_request: Make, tmp_path: Path
) -> None:
    plan = make_plan(index_request(grid={}, dates="2021"))
    write_vrts(plan.tasks, tmp_path / "vrts", Limits(private_addresses=True))
    with rasterio.open(tmp_path / "vrts" / f"{BEFORE}.vrt") as file:
        assert (file.read(1) > 0).mean() > 0.9
    assert list((tmp_path / "vrts").glob("*_warped.vrt"))
    with pytest.raises(RequestError, match="mosaics and indices"):
        block_table([], Limits())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"product": {"kind": "index"}}, "give either an index"),
        ({"product.index": "foo"}, "'foo' is not known; known: ndvi, "),
        ({"product.expression": "nir"}, "give either an index"),
        ({"product": {"kind": "index", "expression": "__import__('os')"}}, "functions"),
        ({"product": {"kind": "index", "expression": "thermal + 1"}}, "unknown band 'thermal'"),
        ({"product.index": "dnbr", "dates": "2021"}, "needs two intervals"),
        ({"product.index": "dnbr", "product.per": "month"}, "leave it out"),
        ({"product.index": "dnbr", "dates": ["2021-06", "2021-07"]}, "do not both have scenes"),
    ],
)
def test_what_cannot_be_is_refused(index_request: Make, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        make_plan(index_request(**changes))


def test_bits_of_a_quality_band_hide_the_ground(index_request: Make, tmp_path: Path) -> None:
    """As Landsat has it: fill is bit 0, cloud bit 3."""
    scene = SandboxScene("34TGL", 32634, 745_000, 4_502_000, datetime(2023, 5, 2), size=256)
    catalog = write_sandbox(tmp_path / "landsat", scenes=(scene,))
    flags = np.full((256, 256), 0b1000000, np.uint16)
    flags[:50] = 1
    flags[100:150] = 0b1001000
    with rasterio.open(tmp_path / "landsat" / scene.id / "nir.tif") as file:
        profile = {**file.profile, "nodata": 1}
    with rasterio.open(tmp_path / "landsat" / scene.id / "qa.tif", "w", **profile) as file:
        file.write(flags, 1)
    document = json.loads(catalog.read_text())
    document["features"][0]["assets"]["qa"] = {
        "href": str(tmp_path / "landsat" / scene.id / "qa.tif")
    }
    catalog.write_text(json.dumps(document))
    record = {
        "id": "sentinel-2-l2a", "dtype": "uint16", "nodata": 0, "scale": 0.00005, "offset": -0.02, "sensor": "optical",
        "bands": {
            "red": {"asset": "red", "resolution": 10},
            "nir": {"asset": "nir", "resolution": 10},
            "qa": {"asset": "qa", "resolution": 10, "nodata": 1, "categorical": True},
        },
        "mask_bits": {"qa": [0, 3]},
    }  # fmt: skip
    request = index_request(
        catalog=str(catalog), collections=[record], grid={}, area=None, dates=[]
    )
    assert run(request).state == "succeeded"
    found = read(image(request, "20230502T000000Z"))
    x, y = scene.pixel_centers(10)
    nir, red = (
        earth.pixel(band, x, y, earth.day_number(scene.acquired)) * 0.00005 - 0.02
        for band in ("nir", "red")
    )
    clear = flags == 0b1000000
    np.testing.assert_allclose(found[clear], normalized(nir, red)[clear], atol=2e-5)
    assert np.isnan(found[~clear]).all()
