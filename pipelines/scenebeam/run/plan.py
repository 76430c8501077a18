"""The frozen plan: what was searched, what was selected and what will be made, as files to open and diff."""

from __future__ import annotations

import io
import json
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import rustac

from scenebeam.errors import StorageError
from scenebeam.products import PRODUCTS
from scenebeam.products.task import Estimate, Task
from scenebeam.request import DECISIVE, RunRequest
from scenebeam.requestfile import leaves
from scenebeam.storage import Store

PLAN_FILE = "plan.parquet"
RUN_FILE = "run.json"
SCENES_FILE = "scenes.parquet"
_VERSIONS = ("scenebeam", "apache-beam", "rasterio", "imagecodecs", "numpy", "pyproj", "shapely")


@dataclass(frozen=True)
class Plan:
    """A request and the tasks that it comes to."""

    request: RunRequest
    tasks: tuple[Task, ...]
    selection: str = ""
    """How many scenes were found, and what left some out."""

    @property
    def estimate(self) -> Estimate:
        """All tasks together; memory is that of the largest."""
        sizes = [task.estimate for task in self.tasks]
        return Estimate(
            blocks=sum(size.blocks for size in sizes),
            requests=sum(size.requests for size in sizes),
            read_bytes=sum(size.read_bytes for size in sizes),
            write_bytes=sum(size.write_bytes for size in sizes),
            pixels=sum(size.pixels for size in sizes),
            memory=max((size.memory for size in sizes), default=0),
        )

    def undone(self, existing: set[str]) -> list[Task]:
        """Tasks that some output is still missing of."""
        return [task for task in self.tasks if not existing.issuperset(task.outputs)]


def freeze(plan: Plan, items: Sequence[dict[str, Any]], store: Store) -> None:
    """Write scenes.parquet, plan.parquet and, last, run.json: where that stands the plan is whole."""
    if items:
        write_items(items, SCENES_FILE, store)
    rows = [
        {
            "task": task.id,
            "outputs": list(task.outputs),
            **task.estimate.model_dump(),
            "definition": task.model_dump_json(),
        }
        for task in plan.tasks
    ]
    table = pa.Table.from_pylist(rows)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    store.write(PLAN_FILE, sink.getvalue())
    head = {
        "run": plan.request.run,
        "fingerprint": plan.request.fingerprint(),
        "selection": plan.selection,
        "request": plan.request.model_dump(mode="json"),
        "versions": {**{name: version(name) for name in _VERSIONS}, "python": platform.python_version()},
    }
    store.write(RUN_FILE, (json.dumps(head, indent=2) + "\n").encode())


def read_plan(store: Store) -> Plan | None:
    """The plan that is frozen in a store; None where there is none. StorageError where it cannot be read."""
    head = store.read(RUN_FILE)
    if head is None:
        return None
    body = store.read(PLAN_FILE)
    if body is None:
        raise StorageError(f"{store.path(PLAN_FILE)} is missing beside {RUN_FILE}: run again with --overwrite")
    try:
        document = json.loads(head)
        request = RunRequest.model_validate(document["request"])
        model = PRODUCTS[request.product.kind].task
        table = pq.read_table(io.BytesIO(body), columns=["definition"])
        tasks = tuple(model.model_validate_json(text) for text in table.column("definition").to_pylist())
    except (ValueError, KeyError, pa.ArrowException) as error:
        raise StorageError(
            f"the plan in {store.uri} cannot be read (made by another version?): {error}; run again with --overwrite"
        ) from error
    return Plan(request, tasks, document.get("selection", ""))


def difference(one: RunRequest, other: RunRequest) -> list[str]:
    """Where two requests would give different products, as `name: this → that`."""
    before, after = (dict(leaves(request.model_dump(mode="json", include=set(DECISIVE)))) for request in (one, other))
    return [
        f"{name}: {before.get(name)!r} → {after.get(name)!r}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def write_items(items: Sequence[dict[str, Any]], name: str, store: Store) -> None:
    """Publish STAC items as stac-geoparquet."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        rustac.write_sync(str(path), {"type": "FeatureCollection", "features": [_storable(item) for item in items]})
        store.write(name, path.read_bytes())


def _storable(value: Any) -> Any:
    """Without empty objects inside: Parquet has no type for them."""
    if isinstance(value, dict):
        return {key: _storable(inner) for key, inner in value.items() if inner != {}}
    return [_storable(inner) for inner in value] if isinstance(value, list) else value
