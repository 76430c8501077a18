"""Writers: how the images of tasks become files. One module for each format.

A product does not know which one is used: `writer_of` chooses it by the task.
"""

from __future__ import annotations

from scenebeam.imaging.gridded_task import GriddedTask
from scenebeam.imaging.writers.base import Writer
from scenebeam.imaging.writers.cog import CogWriter
from scenebeam.imaging.writers.zarr import ZarrWriter


def writer_of(task: GriddedTask) -> Writer:
    """Return the writer of a task."""
    return CogWriter() if task.cube is None else ZarrWriter(task.cube)
