"""The `scenebeam` command: parse, call, show. No logic."""

from __future__ import annotations

from scenebeam.cli import look, products, runs
from scenebeam.cli.common import main

__all__ = ["look", "main", "products", "runs"]
