"""`import scenebeam`: the line as functions, and products in the tools that people have."""

from __future__ import annotations

import contextlib
import io
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio

import scenebeam
from scenebeam.errors import RequestError
from scenebeam.products import product_of
from scenebeam.request import RunRequest
from scenebeam.sandbox.scenes import SCENES
from scenebeam.storage import open_store

Make = Callable[..., RunRequest]
TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.md"


def test_the_tutorial_says_what_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block of Python is run; where a block of output follows, that is what it prints."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    parts = re.split(r"```python\n(.*?)```\n", TUTORIAL.read_text(), flags=re.DOTALL)
    assert len(parts) > 14
    for code, after in zip(parts[1::2], parts[2::2], strict=True):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(TUTORIAL), "exec"), names)
        told = re.match(r"\n((?:    .*\n)+)", after)
        if told:
            assert printed.getvalue().splitlines() == [line[4:] for line in told[1].splitlines()]
    assert (tmp_path / "out/tutorial/report/index.html").is_file()


@pytest.fixture
def mosaics(make_request: Make) -> str:
    request = make_request(**{"product.bands": ["red", "scl"]})
    assert scenebeam.run(request).state == "succeeded"
    return request.output


def test_search_leaves_nothing_out_and_select_says_what_it_did(make_request: Make) -> None:
    request = make_request()
    scenes = scenebeam.search(request)
    assert {scene.id for scene in scenes} == {scene.id for scene in SCENES}
    selection = scenebeam.select(reversed(scenes), request)
    assert selection == scenebeam.select(scenes, request)
    assert scenebeam.plan(request, selection).tasks == scenebeam.plan(request).tasks
    assert scenebeam.explain(scenebeam.plan(request))["tasks"] == 2


def test_a_request_is_a_file_or_a_mapping(tmp_path: Path, make_request: Make) -> None:
    request = make_request()
    path = tmp_path / "request.json"
    path.write_text(request.model_dump_json())
    assert scenebeam.read_request(path) == request
    assert scenebeam.read_request(path, run="other").run == "other"
    assert scenebeam.read_request(request.model_dump(mode="json"), run="other").run == "other"
    with pytest.raises(RequestError, match="dates"):
        scenebeam.read_request({**request.model_dump(mode="json"), "dates": "soon"})


def test_arrays_are_the_files(mosaics: str) -> None:
    stored = scenebeam.open_mosaics(mosaics, mask_and_scale=False)
    decoded = scenebeam.open_mosaics(mosaics, ["red"])
    assert list(decoded.data_vars) == ["red"]
    for number, name in enumerate(stored.id.values):
        with rasterio.open(f"{mosaics}/mosaics/{name}/red.tif") as file:
            pixels = file.read(1)
            assert (file.bounds.left, file.bounds.top) == (stored.x[0] - 5, stored.y[0] + 5)
        np.testing.assert_array_equal(stored.red[number], pixels)
        np.testing.assert_array_equal(stored.red[number, 3:400:7, ::-2], pixels[3:400:7, ::-2])
        np.testing.assert_array_equal(stored.red[number, 5, [7, 3]], pixels[5, [7, 3]])
        np.testing.assert_array_equal(np.isnan(decoded.red[number]), pixels == 0)
        np.testing.assert_allclose(decoded.red[number].fillna(0), pixels * 1e-4, atol=1e-9)
    assert stored.red[:, :0].shape == (2, 0, stored.sizes["x"])


def test_only_the_blocks_that_are_asked_for_are_read(mosaics: str) -> None:
    opened = scenebeam.open_mosaics(mosaics, mask_and_scale=False)
    for path in Path(mosaics).glob("mosaics/2022*/*.tif"):
        path.unlink()
    assert opened.red[0, :5, :5].values.shape == (5, 5), "the other day's file is not looked at"


def test_an_open_dataset_is_pickled_without_its_files(mosaics: str) -> None:
    opened = scenebeam.open_mosaics(mosaics)
    before = opened.red[0].values  # opens a file
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(opened)).red[0], before)


def test_the_search_scope_is_computed_once(
    fields_request: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = []
    product = type(product_of("fields"))
    real = product.search_scope

    def counted(self: Any, request: RunRequest) -> Any:
        computed.append(request)
        return real(self, request)

    monkeypatch.setattr(product, "search_scope", counted)
    request = fields_request(**{"product.images": "select"})
    scenes = scenebeam.search(request)
    scenebeam.plan(request, scenebeam.select(scenes, request))
    assert len(computed) == 1


def test_mosaics_in_a_bucket(make_request: Make, prefix: str) -> None:
    scenebeam.run(make_request(output=prefix))
    assert scenebeam.open_mosaics(prefix).red.notnull().mean() > 0.9
    open_store(prefix).delete(["items.parquet"])
    with pytest.raises(RequestError, match="has no mosaics"):
        scenebeam.open_mosaics(prefix)


def test_what_is_not_there_is_named(mosaics: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="has no nir; it has red, scl"):
        scenebeam.open_mosaics(mosaics, ["nir"])
    with pytest.raises(RequestError, match="has no mosaics"):
        scenebeam.open_mosaics(str(tmp_path))


def test_stacks_are_no_mosaics(make_request: Make) -> None:
    request = make_request(product={"kind": "stack", "bands": ["red"]})
    assert scenebeam.run(request).state == "succeeded"
    with pytest.raises(RequestError, match="has no mosaics"):
        scenebeam.open_mosaics(request.output)


def test_odc_stac_loads_the_same_pixels(mosaics: str) -> None:
    odc_stac = pytest.importorskip("odc.stac")
    items = pystac.Collection.from_file(f"{mosaics}/collection.json").get_items()
    loaded = odc_stac.load(items, bands=["red", "scl"])
    ours = scenebeam.open_mosaics(mosaics, mask_and_scale=False)
    assert loaded.odc.geobox.shape == ours.red.shape[1:]
    assert loaded.odc.geobox.affine == ours.odc.geobox.affine
    for band in ("red", "scl"):
        np.testing.assert_array_equal(loaded[band], ours[band])


def test_torchgeo_samples_the_same_pixels(mosaics: str) -> None:
    """torchgeo is no dependency, for its size: where somebody has it, this holds."""
    datasets = pytest.importorskip("torchgeo.datasets")

    class Mosaics(datasets.RasterDataset):  # type: ignore[name-defined,misc]
        filename_glob = "red.tif"
        filename_regex = "red"

    found = Mosaics(f"{mosaics}/mosaics/20210610T092031Z")
    with rasterio.open(f"{mosaics}/mosaics/20210610T092031Z/red.tif") as file:
        np.testing.assert_array_equal(
            np.asarray(found[found.bounds]["image"]).squeeze(), file.read(1)
        )


def test_importing_it_loads_nothing_until_it_is_asked() -> None:
    code = "import scenebeam, sys; assert 'numpy' not in sys.modules; print(sorted(set(dir(scenebeam)) & set(scenebeam.__all__)))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == str(sorted(scenebeam.__all__))
    for first in ("scenebeam.status", "scenebeam.execution.driver", "scenebeam"):
        subprocess.run(
            [sys.executable, "-c", f"import {first}, scenebeam; assert callable(scenebeam.run)"],
            check=True,
        )
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        scenebeam.nothing  # noqa: B018
