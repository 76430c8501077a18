"""Selection: the acquisitions that a request takes, and what left the others out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.acquisition import Acquisition
from scenebeam.catalog.scene import Scene, footprints
from scenebeam.figures.maps import coverage_map, locator_map
from scenebeam.figures.notebook import render_card

_SHOWN_ACQUISITIONS = 10
"""Acquisitions that a notebook shows as a table."""


@dataclass(frozen=True)
class Selection:
    """The selected acquisitions, and how many scenes each step left out."""

    acquisitions: tuple[Acquisition, ...]
    """The selected acquisitions, in order of time."""
    candidates: tuple[Acquisition, ...]
    """All acquisitions that passed the filters, before `min_coverage` and the mode."""
    found: tuple[Scene, ...]
    """All scenes found, in order of time."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Scenes that each step left out, by the name of the step."""
    area: BaseGeometry | None = field(default=None, compare=False)
    """The requested area in degrees; None if there is none."""

    @property
    def scenes(self) -> tuple[Scene, ...]:
        """All selected scenes by acquisition; one that two acquisitions share is listed once."""
        selected: list[Scene] = []
        for acquisition in self.acquisitions:
            selected.extend(acquisition.scenes)
        return unique_scenes(selected)

    def __repr__(self) -> str:
        """Return one line: the scenes with all their bands would fill pages."""
        return (
            f"<Selection of {len(self.acquisitions)} acquisitions, "
            f"{len(self.scenes)} scenes: {self.explain()}>"
        )

    def _repr_html_(self) -> str:
        """Show the acquisitions in a notebook: a map, and the first ones as a table."""
        rows = []
        for acquisition in self.acquisitions[:_SHOWN_ACQUISITIONS]:
            cloud, coverage = acquisition.cloud_cover, acquisition.coverage
            rows.append(
                (
                    f"{acquisition.acquired:%Y-%m-%d %H:%M}",
                    "" if cloud is None else f"{cloud:.3g} %",
                    "" if coverage is None else f"{100 * coverage:.3g} %",
                    ", ".join(scene.tile or scene.id for scene in acquisition.scenes),
                )
            )
        hidden = len(self.acquisitions) - len(rows)
        outlines = footprints(self.scenes)
        return render_card(
            f"{len(self.acquisitions)} acquisitions, {len(self.scenes)} scenes",
            {"selection": self.explain()},
            figures=[coverage_map(scenes=outlines, area=self.area), locator_map(outlines)],
            header=("time (UTC)", "cloud", "coverage", "scenes"),
            rows=rows,
            note=f"and {hidden} more" if hidden else "",
        )

    def explain(self) -> str:
        """Return one line: how many scenes were found, and what each step left out."""
        summary = f"{len(self.found)} scenes found"
        removed = [f"{step} left out {count}" for step, count in self.left_out.items() if count]
        return f"{summary}; {', '.join(removed)}" if removed else summary


def unique_scenes(scenes: Iterable[Scene]) -> tuple[Scene, ...]:
    """Drop scenes that were listed before, whichever row they are of."""
    by_key: dict[tuple[str, str], Scene] = {}
    for scene in scenes:
        by_key.setdefault((scene.collection, scene.id), scene)
    return tuple(by_key.values())
