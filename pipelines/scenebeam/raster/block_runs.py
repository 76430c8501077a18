"""Group the blocks of a file into runs: neighbors that are read by one range request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from scenebeam.raster.source import Block

_MAX_GAP = 64 * 1024
"""Bytes between two blocks that are cheaper to read than to start another request."""
_MAX_REQUEST = 8 * 2**20
"""Bytes of one request, unless a single block is larger."""


class StoredBlock(NamedTuple):
    """Where a block is in its file."""

    offset: int
    size: int
    block: Block

    @property
    def end(self) -> int:
        """The byte after the last."""
        return self.offset + self.size


def group_into_runs(stored: list[StoredBlock]) -> Iterator[list[StoredBlock]]:
    """Yield runs of blocks that are each read by one request.

    Args:
        stored: Blocks in file order.
    """
    run: list[StoredBlock] = []
    end = 0
    for block in stored:
        is_far = block.offset - end > _MAX_GAP
        if run and (is_far or block.end - run[0].offset > _MAX_REQUEST):
            yield run
            run = []
        # Blocks may overlap, so the last block does not always end last.
        end = max(end, block.end) if run else block.end
        run.append(block)
    if run:
        yield run


def end_of_run(run: list[StoredBlock]) -> int:
    """Return the byte after the last of a run."""
    return max(stored.end for stored in run)
