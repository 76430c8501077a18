"""Finish: write what a run made as tables, a STAC collection, an HTML page and a final status."""

from __future__ import annotations

import logging
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from scenebeam.catalog.area import area_geometry
from scenebeam.catalog.bands import records_for
from scenebeam.csvtable import File, Table
from scenebeam.errors import StorageError
from scenebeam.imaging.shards import PARTS_PREFIX
from scenebeam.metadata.item_tables import COLLECTION_FILE, ReportFiles
from scenebeam.planning.plan import RUN_FILE, Plan, output_removed
from scenebeam.products import product_of
from scenebeam.report.cube import cube_of, describe_cube, publish_cube
from scenebeam.report.facts import gather
from scenebeam.report.growth import growth_file
from scenebeam.report.outcomes import delete_outcomes, outcomes_folder
from scenebeam.report.pictures import draw_gallery, picture_keys, published_gallery
from scenebeam.report.render import render
from scenebeam.status import FAILURES_FILE, PAGE_FILE, SPENDING_FILE, STATUS_FILE, RunStatus, now
from scenebeam.storage import Store
from scenebeam.tasks import Outcome

log = logging.getLogger(__name__)

_ABSENT = "the catalog has no such scene"
_MAX_PICTURES = 12
"""Pictures that a status names."""
_SPENDING_COLUMNS = ("task", "band", "state", "seconds", "bytes", "requests", "retries")
_FAILURE_COLUMNS = ("task", "kind", "reason", "retry", "state")


def finish(
    plan: Plan, outcomes: Mapping[str, Outcome], store: Store, status: RunStatus
) -> RunStatus:
    """Write the tables, `items.parquet`, `collection.json`, the page and `status.json` of a run.

    The tables depend on the plan, on the outputs that exist and on the failures of this run. They
    do not depend on whether the outputs were made by one run or by several that were interrupted
    and resumed.

    Args:
        plan: The frozen plan.
        outcomes: Outcomes of the tasks that this run has made, by task id, in the order of the
            plan.
        store: Output of the run.
        status: Status of the run so far.

    Returns:
        The final status.

    Raises:
        StorageError: The output was removed during the run, or cannot be read or written.
    """
    if store.size(RUN_FILE) is None:
        raise output_removed(store)
    existing = store.list()
    done: set[str] = set()
    undone: set[str] = set()
    for task in plan.tasks:
        (done if task.is_done(existing) else undone).add(task.id)
    superseded: set[str] = set()
    if not undone:
        # A task that was killed while it removed its shards is done, and never made again.
        store.delete(sorted(key for key in existing if key.startswith(PARTS_PREFIX)))
        # Readers of a series may have just read the former items: the next run removes their files.
        if plan.request.series is None:
            superseded = store.release_superseded()
    unfinished = _Unfinished(outcomes, undone)
    product = product_of(plan.request.product.kind)
    report = product.report(plan.request, plan.tasks, done, outcomes, store)
    files: dict[str, File] = {
        **report.files,
        FAILURES_FILE: _failures_table(plan, unfinished, store),
        SPENDING_FILE: _spending_table(outcomes.values()),
        **growth_file(plan, undone, unfinished, store),
    }
    cube = cube_of(plan, done)
    if cube is not None:
        files[COLLECTION_FILE] = describe_cube(files[COLLECTION_FILE], cube, plan)
        publish_cube(cube, plan, store)
    store.write_all(files)
    final = _final_status(plan, status, undone, unfinished, report).model_copy(
        update=_totals(outcomes.values())
    )
    final = _write_page(plan, final, report.items, existing | files.keys(), store)
    # No table refers to superseded files any more.
    store.delete(sorted(superseded))
    store.write(STATUS_FILE, final.to_bytes())
    delete_outcomes(outcomes_folder(status), store)
    return final


class _Unfinished:
    """Outcomes of tasks whose outputs are still missing, in the order of the plan.

    Other tasks may have failed here, too, but another process has made them.
    """

    def __init__(self, outcomes: Mapping[str, Outcome], undone: set[str]) -> None:
        self._outcomes, self._undone = outcomes, undone

    def __iter__(self) -> Iterator[Outcome]:
        if not self._undone:
            return
        for outcome in self._outcomes.values():
            if outcome.task in self._undone:
                yield outcome


def _failures_table(plan: Plan, unfinished: Iterable[Outcome], store: Store) -> Table:
    """List failed tasks, then skipped ones, then scenes that the catalog does not have."""
    return Table(_FAILURE_COLUMNS, chain(_failures(unfinished, store), _absent(plan)))


def _failures(unfinished: Iterable[Outcome], store: Store) -> Iterator[dict[str, Any]]:
    retry = f"scenebeam run {shlex.quote(store.uri_for('run.json'))}"
    for state in ("failed", "skipped"):
        for outcome in unfinished:
            if outcome.state == state:
                yield {
                    "task": outcome.task,
                    "kind": outcome.kind,
                    "reason": outcome.reason,
                    "retry": retry if state == "failed" else "",
                    "state": state,
                }


def _absent(plan: Plan) -> Iterator[dict[str, Any]]:
    for scene in plan.absent:
        yield {"task": scene, "kind": "absent_scene", "reason": _ABSENT, "state": "failed"}


def _spending_table(outcomes: Iterable[Outcome]) -> Table:
    """List the time, bytes, requests and retries of each task, in total and by band."""
    return Table(_SPENDING_COLUMNS, chain.from_iterable(map(_spending_rows, outcomes)))


def _spending_rows(outcome: Outcome) -> Iterator[dict[str, Any]]:
    total = {"seconds": outcome.seconds, "bytes": outcome.read_bytes, "retries": outcome.retries}
    yield {
        "task": outcome.task,
        "band": "",
        "state": outcome.state,
        "requests": outcome.requests,
        **total,
    }
    # Some products report bands directly in `detail`, others below `bands`. Other entries of
    # `detail` have no `seconds`.
    for band, facts in {**outcome.detail, **outcome.detail.get("bands", {})}.items():
        if isinstance(facts, dict) and facts.get("seconds") is not None:
            spent = {name: facts.get(name) for name in total}
            yield {"task": outcome.task, "band": band, "state": "", "requests": None, **spent}


def _totals(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """Sum up what a run has read."""
    totals = {"requests": 0, "read_bytes": 0}
    for outcome in outcomes:
        totals["requests"] += outcome.requests
        totals["read_bytes"] += outcome.read_bytes
    return totals


def _final_status(
    plan: Plan,
    status: RunStatus,
    undone: set[str],
    unfinished: Iterable[Outcome],
    report: ReportFiles,
) -> RunStatus:
    """Return the final status: the state, the numbers of tasks, and the message."""
    done = len(plan.tasks) - len(undone)
    skipped = retriable = 0
    for outcome in unfinished:
        if outcome.state == "skipped":
            skipped += 1
        elif outcome.state == "failed" and not outcome.permanent:
            retriable += 1
    # Tasks without an outcome have failed, too: the run was stopped before it reached them.
    failed = len(undone) - skipped
    nothing = report.nothing
    if not nothing and skipped and not done:
        nothing = _most_common_reason(unfinished)
    return status.model_copy(
        update={
            "state": "failed" if nothing else _state(plan, failed),
            "tasks": len(plan.tasks),
            "done": done,
            "skipped": skipped,
            "failed": failed + len(plan.absent),
            "retriable": retriable,
            "incomplete": report.incomplete,
            "updated": now(),
            "finished": now(),
            "message": _message(nothing, unfinished, plan.absent),
        }
    )


def _state(plan: Plan, failed: int) -> str:
    """Return the final state of a run with a number of failed tasks."""
    if failed == 0:
        return "partial" if plan.absent else "succeeded"
    return "partial" if failed <= plan.request.limits.max_failed * len(plan.tasks) else "failed"


def _message(nothing: str, unfinished: Iterable[Outcome], absent: Sequence[str]) -> str:
    """Return the message of the status: the most important reason for an incomplete output."""
    if nothing:
        return f"nothing was made: {nothing}"
    for outcome in unfinished:
        if outcome.state == "failed":
            return outcome.reason
    return f"{absent[0]}: {_ABSENT}" if absent else ""


def _most_common_reason(outcomes: Iterable[Outcome]) -> str:
    (reason, _), *others = Counter(outcome.reason for outcome in outcomes).most_common()
    return f"{reason}; and {len(others)} other reasons, see {FAILURES_FILE}" if others else reason


def _write_page(
    plan: Plan, status: RunStatus, items_key: str, existing: set[str], store: Store
) -> RunStatus:
    """Write the page, and name its pictures in the status.

    If the page cannot be rendered, that is logged and does not fail the run.
    """
    request = plan.request
    try:
        area = area_geometry(request.area) if request.area is not None else None
        product = product_of(request.product.kind)
        page = product.page
        facts = gather(status, items_key, page, existing, store)
        facts.caution = product.caution(request)
        # The pixels of a store are in no file of the product's own.
        if page.pictures == "thumbnails" or request.product.store_format is not None:
            facts.gallery = published_gallery(facts.pictures, store)
        else:
            are_indices = page.pictures == "indices"
            facts.gallery = draw_gallery(
                facts.products, records_for(request), are_indices=are_indices, store=store
            )
        store.write(PAGE_FILE, render(facts, area, store.uri))
    except StorageError:
        raise
    except Exception:
        log.exception("cannot render the report page %s", store.uri_for(PAGE_FILE))
        return status
    keys = tuple(picture_keys(facts.gallery, _MAX_PICTURES))
    return status.model_copy(update={"pictures": keys})
