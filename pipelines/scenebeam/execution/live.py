"""Live: how a run goes at this moment, counted by what stands in its output."""

from __future__ import annotations

from scenebeam.errors import RequestError
from scenebeam.planning.plan import read_plan
from scenebeam.status import STATUS_FILE, RunStatus
from scenebeam.storage import open_store

_ENDED = "its process has ended without a word; run it again to resume"


def live_status(output: str) -> RunStatus:
    """Read the status of a run, brought up to date.

    Raises:
        RequestError: `output` holds no run.
    """
    store = open_store(output)
    content = store.read(STATUS_FILE)
    if content is None:
        raise RequestError(f"{output} holds no run: there is no {STATUS_FILE}")
    status = RunStatus.model_validate_json(content)
    plan = None if status.ended else read_plan(store)
    if plan is None:
        return status
    changes: dict[str, object] = {"done": len(plan.tasks) - len(plan.undone(store.list()))}
    if status.runner in ("serial", "direct") and store.is_held() is False:
        changes |= {"state": "cancelled", "message": _ENDED}
    return status.model_copy(update=changes)
