"""The page of a run: what came of it, for people to look at; one file that needs no network, made from its tables."""

from scenebeam.run.page.facts import gather
from scenebeam.run.page.render import render

__all__ = ["gather", "render"]
