"""From a message to products in a bucket, their status and their page: every part real but Dataflow's machines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from browser import dom, screenshot
from conftest import stac_server, tree
from local_cloud import Cloud, wait_for
from local_dataflow import Dataflow
from scenebeam.execution.driver import run
from scenebeam.request import RunRequest
from scenebeam.requestfile import validate_request
from scenebeam.sandbox.scenes import AREA, COLLECTION, DATES, SCENES
from scenebeam.storage import open_store

pytestmark = pytest.mark.cloud


@pytest.fixture
def inputs(sandbox: Path, prefix: str) -> str:
    """The sandbox's files in the bucket."""
    store = open_store(f"{prefix}/scenes")
    for path in sandbox.glob("*/*.tif"):
        store.upload(f"{path.parent.name}/{path.name}", path)
    return f"{prefix}/scenes"


def items(path: Path, href: str) -> Path:
    features = [scene.item(href) for scene in SCENES]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def document(catalog: str, output: str) -> dict:
    return {
        "run": "thessaloniki",
        "catalog": catalog,
        "collections": [COLLECTION],
        "area": {"bbox": list(AREA)},
        "dates": DATES,
        "product": {"kind": "mosaic", "bands": ["red", "scl"]},
        "output": output,
    }


def test_a_message_makes_the_mosaics_that_a_laptop_makes(
    cloud: Cloud, dataflow: Dataflow, inputs: str, tmp_path: Path
) -> None:
    dataflow.start = True
    output = f"{cloud.prefix}/products/mosaics"
    with stac_server(items(tmp_path / "items.json", inputs)) as url:
        cloud.allow(url)
        cloud.publish("requests", document(url, output))
        found = wait_for(lambda: (one := cloud.runs()) and one[0]["job"] and one[0])
        wait_for(lambda: dataflow.jobs[found["job"]]["currentState"] != "JOB_STATE_RUNNING", 120)
        assert dataflow.jobs[found["job"]]["currentState"] == "JOB_STATE_DONE", dataflow.said
        ended = wait_for(lambda: (one := cloud.runs()[0])["state"] == "succeeded" and one)
        same_as_here(url, output, tmp_path)
    assert (ended["done"], ended["tasks"]) == (2, 2)
    assert len(ended["pictures"]) == 2
    assert b"2 of 2 done" in cloud.get(f"/runs/{ended['id']}", Accept="text/html")[1]
    looked_at(f"{cloud.status_url}/runs/{ended['id']}", tmp_path)


def same_as_here(catalog: str, output: str, tmp_path: Path) -> None:
    """What stands in the bucket is what a run on this machine makes, byte by byte."""
    here: RunRequest = validate_request(
        {**document(catalog, str(tmp_path / "here")), "runner": "serial"}
    )
    assert run(here).state == "succeeded"
    store = open_store(output)
    expected = {
        name: data
        for name, data in tree(tmp_path / "here").items()
        if name.endswith((".tif", ".json", ".png"))
    }
    assert len(expected) > 6
    for name, data in expected.items():
        if name != "search.json":
            assert store.read(name) == data, name


def test_a_run_whose_machine_dies_goes_on_where_it_was(
    cloud: Cloud, dataflow: Dataflow, inputs: str, tmp_path: Path
) -> None:
    dataflow.start = True
    output = f"{cloud.prefix}/products/mosaics"
    store = open_store(output)
    with stac_server(items(tmp_path / "items.json", inputs)) as url:
        cloud.allow(url)
        cloud.publish("requests", document(url, output))
        wait_for(lambda: any(name.endswith(".tif") for name in store.list()))
        dataflow.kill("2026-0")
        died = wait_for(lambda: (one := cloud.runs()[0])["state"] == "failed" and one)
        assert "JOB_STATE_FAILED" in died["message"]
        cloud.publish("requests", document(url, output))
        ended = wait_for(lambda: (one := cloud.runs()[0])["state"] == "succeeded" and one, 120)
        assert (ended["id"], ended["job"], ended["done"]) == (died["id"], "2026-1", 2)
        same_as_here(url, output, tmp_path)


def looked_at(url: str, folder: Path) -> None:
    """The page in a real browser: its words, and a picture of it."""
    colours, size = screenshot(url, folder, "status-page", (1000, 700))
    assert size == (1000, 700)
    assert colours > 20, "an empty page"
    told = dom(url, folder)
    assert "2 of 2 done" in told
    assert 'class="state succeeded"' in told
