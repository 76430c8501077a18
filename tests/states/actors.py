"""Function instances that are stepped through their operations, one at a time, in any order.

Each instance runs real code in a thread of its own. It waits before each operation on a store or on
Dataflow until it is stepped, so a state machine decides how instances interleave, and can crash one
or spoil its next operation.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Literal

from scenebeam.errors import StorageError
from scenebeam.storage import Store

Fault = Literal["", "error", "lost"]
"""What befalls an operation: nothing, an error before it is done, or an answer that is lost."""
_OPERATIONS = (
    "create", "delete", "list", "list_modified", "modified", "read", "read_version", "replace",
    "size", "write",
)  # fmt: skip
_local = threading.local()


class Crash(BaseException):
    """The instance is gone: none of its code has any effect from here on."""


class Actor:
    """An instance, stopped before its next operation."""

    def __init__(self, name: str, work: Callable[[], Any], started: float, skew: float) -> None:
        """Start it.

        Args:
            name: For messages.
            work: What it does.
            started: When.
            skew: Seconds that its clock is ahead.
        """
        self.name, self.started, self.skew = name, started, skew
        self.done = self.busy = False
        self.result: Any = None
        self.error: BaseException | None = None
        self._work, self._dead = work, False
        self._fault: Fault = ""
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        threading.Thread(target=self._run, daemon=True).start()
        self._stopped.acquire()

    def __repr__(self) -> str:
        return self.name

    def _run(self) -> None:
        _local.actor = self
        try:
            self.result = self._work()
        except BaseException as error:
            self.error = error
        self.done = True
        self._stopped.release()

    def step(self, fault: Fault = "") -> None:
        """Do the next operation, and all that follows up to the one after it."""
        self._fault = fault
        self._go.release()
        self._stopped.acquire()

    def crash(self) -> None:
        """End it before its next operation."""
        self._dead = True
        self.step()
        assert self.done

    def wait(self) -> Fault:
        """Called in its thread before an operation. Returns what befalls that."""
        if not self._dead:
            self._stopped.release()
            self._go.acquire()
        if self._dead:
            raise Crash
        return self._fault


def current_actor() -> Actor | None:
    """The instance that runs this code; None for the machine itself."""
    return getattr(_local, "actor", None)


class Times:
    """The time of the machine, and when each file of a store was written."""

    def __init__(self) -> None:
        self.now = 1_780_000_000.0
        self.written: dict[tuple[str, str], float] = {}

    def local(self) -> float:
        """The time by the clock of the instance that asks."""
        actor = current_actor()
        return self.now + (actor.skew if actor is not None else 0.0)


def stepped(store: Store, times: Times) -> Store:
    """Return the same store, whose operations wait until their instance is stepped."""
    kind = type(store)
    methods = {name: _step(name, getattr(kind, name), times) for name in _OPERATIONS}
    # A subclass: operations that use one another, as `create` does `write`, are one step.
    store.__class__ = type(f"Stepped{kind.__name__}", (kind,), methods)
    return store


def _step(name: str, operation: Callable[..., Any], times: Times) -> Callable[..., Any]:
    def perform(self: Store, *words: Any) -> Any:
        result = operation(self, *words)
        if name in ("write", "create", "replace") and result is not False:
            times.written[self.uri, words[0]] = times.now
        # Files are dated by the machine, whose time passes as it likes.
        if name == "modified" and result is not None:
            return times.written[self.uri, words[0]]
        if name == "list_modified":
            return {key: times.written[self.uri, key] for key in result}
        return result

    def wait_and_perform(self: Store, *words: Any) -> Any:
        actor = current_actor()
        if actor is None or actor.busy:
            return perform(self, *words)
        fault = actor.wait()
        if fault == "error":
            raise StorageError(f"{name}: injected")
        actor.busy = True
        try:
            result = perform(self, *words)
        finally:
            actor.busy = False
        if fault == "lost":
            if name in ("create", "replace"):
                # The client repeats the call, whose precondition no longer holds.
                return False
            raise StorageError(f"{name}: the answer is lost")
        return result

    return wait_and_perform
