"""The page of a run: what came of it, for people to look at; one file that needs no network, made from its tables."""

from scenebeam.report.facts import gather
from scenebeam.report.render import render

__all__ = ["gather", "render"]
