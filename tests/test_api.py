"""`import scenebeam`: the line as functions, and products in the tools that people have."""

from __future__ import annotations

import contextlib
import io
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
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
from scenebeam.sandbox.scenes import AREA, SCENES
from scenebeam.storage import open_store

Make = Callable[..., RunRequest]
DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("page", ["tutorial", "cubes"])
@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr")
def test_pages_with_code_say_what_happens(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each block of Python is run; where a block of output follows, that is what it prints."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    path = DOCS / f"{page}.md"
    parts = re.split(r"```python\n(.*?)```\n", path.read_text(), flags=re.DOTALL)
    assert len(parts) > 14
    for code, after in zip(parts[1::2], parts[2::2], strict=True):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(path), "exec"), names)
        told = re.match(r"\n((?:    .*\n)+)", after)
        if told:
            assert printed.getvalue().splitlines() == [line[4:] for line in told[1].splitlines()]
    assert list(tmp_path.glob("out/*/report/index.html"))


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
    stored = scenebeam.open(mosaics)
    decoded = scenebeam.open(mosaics, ["red"], decode=True)
    assert list(decoded.data_vars) == ["red"]
    for number, name in enumerate(stored.id.values):
        with rasterio.open(f"{mosaics}/mosaics/{name}/red.tif") as file:
            pixels = file.read(1)
            assert (file.bounds.left, file.bounds.top) == (stored.x[0] - 5, stored.y[0] + 5)
        np.testing.assert_array_equal(stored.red[number], pixels)
        np.testing.assert_array_equal(stored.red[number, 3:400:7, ::-2], pixels[3:400:7, ::-2])
        np.testing.assert_array_equal(stored.red[number, 5, [7, 3]], pixels[5, [7, 3]])
        np.testing.assert_array_equal(np.isnan(decoded.red[number]), pixels == 0)
        np.testing.assert_allclose(decoded.red[number].fillna(0), pixels * 1e-4, rtol=1e-6)
    assert stored.red[:, :0].shape == (2, 0, stored.sizes["x"])


def test_only_the_blocks_that_are_asked_for_are_read(mosaics: str) -> None:
    opened = scenebeam.open(mosaics)
    for path in Path(mosaics).glob("mosaics/2022*/*.tif"):
        path.unlink()
    assert opened.red[0, :5, :5].values.shape == (5, 5), "the other day's file is not looked at"


def test_an_open_dataset_is_pickled_without_its_files(mosaics: str) -> None:
    opened = scenebeam.open(mosaics)
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
    assert scenebeam.open(prefix, decode=True).red.notnull().mean() > 0.9
    open_store(prefix).delete(["items.parquet"])
    with pytest.raises(RequestError, match="has made nothing"):
        scenebeam.open(prefix)


def test_what_is_not_there_is_named(mosaics: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="has no nir; it has red, scl"):
        scenebeam.open(mosaics, ["nir"])
    with pytest.raises(RequestError, match="there is no run in it"):
        scenebeam.open(tmp_path)


@pytest.mark.parametrize(("form", "suffix"), [("geotiff", "tif"), ("vrt", "vrt")])
def test_stacks_on_one_grid_are_opened_and_others_are_refused(
    make_request: Make, form: str, suffix: str
) -> None:
    product = {"kind": "stack", "bands": ["red", "nir"], "format": form}
    grid = {
        "crs": "EPSG:32634",
        "resolution": 20,
        "bounds": [748_000, 4_495_000, 752_000, 4_499_000],
    }
    request = make_request(product=product, grid=grid)
    scenebeam.run(request)  # one tile is on the grid, the others are not
    stacks = scenebeam.open(request.output)
    assert list(stacks.data_vars) == ["red", "nir"]
    for number, name in enumerate(stacks.id.values):
        [path] = Path(request.output).glob(f"stacks/{name}/*.{suffix}")
        with rasterio.open(path) as file:
            np.testing.assert_array_equal(stacks.nir[number], file.read(2))
    request = make_request(product=product, output=f"{request.output}-own")
    assert scenebeam.run(request).state == "succeeded"
    with pytest.raises(RequestError, match="grids, which are no one array"):
        scenebeam.open(request.output)


def test_field_chips_are_no_array(fields_request: Make) -> None:
    request = fields_request()
    scenebeam.run(request)
    with pytest.raises(RequestError, match="holds fields, which are no one array"):
        scenebeam.open(request.output)


def test_reflectance_is_float32_by_choice_and_describes_itself(mosaics: str) -> None:
    stored = scenebeam.open(mosaics)
    assert stored.red.dtype == np.uint16
    assert (stored.red.scale_factor, stored.red._FillValue) == (1e-4, 0)
    assert "add_offset" not in stored.red.attrs, "xarray would decode to 64 bits"
    assert (stored.red.units, stored.red.long_name) == ("1", "red")
    assert stored.scl.long_name == "scene classification"
    assert "units" not in stored.scl.attrs
    decoded = scenebeam.open(mosaics, decode=True)
    assert decoded.red.dtype == np.float32
    assert "scale_factor" not in decoded.red.attrs
    np.testing.assert_array_equal(decoded.red.isnull(), stored.red == 0)
    for name in ("id", "cloud_cover"):
        assert decoded[name].dims == ("time",)
    assert decoded.cloud_cover.values.tolist() == [12.0, 20.0]
    assert decoded.cloud_cover.units == "%"
    assert (decoded.x.units, decoded.x.standard_name) == ("m", "projection_x_coordinate")


def test_keywords_are_a_request(sandbox: Path, tmp_path: Path) -> None:
    catalog = str(sandbox / "catalog.json")
    scenes = scenebeam.search(catalog=catalog, bbox=AREA, dates="2021-06/2022-07")
    assert len(scenes) == 7
    selection = scenebeam.select(scenes, max_cloud_cover=10)
    assert len(selection.scenes) == 4
    plan = scenebeam.plan(scenes.request, selection, product={"kind": "mosaic", "bands": ["red"]})
    assert [task.id for task in plan.tasks] == ["20210610T092031Z", "20220615T092029Z"]
    status = scenebeam.run(
        scenes.request, output=tmp_path / "out", product={"kind": "mosaic", "bands": ["scl"]},
        dates="2021-06", max_cloud_cover=None, progress=False,
    )  # fmt: skip
    assert (status.state, status.done) == ("succeeded", 1)
    with pytest.raises(RequestError, match="a request has no field 'bboxes'"):
        scenebeam.search(catalog=catalog, bboxes=AREA)
    with pytest.raises(RequestError, match="area is required|dates is required"):
        scenebeam.search()


def test_objects_are_short_in_a_terminal_and_tell_more_in_a_notebook(make_request: Make) -> None:
    request = make_request()
    scenes = scenebeam.search(request)
    selection = scenebeam.select(scenes)
    plan = scenebeam.plan(request, selection)
    status = scenebeam.run(request, progress=False)
    assert repr(scenes) == "<7 scenes, 2021-06-10 to 2022-06-15>"
    assert (
        repr(scenes[0])
        == "<Scene S2A_34TGL_20210610_1_L2A, 2021-06-10T09:20:31Z, 5 % cloud, 7 bands>"
    )
    assert repr(selection.acquisitions[0]) == "<Acquisition 20210610T092031Z, 3 scenes, 12 % cloud>"
    assert repr(plan) == f"<Plan of 2 mosaic tasks for {request.output}>"
    assert repr(status) == "<RunStatus test: succeeded, 2 of 2 tasks>"
    for thing in (selection, selection.acquisitions):
        assert len(repr(thing)) < 300
    for shown, *told in (
        (scenes._repr_html_(), "7 scenes", "S2A_34TGL_20210610_1_L2A", "<svg", 'class="coasts"'),
        (
            selection._repr_html_(),
            "2 acquisitions, 6 scenes",
            "left out 1",
            "34TGL, 34TGK, 35TKF",
            "<svg",
        ),
        (selection._repr_html_(), "area of interest"),
        (selection.scenes[0]._repr_html_(), "S2A_34TGL_20210610_1_L2A", "5 %", "34TGL", "<svg"),
        (status._repr_html_(), "test: succeeded", "2 of 2", "report/index.html"),
        (plan._repr_html_(), "2 mosaic tasks", "on Dataflow", "USD", "20210610T092031Z"),
    ):
        for text in told:
            assert text in shown, text
        HTMLParser().feed(shown)
    assert repr(scenebeam.Scenes([], request)) == "<no scenes>"
    assert "0 scenes" in scenebeam.Scenes([], request)._repr_html_()


def test_products_are_a_step_of_a_pipeline_of_ones_own(make_request: Make, tmp_path: Path) -> None:
    import apache_beam as beam
    from apache_beam.testing.test_pipeline import TestPipeline
    from apache_beam.testing.util import assert_that, equal_to

    from scenebeam.beam import MakeProducts

    outputs = []
    for band in ("red", "scl"):
        request = make_request(**{"product.bands": [band]}, output=str(tmp_path / band), run=band)
        outputs.append(scenebeam.freeze(request))
    assert not list(tmp_path.glob("*/mosaics"))
    expected = [("red", "succeeded", 2), ("scl", "succeeded", 2)]
    for _ in range(2):  # the second time, nothing is left to be made
        with TestPipeline(runner="BundleBasedDirectRunner") as pipeline:
            statuses = pipeline | beam.Create(outputs) | MakeProducts()
            told = statuses | beam.Map(lambda status: (status.run, status.state, status.done))
            assert_that(told, equal_to(expected))
    assert len(list(tmp_path.glob("*/mosaics/*/*.tif"))) == 4
    assert (tmp_path / "red/report/index.html").is_file()


def test_errors_are_public() -> None:
    for name in (
        "RequestError",
        "CatalogError",
        "ReadError",
        "CheckError",
        "StorageError",
        "RunnerError",
    ):
        assert issubclass(getattr(scenebeam, name), scenebeam.SceneBeamError)


def test_odc_stac_loads_the_same_pixels(mosaics: str) -> None:
    odc_stac = pytest.importorskip("odc.stac")
    items = pystac.Collection.from_file(f"{mosaics}/collection.json").get_items()
    loaded = odc_stac.load(items, bands=["red", "scl"])
    ours = scenebeam.open(mosaics)
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
