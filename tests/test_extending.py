"""A new product is one package and one line of the registry; a new merge method is one file.

Both are added here from a temporary folder, as `docs/architecture.md` says, and then used from
YAML, from the command line, from Python and by the guard of the cloud functions, without touching
any other file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from click.testing import CliRunner

import scenebeam
import scenebeam.raster.merge_methods
import scenebeam.raster.reducers
from scenebeam.cli import main
from scenebeam.cloud.guard import authorize
from scenebeam.cloud.settings import CloudSettings
from scenebeam.errors import RequestError
from scenebeam.raster.merge import merge_method
from scenebeam.raster.reduce import reducer
from scenebeam.request import RunRequest
from scenebeam.request.product import PRODUCTS
from scenebeam.requestfile import load_request
from scenebeam.sandbox.demo import run_demo
from scenebeam.sandbox.scenes import AREA, COLLECTION, DATES

Make = Callable[..., RunRequest]

REQUEST = '''
from typing import Annotated, Literal

from scenebeam.request.markers import Marker, Place
from scenebeam.request.product import ProductRequest


class OutlinesRequest(ProductRequest):
    """The outline of each scene."""

    kind: Literal["outlines"] = "outlines"
    label: str = "none"
    """Label of the outlines."""
    digits: Literal[3, 6] = 6
    """Digits of the coordinates."""
    palette: Annotated[str | None, Place("read"), Marker.NOT_FINGERPRINTED] = None
    """A file with colors."""


REQUEST = OutlinesRequest
'''

PRODUCT = """
import json

import shapely

from scenebeam.csvtable import Table
from scenebeam.imaging.refs import SceneRef, scene_ref
from scenebeam.metadata import stac_items
from scenebeam.products.base import Demo, Planned, Product, scope_of_area
from scenebeam.tasks import Outcome, Task
from toy_products.outlines.request import OutlinesRequest


class OutlineTask(Task):
    scene: SceneRef
    label: str
    digits: int
    run: str


class Outlines(Product[OutlinesRequest, OutlineTask]):
    task = OutlineTask
    demo = Demo({"kind": "outlines", "label": "demo"}, images="outlines/*/*.json")

    def search_scope(self, request):
        return scope_of_area(request)

    def plan(self, selection, request, search_scope):
        tasks = []
        for scene in selection.scenes:
            key = f"outlines/{scene.id}/{scene.id}.json"
            tasks.append(
                OutlineTask(
                    id=scene.id,
                    outputs=(key,),
                    item_path=key,
                    scene=scene_ref(scene),
                    label=request.product.label,
                    digits=request.product.digits,
                    run=request.run,
                )
            )
        return Planned(tasks)

    def make(self, task, store, budget):
        geometry = shapely.set_precision(task.scene.geometry, 10.0**-task.digits)
        item = stac_items.make_item(
            task.scene.id,
            task.run,
            task.scene.when,
            json.loads(shapely.to_geojson(geometry)),
            {},
            [(task.scene.id, task.scene.item_href)],
            {"toy:label": task.label},
        )
        store.write(task.item_path, stac_items.to_bytes(item))
        return Outcome(task=task.id, state="done")

    def tables(self, tasks, outcomes, items):
        rows = [{"id": task.id, "made": task.item_path in items} for task in tasks]
        return {"outlines.csv": Table(("id", "made"), rows)}


PRODUCT = Outlines()
"""

METHOD = '''
import numpy as np

from scenebeam.raster.merge_methods._masked import MaskedMerge


class CountMerge(MaskedMerge):
    """The number of sources with data."""

    def add(self, region, values, inside):
        valid = self._valid(values, inside)
        self.pixels[region] += valid
        self.filled[region] |= valid


METHOD = CountMerge
'''


REDUCER = '''
import numpy as np

from scenebeam.raster.reduce import Selector


class LastClear(Selector):
    """Take the last observation that is clear and has data in all bands."""

    def choose(self, stack, complete):
        return len(complete) - 1 - complete[::-1].argmax(axis=0), {}


METHOD = LastClear
'''


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The product `outlines`: one package, and one line of the registry."""
    folder = tmp_path / "packages" / "toy_products" / "outlines"
    folder.mkdir(parents=True)
    for name, content in {"__init__": "", "request": REQUEST, "product": PRODUCT}.items():
        (folder / f"{name}.py").write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    monkeypatch.setitem(PRODUCTS, "outlines", "toy_products.outlines")


def outlines(output: Path | str) -> dict[str, Any]:
    """Scene → its label, of what a run has made."""
    items = [json.loads(path.read_text()) for path in Path(output).glob("outlines/*/*.json")]
    return {item["id"]: item["properties"]["toy:label"] for item in items}


@pytest.mark.usefixtures("toy")
def test_a_toy_product_runs_from_yaml_and_resumes(
    make_request: Make, sandbox: Path, tmp_path: Path
) -> None:
    document = {
        "run": "toy",
        "catalog": str(sandbox / "items.json"),
        "collections": [COLLECTION],
        "area": {"bbox": list(AREA)},
        "dates": DATES,
        "product": {"kind": "outlines", "label": "yaml", "palette": "colors.txt"},
        "output": "out",
        "runner": "direct",
    }
    file = tmp_path / "request.yaml"
    file.write_text(yaml.safe_dump(document))
    request, sources = load_request(file)
    product: Any = request.product
    assert product.palette == str(tmp_path / "colors.txt"), "a path is relative to its file"
    assert sources["product.label"] == str(file)
    status = scenebeam.run(request)
    assert (status.state, status.done) == ("succeeded", status.tasks)
    assert set(outlines(request.output).values()) == {"yaml"}
    assert (tmp_path / "out" / "outlines.csv").read_text().count(",True") == status.tasks
    for name in ("collection.json", "items.parquet", "report/index.html", "plan.parquet"):
        assert (tmp_path / "out" / name).is_file(), name
    one = next((tmp_path / "out").glob("outlines/*/*.json"))
    before = one.read_bytes()
    one.unlink()
    assert scenebeam.run(request).state == "succeeded"
    assert one.read_bytes() == before
    elsewhere = request.product.model_copy(update={"palette": None})
    assert request.model_copy(update={"product": elsewhere}).fingerprint() == request.fingerprint()
    with pytest.raises(RequestError, match=r"product\.label: 'yaml' → 'other'"):
        scenebeam.run(load_request(file, overrides={"product.label": "other"})[0])


@pytest.mark.usefixtures("toy")
def test_a_toy_product_has_a_command_and_a_demo(sandbox: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    assert "outlines" in runner.invoke(main, ["--help"]).output
    help_text = runner.invoke(main, ["outlines", "--help"]).output
    assert "The outline of each scene." in help_text
    assert "Label of the outlines." in help_text
    assert "[3|6]" in help_text
    words = ["outlines", "--label", "- typed", "--digits", "3", "--catalog"]
    words += [str(sandbox / "items.json"), "--bbox", ",".join(map(str, AREA)), "--dates", "2021-06"]
    answer = runner.invoke(main, [*words, "--output", str(tmp_path / "out")])
    assert answer.exit_code == 0, answer.output
    assert set(outlines(tmp_path / "out").values()) == {"- typed"}
    assert "demo: succeeded" in run_demo(tmp_path / "demo", "outlines")
    assert set(outlines(tmp_path / "demo" / "outlines").values()) == {"demo"}


@pytest.mark.usefixtures("toy")
def test_a_toy_product_is_planned_from_python(make_request: Make) -> None:
    request = make_request(product={"kind": "outlines"})
    selection = scenebeam.select(scenebeam.search(request), request)
    plan = scenebeam.plan(request, selection)
    assert {task.id for task in plan.tasks} == {scene.id for scene in selection.scenes}
    assert scenebeam.explain(plan)["tasks"] == len(plan.tasks)
    with pytest.raises(RequestError, match=r"product\.lable: unknown key; did you mean 'label'"):
        make_request(product={"kind": "outlines", "lable": "x"})


@pytest.mark.usefixtures("toy")
def test_the_guard_knows_the_places_of_a_toy_product() -> None:
    settings = CloudSettings(
        state="gs://state",
        outputs=("gs://products",),
        requests=("gs://requests",),
        catalogs=("earth-search",),
    )
    document: dict[str, Any] = {
        "run": "toy",
        "catalog": "earth-search",
        "collections": ["sentinel-2-l2a"],
        "area": {"bbox": [23, 40, 24, 41]},
        "dates": "2023",
        "product": {"kind": "outlines", "palette": "gs://requests/colors.txt"},
        "output": "gs://products/toy",
    }
    admitted = authorize(json.dumps(document).encode(), settings)
    assert admitted.product.kind == "outlines"
    for palette, reason in (("/etc/passwd", "local files"), ("gs://other/x", "is not below")):
        document["product"]["palette"] = palette
        with pytest.raises(RequestError, match=rf"product\.palette: .*{reason}"):
            authorize(json.dumps(document).encode(), settings)


@pytest.fixture
def count_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The merge method `count`: one file."""
    folder = tmp_path / "methods"
    folder.mkdir()
    (folder / "count.py").write_text(METHOD)
    methods = scenebeam.raster.merge_methods
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(folder)])
    yield
    merge_method.cache_clear()


@pytest.mark.usefixtures("count_method")
def test_a_toy_merge_method_is_offered_and_used(
    make_request: Make, sandbox: Path, tmp_path: Path
) -> None:
    request = make_request(**{"product.bands": ["red"], "product.method": "count"})
    assert scenebeam.run(request).state == "succeeded"
    counts = set()
    for path in Path(request.output).glob("mosaics/*/red.tif"):
        with rasterio.open(path) as file:
            counts |= set(np.unique(file.read(1)).tolist())
    assert {1, 2} <= counts <= {0, 1, 2, 3, 4}, "tiles overlap in places"
    runner = CliRunner()
    assert "count" in runner.invoke(main, ["mosaic", "--help"]).output
    words = ["mosaic", "--method", "count", "--bands", "red", "--catalog"]
    words += [str(sandbox / "items.json"), "--bbox", ",".join(map(str, AREA)), "--dates", "2021-06"]
    answer = runner.invoke(main, [*words, "--output", str(tmp_path / "typed")])
    assert answer.exit_code == 0, answer.output
    with pytest.raises(RequestError, match="'sum' is not known; known: count, first, last"):
        make_request(**{"product.method": "sum"})


def test_a_toy_method_of_composites_is_offered_and_used(
    composite: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The method `last-clear`: one file."""
    folder = tmp_path / "reducers"
    folder.mkdir()
    (folder / "last_clear.py").write_text(REDUCER)
    package = scenebeam.raster.reducers
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    request = composite(method="last-clear", dates="2023-04", extra=["day"])
    try:
        assert scenebeam.run(request).state == "succeeded"
    finally:
        reducer.cache_clear()
    with rasterio.open(Path(request.output, "composites/2023-04/day.tif")) as file:
        days = set(np.unique(file.read(1)).tolist())
    # The best scene, of April 3, is the last choice.
    assert days <= {0, 98, 103, 108, 113, 118}
    assert 108 in days
    with pytest.raises(RequestError, match="'newest' is not one of best-pixel, first-clear"):
        composite(method="newest")
