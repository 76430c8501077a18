"""What a run is: its plan, its engine, its status and its report. And `scenebeam.run(request)` makes one."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scenebeam.request import RunRequest
    from scenebeam.status import RunStatus


class _Room(ModuleType):
    """This package: a function of its name would hide it, so it is one itself."""

    def __call__(self, request: RunRequest, **how: Any) -> RunStatus:
        """Run a request through to its report, or go on with it: see `scenebeam.run.driver.run`."""
        from scenebeam.run.driver import run

        return run(request, **how)


sys.modules[__name__].__class__ = _Room
