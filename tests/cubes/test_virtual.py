"""Virtual cubes: the blocks of COGs as chunks, read by Zarr without scenebeam's reader."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray

import scenebeam
from scenebeam.errors import RequestError
from scenebeam.request import RunRequest

icechunk = pytest.importorskip("icechunk")
Make = Callable[..., RunRequest]


def opened(output: str) -> xarray.Dataset:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Numcodecs codecs are not in the Zarr version 3")
        store = scenebeam.open_virtual(output)
        return xarray.open_zarr(store, group="0", consolidated=False, mask_and_scale=False).load()


def virtual(output: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "scenebeam", "virtual", output, "--json"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(answer.stdout))


@pytest.mark.parametrize("compression", ["deflate", "zstd"])
def test_references_give_the_pixels_of_cogs(make_request: Make, compression: str) -> None:
    request = make_request(**{"product.compression": compression})
    scenebeam.run(request, progress=False)
    size = sum(path.stat().st_size for path in Path(request.output).glob("mosaics/*/*.tif"))
    written = virtual(request.output)
    assert (written["times"], written["bands"]) == (2, ["red", "scl"])
    repository = Path(written["repository"])
    assert sum(path.stat().st_size for path in repository.rglob("*") if path.is_file()) < size / 5
    cube, files = opened(request.output), scenebeam.open(request.output)
    for name in ("red", "scl"):
        assert cube[name].dtype == files[name].dtype
        np.testing.assert_array_equal(cube[name], files[name])
    np.testing.assert_array_equal(cube.id, files.id)
    np.testing.assert_array_equal(cube.time, files.time)


def test_float_images_and_bands_that_are_missing_at_one_time(
    make_request: Make, sandbox: Path, tmp_path: Path
) -> None:
    request = make_request(product={"kind": "index", "index": "ndvi"})
    scenebeam.run(request, progress=False)
    virtual(request.output)
    np.testing.assert_array_equal(opened(request.output).ndvi, scenebeam.open(request.output).ndvi)
    items = json.loads((sandbox / "items.json").read_text())
    for item in items["features"]:
        if item["properties"]["datetime"].startswith("2021"):
            del item["assets"]["nir"]
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(items))
    odd = make_request(
        catalog=str(path), output=str(tmp_path / "odd"), **{"product.bands": ["red", "nir"]}
    )
    scenebeam.run(odd, progress=False)
    virtual(odd.output)
    cube = opened(odd.output)
    assert (cube.nir[0] == 0).all()
    np.testing.assert_array_equal(cube.nir[1], scenebeam.open(odd.output).nir[1])


def test_stacks_are_read_band_by_band(make_request: Make) -> None:
    product = {"kind": "stack", "bands": ["red", "nir"], "format": "geotiff"}
    bounds = [748_000, 4_495_000, 752_000, 4_499_000]
    grid = {"crs": "EPSG:32634", "resolution": 20, "bounds": bounds}
    request = make_request(product=product, grid=grid)
    scenebeam.run(request, progress=False)
    virtual(request.output)
    cube, files = opened(request.output), scenebeam.open(request.output)
    for name in ("red", "nir"):
        np.testing.assert_array_equal(cube[name], files[name])


def test_a_file_that_was_replaced_is_not_read_by_old_references(make_request: Make) -> None:
    request = make_request()
    scenebeam.run(request, progress=False)
    virtual(request.output)
    path = next(Path(request.output).glob("mosaics/*/red.tif"))
    with rasterio.open(path) as file:
        assert file.count == 1
    later = time.time() + 60
    import os

    os.utime(path, (later, later))
    with pytest.raises(Exception, match="checksum of the object"):
        opened(request.output)
    virtual(request.output)
    opened(request.output)


def test_what_has_no_files_is_refused(make_request: Make, tmp_path: Path) -> None:
    from scenebeam.cubes.virtual import write_virtual

    with pytest.raises(RequestError, match="there is no run in it"):
        write_virtual(str(tmp_path))
    request = make_request(**{"product.compression": "lzw"})
    scenebeam.run(request, progress=False)
    with pytest.raises(RequestError, match="compressed by lzw, which Zarr does not know"):
        write_virtual(request.output)
