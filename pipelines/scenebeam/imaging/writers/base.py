"""What every writer of gridded products does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scenebeam.imaging.encode import ImageEncoder
from scenebeam.imaging.gridded_task import GriddedTask, Output
from scenebeam.imaging.shards import shard_shapes, shared_levels
from scenebeam.raster.pyramid import level_shapes
from scenebeam.raster.validity import Array
from scenebeam.storage import Store

Facts = dict[str, Any]
"""What is known of an output, or of one shard of it: `valid`, the number of its valid pixels;
`missing`, its missing scenes with the reasons; and what the writer needs of a shard at the end."""


@dataclass(frozen=True)
class Written:
    """An output that is published."""

    output: Output
    """As it turned out to be: the plan knows the expected dtype and nodata value only."""
    asset: dict[str, Any]
    """Asset of the STAC item, without what all formats have in common."""
    facts: Sequence[Facts]
    """Of each shard."""
    preview: Array
    """2-D array of floats, NaN where there is no data: see `fit_preview`."""


class Writer(ABC):
    """Writes the outputs of a task as images, or as shards of images that are put together."""

    def encoding(self, task: GriddedTask, output: Output) -> Output:
        """Return an output with the dtype and nodata value in which it is stored.

        Raises:
            CheckError: The pixels do not fit.
        """
        return output

    @abstractmethod
    def codec(self, task: GriddedTask) -> str:
        """Return the name of the codec of the blocks."""

    def levels(self, task: GriddedTask) -> int:
        """Return how many levels of the image a shard encodes by itself: see `imaging.shards`."""
        return shared_levels(task.grid.shape, task.cell)

    def encoder(self, task: GriddedTask, output: Output) -> ImageEncoder:
        """Create the encoder of an output, or of a shard of it."""
        shapes, keep_coarse = level_shapes(*task.grid.shape), False
        if task.shards > 1:
            levels = self.levels(task)
            keep_coarse = levels < len(shapes)
            shapes = shard_shapes(task.window, levels)
        return ImageEncoder(
            shapes,
            output.dtype,
            output.nodata,
            codec=self.codec(task),
            average=not output.categorical,
            keep_coarse=keep_coarse,
        )

    @abstractmethod
    def publish(
        self, task: GriddedTask, store: Store, output: Output, encoder: ImageEncoder, facts: Facts
    ) -> Written:
        """Publish an image that is encoded as a whole."""

    @abstractmethod
    def store_shard(
        self, task: GriddedTask, store: Store, output: Output, encoder: ImageEncoder, facts: Facts
    ) -> None:
        """Store one shard of an image. Its part comes last, and says that the shard is stored."""

    @abstractmethod
    def assemble(self, task: GriddedTask, store: Store, output: Output) -> Written:
        """Publish an image whose shards are stored.

        Raises:
            CheckError: The shards do not fit together.
            StorageError: A part cannot be read, or the image cannot be published.
        """
