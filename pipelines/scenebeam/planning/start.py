"""Start: the first status of a run."""

from __future__ import annotations

from dataclasses import replace

from scenebeam.planning.cost import dataflow_cost
from scenebeam.planning.plan import Plan
from scenebeam.planning.work import count_work
from scenebeam.status import RunStatus, now
from scenebeam.storage import Store


def new_status(plan: Plan, store: Store, kind: str) -> RunStatus:
    """Return the status of a run that starts to make its plan.

    Args:
        plan: The frozen plan.
        store: The output.
        kind: The kind of the runner.
    """
    started, work = now(), count_work(plan, store)
    rest = replace(plan, tasks=work.undone)
    _, usd = dataflow_cost(rest.estimate, plan.request.runner)
    return RunStatus(
        run=plan.request.run,
        state="running",
        fingerprint=plan.request.fingerprint(),
        output=store.uri,
        runner=kind,
        tasks=len(plan.tasks),
        products=plan.products,
        kept=work.kept,
        replaced=work.replaced,
        waiting=len(plan.waiting),
        cost=round(usd, 2) if kind == "dataflow" and work.undone else None,
        started=started,
        updated=started,
    )
