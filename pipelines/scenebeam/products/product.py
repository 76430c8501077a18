"""Product: what the run asks of every product."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from scenebeam.csvtable import Table
from scenebeam.products.task import Task


@dataclass(frozen=True)
class Planned:
    """What a product's plan comes to: its tasks, and the tables that stand before the first of them is made."""

    tasks: Sequence[Task]
    tables: dict[str, Table]


def all_or_nothing(before: Task, after: Task) -> Iterable[str]:
    """Outputs of a task that are good for the task that takes its place: all of them if it is the same."""
    return before.outputs if before == after else ()


@dataclass(frozen=True)
class Product:
    """A product's task model and functions; their arguments are described in `scenebeam.products`."""

    task: type[Task]
    plan: Callable[..., Planned]
    make: Callable[..., Any]
    tables: Callable[..., dict[str, Table]]
    kept: Callable[[Any, Any], Iterable[str]] = all_or_nothing
    """Which outputs of a task stay when another of its id takes its place."""
    waits: bool = False
    """Whether its tasks wait for the network rather than compute: then more of them than cores are made at once."""
