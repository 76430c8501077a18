"""The frozen plan: `plan.parquet` with a row per task, and `run.json` with the request."""

from __future__ import annotations

import json
import os
import platform
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scenebeam.csvtable import File
from scenebeam.errors import StorageError
from scenebeam.figures.notebook import render_card
from scenebeam.planning.cost import dataflow_cost, local_seconds
from scenebeam.planning.search_cache import Item, write_search
from scenebeam.planning.stored_tasks import StoredTasks, TaskRows, store_tasks, unreadable
from scenebeam.products import product_of
from scenebeam.request import RunRequest, is_remote
from scenebeam.request.format import FORMAT
from scenebeam.request.places import place_fields
from scenebeam.requestfile import flatten, frozen_request
from scenebeam.storage import Store
from scenebeam.tasks import Estimate, Task

PLAN_FILE = "plan.parquet"
RUN_FILE = "run.json"
_VERSIONS = ("scenebeam", "apache-beam", "rasterio", "imagecodecs", "numpy", "pyproj", "shapely")


_SHOWN_TASKS = 10
"""Tasks that a notebook shows."""


@dataclass(frozen=True)
class Plan:
    """A request and its tasks."""

    request: RunRequest
    tasks: Sequence[Task]
    selection: str = ""
    """How many scenes were found, and what left some out."""
    left_out: Mapping[str, int] = field(default_factory=dict, compare=False)
    """Scenes that each step of the selection left out."""
    tables: Mapping[str, File] = field(default_factory=dict, compare=False)
    """Tables by file name, which are written with the plan; not read back."""
    items: Sequence[Item] = field(default=(), compare=False)
    """What the search has found, which is written with the plan; not read back."""
    series: str = ""
    """Digest of its time-series table; empty where scenes were searched."""
    absent: tuple[str, ...] = ()
    """Ids of requested scenes that the catalog lacks."""
    late: tuple[str, ...] = ()
    """Of a series: finished tasks that stay as they are although scenes have arrived late."""
    waiting: tuple[str, ...] = ()
    """Of a series: products that are left to the next pass, to be made, or to be dropped once those
    are made that they have become a part of."""
    gone: tuple[str, ...] = ()
    """Of a series: finished tasks whose scenes the catalog no longer has."""

    def __repr__(self) -> str:
        """Return one line."""
        request = self.request
        return f"<Plan of {len(self.tasks)} {request.product.kind} tasks for {request.output}>"

    def _repr_html_(self) -> str:
        """Show in a notebook what the plan takes: tasks, bytes, memory, time and cost."""
        estimate, request = self.estimate, self.request
        minutes, usd = dataflow_cost(estimate, request.runner)
        facts = {
            "selection": self.selection,
            "output": request.output,
            "read": f"{estimate.read_bytes / 1e6:,.1f} MB in {estimate.requests:,} requests",
            "write": f"{estimate.write_bytes / 1e6:,.1f} MB",
            "memory per task": f"{estimate.memory / 1e6:,.0f} MB",
            "time here": f"about {max(local_seconds(estimate) / 60, 0.1):.1f} min",
            "on Dataflow": f"about {minutes:.0f} min and {usd:.2f} USD",
        }
        rows = [(task.id, len(task.outputs)) for task in self.tasks[:_SHOWN_TASKS]]
        hidden = len(self.tasks) - len(rows)
        return render_card(
            f"{len(self.tasks)} {request.product.kind} tasks",
            facts,
            header=("task", "files"),
            rows=rows,
            note=f"and {hidden} more" if hidden else "",
        )

    @cached_property
    def estimate(self) -> Estimate:
        """The sum over all tasks; for memory, the largest task."""
        totals: dict[str, int] = dict.fromkeys(Estimate.model_fields, 0)
        for task in self.tasks:
            size = task.estimate
            totals["blocks"] += size.blocks
            totals["pixels"] += size.pixels
            totals["memory"] = max(totals["memory"], size.memory)
            for name in ("requests", "read_bytes", "write_bytes"):
                smallest, largest = getattr(size, name), getattr(size, f"most_{name}")
                totals[name] += smallest
                # 0 means that the estimate is exact enough to be a single number.
                totals[f"most_{name}"] += max(smallest, largest)
        return Estimate(**totals)

    @property
    def products(self) -> int:
        """Number of products: tasks that make shards of one product share its item."""
        return len({task.item_path or task.id for task in self.tasks})

    def progress(self, existing: set[str]) -> int:
        """Count the tasks with nothing left to compute, by the keys that exist in the store."""
        return sum(task.is_computed(existing) for task in self.tasks)

    def undone(self, existing: set[str]) -> TaskRows:
        """The tasks that are not done, by the keys that exist in the store."""
        rows = array("L")
        for row, task in enumerate(self.tasks):
            if not task.is_done(existing):
                rows.append(row)
        return TaskRows(self.tasks, rows)


def freeze(plan: Plan, store: Store) -> None:
    """Write the items, the tables, `plan.parquet` and, last, `run.json`.

    A plan with a `run.json` is complete.
    """
    write_search(plan.request, plan.items, store)
    store_tasks(plan.tasks, store, PLAN_FILE)
    store.write_all(plan.tables)
    document: dict[str, Any] = {
        "format": FORMAT,
        "run": plan.request.run,
        "fingerprint": plan.request.fingerprint(),
        "selection": plan.selection,
        "left_out": dict(plan.left_out),
    }
    if plan.series:
        document["series"] = plan.series
    if plan.absent:
        document["absent"] = plan.absent
    for name in ("late", "waiting", "gone"):
        if getattr(plan, name):
            document[name] = list(getattr(plan, name))
    document["request"] = with_absolute_paths(plan.request.model_dump(mode="json"))
    document["versions"] = {name: version(name) for name in _VERSIONS}
    document["versions"]["python"] = platform.python_version()
    store.write(RUN_FILE, (json.dumps(document, indent=2) + "\n").encode())


def read_product(store: Store) -> dict[str, Any]:
    """Read the section `product` of the request in an output; empty if there is no run in it."""
    head = store.read(RUN_FILE)
    product: dict[str, Any] = {} if head is None else json.loads(head)["request"]["product"]
    return product


def read_plan(store: Store) -> Plan | None:
    """Read the plan that is frozen in a store.

    Returns:
        The plan, without tables and items; None if there is none.

    Raises:
        StorageError: The plan cannot be read.
    """
    head = store.read(RUN_FILE)
    if head is None:
        return None
    if store.size(PLAN_FILE) is None:
        raise StorageError(
            f"{store.uri_for(PLAN_FILE)} is missing beside {RUN_FILE}: run again with --overwrite"
        )
    try:
        document = json.loads(head)
        frozen = frozen_request(document, store.uri, store.uri_for(RUN_FILE))
        request = RunRequest.model_validate(frozen)
    except (ValueError, KeyError) as error:
        raise unreadable(store.uri_for(RUN_FILE), error) from error
    tasks = read_tasks(request, store)
    return Plan(
        request,
        tasks,
        document.get("selection", ""),
        document.get("left_out", {}),
        series=document.get("series", ""),
        absent=tuple(document.get("absent", ())),
        late=tuple(document.get("late", ())),
        waiting=tuple(document.get("waiting", ())),
        gone=tuple(document.get("gone", ())),
    )


def read_tasks(request: RunRequest, store: Store) -> Sequence[Task]:
    """Open the tasks that are frozen in a store; each is read when it is used.

    Raises:
        StorageError: They cannot be read.
    """
    tasks = StoredTasks(store, PLAN_FILE, product_of(request.product.kind).task)
    # A plan of another version shows at its first task, before anything is decided by it.
    if tasks:
        tasks[0]
    return tasks


def output_removed(store: Store) -> StorageError:
    """The error of an output whose plan has disappeared: it is frozen before the first task."""
    return StorageError(f"{store.uri} was removed during the run: run again")


def with_absolute_paths(document: dict[str, Any]) -> dict[str, Any]:
    """Make the paths of a request's document absolute, so that it means the same anywhere."""
    resolved: dict[str, Any] = json.loads(json.dumps(document))
    for named in place_fields(resolved):
        if isinstance(named.value, str) and named.value and not is_remote(named.value):
            named.holder[named.key] = os.path.abspath(Path(named.value).expanduser())
    return resolved


def difference(before: RunRequest, after: RunRequest) -> dict[str, str]:
    """Compare the fields of two requests that decide what the products contain.

    Fields that have no effect on the first request are left out.

    Returns:
        Dotted name → `name: before → after`, for each field that differs.
    """
    ignored = before.product.ignored_fields
    values = []
    for request in (before, after):
        document = with_absolute_paths(request.fingerprint_fields(ignored))
        values.append(dict(flatten(document)))
    old, new = values
    changes = {}
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            changes[name] = f"{name}: {old.get(name)!r} → {new.get(name)!r}"
    return changes
