"""`scenebeam.load`: the pixels of a run without the run, in every scheduler that dask has."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import odc.geo.xr
import odc.stac
import pystac
import pytest
import rasterio
import xarray

import scenebeam
from scenebeam.errors import ReadError, RequestError
from scenebeam.request import RunRequest
from scenebeam.sandbox.server import Fault, SandboxServer

Make = Callable[..., RunRequest]


def files_of(output: str, name: str) -> dict[str, Any]:
    """Return id of a product → pixels of one of its files."""
    pixels = {}
    for path in sorted(Path(output).glob(f"*/*/{name}.tif")):
        with rasterio.open(path) as file:
            pixels[path.parent.name] = file.read(1)
    return pixels


def check_equals_run(request: RunRequest, *names: str) -> None:
    """Assert that a loaded cube has the pixels of a run, and that loading has written nothing."""
    loaded = scenebeam.load(request)
    assert not Path(request.output).exists()
    assert scenebeam.run(request, progress=False).state == "succeeded"
    assert set(names) == set(loaded.data_vars)
    for name in names:
        made = files_of(request.output, name)
        assert list(made) == list(loaded.id.values), "in the order of time"
        for number, pixels in enumerate(made.values()):
            np.testing.assert_array_equal(loaded[name][number], pixels)
            window = loaded[name][number, 100:400:3, 417:200:-1]
            np.testing.assert_array_equal(window, pixels[100:400:3, 417:200:-1])


def test_mosaics(make_request: Make) -> None:
    request = make_request(**{"product.bands": ["red", "nir", "scl"]})
    check_equals_run(request, "red", "nir", "scl")


@pytest.mark.parametrize("method", ["mean", "max", "median", "last"])
def test_masked_mosaics_of_several_methods(make_request: Make, method: str) -> None:
    request = make_request(**{"product.method": method, "product.mask": True})
    check_equals_run(request, "red", "scl")


def test_indices(make_request: Make) -> None:
    check_equals_run(make_request(product={"kind": "index", "index": "ndvi"}), "ndvi")


@pytest.mark.parametrize(
    ("method", "extra"),
    [("median", ["observations"]), ("medoid", ["day", "source"]), ({"max": "ndvi"}, [])],
)
def test_composites(composite: Make, method: Any, extra: list[str]) -> None:
    request = composite(bands=["red", "nir"], method=method, extra=extra)
    check_equals_run(request, "red", "nir", *extra)


def test_periods_without_scenes_are_left_out(composite: Make) -> None:
    request = composite(dates="2017/2026", period="year")
    assert scenebeam.plan(request).products == 10
    lazy = scenebeam.load(request)
    assert lazy.sizes["time"] == 1
    assert (lazy.red != 0).any()


def test_filled_composites_are_refused(composite: Make) -> None:
    with pytest.raises(RequestError, match=r"product.fill: pixels depend on all periods"):
        scenebeam.load(composite(fill="linear"))


def test_stacks_on_one_grid(make_request: Make) -> None:
    product = {"kind": "stack", "bands": ["red", "swir16", "scl"], "format": "geotiff"}
    bounds = [748_000, 4_495_000, 752_000, 4_499_000]
    grid = {"crs": "EPSG:32634", "resolution": 20, "bounds": bounds}
    request = make_request(product=product, grid=grid)
    loaded = scenebeam.load(request)
    scenebeam.run(request, progress=False)
    made = files_of(request.output, "*")
    assert made
    for scene in made:
        with rasterio.open(f"{request.output}/stacks/{scene}/{scene}.tif") as file:
            for index, name in enumerate(file.descriptions, start=1):
                one = loaded[name][list(loaded.id.values).index(scene)]
                np.testing.assert_array_equal(one, file.read(index))
    with pytest.raises(RequestError, match="give grid.crs"):
        scenebeam.load(make_request(product=product))


def test_it_is_what_odc_stac_loads(make_request: Make, sandbox: Path, tmp_path: Path) -> None:
    """Of one scene per time, on the pixels of its files and on smaller ones."""
    document = json.loads((sandbox / "items.json").read_text())
    features = [item for item in document["features"] if "34TGL" in item["id"]]
    path = tmp_path / "tile.json"
    path.write_text(json.dumps({**document, "features": features}))
    for resolution in (10, 20):
        grid = {"crs": "EPSG:32634", "resolution": resolution}
        request = make_request(catalog=str(path), grid=grid)
        cube = scenebeam.load(request)
        theirs = odc.stac.load(
            pystac.ItemCollection.from_file(str(path)).items,
            bands=["scl"],
            geobox=cube.odc.geobox,
            resampling="nearest",
        )
        known = [str(when)[:10] for when in cube.time.values]
        for when in theirs.time.values:
            ours = cube.scl[known.index(str(when)[:10])]
            np.testing.assert_array_equal(ours, theirs.scl.sel(time=when))


@pytest.mark.parametrize("scheduler", ["threads", "processes", "synchronous"])
def test_dask_schedulers(served_request: Make, scheduler: str) -> None:
    request = served_request()
    lazy = scenebeam.load(request)
    chunked = scenebeam.load(request, chunks={"x": 512, "y": 700}, decode=True)
    assert chunked.red.chunksizes["y"][0] == 700
    with dask.config.set(scheduler=scheduler):
        mean = float(chunked.red.mean())
    expected = lazy.red.where(lazy.red != 0).mean() * 1e-4
    assert mean == pytest.approx(float(expected), rel=1e-5)


def test_a_cluster_of_processes(served_request: Make) -> None:
    distributed = pytest.importorskip("distributed")
    chunked = scenebeam.load(served_request(), chunks="auto")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as local,
        distributed.Client(local),
    ):
        found = chunked.red.sum().compute()
    assert int(found) == int(scenebeam.load(served_request()).red.sum())


def test_a_cube_is_pickled(make_request: Make) -> None:
    lazy = scenebeam.load(make_request())
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(lazy)).red, lazy.red)


def test_only_the_blocks_of_a_window_are_read(served_request: Make, server: SandboxServer) -> None:
    lazy = scenebeam.load(served_request())
    before = server.bytes_sent
    lazy.red[0, 5, 5].load()
    first = server.bytes_sent - before
    lazy.red[0].load()
    assert 0 < first < (server.bytes_sent - before - first) / 2


def test_what_it_will_cost_is_shown(make_request: Make) -> None:
    lazy = scenebeam.load(make_request())
    assert "MB in" in lazy.attrs["cost"]
    assert lazy.scenebeam.explain()["tasks"] == 2
    assert "bytes to read" in repr(lazy.scenebeam)
    assert "Cube of 2 time" in lazy.scenebeam._repr_html_()
    with pytest.raises(RequestError, match="this Dataset has no plan"):
        xarray.Dataset().scenebeam.explain()


def test_loading_with_progress(make_request: Make, capsys: pytest.CaptureFixture[str]) -> None:
    lazy = scenebeam.load(make_request())
    loaded = lazy.scenebeam.load()
    assert loaded.identical(lazy.load())
    assert "2 of 2" in capsys.readouterr().err


def test_a_band_that_is_missing_at_one_time(make_request: Make, sandbox: Path) -> None:
    items = json.loads((sandbox / "items.json").read_text())
    day = items["features"][0]["properties"]["datetime"][:10]
    for item in items["features"]:
        if item["properties"]["datetime"].startswith(day):
            del item["assets"]["nir"]
    path = Path(make_request().output).parent / "odd.json"
    path.write_text(json.dumps(items))
    request = make_request(catalog=str(path), **{"product.bands": ["red", "nir"]})
    lazy = scenebeam.load(request, decode=True)
    [number] = [n for n, when in enumerate(lazy.time.values) if str(when).startswith(day)]
    assert lazy.nir[number].isnull().all()
    assert lazy.nir[1 - number].notnull().any()
    assert lazy.red.notnull().any(["y", "x"]).all()


def test_what_cannot_be_loaded_is_named(make_request: Make, served_request: Make) -> None:
    with pytest.raises(RequestError, match="no band blue; there are red, scl"):
        scenebeam.load(make_request(), variables="blue")
    with pytest.raises(RequestError, match="no dimension band; there are time, y, x"):
        scenebeam.load(make_request(), chunks={"band": 1})
    with pytest.raises(RequestError, match="only mosaics, composites, indices and stacks"):
        scenebeam.load(make_request(product={"kind": "assets", "bands": ["red"]}))


def test_a_file_that_is_gone_is_an_error_and_no_hole(
    served_request: Make, server: SandboxServer
) -> None:
    lazy = scenebeam.load(served_request(**{"product.on_missing": "fail"}))
    server.faults.append(Fault(r"red\.tif$", status=404))
    with pytest.raises(ReadError, match="red of "):
        lazy.red.load()
