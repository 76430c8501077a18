"""`format: zarr` and `format: icechunk`: the numbers of COGs in one store, read back by others' readers."""

from __future__ import annotations

import asyncio
import csv
import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import odc.geo.xr  # noqa: F401 - an accessor
import pytest
import rasterio
import rioxarray  # noqa: F401 - an accessor
import xarray
import zarr
from rasterio.errors import RasterioIOError

import scenebeam
from composites import composite_request
from conftest import tree
from growing_catalog import Catalog
from lives import Killed, Lives
from scenebeam.cubes import stores
from scenebeam.errors import ReadError, RequestError, StorageError
from scenebeam.execution.driver import run
from scenebeam.imaging.gridded_task import GriddedTask
from scenebeam.report import finish
from scenebeam.request import RunRequest
from scenebeam.transfer.rangefile import RangeFile

Make = Callable[..., RunRequest]
LARGE = {"grid.crs": "EPSG:32634", "grid.resolution": 4, "limits.memory": "350MB"}
"""A grid that is cut into shards."""


def run_as(make: Make, tmp_path: Path, form: str, **fields: Any) -> str:
    """Run a request in a format; gives the output."""
    request = make(output=str(tmp_path / form), **fields)
    status = scenebeam.run(request, progress=False)
    assert status.state == "succeeded", status.message
    return request.output


def check_store(cogs: str, store: Any, levels: int, folder: str = "mosaics") -> None:
    """Assert that a store has the pixels of COGs and of their overviews."""
    root = zarr.open_group(store, mode="r", zarr_format=3)
    for level in range(levels):
        group = root[str(level)]
        assert isinstance(group, zarr.Group)
        arrays = dict(group.arrays())
        ids = [str(name) for name in np.asarray(arrays["id"][:])]
        for index, name in enumerate(ids):
            for path in Path(cogs, folder, name).glob("*.tif"):
                overview = {} if level == 0 else {"overview_level": level - 1}
                with rasterio.open(path, **overview) as file:
                    stored = np.asarray(arrays[path.stem][index])
                    np.testing.assert_array_equal(file.read(1), stored)
                    assert file.bounds.left == pytest.approx(arrays["x"][0] - file.res[0] / 2)


@pytest.mark.parametrize(("fields", "levels"), [({}, 3), (LARGE, 4)], ids=["whole", "cut"])
def test_a_store_has_the_numbers_of_cogs(
    make_request: Make, tmp_path: Path, fields: dict[str, Any], levels: int
) -> None:
    fields = {"product.bands": ["red", "scl"], **fields}
    cogs = run_as(make_request, tmp_path, "cog", **fields)
    stored = run_as(make_request, tmp_path, "zarr", **{"product.format": "zarr", **fields})
    check_store(cogs, f"{stored}/cube.zarr", levels)
    assert not list(Path(stored).glob("mosaics/*/*.tif"))
    assert not Path(stored, "parts").exists() or not list(Path(stored, "parts").rglob("*.part"))
    if fields.get("grid.resolution"):
        windows = {task.pixel_layout for task in scenebeam.plan(make_request(**fields)).tasks}
        assert len(windows) > 1, "the grid is cut"


def test_an_icechunk_repository_has_them_too(make_request: Make, tmp_path: Path) -> None:
    icechunk = pytest.importorskip("icechunk")
    cogs = run_as(make_request, tmp_path, "cog")
    stored = run_as(make_request, tmp_path, "ice", **{"product.format": "icechunk"})
    repository = icechunk.Repository.open(
        icechunk.local_filesystem_storage(f"{stored}/cube.icechunk")
    )
    check_store(cogs, repository.readonly_session("main").store, 3)
    history = [one.message for one in repository.ancestry(branch="main")]
    assert history == ["test: 2 times", "Repository initialized"], "a run is one commit"
    scenebeam.run(f"{stored}/run.json", progress=False)
    assert len(list(repository.ancestry(branch="main"))) == 2, "nothing new, no commit"
    assert not list(Path(stored).glob("staged.zarr/**/c/*/*/*"))


@pytest.mark.parametrize("form", ["zarr", "icechunk"])
def test_what_opens_cogs_opens_stores(make_request: Make, tmp_path: Path, form: str) -> None:
    if form == "icechunk":
        pytest.importorskip("icechunk")
    cogs = run_as(make_request, tmp_path, "cog")
    stored = run_as(make_request, tmp_path, form, **{"product.format": form})
    for decode in (False, True):
        expected = scenebeam.open(cogs, decode=decode)
        found = scenebeam.open(stored, decode=decode, chunks="auto")
        xarray.testing.assert_identical(
            found.drop_attrs().compute(), expected.drop_attrs().compute()
        )
        assert {name: one.attrs for name, one in found.variables.items()} == {
            name: one.attrs for name, one in expected.variables.items()
        }
    assert found.red.chunks is not None
    by_engine = xarray.open_dataset(stored, engine="scenebeam", drop_variables="scl")
    assert by_engine.red.dtype == np.float32
    assert list(by_engine.data_vars) == ["red"]
    assert xarray.open_dataset(stored).red.shape == expected.red.shape, "the engine is guessed"


def test_readers_of_the_field_know_where_it_is(make_request: Make, tmp_path: Path) -> None:
    stored = run_as(make_request, tmp_path, "zarr", **{"product.format": "zarr"})
    task = scenebeam.plan(make_request()).tasks[0]
    assert isinstance(task, GriddedTask)
    grid = task.grid
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = xarray.open_zarr(f"{stored}/cube.zarr", group="0", decode_coords="all")
        assert plain.time.dt.year.values.tolist() == [2021, 2022]
    assert set(plain.data_vars) == {"red", "scl"}
    assert plain.chunksizes["x"][0] == 512
    assert tuple(plain.odc.geobox.shape) == grid.shape
    assert plain.odc.geobox.crs.to_epsg() == plain.rio.crs.to_epsg() == 32635
    assert plain.rio.transform()[:6] == grid.transform
    pyramid = xarray.open_datatree(f"{stored}/cube.zarr", engine="zarr")
    assert list(pyramid.groups) == ["/", "/0", "/1", "/2"]
    root = json.loads(Path(stored, "cube.zarr/zarr.json").read_text())["attributes"]
    assert root["proj:code"] == "EPSG:32635"
    assert [level["asset"] for level in root["multiscales"]["layout"]] == ["0", "1", "2"]
    assert root["multiscales"]["layout"][1]["transform"]["scale"] == [1.0, 2.0, 2.0]
    names = [one["name"] for one in root["zarr_conventions"]]
    assert names == ["multiscales", "proj", "spatial"]


def test_gdal_reads_it_where_it_can(make_request: Make, tmp_path: Path) -> None:
    stored = run_as(make_request, tmp_path, "zarr", **{"product.format": "zarr"})
    address = f'ZARR:"{stored}/cube.zarr":/0/red:1'
    try:
        with rasterio.open(address) as file:
            pixels = file.read(1)
    except RasterioIOError as error:
        if "sharding_indexed" not in str(error):
            raise
        pytest.skip(f"GDAL {rasterio.__gdal_version__} has no codec sharding_indexed")
    np.testing.assert_array_equal(pixels, scenebeam.open(stored).red[1])


def test_the_collection_describes_the_cube(make_request: Make, tmp_path: Path) -> None:
    stored = run_as(make_request, tmp_path, "zarr", **{"product.format": "zarr"})
    collection = json.loads(Path(stored, "collection.json").read_text())
    assert collection["assets"]["cube"]["href"] == "./cube.zarr"
    dimensions, variables = collection["cube:dimensions"], collection["cube:variables"]
    assert dimensions["x"]["reference_system"] == 32635
    assert [when[:4] for when in dimensions["time"]["values"]] == ["2021", "2022"]
    assert variables["red"]["dimensions"] == ["time", "y", "x"]
    assert variables["red"]["unit"] == "1"
    [item] = Path(stored).glob("mosaics/2022*/*.json")
    asset = json.loads(item.read_text())["assets"]["red"]
    assert (item.parent / asset["href"]).resolve() == Path(stored, "cube.zarr/0/red").resolve()
    assert asset["scenebeam:time_index"] == 1
    with Path(stored, "timestamps_aggregation_band_report.csv").open() as table:
        for row in csv.DictReader(table):
            assert Path(stored, row["output_path"], "zarr.json").is_file()
    for file in asset["scenebeam:files"]:
        assert Path(stored, file["key"]).stat().st_size == file["file:size"]


@pytest.mark.parametrize("method", ["median", "medoid"])
def test_composites_and_their_extra_bands(
    series_sandbox: Path, tmp_path: Path, method: str
) -> None:
    composite = partial(composite_request, series_sandbox / "items.json")
    fields = {"method": method, "extra": ["day", "observations"]}
    cogs = run_as(composite, tmp_path, "cog", **fields)
    stored = run_as(composite, tmp_path, "zarr", **fields, format="zarr")
    check_store(cogs, f"{stored}/cube.zarr", 2, "composites")


def test_filled_composites(series_sandbox: Path, tmp_path: Path) -> None:
    composite = partial(composite_request, series_sandbox / "items.json")
    cogs = run_as(composite, tmp_path, "cog", fill="linear")
    stored = run_as(composite, tmp_path, "zarr", fill="linear", format="zarr")
    check_store(cogs, f"{stored}/cube.zarr", 2, "composites")


def test_indices(make_request: Make, tmp_path: Path) -> None:
    product = {"kind": "index", "index": "ndvi"}
    cogs = run_as(make_request, tmp_path, "cog", product=product)
    stored = run_as(make_request, tmp_path, "zarr", product={**product, "format": "zarr"})
    check_store(cogs, f"{stored}/cube.zarr", 3, "indices")
    assert scenebeam.open(stored).ndvi.attrs["_FillValue"] != 0


def test_stacks(make_request: Make, tmp_path: Path) -> None:
    """All scenes are on one grid, some at the same time; each band keeps its own dtype."""
    product = {"kind": "stack", "bands": ["red", "nir", "scl"], "required": ["red"]}
    fields: dict[str, Any] = {
        "grid": {"crs": "EPSG:32634", "resolution": 20},
        "checks": {"max_nodata_percent": 99},
    }
    made = {}
    for form in ("geotiff", "zarr"):
        request = make_request(
            output=str(tmp_path / form), product={**product, "format": form}, **fields
        )
        assert scenebeam.run(request, progress=False).state == "succeeded"
        made[form] = request
    cube, loaded = scenebeam.open(made["zarr"].output), scenebeam.load(made["zarr"])
    assert cube.scl.dtype == np.uint8
    assert len(set(cube.time.values)) < cube.sizes["time"], "tiles of one overpass"
    paths = sorted(Path(made["geotiff"].output).glob("stacks/*/*.tif"))
    assert [path.stem for path in paths] == sorted(cube.id.values)
    for path in paths:
        with rasterio.open(path) as file:
            for opened in (cube, loaded):
                one = opened.isel(time=list(opened.id.values).index(path.stem))
                for index, name in enumerate(file.descriptions, start=1):
                    np.testing.assert_array_equal(one[name], file.read(index))


def test_a_band_that_is_missing_at_one_time_is_fill(
    make_request: Make, sandbox: Path, tmp_path: Path
) -> None:
    items = json.loads((sandbox / "items.json").read_text())
    for item in items["features"]:
        if item["properties"]["datetime"].startswith("2021"):
            del item["assets"]["nir"]
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(items))
    fields = {"catalog": str(path), "product.bands": ["red", "nir"], "product.format": "zarr"}
    stored = run_as(make_request, tmp_path, "zarr", **fields)
    cube = scenebeam.open(stored, decode=True)
    assert cube.nir[0].isnull().all()
    assert cube.nir[1].notnull().mean() > 0.5
    [item_path] = Path(stored).glob("mosaics/2021*/*.json")
    item = json.loads(item_path.read_text())
    assert item["properties"]["scenebeam:complete"] is False
    assert "nir" in json.dumps(item["properties"]["scenebeam:missing"])


@pytest.mark.parametrize("fields", [{}, LARGE], ids=["whole", "cut"])
def test_a_killed_run_shows_nothing_and_goes_on(
    make_request: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    fields = {"product.format": "zarr", "product.bands": ["red", "scl"], **fields}
    whole = Path(run_as(make_request, tmp_path, "whole", **fields))
    killed = make_request(output=str(tmp_path / "killed"), **fields)
    lives, deaths = Lives(monkeypatch), 0
    # A life publishes a few files more than the one before, which has to make again what it lost.
    for life in range(4, 400, 9):
        lives.left = life
        try:
            run(killed)
            break
        except Killed:
            deaths += 1
            if not Path(killed.output, "status.json").exists():
                continue
            if not Path(killed.output, "cube.zarr/0/zarr.json").exists():
                with pytest.raises(RequestError, match="no cube|has made nothing"):
                    scenebeam.open(killed.output)
    lives.left = 10**9
    assert deaths > 2
    assert not tree(Path(killed.output)).keys() ^ tree(whole).keys()
    assert tree(Path(killed.output, "cube.zarr")) == tree(Path(whole, "cube.zarr"))


def test_a_killed_commit_leaves_no_trace(
    make_request: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    icechunk = pytest.importorskip("icechunk")
    request = make_request(output=str(tmp_path / "out"), **{"product.format": "icechunk"})
    real = icechunk.Session.commit

    def killed(self: Any, *arguments: Any, **named: Any) -> None:
        raise Killed

    monkeypatch.setattr(icechunk.Session, "commit", killed)
    with pytest.raises(Killed):
        run(request)
    monkeypatch.setattr(icechunk.Session, "commit", real)
    storage = icechunk.local_filesystem_storage(f"{request.output}/cube.icechunk")
    history = list(icechunk.Repository.open(storage).ancestry(branch="main"))
    assert len(history) == 1, "the branch has nothing of the run"
    assert run(request).state == "succeeded"
    made = scenebeam.open(request.output)
    cogs = run_as(make_request, tmp_path, "cog")
    np.testing.assert_array_equal(made.red, scenebeam.open(cogs).red)


def test_beam_makes_the_same_bytes(make_request: Make, tmp_path: Path) -> None:
    fields = {"product.format": "zarr", "product.bands": ["red", "scl"], **LARGE}
    serial = run_as(make_request, tmp_path, "serial", **fields)
    direct = run_as(make_request, tmp_path, "direct", **fields, runner="direct")
    assert tree(Path(serial, "cube.zarr")) == tree(Path(direct, "cube.zarr"))


def test_damaged_shards_are_made_again(make_request: Make, tmp_path: Path) -> None:
    stored = run_as(make_request, tmp_path, "zarr", **{"product.format": "zarr"})
    before = tree(Path(stored, "cube.zarr"))
    shard = Path(stored, "cube.zarr/1/red/c/1/0/0")
    shard.write_bytes(shard.read_bytes()[:-9] + bytes(9))
    request = make_request(output=stored, **{"product.format": "zarr"})
    assert scenebeam.run(request, verify=True, progress=False).state == "succeeded"
    assert tree(Path(stored, "cube.zarr")) == before


def test_a_store_in_a_bucket(make_request: Make, prefix: str, tmp_path: Path) -> None:
    cogs = run_as(make_request, tmp_path, "cog")
    request = make_request(output=prefix, **{"product.format": "zarr"})
    assert scenebeam.run(request, progress=False).state == "succeeded"
    np.testing.assert_array_equal(scenebeam.open(prefix).red, scenebeam.open(cogs).red)
    np.testing.assert_array_equal(
        scenebeam.open(prefix, chunks="auto").red[1, 40:50, 7:9],
        scenebeam.open(cogs).red[1, 40:50, 7:9],
    )


def test_what_cannot_be_stored_is_named(
    make_request: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RequestError, match="product.format"):
        make_request(**{"product.format": "netcdf"})
    with pytest.raises(RequestError, match="a store has one grid for all bands"):
        make_request(product={"kind": "stack", "format": "zarr", "resolution_mode": "preserve"})
    with pytest.raises(RequestError, match="stores are compressed by blosc and zstd"):
        make_request(**{"product.format": "zarr", "product.compression": "lzw"})
    run_as(make_request, tmp_path, "one", **{"product.format": "zarr"})
    with pytest.raises(RequestError, match="belongs to another request"):
        run(make_request(output=str(tmp_path / "one"), **{"product.format": "cog"}))
    folder = tmp_path / "closed"
    folder.write_text("a file in place of a folder")
    with pytest.raises(StorageError):
        run(make_request(output=str(folder), **{"product.format": "zarr"}))


def test_open_names_the_extra_that_is_missing(
    make_request: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = run_as(make_request, tmp_path, "zarr", **{"product.format": "zarr"})
    for name in ("zarr", "icechunk"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RequestError, match="extra 'zarr'"):
        scenebeam.open(stored)
    with pytest.raises(RequestError, match="extra 'icechunk'"):
        run(make_request(output=str(tmp_path / "ice"), **{"product.format": "icechunk"}))


def test_chunks_are_shuffled_by_the_size_of_their_numbers(
    make_request: Make, tmp_path: Path
) -> None:
    """The header of blosc says what `zarr.json` says."""
    stored = run_as(make_request, tmp_path, "zarr", **{"product.format": "zarr"})
    for name, size in (("red", 2), ("scl", 1)):
        content = Path(stored, f"cube.zarr/0/{name}/c/1/0/0").read_bytes()
        document = json.loads(Path(stored, f"cube.zarr/0/{name}/zarr.json").read_text())
        [sharding] = document["codecs"]
        blosc = sharding["configuration"]["codecs"][1]["configuration"]
        assert content[3] == blosc["typesize"] == size


@pytest.mark.parametrize("form", ["zarr", "icechunk"])
def test_another_request_leaves_nothing_of_the_one_before(
    make_request: Make, tmp_path: Path, form: str
) -> None:
    if form == "icechunk":
        pytest.importorskip("icechunk")
    fields = {"output": str(tmp_path / "out"), "product.format": form}
    run(make_request(**fields, **{"product.bands": ["red", "nir"]}))
    run(
        make_request(**fields, **{"product.bands": ["nir", "scl"], "dates": "2022"}), overwrite=True
    )
    cube = scenebeam.open(str(tmp_path / "out"))
    assert set(cube.data_vars) == {"nir", "scl"}
    assert cube.time.dt.year.values.tolist() == [2022]
    cogs = run_as(
        make_request, tmp_path, "cog", **{"product.bands": ["nir", "scl"], "dates": "2022"}
    )
    np.testing.assert_array_equal(cube.nir, scenebeam.open(cogs).nir)
    if form == "zarr":
        run(make_request(output=str(tmp_path / "out")), overwrite=True)
        assert not list(Path(tmp_path, "out/cube.zarr").rglob("*.json"))


def test_a_store_that_no_run_has_made_is_not_touched(make_request: Make, tmp_path: Path) -> None:
    foreign = tmp_path / "out/cube.zarr/zarr.json"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("{}")
    request = make_request(output=str(tmp_path / "out"), **{"product.format": "zarr"})
    with pytest.raises(RequestError, match="no run in .* has made it"):
        run(request)
    assert foreign.read_text() == "{}"
    assert run(request, overwrite=True).state == "succeeded"
    assert scenebeam.open(request.output).sizes["time"] == 2


def interrupted(
    request: RunRequest, monkeypatch: pytest.MonkeyPatch, *, overwrite: bool = False
) -> None:
    """Make all products of a request, and die before the store is published."""

    def killed(*arguments: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(finish, "publish_cube", killed)
        with pytest.raises(Killed):
            run(request, overwrite=overwrite)


@pytest.mark.parametrize("form", ["zarr", "icechunk"])
def test_changed_dates_keep_what_is_made(make_request: Make, tmp_path: Path, form: str) -> None:
    if form == "icechunk":
        pytest.importorskip("icechunk")
    fields = {"output": str(tmp_path / "out"), "product.format": form}
    run(make_request(**fields, dates="2022"))
    assert run(make_request(**fields, dates="2021/2022")).state == "succeeded"
    cogs = run_as(make_request, tmp_path, "cog", dates="2021/2022")
    np.testing.assert_array_equal(
        scenebeam.open(str(tmp_path / "out")).red, scenebeam.open(cogs).red
    )


@pytest.mark.parametrize("form", ["zarr", "icechunk"])
def test_a_band_that_an_image_no_longer_has_is_fill(
    make_request: Make, sandbox: Path, tmp_path: Path, form: str
) -> None:
    if form == "icechunk":
        pytest.importorskip("icechunk")
    document = json.loads((sandbox / "items.json").read_text())
    path = tmp_path / "changing.json"
    path.write_text(json.dumps(document))
    fields = {"catalog": str(path), "product.bands": ["red", "nir"], "product.format": form}
    request = make_request(output=str(tmp_path / "out"), **fields)
    run(request)
    for item in document["features"]:
        if item["properties"]["datetime"].startswith("2022"):
            del item["assets"]["nir"]
    path.write_text(json.dumps(document))
    assert run(request, refresh=True).state == "succeeded"
    cube = scenebeam.open(request.output)
    assert (cube.nir[1] == 0).all()
    assert (cube.nir[0] != 0).any()
    assert (cube.red[1] != 0).any()


def test_what_another_request_has_staged_is_not_committed(
    make_request: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("icechunk")
    fields = {"output": str(tmp_path / "out"), "product.format": "icechunk"}
    interrupted(make_request(**fields, **{"product.bands": ["red", "nir"]}), monkeypatch)
    later = make_request(**fields, **{"product.bands": ["scl"], "dates": "2022"})
    assert run(later, overwrite=True).state == "succeeded"
    cube = scenebeam.open(later.output)
    assert (list(cube.data_vars), cube.sizes["time"]) == (["scl"], 1)
    assert not list(Path(later.output, "staged.zarr").rglob("c/*/*/*"))


def test_a_repository_that_is_lost_is_noticed_and_made_again(
    make_request: Make, tmp_path: Path
) -> None:
    pytest.importorskip("icechunk")
    request = make_request(output=str(tmp_path / "out"), **{"product.format": "icechunk"})
    run(request)
    before = scenebeam.open(request.output).red.load()
    shutil.rmtree(tmp_path / "out/cube.icechunk")
    with pytest.raises(StorageError, match="lacks the pixels of 20210610T092031Z"):
        run(request)
    assert run(request).state == "succeeded"
    np.testing.assert_array_equal(scenebeam.open(request.output).red, before)


def test_a_run_commits_in_a_notebook(make_request: Make, tmp_path: Path) -> None:
    """There, an event loop runs already."""
    pytest.importorskip("icechunk")
    request = make_request(output=str(tmp_path / "out"), **{"product.format": "icechunk"})

    async def cell() -> str:
        return scenebeam.run(request, progress=False).state

    assert asyncio.run(cell()) == "succeeded"


def test_other_pixels_are_never_read_on_old_coordinates(
    make_request: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"output": str(tmp_path / "out"), "product.format": "zarr"}
    run(make_request(**fields))
    grid = {"grid.crs": "EPSG:32635", "grid.resolution": 10}
    moved = make_request(
        **fields, **grid, **{"grid.bounds": [243_000, 4_493_000, 252_000, 4_502_000]}
    )
    interrupted(moved, monkeypatch, overwrite=True)
    with pytest.raises(RequestError, match="has no cube"):
        scenebeam.open(moved.output)
    assert run(moved).state == "succeeded"
    assert float(scenebeam.open(moved.output).x[0]) == 243_005


def test_a_store_of_ones_own_in_the_output_of_cogs_is_left_alone(
    make_request: Make, tmp_path: Path
) -> None:
    cogs = run_as(make_request, tmp_path, "cog")
    scenebeam.open(cogs).drop_attrs().to_zarr(f"{cogs}/cube.zarr")
    before = tree(Path(cogs, "cube.zarr"))
    assert run(make_request(output=cogs)).state == "succeeded"
    assert tree(Path(cogs, "cube.zarr")) == before


def test_images_that_are_kept_must_be_on_the_same_grid(
    make_request: Make, sandbox: Path, tmp_path: Path
) -> None:
    """Without an area, the grid is that of all scenes."""
    catalog = Catalog(sandbox, tmp_path)
    catalog.add("34TGL_2021")
    fields = {"catalog": str(catalog.path), "area": None, "product.format": "zarr"}
    request = make_request(output=str(tmp_path / "out"), **fields)
    assert run(request).state == "succeeded"
    catalog.add("34TGK_2022")
    with pytest.raises(RequestError, match="the images are on 2 grids, and a store has one"):
        run(request, retry_failed=True)


def test_a_bucket_that_refuses_is_no_hole_and_an_update_is_seen(
    make_request: Make, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"output": prefix, "product.format": "zarr"}
    run(make_request(**fields, dates="2022"))
    opened = scenebeam.open(prefix)
    opened.red[0, :5, :5].load()
    # What another process writes, this one has not seen.
    path = tmp_path / "request.json"
    path.write_text(make_request(**fields, dates="2021/2022").model_dump_json(exclude_unset=True))
    command = [sys.executable, "-m", "scenebeam", "run", str(path)]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert scenebeam.open(prefix).sizes["time"] == 2

    def forbidden(href: str, *arguments: Any, **named: Any) -> Any:
        if "/c/" in href and "/red/" in href:
            raise ReadError(f"{href}: HTTP 403")
        return RangeFile(href, *arguments, **named)

    monkeypatch.setattr(stores, "RangeFile", forbidden)
    with pytest.raises(ReadError, match="403"):
        scenebeam.open(prefix).red[0].load()
