"""What was made of a cell: the record that marks it done."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from scenebeam.products.chips.layouts.base import FileRecord
from scenebeam.products.chips.task import CELLS, ChipsTask


class CellRecord(BaseModel):
    """Counts, files and missing chips of a cell."""

    model_config = ConfigDict(frozen=True)

    chips: int
    images: int
    missing: dict[str, str]
    """Id of a chip → why it was not made."""
    splits: dict[str, int]
    """Split → chips."""
    classes: dict[str, dict[str, int]]
    """Label → class → pixels, or chips if the label is a column."""
    image_counts: dict[str, int]
    """Id of a chip → number of its images."""
    files: tuple[FileRecord, ...]

    def to_bytes(self) -> bytes:
        """Serialize to JSON."""
        return (self.model_dump_json() + "\n").encode()


def statistics_key(task: ChipsTask) -> str:
    """Return the key of the histograms of a cell."""
    return f"{CELLS}{task.cell}/statistics.parquet"
