"""Three months of items play into a cloud: shuffled, twice, lost, late and processed again; the end is that of one run."""

from __future__ import annotations

import csv
import io
import json
import random
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from conftest import tree
from growing_api import GrowingApi, growing_api
from local_cloud import Cloud, wait_for
from local_dataflow import Dataflow
from scenebeam.execution.driver import run
from scenebeam.planning.plan import read_plan
from scenebeam.requestfile import validate_request
from scenebeam.sandbox.scenes import COLLECTION, SandboxScene, write_sandbox
from scenebeam.sandbox.series import SERIES_AREA
from scenebeam.storage import Store, open_store

pytestmark = pytest.mark.cloud

FIRST = datetime(2023, 4, 3, 9, 20, 31)
OF_RUNS = ("status.json", "spending.csv", "report/", "plan.parquet", "superseded.json", "search", "scenes.parquet", "series.json", "run.json", "deployment.json")  # fmt: skip
Document = dict[str, Any]


def scenes() -> list[SandboxScene]:
    """A tile every five days of three months, and on every third date a neighbor in the south."""
    made = []
    for number in range(18):
        acquired = FIRST + timedelta(days=5 * number)
        processed = f"{acquired + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}"
        tile = SandboxScene(
            "34TGL", 32634, 745_000, 4_502_000, acquired, "05.09", processed, size=512
        )
        made.append(tile)
        if number % 3 == 1:
            made.append(replace(tile, tile="34TGK", top=4_498_000, cut=True))
    return made


def document(catalog: str, output: str) -> Document:
    return {
        "run": "valley",
        "catalog": catalog,
        "collections": [COLLECTION],
        "area": {"bbox": list(SERIES_AREA)},
        "dates": "2023-04-01/..",
        "product": {"kind": "mosaic", "bands": ["red"]},
        "series": True,
        "output": output,
    }


class Player:
    """Plays items into a deployment, and lets it sweep."""

    def __init__(self, cloud: Cloud, dataflow: Dataflow, api: GrowingApi, store: Store) -> None:
        self.cloud, self.dataflow, self.api, self.store = cloud, dataflow, api, store
        self.made: Counter[tuple[str, str]] = Counter()
        """(task, version) → how often it was made."""
        self._counted: set[str] = set()

    def sweep(self) -> None:
        """Sweep, and wait until what it launches has ended."""
        before = len(self.dataflow.jobs)
        self.cloud.publish("requests", b"{}", sweep="series")
        try:
            wait_for(lambda: len(self.dataflow.jobs) > before, 6)
        except AssertionError:
            return  # nothing is due
        job = f"2026-{before}"
        wait_for(lambda: self.dataflow.jobs[job]["currentState"] != "JOB_STATE_RUNNING", 120)
        assert self.dataflow.jobs[job]["currentState"] == "JOB_STATE_DONE", self.dataflow.said
        wait_for(lambda: self.cloud.runs()[0]["ended"])
        self._count(job)

    def _count(self, job: str) -> None:
        plan = read_plan(self.store)
        assert plan is not None
        versions = {task.id: task.version for task in plan.tasks}
        table = (self.store.read("spending.csv") or b"").decode()
        for row in csv.DictReader(io.StringIO(table)):
            if not row["band"] and row["state"] == "done":
                self.made[row["task"], versions[row["task"]]] += 1


def test_three_months_end_as_one_run_over_all_of_them(
    cloud: Cloud,
    dataflow: Dataflow,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataflow.start = True
    for name, value in (("DEBOUNCE_SECONDS", "0"), ("CHECK_SECONDS", "0"), ("LOOKBACK_DAYS", "9000")):  # fmt: skip
        monkeypatch.setenv(f"SCENEBEAM_{name}", value)
    folder = tmp_path / "scenes"
    write_sandbox(folder, f"{cloud.prefix}/scenes", scenes())
    inputs = open_store(f"{cloud.prefix}/scenes")
    for path in folder.glob("*/*.tif"):
        inputs.upload(f"{path.parent.name}/{path.name}", path)
    items: list[Document] = json.loads((folder / "items.json").read_text())["features"]
    random.Random(4).shuffle(items)
    late, prompt = items[-4:], items[:-4]
    output = f"{cloud.prefix}/products/valley"
    store = open_store(output)
    with growing_api() as api:
        cloud.allow(api.url)
        player = Player(cloud, dataflow, api, store)
        requests = open_store(f"{cloud.prefix}/requests")
        requests.write("standing/valley.yaml", json.dumps(document(api.url, output)).encode())
        size = -(-len(prompt) // 3)
        for start in range(0, len(prompt), size):
            batch = prompt[start : start + size]
            for number, item in enumerate(batch):
                api.items[item["id"]] = item
                if number % 4 == 3:
                    continue  # its event is lost
                for _ in range(1 + (number % 3 == 0)):
                    cloud.publish("requests", {"Type": "Notification", "Message": json.dumps(item)})
            player.sweep()
        for item in late:
            api.items[item["id"]] = item
            cloud.publish("requests", {"type": "FeatureCollection", "features": [item]})
        newer = processed_again(prompt[0])
        api.items[newer["id"]] = newer
        cloud.publish("requests", newer)
        player.sweep()
        # Once more, when nothing is due: it removes what was replaced.
        cloud.publish("requests", {**newer, "properties": {**newer["properties"], "created": "2030"}})  # fmt: skip
        player.sweep()
        assert set(player.made.values()) == {1}, player.made
        [series] = json.loads(cloud.get("/series")[1])["series"]
        page = json.loads(cloud.get(series["links"]["self"])[1])
        assert page["counts"] == {"made": 18}
        assert b"day-made" in cloud.get(series["links"]["self"], Accept="text/html")[1]
        here = validate_request({**document(api.url, str(tmp_path / "here")), "runner": "serial"})
        assert run(here).state == "succeeded"
    expected = {key: timeless(key, data) for key, data in tree(tmp_path / "here").items()}
    expected = {key: data for key, data in expected.items() if not key.startswith(OF_RUNS)}
    found = {key for key in store.list() if not key.startswith(OF_RUNS)}
    assert found == expected.keys()
    for key, data in expected.items():
        assert timeless(key, store.read(key) or b"") == data, key


def processed_again(item: Document) -> Document:
    newer: Document = json.loads(json.dumps(item))
    newer["id"] = item["id"].replace("_1_L2A", "_2_L2A").replace("_0_L2A", "_2_L2A") + "b"
    newer["properties"]["s2:processing_baseline"] = "05.10"
    return newer


def timeless(key: str, content: bytes) -> Any:
    """The content of a file, without when it was updated."""
    if key.startswith("mosaics/") and key.endswith(".json"):
        item = json.loads(content)
        item["properties"].pop("updated", None)
        return item
    if key == "items.parquet":
        table = pq.read_table(io.BytesIO(content))
        return table.drop_columns([n for n in table.column_names if n == "updated"]).to_pylist()
    return content
