"""Plan field chips: group them into cells, and make a task for each step of each cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from scenebeam.catalog.bands import records_for, resolve_bands
from scenebeam.catalog.scene import Scene
from scenebeam.catalog.selection import Selection
from scenebeam.collections import CollectionRecord
from scenebeam.csvtable import File, Table
from scenebeam.errors import RequestError
from scenebeam.imaging.chip_places import assign_tiles
from scenebeam.imaging.chip_scenes import ChipScene, cloud_rules
from scenebeam.imaging.probes import ProbeCache
from scenebeam.products.base import Planned
from scenebeam.products.fields.candidates import candidates_of
from scenebeam.products.fields.estimate import estimate
from scenebeam.products.fields.existing_chips import CHIPS_TABLE
from scenebeam.products.fields.lattice import FieldChips
from scenebeam.products.fields.request import SEASONS, FieldsRequest
from scenebeam.products.fields.scope import FieldsScope
from scenebeam.products.fields.task import CELLS, ChipRef, FieldsTask, Step
from scenebeam.request import RunRequest, is_remote
from scenebeam.transfer.signing import effective_limits

FAULTS_TABLE, NAMES_TABLE = "field_faults.csv", "field_numbers.parquet"
LARGEST_CELL = 2000
"""Maximum number of chips in a cell. A tile with more is divided from north to south."""


class _CellKey(NamedTuple):
    """What the chips of a cell have in common. Cells are made in this order."""

    tile: str
    crs: str
    pixel_width: float
    pixel_height: float
    shape: tuple[int, int]


class _Cell(NamedTuple):
    name: str
    members: Sequence[int]
    """Indices of its chips in the scope."""


def plan_chips(
    selection: Selection, request: RunRequest[FieldsRequest], search_scope: FieldsScope
) -> Planned:
    """Make a task for each step of each cell of neighboring chips.

    The steps are the masks, if the run makes the chips, and the imagery of planting and of harvest.

    Args:
        selection: The selected scenes.
        request: The validated request.
        search_scope: The chips and their seasons.

    Returns:
        The tasks; and for chips made from boundaries the tables `chips.csv`, `field_faults.csv` and
        `field_numbers.parquet`, and the files from which the masks are drawn.

    Raises:
        RequestError: The grid of a chip is rotated, or a requested band is unknown.
    """
    if request.product.images != "none":
        resolve_bands(request)
    # In a fixed order, so that the same scenes give the same plan, byte for byte.
    scenes = sorted(selection.scenes, key=lambda scene: (scene.datetime, scene.id))
    planner = _Planner(request, search_scope, scenes)
    tasks: list[FieldsTask] = []
    for cell in _cells(search_scope, scenes):
        tasks += planner.tasks(cell)
    tables: dict[str, File] = {}
    made = search_scope.made
    if made is not None:
        tables[CHIPS_TABLE] = _chips_table(search_scope, made.coverage)
    # The files of chips that an earlier run has made are in the output already.
    if isinstance(made, FieldChips):
        tables |= {FAULTS_TABLE: made.faults.table, NAMES_TABLE: made.names, **made.files}
    return Planned(tasks, tables)


def _cells(search_scope: FieldsScope, scenes: Sequence[Scene]) -> Iterator[_Cell]:
    """Group the chips into cells: chips of one tile and grid, from north to south."""
    chips = search_scope.chips
    groups: dict[_CellKey, list[int]] = {}
    tiles = assign_tiles(search_scope.shapes, search_scope.squares, scenes)
    for number, (chip, tile) in enumerate(zip(chips, tiles, strict=True)):
        # Images are read and written as plain windows of rows and columns.
        a, b, _, d, e, _ = chip.transform
        if b or d:
            raise RequestError(
                f"product.chips: the grid of {chip.name} is rotated: north must be up"
            )
        groups.setdefault(_CellKey(tile, chip.crs, a, e, chip.shape), []).append(number)

    def from_north(number: int) -> tuple[float, float]:
        _, _, left, _, _, top = chips[number].transform
        return -top, left

    # A tile has several cells if it has many chips, or chips of several grids: the second and later
    # ones get a number.
    count: dict[str, int] = {}
    for key, members in sorted(groups.items()):
        members.sort(key=from_north)
        for start in range(0, len(members), LARGEST_CELL):
            count[key.tile] = count.get(key.tile, 0) + 1
            suffix = f"-{count[key.tile]}" if count[key.tile] > 1 else ""
            yield _Cell(f"{key.tile}{suffix}", members[start : start + LARGEST_CELL])


class _Planner:
    """Makes the tasks of cells; holds what is the same for all of them."""

    def __init__(
        self,
        request: RunRequest[FieldsRequest],
        search_scope: FieldsScope,
        scenes: Sequence[Scene],
    ) -> None:
        self._request = request
        self._scope = search_scope
        self._scenes = scenes
        records = records_for(request)
        self._clouds = cloud_rules(records)
        self._source = _source(records[0])
        self._probing = ProbeCache(effective_limits(request), measure=search_scope.measure)
        # A catalog inside the output is stored relative to it, so that the folder can be moved.
        self._product = request.product
        if self._product.chips is not None:
            self._product = self._product.model_copy(update={"chips": search_scope.catalog})
        self._steps: tuple[Step, ...] = ()
        if search_scope.made is not None:
            self._steps += ("masks",)
        if self._product.images != "none":
            self._steps += SEASONS

    def tasks(self, cell: _Cell) -> Iterator[FieldsTask]:
        """Yield the tasks of a cell, one per step."""
        for step in self._steps:
            yield self._task(cell, step)

    def _task(self, cell: _Cell, step: Step) -> FieldsTask:
        first = self._scope.chips[cell.members[0]]
        chips = tuple(_chip_ref(number, step, self._scope) for number in cell.members)
        candidates: tuple[ChipScene, ...] = ()
        squares: tuple[str, ...] = ()
        if step != "masks":
            shapes = self._scope.shapes[cell.members]
            candidates = tuple(candidates_of(chips, shapes, first.crs, self._scenes, self._request))
        elif self._scope.made is not None:
            made = self._scope.made
            squares = tuple(sorted({made.squares[number] for number in cell.members}))
        task = FieldsTask(
            id=f"{cell.name}/{step}",
            outputs=(),
            item_path=f"{CELLS}{cell.name}/items.parquet",
            estimate=estimate(
                chips,
                candidates,
                first.transform,
                first.shape,
                self._request.product,
                self._probing,
            ),
            cell=cell.name,
            step=step,
            steps=self._steps,
            crs=first.crs,
            pixel=(first.transform[0], first.transform[4]),
            shape=first.shape,
            chips=chips,
            candidates=candidates,
            clouds=self._clouds,
            squares=squares,
            dataset=self._scope.dataset,
            catalog=self._scope.catalog,
            stac_host=_stac_host(self._request),
            source=self._source,
            product=self._product,
            checks=self._request.checks,
        )
        # Keys of outputs are derived from other fields of the task, so they are set afterwards.
        images = (task.images_record_key,) if task.downloads else ()
        return task.model_copy(update={"outputs": (task.record_key, *images, task.item_path)})


def _source(record: CollectionRecord) -> str:
    """Return what items call the source of the images."""
    return "sentinel-2" if record.id.startswith("sentinel-2") else record.id


def _stac_host(request: RunRequest[FieldsRequest]) -> str:
    """Return what items call the catalog: its name or URL, or only the name of a local file."""
    catalog = str(request.catalog)
    return catalog if is_remote(catalog) else catalog.rpartition("/")[2]


def _chip_ref(number: int, step: Step, search_scope: FieldsScope) -> ChipRef:
    chip = search_scope.chips[number]
    day, target = 0, ""
    if step != "masks":
        planting, harvest = search_scope.days[number]
        day = planting if step == "planting" else harvest
        target = f"{search_scope.targets[number][step]:%Y-%m-%d}"
    coverage, split = 0.0, ""
    if search_scope.made is not None:
        coverage, split = search_scope.made.coverage[number], search_scope.splits[number]
    left, top = chip.transform[2], chip.transform[5]
    return ChipRef(chip.name, left, top, day, target, chip.mask, chip.item, coverage, split)


def _chips_table(search_scope: FieldsScope, coverage: Sequence[float]) -> Table:
    columns = ("chip", "split", "field_coverage", "crs", "left", "top")
    rows = []
    for number, chip in enumerate(search_scope.chips):
        left, top = chip.transform[2], chip.transform[5]
        values = (chip.name, search_scope.splits[number], coverage[number], chip.crs, left, top)
        rows.append(dict(zip(columns, values, strict=True)))
    return Table(columns, rows)
