"""Product: what the run asks of every product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scenebeam.products.task import Task

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Product:
    """A product's task model and functions; their arguments are described in `scenebeam.products`."""

    task: type[Task]
    plan: Callable[..., list[Any]]
    make: Callable[..., Any]
    tables: Callable[..., dict[str, Rows]]
