"""Fixtures: the sandbox on disk, a range server over it, and requests against it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest
from hypothesis import settings

import local_cloud
from composites import composite_request
from local_cloud import Cloud
from local_dataflow import Dataflow, serve_dataflow
from scenebeam.execution.driver import run
from scenebeam.products.fields.request import FieldsRequest
from scenebeam.products.landcover.request import LandcoverRequest
from scenebeam.request import RunRequest
from scenebeam.requestfile import validate_request
from scenebeam.sandbox import fields as fields_sandbox
from scenebeam.sandbox import landcover as landcover_sandbox
from scenebeam.sandbox.scenes import AREA, COLLECTION, DATES, SCENES, write_sandbox
from scenebeam.sandbox.series import write_series
from scenebeam.sandbox.server import SandboxServer, serve

REAL_DATA = Path(
    os.environ.get("SCENEBEAM_REAL_DATA", Path(__file__).parents[2] / "shared" / "data")
)


# Machines differ in speed: no test fails for being slow.
settings.register_profile("scenebeam", deadline=None)
settings.load_profile("scenebeam")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine's leaks into a test."""
    for name in [
        name
        for name in os.environ
        if name.startswith("SCENEBEAM_") and name != "SCENEBEAM_REAL_DATA"
    ]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def real_data() -> Path:
    if not REAL_DATA.is_dir():
        pytest.skip(f"real scenes are not at {REAL_DATA}; set SCENEBEAM_REAL_DATA")
    return REAL_DATA


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All sandbox scenes, with `items.json` and `catalog.json` that name local files."""
    folder = tmp_path_factory.mktemp("sandbox")
    write_sandbox(folder)
    return folder


@pytest.fixture(scope="session")
def series_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The series of the sandbox, with `items.json`."""
    folder = tmp_path_factory.mktemp("series")
    write_series(folder)
    return folder


@pytest.fixture
def composite(series_sandbox: Path, tmp_path: Path) -> Callable[..., RunRequest]:
    """Makes requests for composites of the series."""
    return partial(composite_request, series_sandbox / "items.json", tmp_path / "out")


@pytest.fixture
def server(sandbox: Path) -> Iterator[SandboxServer]:
    """The sandbox over HTTP."""
    with serve(sandbox) as served:
        yield served


@pytest.fixture
def served_items(server: SandboxServer, tmp_path: Path) -> Path:
    """An ItemCollection whose assets lie on the server."""
    path = tmp_path / "served.json"
    items = [scene.item(server.url) for scene in SCENES]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return path


@pytest.fixture
def make_request(sandbox: Path, tmp_path: Path) -> Callable[..., RunRequest]:
    """A mosaic request on the sandbox; keywords with dots (as `**{"product.method": "max"}`) change it."""

    def make(**changes: Any) -> RunRequest:
        document: dict[str, Any] = {
            "run": "test",
            "catalog": str(sandbox / "items.json"),
            "collections": [COLLECTION],
            "area": {"bbox": list(AREA)},
            "dates": DATES,
            "product": {"kind": "mosaic", "bands": ["red", "scl"]},
            "output": str(tmp_path / "out"),
            "runner": "serial",
            "limits": {"retry_wait": 0.01},
        }
        return validate_request(changed(document, changes))

    return make


def changed(document: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A request's document with values laid over it by dotted names."""
    for name, value in changes.items():
        *parents, last = name.split(".")
        holder = document
        for parent in parents:
            holder = holder.setdefault(parent, {})
        holder[last] = value
    return document


@pytest.fixture
def served_request(
    make_request: Callable[..., RunRequest], served_items: Path
) -> Callable[..., RunRequest]:
    """Mosaic requests of files on the server."""
    private = {"limits.private_addresses": True}
    return partial(make_request, catalog=str(served_items), **private)


@pytest.fixture(scope="session")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fields")
    fields_sandbox.write_fields(folder)
    return folder


@pytest.fixture
def fields_request(fields: Path, tmp_path: Path) -> Callable[..., RunRequest[FieldsRequest]]:
    def make(**changes: Any) -> RunRequest[FieldsRequest]:
        document: dict[str, Any] = {
            "run": "austria",
            "catalog": str(fields / "items.json"),
            "collections": [COLLECTION],
            "product": {
                "kind": "fields",
                "year": fields_sandbox.YEAR,
                "boundaries": str(fields / "fields.geojson"),
                "crop_calendar": str(fields / "calendar"),
                "grid": {"size": 160},
            },
            "output": str(tmp_path / "out"),
            "runner": "serial",
            "limits": {"retry_wait": 0.01},
        }
        return cast(RunRequest[FieldsRequest], validate_request(changed(document, changes)))

    return make


@pytest.fixture(scope="session")
def chips(fields: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue of chips with masks, and no imagery."""
    folder = tmp_path_factory.mktemp("catalogue") / "chips"
    request: dict[str, Any] = {
        "run": "austria",
        "catalog": str(fields / "items.json"),
        "collections": [COLLECTION],
        "product": {
            "kind": "fields", "year": fields_sandbox.YEAR, "boundaries": str(fields / "fields.geojson"), "images": "none",
            "grid": {"size": 160},
        },
        "output": str(folder),
        "runner": "serial",
    }  # fmt: skip
    assert run(validate_request(request)).state == "succeeded"
    for name in ("run.json", "plan.parquet", "status.json"):
        (folder / name).unlink()
    return folder


@pytest.fixture
def on_chips(
    fields_request: Callable[..., RunRequest[FieldsRequest]], chips: Path, tmp_path: Path
) -> Callable[..., RunRequest[FieldsRequest]]:
    """A request on that catalogue, in place."""
    here = tmp_path / "chips"
    shutil.copytree(chips, here)

    def make(**changes: Any) -> RunRequest[FieldsRequest]:
        return fields_request(
            **{
                "product.boundaries": None,
                "product.chips": str(here),
                "output": str(here),
                **changes,
            }
        )

    return make


@pytest.fixture(scope="session")
def landcover(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes of five modalities, with `items.json` and `aois.geojson`."""
    folder = tmp_path_factory.mktemp("landcover")
    landcover_sandbox.write_landcover(folder)
    return folder


def landcover_document(scenes: Path, output: Path) -> dict[str, Any]:
    """A request for chips of both areas of interest, two of each class and area."""
    return {
        "run": "chips",
        "catalog": str(scenes / "items.json"),
        "collections": [record.model_dump(mode="json") for record in landcover_sandbox.records()],
        "product": {
            "kind": "landcover",
            "aois": str(scenes / "aois.geojson"),
            "include": [0, 1],
            "version": "v1",
            "periods": landcover_sandbox.PERIODS,
            "chips_per_class": 2,
            "s2l2a": {"bands": ["blue", "green", "red", "nir"]},
            "lc2l2": {"bands": ["red", "nir08"]},
            "lulc": {"dates": str(landcover_sandbox.YEAR)},
        },
        "output": str(output),
        "runner": "serial",
        "limits": {"retry_wait": 0.01},
    }


@pytest.fixture
def landcover_request(
    landcover: Path, tmp_path: Path
) -> Callable[..., RunRequest[LandcoverRequest]]:
    def make(**changes: Any) -> RunRequest[LandcoverRequest]:
        document = landcover_document(landcover, tmp_path / "out")
        return cast(RunRequest[LandcoverRequest], validate_request(changed(document, changes)))

    return make


@pytest.fixture(scope="session")
def landcover_run(landcover: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of that request, balanced to equal classes; not to be changed."""
    document = landcover_document(landcover, tmp_path_factory.mktemp("released") / "out")
    document["product"]["sampling_factor"] = 1
    assert run(validate_request(document)).state == "succeeded"
    return Path(document["output"])


@pytest.fixture(scope="session")
def stac_api(sandbox: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real STAC API over the sandbox's items."""
    with stac_server(sandbox / "items.json") as url:
        yield url


@contextmanager
def stac_server(items: Path) -> Iterator[str]:
    port = local_cloud.free_port()
    words = ["--addr", f"127.0.0.1:{port}", "--use-duckdb", "false", "--create-collections", items]
    with local_cloud.started([Path(sys.executable).parent / "rustac", "serve", *words], port):
        yield f"http://127.0.0.1:{port}"


def lacking(told: str) -> NoReturn:
    """Skip, and say what is missing; where CI is set it must not be."""
    if os.environ.get("CI"):
        pytest.fail(told)
    pytest.skip(told)


@pytest.fixture(scope="session")
def emulator() -> Iterator[str]:
    """A storage server with the bucket `bucket`."""
    try:
        with local_cloud.storage() as url:
            yield url
    except local_cloud.MissingError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def pubsub() -> Iterator[str]:
    try:
        with local_cloud.pubsub() as address:
            yield address
    except local_cloud.MissingError as error:
        lacking(str(error))


@pytest.fixture
def dataflow() -> Iterator[Dataflow]:
    with serve_dataflow(Dataflow()) as now:
        yield now


@pytest.fixture
def cloud(pubsub: str, prefix: str, dataflow: Dataflow) -> Iterator[Cloud]:
    """A deployment of its own."""
    with local_cloud.deployment(pubsub, prefix, dataflow) as found:
        yield found


@pytest.fixture
def prefix(emulator: str) -> str:
    return f"gs://bucket/{uuid.uuid4().hex}"


OF_ITS_TIME = ("status.json", "run.json", "index.html", "spending.csv")
"""Files that say when, where and how long: no two runs write the same."""


def tree(folder: Path, but: tuple[str, ...] = OF_ITS_TIME) -> dict[str, bytes]:
    """Every published file below a folder and its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in but and path.name != ".scenebeam.lock"
    }


def write_served_items(folder: Path, url: str, target: Path) -> Path:
    """A catalog of a sandbox's folder whose files lie at a server; gives its path."""
    items = json.loads((folder / "items.json").read_text())
    for item in items["features"]:
        for asset in item["assets"].values():
            href = asset["href"]
            asset["href"] = (
                f"{url}/{os.path.relpath(href, folder) if os.path.isabs(href) else href}"
            )
    target.write_text(json.dumps(items))
    return target


def copy_scene(sandbox: Path, target: Path, scene_id: str) -> Path:
    shutil.copytree(sandbox / scene_id, target / scene_id)
    return target / scene_id
