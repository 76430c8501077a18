"""The report of a run: its tables, its final status, and an HTML page made from the tables."""

from scenebeam.report.facts import gather
from scenebeam.report.render import render

__all__ = ["gather", "render"]
