"""Progress: show how far a run is, on a terminal, in a notebook or in a log."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from scenebeam.execution.progress import Progress

_LINE_SECONDS = 60.0
"""Seconds between two lines of a log."""
_PAGE_SECONDS = 1.0
"""Seconds between two updates of a notebook."""


@contextmanager
def show_progress(*, quiet: bool = False) -> Iterator[Progress | None]:
    """Show progress with its rate and the time that is left.

    A terminal shows a bar, a notebook a line that is updated, and anything else a line per minute
    and one at the end.

    Args:
        quiet: Show nothing.
    """
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with _terminal_bar() as progress:
            yield progress
    elif "ipykernel" in sys.modules:
        with _notebook_line() as progress:
            yield progress
    else:
        log = _LogLines()
        try:
            yield log
        finally:
            log.end()


@contextmanager
def _terminal_bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("making"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    meter = Meter()
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("making", total=None, rate="")

        def update(done: int, total: int) -> None:
            rate = meter.rate(done)
            text = "" if rate is None else f"{60 * rate:.3g} tasks/min"
            bar.update(task, completed=done, total=total, rate=text)

        yield update


@contextmanager
def _notebook_line() -> Iterator[Progress]:
    notebook: Any = importlib.import_module("IPython.display")

    meter, last = Meter(), 0.0
    handle: Any = notebook.display({"text/plain": "planning …"}, raw=True, display_id=True)

    def update(done: int, total: int) -> None:
        nonlocal last
        if done < total and time.monotonic() - last < _PAGE_SECONDS:
            return
        last = time.monotonic()
        if handle is not None:
            handle.update({"text/plain": meter.describe(done, total)}, raw=True)

    yield update


class Meter:
    """Measures the rate of a run."""

    def __init__(self) -> None:
        self._start: tuple[float, int] | None = None

    def rate(self, done: int) -> float | None:
        """Return the tasks per second since the first call; None while there is none."""
        now = time.monotonic()
        if self._start is None:
            # A resumed run begins with the tasks that are done already.
            self._start = now, done
            return None
        start, before = self._start
        if done == before or now <= start:
            return None
        return (done - before) / (now - start)

    def describe(self, done: int, total: int) -> str:
        """Return a line such as `12 of 40 tasks done, 3.1 tasks/min, about 9 min left`."""
        line = f"{done} of {total} tasks done"
        rate = self.rate(done)
        if rate is None or done == total:
            return line
        seconds = (total - done) / rate
        left = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
        return f"{line}, {60 * rate:.3g} tasks/min, about {left} left"


class _LogLines:
    """A line per minute, and one with the final count."""

    def __init__(self) -> None:
        self._meter, self._last = Meter(), time.monotonic()
        self._latest: tuple[int, int] | None = None

    def __call__(self, done: int, total: int) -> None:
        text = self._meter.describe(done, total)
        self._latest = done, total
        if time.monotonic() - self._last >= _LINE_SECONDS:
            self._last = time.monotonic()
            self._write(text)

    def end(self) -> None:
        """Write the final count, if there was anything to count."""
        if self._latest is not None:
            done, total = self._latest
            self._write(f"{done} of {total} tasks done")

    def _write(self, text: str) -> None:
        with suppress(OSError):  # the reader of the log has ended
            sys.stderr.write(text + "\n")
