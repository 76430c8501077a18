"""A series goes on: what a new search adds to the products of an output, and what it leaves alone.

Tasks are compared by product, not one by one: a tile that arrives late can change how a grid is cut
into shards. The files of a product are in a folder that is named by the state of its inputs, so two
states never share a file, and one is the same wherever and whenever it is planned.
"""

from __future__ import annotations

import json
import logging
import posixpath
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from scenebeam.metadata import stac_items
from scenebeam.planning.plan import Plan
from scenebeam.request.series import PERIOD_SETTLES, Series
from scenebeam.storage import Store
from scenebeam.tasks import Task, is_same_product

log = logging.getLogger(__name__)

UPDATED = "updated"
"""Property of items that replace an earlier version: when that was decided."""


@dataclass(frozen=True)
class _Product:
    """The tasks of one product: one, or its shards."""

    tasks: tuple[Task, ...]

    @property
    def item_path(self) -> str:
        return self.tasks[0].item_path

    @property
    def sources(self) -> set[str]:
        return {source for task in self.tasks for source in task.sources}

    @property
    def inputs(self) -> set[str]:
        """What its scenes are, whatever their host."""
        found: set[str] = set()
        for task in self.tasks:
            found.update(task.source_identities)
        return found

    def is_done(self, existing: set[str]) -> bool:
        return all(task.is_done(existing) for task in self.tasks)

    def as_attempt(self, attempt: int) -> _Product:
        """Return the product with files of their own for another attempt."""
        return _Product(tuple(task.as_version(attempt) for task in self.tasks))

    def is_state_of(self, other: _Product) -> bool:
        """Whether both are made of the same inputs in the same way."""
        mine, others = self.tasks[0], other.tasks[0]
        if mine.version or others.version:
            return mine.version.partition("-")[0] == others.version.partition("-")[0]
        same = len(self.tasks) == len(other.tasks)
        return same and all(map(is_same_product, self.tasks, other.tasks))


def continue_series(
    frozen: Plan | None,
    plan: Plan,
    existing: set[str],
    present: set[str],
    now: datetime,
    retried: Container[str] = (),
) -> Plan:
    """Plan what a series lacks, and keep what it has.

    Args:
        frozen: The plan in the output; None if it is a new one.
        plan: The plan of a new search.
        existing: Keys of files that count as made.
        present: Keys of all files, superseded ones included.
        now: The current time.
        retried: Items of finished products that are made again although nothing has changed.

    Returns:
        The new plan. Finished products keep their tasks if nothing has changed, if their policy
        says so, or if the catalog no longer has their scenes.
    """
    assert plan.request.series is not None, "only series are continued"
    planned = _products(task.as_version() for task in plan.tasks)
    before = _products(frozen.tasks if frozen is not None else ())
    finished = {key: one for key, one in before.items() if one.is_done(existing)}
    choice = _Continuation(plan.request.series, plan.request.limits.max_scenes, now)
    unplanned = {key: made for key, made in before.items() if key not in planned}
    for key, made in unplanned.items():
        if key in finished:
            choice.keep_unplanned(made, planned, finished.keys())
        elif made.item_path in present:
            # Its update has not been made yet, and the catalog has lost its scenes since: the files
            # that the former item names must stay.
            choice.tasks += made.tasks
    tried = _tried(frozen, before, finished)
    for key in sorted(planned, key=lambda key: (key in tried, _order(planned[key].tasks[0]))):
        product, last = planned[key], before.get(key)
        if last is not None and last.is_state_of(product):
            # Another attempt has other files: those of the former one may be in use.
            is_retried = key in finished and product.item_path in retried
            product = product.as_attempt(last.tasks[0].attempt + is_retried)
        is_there = product.item_path in present
        is_done = product.is_done(existing)
        choice.add(product, finished.get(key), is_done, is_there)
    choice.log_what_stays()
    return replace(
        plan,
        tasks=tuple(sorted(choice.tasks, key=_order)),
        late=tuple(sorted(choice.late)),
        waiting=tuple(sorted(choice.waiting + choice.leaving)),
        gone=tuple(sorted(choice.gone)),
    )


def _order(task: Task) -> tuple[str, str]:
    """By time, then by name; the shards of a product keep theirs."""
    return ("" if task.ends is None else task.ends.isoformat(), task.item_path)


class _Continuation:
    """Chooses, product by product, what a pass makes and what it keeps."""

    def __init__(self, policy: Series, max_scenes: int, now: datetime) -> None:
        self._policy, self._now = policy, now
        self._max_scenes = self._left = max_scenes
        self.tasks: list[Task] = []
        self.late: list[str] = []
        self.waiting: list[str] = []
        self.gone: list[str] = []
        self.leaving: list[str] = []
        self._settled_sources: set[str] = set()
        """Scenes of finished products that are not planned any more, and may not change."""

    def add(self, product: _Product, made: _Product | None, is_done: bool, is_there: bool) -> None:
        """Choose between a planned product and the finished one of the same name.

        Args:
            product: The planned product.
            made: The finished one; None if there is none.
            is_done: Whether all files of the planned product exist.
            is_there: Whether there is an item of its name, finished or not.
        """
        if made is not None and made.is_state_of(product):
            is_retried = made.tasks[0].version != product.tasks[0].version
            updated = [_as_update(task, self._now) for task in product.tasks]
            self.tasks += updated if is_retried else made.tasks
            return
        if made is not None and product.inputs < made.inputs:
            # The catalog has lost some of its scenes, or rolling dates have left them behind.
            self.gone.append(made.tasks[0].id)
            self.tasks += made.tasks
            return
        if made is not None and not _may_change(made.tasks[0], self._policy, self._now):
            self.late.append(made.tasks[0].id)
            self.tasks += made.tasks
            return
        if made is None and not self._settled_sources.isdisjoint(product.sources):
            return  # its scenes are those of a product that stays as it is
        count = len(product.sources)
        if not is_done:
            self._left -= count
        # One of more scenes than are allowed would wait for ever.
        # So would, without a task of its own, the files of a former version be removed.
        if self._left < 0 and count <= self._max_scenes and (made is not None or not is_there):
            self.waiting.append(product.tasks[0].id)
            self.tasks += made.tasks if made is not None else ()
        elif is_there:
            self.tasks += [_as_update(task, self._now) for task in product.tasks]
        else:
            self.tasks += product.tasks

    def keep_unplanned(
        self, made: _Product, planned: Mapping[str, _Product], finished: Container[str]
    ) -> None:
        """Keep a finished product that is not planned any more, at least for now.

        Args:
            made: The product.
            planned: All planned products. One whose scenes are all among theirs has become a part
                of others, as a quarter of its months. It is dropped once they are made.
            finished: Keys of the products that are.
        """
        successors = {}
        for key, product in planned.items():
            if not product.sources.isdisjoint(made.sources):
                successors[key] = product
        found = {source for product in successors.values() for source in product.sources}
        task = made.tasks[0]
        if not made.sources or not found.issuperset(made.sources):
            self.gone.append(task.id)
        elif not _may_change(task, self._policy, self._now):
            self.late.append(task.id)
            self._settled_sources |= made.sources
        elif all(key in finished for key in successors):
            return
        else:
            self.leaving.append(task.id)
        self.tasks += made.tasks

    def log_what_stays(self) -> None:
        """Say what is kept although the catalog says otherwise, and what waits."""
        for names, why in (
            (self.late, "scenes that arrived late"),
            (self.gone, "no longer in the catalog"),
            (self.leaving, "until the products that replace them are made"),
        ):
            if names:
                log.info("kept, %s: %s", why, ", ".join(sorted(names)))
        if self.waiting:
            log.warning(
                "%d products are left to the next pass: limits.max_scenes = %d",
                len(self.waiting),
                self._max_scenes,
            )


def _tried(
    frozen: Plan | None, before: Mapping[str, _Product], finished: Container[str]
) -> set[str]:
    """Return the keys of products that the last pass has tried and not finished.

    They come last: products that fail in each pass must not hold up all others.
    """
    if frozen is None:
        return set()
    waiting = set(frozen.waiting)
    return {
        key
        for key, product in before.items()
        if key not in finished and product.tasks[0].id not in waiting
    }


def _products(tasks: Iterable[Task]) -> dict[str, _Product]:
    """Group tasks by the item that they share."""
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(task.item_path or task.id, []).append(task)
    return {key: _Product(tuple(members)) for key, members in groups.items()}


def _may_change(made: Task, policy: Series, now: datetime) -> bool:
    """Whether a finished product may be made again."""
    # Without a version, its files would be replaced one by one, under the eyes of their readers.
    if policy.late == "freeze" or not made.version:
        return False
    days = policy.settled_after
    if days is None and made.is_period:
        days = PERIOD_SETTLES
    return days is None or made.ends is None or now <= made.ends + timedelta(days=days)


def _as_update(task: Task, now: datetime) -> Task:
    """Return a task whose item says that it has replaced an earlier version."""
    properties = {**task.properties, UPDATED: stac_items.rfc3339(now)}
    return task.model_copy(update={"properties": properties})


def remove_replaced(plan: Plan, store: Store) -> None:
    """Delete files of earlier versions whose products have been replaced or dropped since.

    A run leaves them to the next one, for readers that have just read the former item.

    Args:
        plan: The plan of the series.
        store: Its output.
    """
    stale = store.superseded()
    waiting = stale & {task.item_path for task in plan.tasks}
    waiting_folders = {posixpath.dirname(key) for key in waiting}
    # Shards of a store are in no folder of the product, and keep their keys.
    kept: set[str] = set()
    for task in plan.tasks:
        if task.item_path in waiting:
            kept.update(task.possible_outputs)
    done = []
    for key in stale - waiting - kept:
        folder = posixpath.dirname(key)
        # Beside the item, or in the folder of a version.
        if waiting_folders.isdisjoint({folder, posixpath.dirname(folder)}):
            done.append(key)
    store.delete(sorted(done))


def keep_versions(frozen: Plan, plan: Plan, store: Store) -> set[str]:
    """Keep the versions that are about to be replaced, as many as the policy says.

    The item of a version goes into the folder of its files.

    Args:
        frozen: The plan in the output.
        plan: The plan that follows.
        store: The output.

    Returns:
        Keys of files that stay.
    """
    policy = plan.request.series
    if policy is None or not policy.keep_versions:
        return set()
    following = {task.item_path: task.version for task in plan.tasks}
    kept: set[str] = set()
    for product in _products(frozen.tasks).values():
        task = product.tasks[0]
        if not task.version or following.get(task.item_path) in (None, task.version):
            continue
        content = store.read(task.item_path)
        if content is not None and product.is_done(store.list()):
            folder = posixpath.dirname(task.item_path)
            archived = f"{folder}/{task.version}/{posixpath.basename(task.item_path)}"
            store.write(archived, stac_items.to_bytes(_deprecated(json.loads(content))))
            kept.update({*_versions_to_keep(folder, archived, policy.keep_versions, store)})
    return kept


def _versions_to_keep(folder: str, newest: str, count: int, store: Store) -> set[str]:
    """Return the files of the newest versions of a product; those of older ones are deleted."""
    items = {}
    for key in store.list(f"{folder}/"):
        if key.endswith(".json") and posixpath.dirname(posixpath.dirname(key)) == folder:
            items[key] = store.modified(key) or 0.0
    ordered = sorted(items, key=lambda key: (key != newest, -items[key], key))
    kept: set[str] = set()
    for number, key in enumerate(ordered):
        files = store.list(f"{posixpath.dirname(key)}/")
        if number < count:
            kept |= files
        else:
            store.delete(sorted(files))
    return kept


def _deprecated(item: stac_items.Item) -> stac_items.Item:
    """Return the item of an earlier version, as it reads from the folder of its files."""
    assets = {}
    for name, asset in item["assets"].items():
        href = asset["href"]
        # What is in no folder of the product, as a store is, is a folder further up.
        moved = f"../{href}" if href.startswith("../") else f"./{posixpath.basename(href)}"
        assets[name] = {**asset, "href": moved}
    links = []
    for link in item["links"]:
        href = link["href"]
        is_relative = href.startswith(("./", "../"))
        links.append({**link, "href": posixpath.normpath(f"../{href}") if is_relative else href})
    properties = {**item["properties"], "deprecated": True}
    return {**item, "assets": assets, "links": links, "properties": properties}


def changed_grids(frozen: Plan, plan: Plan) -> bool:
    """Whether a new plan has another grid than the finished products of a series."""
    return bool(_grids(frozen.tasks) and _grids(plan.tasks) - _grids(frozen.tasks))


def _grids(tasks: Sequence[Task]) -> set[object]:
    grids: set[object] = set()
    for task in tasks:
        layout: Mapping[str, object] = task.__dict__
        if task.version and "grid" in layout:
            grids.add(layout["grid"])
    return grids
