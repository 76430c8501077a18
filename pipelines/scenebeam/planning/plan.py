"""The frozen plan: what was searched, what was selected and what will be made, as files to open and diff."""

from __future__ import annotations

import io
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from scenebeam.csvtable import File
from scenebeam.errors import StorageError
from scenebeam.metadata.item_tables import BytesFile
from scenebeam.planning.search_cache import Item, write_search
from scenebeam.products import product_of
from scenebeam.request import RunRequest, is_remote
from scenebeam.request.places import place_fields
from scenebeam.requestfile import flatten, frozen_request
from scenebeam.storage import Store
from scenebeam.tasks import Estimate, Task

PLAN_FILE = "plan.parquet"
RUN_FILE = "run.json"
_SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("outputs", pa.list_(pa.string())),
        *((name, pa.int64()) for name in Estimate.model_fields),
        ("definition", pa.string()),
    ]
)
_BATCH = 16 * 2**20
"""Bytes of definitions that are written together."""
_VERSIONS = ("scenebeam", "apache-beam", "rasterio", "imagecodecs", "numpy", "pyproj", "shapely")


@dataclass(frozen=True)
class Plan:
    """A request and the tasks that it comes to."""

    request: RunRequest
    tasks: tuple[Task, ...]
    selection: str = ""
    """How many scenes were found, and what left some out."""
    tables: Mapping[str, File] = field(default_factory=dict, compare=False)
    """What stands before the first task is made, by file name; written with the plan, not read back."""
    items: Sequence[Item] = field(default=(), compare=False)
    """What the search found; written with the plan, not read back."""
    series: str = ""
    """Digest of the time-series table that it was made of; empty where scenes were searched."""
    absent: tuple[str, ...] = ()
    """Ids of scenes that the request names, and that the catalog lacks."""

    @property
    def estimate(self) -> Estimate:
        """All tasks together; memory is that of the largest."""
        sizes = [task.estimate for task in self.tasks]
        return Estimate(
            blocks=sum(size.blocks for size in sizes),
            requests=sum(size.requests for size in sizes),
            most_requests=sum(max(size.requests, size.most_requests) for size in sizes),
            read_bytes=sum(size.read_bytes for size in sizes),
            most_read_bytes=sum(max(size.read_bytes, size.most_read_bytes) for size in sizes),
            write_bytes=sum(size.write_bytes for size in sizes),
            most_write_bytes=sum(max(size.write_bytes, size.most_write_bytes) for size in sizes),
            pixels=sum(size.pixels for size in sizes),
            memory=max((size.memory for size in sizes), default=0),
        )

    def undone(self, existing: set[str]) -> list[Task]:
        """Tasks that are not done."""
        return [task for task in self.tasks if not task.is_done(existing)]


def freeze(plan: Plan, store: Store) -> None:
    """Write the items, the tables, plan.parquet and, last, run.json: where that stands the plan is whole."""
    write_search(plan.request, plan.items, store)
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, _SCHEMA, compression="zstd") as writer:
        for rows in _batches(plan.tasks):
            writer.write_table(_table(rows))
    store.write_all({PLAN_FILE: BytesFile(sink.getvalue()), **plan.tables})
    head = {
        "run": plan.request.run,
        "fingerprint": plan.request.fingerprint(),
        "selection": plan.selection,
        **({"series": plan.series} if plan.series else {}),
        **({"absent": plan.absent} if plan.absent else {}),
        "request": with_absolute_paths(plan.request.model_dump(mode="json")),
        "versions": {
            **{name: version(name) for name in _VERSIONS},
            "python": platform.python_version(),
        },
    }
    store.write(RUN_FILE, (json.dumps(head, indent=2) + "\n").encode())


def _batches(tasks: Sequence[Task]) -> Iterator[list[dict[str, Any]]]:
    """Rows of tasks, some megabytes at a time."""
    rows: list[dict[str, Any]] = []
    size = 0
    for task in tasks:
        definition = task.model_dump_json()
        rows.append(
            {
                "task": task.id,
                "outputs": list(task.outputs),
                **task.estimate.model_dump(),
                "definition": definition,
            }
        )
        size += len(definition)
        if size > _BATCH:
            yield rows
            rows, size = [], 0
    yield rows


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows → a table, by way of JSON: `pa.Table.from_pylist` would import pandas, which takes longer than planning."""
    if not rows:
        return _SCHEMA.empty_table()
    lines = "\n".join(json.dumps(row) for row in rows).encode()
    whole = pa.json.ReadOptions(block_size=len(lines) + 1, use_threads=False)
    return pa.json.read_json(
        io.BytesIO(lines), whole, pa.json.ParseOptions(explicit_schema=_SCHEMA)
    )


def read_plan(store: Store) -> Plan | None:
    """The plan that is frozen in a store; None where there is none. StorageError where it cannot be read."""
    head = store.read(RUN_FILE)
    if head is None:
        return None
    body = store.read(PLAN_FILE)
    if body is None:
        raise StorageError(
            f"{store.uri_for(PLAN_FILE)} is missing beside {RUN_FILE}: run again with --overwrite"
        )
    try:
        document = json.loads(head)
        request = RunRequest.model_validate(
            frozen_request(document, store.uri, store.uri_for(RUN_FILE))
        )
        model = product_of(request.product.kind).task
        # Not by `pq.read_table`: it imports pandas, and its threads may abort a process that ends soon after.
        table = pq.ParquetFile(io.BytesIO(body)).read(columns=["definition"])
        tasks = tuple(
            model.model_validate_json(text) for text in table.column("definition").to_pylist()
        )
    except (ValueError, KeyError, pa.ArrowException) as error:
        raise StorageError(
            f"the plan in {store.uri} cannot be read (made by another version?): {error}; run again with --overwrite"
        ) from error
    selection, series = document.get("selection", ""), document.get("series", "")
    return Plan(request, tasks, selection, series=series, absent=tuple(document.get("absent", ())))


def vanished(store: Store) -> StorageError:
    """Describe an output whose plan is not there any more: it was frozen before the first task was made."""
    return StorageError(f"{store.uri} has been removed while the run was going on: run again")


def with_absolute_paths(document: dict[str, Any]) -> dict[str, Any]:
    """A request's document that means the same wherever it is read, as `run.json` in the output."""
    resolved: dict[str, Any] = json.loads(json.dumps(document))
    for named in place_fields(resolved):
        if isinstance(named.value, str) and named.value and not is_remote(named.value):
            named.holder[named.key] = os.path.abspath(Path(named.value).expanduser())
    return resolved


def difference(one: RunRequest, other: RunRequest) -> dict[str, str]:
    """Where two requests would give different products, by name, as `name: this → that`."""
    documents = [
        with_absolute_paths(request.fingerprint_fields(one.product.ignored_fields))
        for request in (one, other)
    ]
    before, after = (dict(flatten(document)) for document in documents)
    return {
        name: f"{name}: {before.get(name)!r} → {after.get(name)!r}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    }
