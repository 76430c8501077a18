"""The current status of a run, counted by what exists in its output."""

from __future__ import annotations

import logging

from pydantic import ValidationError

from scenebeam.errors import RequestError, StorageError
from scenebeam.execution.runners import runs_in_process
from scenebeam.planning.plan import read_plan
from scenebeam.report.outcomes import outcomes_folder, stalled_tasks
from scenebeam.status import STATUS_FILE, RunStatus, now
from scenebeam.storage import open_store

log = logging.getLogger(__name__)

_PROCESS_ENDED = "the process ended without writing a final status; run it again to resume"


def live_status(output: str) -> RunStatus:
    """Read the status of a run, and update it by its outputs.

    Args:
        output: A folder or `gs://` prefix.

    Raises:
        RequestError: There is no run in the output.
        StorageError: The status cannot be read.
    """
    store = open_store(output)
    content = store.read(STATUS_FILE)
    if content is None:
        raise RequestError(f"{output} has no run: there is no {STATUS_FILE}")
    try:
        status = RunStatus.model_validate_json(content)
    except ValidationError as error:
        raise StorageError(
            f"{store.uri_for(STATUS_FILE)} cannot be read (made by another version?): upgrade "
            f"scenebeam, or run it again to write it anew: {error}"
        ) from error
    try:
        plan = None if status.ended else read_plan(store)
    except StorageError as error:
        # Another release may be making the run: its own status is still of use.
        log.warning("the status is that of the last update: %s", error)
        return status
    if plan is None:
        return status
    changes: dict[str, object] = {
        "done": plan.progress(store.list()),
        "stalled": tuple(stalled_tasks(outcomes_folder(status), store)),
        "updated": now(),
    }
    if runs_in_process(status.runner) and store.is_held() is False:
        changes |= {"state": "cancelled", "message": _PROCESS_ENDED}
    return status.model_copy(update=changes)
