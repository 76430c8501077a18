"""The `scenebeam` command: parse, call, show. No logic."""

from __future__ import annotations

from scenebeam.cli import cloud, cubes, fields, inspect, landcover, runs, start
from scenebeam.cli.common import main

__all__ = ["cloud", "cubes", "fields", "inspect", "landcover", "main", "runs", "start"]
