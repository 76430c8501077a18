"""In this process, one task after another; tasks that wait for the network run together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from scenebeam.execution.make import make_range
from scenebeam.execution.row_ranges import RowRange, split_ranges, undone_ranges
from scenebeam.planning.plan import Plan
from scenebeam.products import product_of
from scenebeam.report.finish import finish
from scenebeam.report.outcomes import Outcomes, outcomes_folder, part_key
from scenebeam.status import RunStatus
from scenebeam.storage import Store
from scenebeam.transfer.retry import shutdown
from scenebeam.transfer.signing import effective_limits
from scenebeam.transfer.signing.accounts import use_accounts

IN_PROCESS = True
"""Whether tasks run in this process, so that none are left when it ends."""


def run_tasks(kind: str, plan: Plan, store: Store, status: RunStatus) -> RunStatus:
    """See `scenebeam.execution.runners.run_tasks`."""
    use_accounts(plan.request.accounts)
    product, limits = plan.request.product.kind, effective_limits(plan.request)
    folder = outcomes_folder(status)

    def make(rows: RowRange) -> str:
        """Make the tasks of a range; returns the key of their outcomes."""
        _, first, last = rows
        key = part_key(folder, first)
        for _ in make_range(product, plan.tasks[first:last], store, limits, key):
            pass
        return key

    undone = split_ranges(undone_ranges(plan, store))
    if not product_of(product).io_bound:
        return finish(plan, Outcomes([make(rows) for rows in undone], store), store, status)
    threads = ThreadPoolExecutor(limits.max_download_workers)
    try:
        keys = list(threads.map(make, undone))
    except BaseException:
        # Downloads stop at their next chunk instead of holding up the end of the process.
        shutdown.set()
        raise
    finally:
        threads.shutdown(cancel_futures=True)
    return finish(plan, Outcomes(keys, store), store, status)
