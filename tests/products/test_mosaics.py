"""Mosaics of the sandbox, held against the synthetic Earth pixel by pixel."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rio_cogeo import cog_validate

from known import check, first, layers, read
from scenebeam.execution.driver import run
from scenebeam.planning.search import make_plan
from scenebeam.products.mosaics.task import MosaicTask
from scenebeam.request import RunRequest
from scenebeam.sandbox.scenes import SCENES, SandboxScene

Make = Callable[..., RunRequest]
BEFORE, AFTER = "20210610T092031Z", "20220615T092029Z"


def ranked(year: int) -> list[SandboxScene]:
    """The scenes of a year that are taken, best first."""
    return sorted(
        (s for s in SCENES if s.acquired.year == year and not s.error), key=lambda s: s.cloud_cover
    )


def mosaic(request: RunRequest, timestamp: str = BEFORE, band: str = "red") -> Path:
    return Path(request.output) / "mosaics" / timestamp / f"{band}.tif"


@pytest.fixture
def done(make_request: Make) -> Callable[..., RunRequest]:
    def go(**changes: object) -> RunRequest:
        request = make_request(**changes)
        status = run(request)
        assert status.state == "succeeded", status
        return request

    return go


ZONE = {"grid.crs": "EPSG:32634"}


def test_the_seam_the_swath_the_offset_and_the_duplicate(done: Make) -> None:
    """One run shows them all: two zones, nodata edges, a shift of 1000, and a reprocessed tile that is wrong by 7."""
    request = done(**ZONE, **{"product.bands": ["red", "nir", "swir16", "scl"]})
    for timestamp, year in ((BEFORE, 2021), (AFTER, 2022)):
        for band in ("red", "nir", "swir16", "scl"):
            path = mosaic(request, timestamp, band)
            found, stack = read(path), check(path, ranked(year), band)
            home = (stack[[scene.epsg == 32634 for scene in ranked(year)]] > 0).any(axis=0)
            assert home.mean() > 0.5
            where = f"{timestamp} {band}"
            np.testing.assert_array_equal(
                found[home], first(stack)[home], err_msg=f"{where}: tiles of the grid's own zone"
            )
            assert not np.any((found == 0) & home), "a valid pixel never becomes nodata"


def test_raw_numbers_are_as_in_the_files(done: Make) -> None:
    request = done(**ZONE, **{"product.values": "raw", "product.bands": ["red"]})
    for timestamp, shift, offset in ((BEFORE, 0, 0.0), (AFTER, 1000, -0.1)):
        path = mosaic(request, timestamp)
        with rasterio.open(path) as file:
            (seen,) = layers(
                path, [s for s in ranked(int(timestamp[:4])) if s.tile == "34TGL"], "red"
            )
            np.testing.assert_array_equal(file.read(1)[seen > 0], seen[seen > 0] + shift)
            assert file.scales == (1e-4,)
            assert file.offsets == pytest.approx((offset,))
            assert file.tags()["SCENEBEAM_VALUES"] == "raw"


def test_both_ways_give_the_same_reflectance(make_request: Make, tmp_path: Path) -> None:
    physical = []
    for values in ("raw", "harmonized"):
        request = make_request(
            output=str(tmp_path / values), **{"product.values": values, "product.bands": ["nir"]}
        )
        run(request)
        with rasterio.open(mosaic(request, AFTER, "nir")) as file:
            physical.append(
                np.where(file.read(1) > 0, file.read(1) * file.scales[0] + file.offsets[0], np.nan)
            )
    np.testing.assert_allclose(physical[0], physical[1], atol=1e-9)


@pytest.mark.parametrize("method", ["last", "min", "max", "mean", "median"])
def test_other_merge_methods(done: Make, method: str) -> None:
    request = done(**ZONE, **{"product.method": method, "product.bands": ["red"], "dates": "2021"})
    path = mosaic(request)
    check(path, ranked(2021), "red", lambda stack: merged(method, stack))


def merged(method: str, stack: np.ndarray) -> np.ndarray:
    """Layers → what a method makes of those that are not 0."""
    seen = np.ma.masked_equal(stack, 0)
    return {
        "last": lambda: first(stack[::-1]),
        "min": lambda: seen.min(axis=0).filled(0),
        "max": lambda: stack.max(axis=0),
        "mean": lambda: np.rint(seen.mean(axis=0)).filled(0),
        "median": lambda: np.rint(np.ma.median(seen, axis=0)).filled(0),
    }[method]()


def test_every_product_is_a_valid_cog_with_a_valid_item(done: Make) -> None:
    request = done()
    out = Path(request.output)
    for path in out.glob("mosaics/*/*.tif"):
        assert cog_validate(path, strict=True) == (True, [], [])
    for path in out.glob("mosaics/*/*.json"):
        item = pystac.Item.from_file(str(path))
        pystac.Item.from_dict({**item.to_dict(), "stac_extensions": []}).validate()
        assert item.datetime is not None
        sources = {link.title for link in item.get_links("derived_from")}
        assert sources == {s.id for s in ranked(item.datetime.year)}
        for band, asset in item.assets.items():
            content = (path.parent / asset.href).read_bytes()
            assert (
                asset.extra_fields["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
            )
            assert asset.extra_fields["file:size"] == len(content)
            if band == "thumbnail":
                continue
            with rasterio.open(path.parent / asset.href) as file:
                assert item.properties["proj:shape"] == [file.height, file.width]
                assert item.properties["proj:transform"] == list(file.transform)[:6]
                valid = 100 * np.mean(file.read(1) > 0)
            raster = asset.extra_fields["raster:bands"][0]
            assert raster["statistics"]["valid_percent"] == pytest.approx(valid, abs=1e-3)
            assert raster["nodata"] == 0
            assert raster["data_type"] == ("uint8" if band == "scl" else "uint16")
    collection = pystac.Collection.from_file(str(out / "collection.json"))
    collection.validate()
    assert {item.id for item in collection.get_items()} == {BEFORE, AFTER}


def test_a_small_picture_of_each(done: Make) -> None:
    request = done(**{"product.bands": ["scl", "nir", "red", "green"]})
    paths = sorted(Path(request.output).glob("mosaics/*/thumbnail.png"))
    assert paths
    for path in paths:
        with rasterio.open(path.parent / "red.tif") as file:
            overview = file.read(1, out_shape=(file.height // 2, file.width // 2))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as file:
                image = file.read()
        assert max(image.shape[1:]) == 400
        assert image.shape[0] == 4, "false colour, and where it is"
        assert len(np.unique(image[:3])) > 100
        rows, columns = (
            ((np.arange(small) + 0.5) * large / small).astype(int)
            for small, large in zip(image.shape[1:], overview.shape, strict=True)
        )
        seen = (overview > 0)[np.ix_(rows, columns)]
        assert np.mean((image[3] == 255) == seen) > 0.99


def test_one_grid_for_the_whole_series(done: Make) -> None:
    request = done(**{"product.bands": ["red", "swir16"]})
    grids = set()
    for path in Path(request.output).glob("mosaics/*/*.tif"):
        with rasterio.open(path) as file:
            grids.add((file.crs.to_epsg(), file.transform, file.shape))
    assert len(grids) == 1
    ((_, transform, _),) = grids
    assert transform.c % 10 == transform.f % 10 == 0, "the origin is a multiple of the resolution"


@pytest.mark.parametrize("codec", ["zstd", "lzw"])
def test_compressions(done: Make, codec: str) -> None:
    request = done(**{"product.compression": codec, "dates": "2021"})
    with rasterio.open(mosaic(request)) as file:
        assert file.compression.name == codec


def test_a_day_is_one_mosaic_named_by_its_first_scene(done: Make) -> None:
    request = done(**{"product.group_by": "day", "product.bands": ["scl"]})
    assert {path.name for path in (Path(request.output) / "mosaics").iterdir()} == {BEFORE, AFTER}


def test_resampling_is_per_band_and_never_touches_classes(make_request: Make) -> None:
    (task, *_) = make_plan(
        make_request(
            **{
                "product.resampling": {"red": "bilinear", "scl": "cubic"},
                "product.bands": ["red", "scl", "nir"],
            }
        )
    ).tasks
    assert isinstance(task, MosaicTask)
    assert {band.name: band.resampling for band in task.bands} == {
        "red": "bilinear",
        "scl": "nearest",
        "nir": "nearest",
    }


@pytest.mark.parametrize("cut_by", ["rows", "rows and columns"])
def test_shards_are_one_cog_of_the_same_pixels(
    make_request: Make, tmp_path: Path, cut_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bands = {**ZONE, "product.bands": ["red", "scl"]}
    assert run(make_request(output=str(tmp_path / "whole"), **bands)).tasks == 2
    if cut_by == "rows":
        monkeypatch.setattr("scenebeam.imaging.shards._LARGEST_SHARD", 2**18)
        monkeypatch.setattr("scenebeam.imaging.shards._CELL_LEVELS", 1)
    monkeypatch.setattr("scenebeam.imaging.shards._NARROW_SHARD", 2**18)
    memory = "1GB" if cut_by == "rows" else "100MB"
    status = run(make_request(output=str(tmp_path / "cut"), **bands, **{"limits.memory": memory}))
    assert status.state == "succeeded"
    assert status.tasks == (4 if cut_by == "rows" else 12)
    for path in sorted((tmp_path / "whole").glob("mosaics/*/*.tif")):
        twin = tmp_path / "cut" / path.relative_to(tmp_path / "whole")
        assert cog_validate(twin, strict=True) == (True, [], [])
        if cut_by == "rows":
            assert path.read_bytes() == twin.read_bytes(), "not a byte differs"
            continue
        with rasterio.open(path) as one, rasterio.open(twin) as other:
            assert one.profile == other.profile
            assert one.overviews(1) == other.overviews(1)
        scenes = ranked(int(path.parent.name[:4]))
        stack = check(twin, scenes, path.stem)
        home = (stack[[scene.epsg == 32634 for scene in scenes]] > 0).any(axis=0)
        np.testing.assert_array_equal(read(twin)[home], read(path)[home])
    assert not list((tmp_path / "cut").glob("parts/**/*.part"))
    items = [json.loads(path.read_text()) for path in (tmp_path / "cut").glob("mosaics/*/*.json")]
    assert all(item["properties"]["scenebeam:complete"] for item in items)


def test_the_plan_bounds_memory_by_cutting(make_request: Make) -> None:
    for memory in ("300MB", "500MB", "1GiB"):
        plan = make_plan(make_request(**{"limits.memory": memory, "product.bands": ["red"]}))
        assert plan.estimate.memory <= plan.request.limits.memory
