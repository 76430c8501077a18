"""The `scenebeam` command: parse, call, show. No logic."""

from __future__ import annotations

from scenebeam.cli import fields, landcover, look, products, runs
from scenebeam.cli.common import main

__all__ = ["fields", "landcover", "look", "main", "products", "runs"]
