"""The `scenebeam` command: parse, call, show. No logic."""

from __future__ import annotations

from scenebeam.cli import fields, look, products, runs
from scenebeam.cli.common import main

__all__ = ["fields", "look", "main", "products", "runs"]
