"""In this process, one task after another; tasks that wait for the network run together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from scenebeam.execution.make import make_task
from scenebeam.planning.plan import Plan
from scenebeam.products import product_of
from scenebeam.report.finish import finish
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
    undone = plan.undone(store.list())
    if not product_of(product).io_bound:
        outcomes = [make_task(product, task, store, limits) for task in undone]
        return finish(plan, outcomes, store, status)
    threads = ThreadPoolExecutor(limits.max_download_workers)
    try:
        outcomes = list(threads.map(lambda task: make_task(product, task, store, limits), undone))
    except BaseException:
        # Downloads stop at their next chunk instead of holding up the end of the process.
        shutdown.set()
        raise
    finally:
        threads.shutdown(cancel_futures=True)
    return finish(plan, outcomes, store, status)
