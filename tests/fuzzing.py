"""What the fuzzers of files share: a process that reads, and is started anew after a crash or a hang."""

from __future__ import annotations

import argparse
import io
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


class Child:
    """A script that reads files, with `--work`: a JSON line to it for each task, and JSON lines back."""

    def __init__(self, script: str, seconds: float) -> None:
        """Start it, and wait `seconds` at most for its first line."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, str(Path(script).resolve()), "--work"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self._rest = b""
        self.usable = True
        """Whether it answers; not after a hang or a crash."""
        assert self.answer(seconds) is not None, self.last_words()

    def ask(self, task: Any) -> None:
        """Give it a task."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(task).encode() + b"\n")
            self._process.stdin.flush()

    def answer(self, seconds: float) -> dict[str, Any] | None:
        """Its next line; None where none came in time."""
        pipe = self._process.stdout
        assert pipe is not None
        end = time.monotonic() + seconds
        while b"\n" not in self._rest:
            ready, _, _ = select.select([pipe], [], [], max(0.0, end - time.monotonic()))
            more = os.read(pipe.fileno(), 2**16) if ready else b""
            if not more:
                self.usable = False
                return None
            self._rest += more
        line, self._rest = self._rest.split(b"\n", 1)
        return dict(json.loads(line))

    @property
    def running(self) -> bool:
        """Whether its process has not ended."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(0.2)
        return self._process.poll() is None

    @property
    def code(self) -> int | None:
        """Its exit code."""
        return self._process.poll()

    def last_words(self) -> str:
        """The end of what it wrote to stderr."""
        self._errors.seek(0, io.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - 3000))
        return self._errors.read().decode(errors="replace")

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def run_command(
    about: str, work: Callable[[], None], fuzz: Callable[[int, int, Path | None, float], Any]
) -> int:
    """Run a fuzzer of files from the command line. Returns 1 where anything was found."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000, help="mutants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="stop before the count is reached"
    )
    parser.add_argument("--keep", type=Path, help="a folder for the files with findings")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work()
        return 0
    summary = fuzz(options.count, options.seed, options.keep, options.seconds)
    print(summary)
    return 1 if summary.findings else 0
