"""Processes that are killed after so many files: what was published by then is all that stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from scenebeam.execution.driver import run
from scenebeam.request import RunRequest


class Killed(BaseException):
    """The process is gone: nothing is tidied up."""


class Lives:
    """How many files may still be published before the process is gone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 10**9
        replace = Path.replace

        # Every file gets its name by a rename.
        def counted(path: Path, target: Path) -> Path:
            self.left -= 1
            if self.left < 0:
                raise Killed
            return replace(path, target)

        monkeypatch.setattr(Path, "replace", counted)

    def die_twice(self, request: RunRequest, after: int, later: int) -> int:
        """Run until so many files are published, and run again until a few more are; how often it was hit."""
        hits = 0
        for allowed in (after, after + later):
            self.left = allowed
            try:
                run(request)
            except Killed:
                hits += 1
        self.left = 10**9
        return hits
