"""Task and Outcome: one unit of work, and its result. Small, frozen, and JSON throughout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from affine import Affine
from pydantic import BaseModel, ConfigDict

from scenebeam.collections.record import Nodata
from scenebeam.raster.grid import Grid


class GridSpec(BaseModel):
    """An output grid, as a plan stores it."""

    model_config = ConfigDict(frozen=True)

    crs: str
    transform: tuple[float, float, float, float, float, float]
    shape: tuple[int, int]
    """Rows and columns."""

    @classmethod
    def of(cls, grid: Grid) -> GridSpec:
        """Describe a grid."""
        a, b, c, d, e, f = tuple(grid.transform)[:6]
        shape = (grid.shape[0], grid.shape[1])
        return cls(crs=grid.crs, transform=(a, b, c, d, e, f), shape=shape)

    @property
    def grid(self) -> Grid:
        """The described grid."""
        return Grid(self.shape, Affine(*self.transform), self.crs)


class Estimate(BaseModel):
    """What a task takes, as far as headers and footprints tell.

    Where a number may be off by more than a third, `most_…` is the upper end of a range;
    otherwise it is 0.
    """

    model_config = ConfigDict(frozen=True)

    blocks: int = 0
    requests: int = 0
    most_requests: int = 0
    read_bytes: int = 0
    most_read_bytes: int = 0
    write_bytes: int = 0
    most_write_bytes: int = 0
    pixels: int = 0
    """Pixels of output."""
    memory: int = 0
    """Peak memory in bytes."""


class CubeBand(BaseModel):
    """A variable of a cube: how its pixels are stored, and what they mean."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    name: str
    dtype: str
    nodata: Nodata
    """None: the files mark invalid pixels by a mask, or not at all."""
    scale: float
    offset: float
    categorical: bool

    @property
    def fill(self) -> float:
        """Value of pixels without data."""
        return 0 if self.nodata is None else self.nodata


class CubeSlice(BaseModel):
    """Where the image of a task is in the Zarr store of its run."""

    model_config = ConfigDict(frozen=True)

    format: Literal["zarr", "icechunk"]
    index: int
    """Place along time."""
    bands: tuple[CubeBand, ...]
    """The bands that the image has, as the store holds them."""
    cuts: tuple[int, int]
    """Rows, and columns, of which all cuts between tasks of the run are multiples; 0: not cut."""


class Task(BaseModel):
    """What the tasks of all products have in common."""

    model_config = ConfigDict(frozen=True)

    id: str
    outputs: tuple[str, ...]
    """Keys in the store; where all of them exist, the task is done."""
    item_path: str
    """Key of the STAC item. Tasks of one product share it, and it is published last."""
    estimate: Estimate = Estimate()
    properties: dict[str, Any] = {}
    """Properties of the STAC item that are known when the task is planned."""
    version: str = ""
    """In a series, the folder of its files: a digest of what decides them, and the number of the
    attempt if it is made again of the same. Empty if they are not in a folder of their own."""
    cube: CubeSlice | None = None
    """Where its image is in a Zarr store; None if it is a file of its own."""
    fault: str = ""
    """Why the task cannot be made, if planning has found that out: it is then skipped."""

    @property
    def is_period(self) -> bool:
        """Whether it is of a period, which scenes may still be added to."""
        return "end_datetime" in self.properties

    @property
    def ends(self) -> datetime | None:
        """When the last scene that may belong to it is taken; None if that is not known."""
        return None

    @property
    def version_parts(self) -> str:
        """In a series, the folder of the parts of its version; otherwise of no meaning."""
        return ""

    @property
    def attempt(self) -> int:
        """How often its version has been made, this time included."""
        return int(self.version.partition("-")[2] or 1)

    def as_version(self, attempt: int = 1) -> Task:
        """Return the task with outputs that are named by the state of its inputs, where it can.

        Args:
            attempt: How often they have been made, this time included.
        """
        return self

    @property
    def cube_id(self) -> str:
        """Id of the image that it makes, or is a part of."""
        return self.id

    @property
    def cube_parts(self) -> Sequence[Task]:
        """The tasks of one image each that it consists of: itself, unless it makes several."""
        return (self,)

    def in_cube(self, slices: Mapping[str, CubeSlice]) -> Task:
        """Return the task with images in a Zarr store in place of files.

        Args:
            slices: Id of an image → its place.
        """
        raise NotImplementedError

    @property
    def item_keys(self) -> tuple[str, ...]:
        """Keys of all STAC items that it makes."""
        return (self.item_path,)

    def is_done(self, existing: set[str]) -> bool:
        """Whether nothing is left to do, by the keys that exist in the store."""
        return existing.issuperset(self.outputs)

    def is_computed(self, existing: set[str]) -> bool:
        """Whether it is done, or waits only for tasks that make other parts of its product."""
        return self.is_done(existing)

    @property
    def possible_outputs(self) -> Iterable[str]:
        """Keys of everything that it may write."""
        return self.outputs

    @property
    def output_prefix(self) -> str:
        """A folder to which only this task writes; empty if it has none."""
        return ""

    @property
    def lacking(self) -> tuple[str, ...]:
        """Requested bands that none of its scenes has."""
        return ()

    @property
    def sources(self) -> tuple[str, ...]:
        """Ids of the scenes that it reads."""
        return ()

    @property
    def source_identities(self) -> tuple[str, ...]:
        """What these scenes are, whatever catalog they come from."""
        return self.sources

    @property
    def rows(self) -> tuple[str, ...]:
        """Timestamps of the acquisitions that it combines, where it combines several."""
        return ()

    @property
    def source_files(self) -> frozenset[tuple[str, str]]:
        """(band, scene) of the files that it reads, as far as the plan lists them."""
        return frozenset()

    @property
    def pixel_layout(self) -> object:
        """Where its pixels are; tasks of equal layout and sources make the same product."""
        return None


class Outcome(BaseModel):
    """The result of a task. A failed task is an outcome, not an exception."""

    model_config = ConfigDict(frozen=True)

    task: str
    state: Literal["done", "skipped", "failed"]
    reason: str = ""
    kind: str = ""
    """Kind of the error, or the status that the product gives it (`failed_missing_inputs`)."""
    permanent: bool = False
    """Whether a retry would end the same, unless the request or its sources change."""
    detail: dict[str, Any] = {}
    seconds: float = 0.0
    requests: int = 0
    read_bytes: int = 0
    retries: int = 0


def is_same_product(before: Task, after: Task) -> bool:
    """Whether two tasks make the same product; their estimates may differ."""
    return before.model_copy(update={"estimate": after.estimate}) == after
