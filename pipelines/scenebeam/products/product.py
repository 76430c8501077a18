"""Product: what the run asks of every product."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from scenebeam.csvtable import Table
from scenebeam.products.task import Task


@dataclass(frozen=True)
class Planned:
    """What a product's plan comes to: its tasks, and the tables that stand before the first of them is made."""

    tasks: Sequence[Task]
    tables: dict[str, Table]


@dataclass(frozen=True)
class Product:
    """A product's task model and functions; their arguments are described in `scenebeam.products`."""

    task: type[Task]
    plan: Callable[..., Planned]
    make: Callable[..., Any]
    tables: Callable[..., dict[str, Table]]
    waits: bool = False
    """Whether its tasks wait for the network rather than compute: then more of them than cores are made at once."""
