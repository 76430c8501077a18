"""In this process, one task after another; tasks that wait for the network run together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from scenebeam.execution.make import range_maker
from scenebeam.execution.row_ranges import split_ranges, undone_ranges
from scenebeam.planning.plan import Plan
from scenebeam.products import product_of
from scenebeam.report.finish import finish
from scenebeam.report.outcomes import Outcomes
from scenebeam.status import RunStatus
from scenebeam.storage import Store
from scenebeam.transfer.retry import shutdown

IN_PROCESS = True
"""Whether tasks run in this process, so that none are left when it ends."""


def run_tasks(kind: str, plan: Plan, store: Store, status: RunStatus) -> RunStatus:
    """See `scenebeam.execution.runners.run_tasks`."""
    make = range_maker(plan, store, status)
    undone = split_ranges(undone_ranges(plan, store))
    if not product_of(plan.request.product.kind).io_bound:
        return finish(plan, Outcomes([make(rows) for rows in undone], store), store, status)
    threads = ThreadPoolExecutor(plan.request.limits.max_download_workers)
    try:
        keys = list(threads.map(make, undone))
    except BaseException:
        # Downloads stop at their next chunk instead of holding up the end of the process.
        shutdown.set()
        raise
    finally:
        threads.shutdown(cancel_futures=True)
    return finish(plan, Outcomes(keys, store), store, status)
