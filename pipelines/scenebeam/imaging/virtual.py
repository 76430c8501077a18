"""The virtual index: which blocks of which files a plan's tasks meet, at what cost, without reading a pixel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scenebeam.csvtable import Table
from scenebeam.errors import RequestError
from scenebeam.imaging.bands import Band, resolve_nodata
from scenebeam.imaging.gridded_task import GriddedTask
from scenebeam.imaging.refs import AssetRef
from scenebeam.raster.compose import ROW_CHUNK
from scenebeam.raster.grid import Grid, same_crs
from scenebeam.raster.reader import open_source
from scenebeam.raster.source import Block, Source
from scenebeam.raster.vrt import VrtBand, VrtSource, gdal_path, make_vrt, warped_info, warped_vrt
from scenebeam.raster.warp import map_to_grid
from scenebeam.request import Limits
from scenebeam.tasks import Task
from scenebeam.transfer.pools import io_threads
from scenebeam.transfer.retry import Budget

_COLUMNS = ("task", "band", "scene", "href", "blocks", "requests", "bytes", "window")


def block_table(tasks: Iterable[Task], limits: Limits) -> Table:
    """A row per file that a task meets: how many of its blocks, in how many requests and bytes, and the window of
    blocks (first row, last row, first column, last column). One header is read per file.

    What better scenes cover is not taken off: this is the most that may be read. `bytes` is empty where GDAL reads.
    """
    wanted = [
        (task, band, source)
        for task in _gridded(tasks)
        for band in task.bands
        for source in band.sources
    ]
    rows = io_threads().map(lambda one: _row(one[0], one[1], one[2], limits), wanted)
    return Table(_COLUMNS, [row for row in rows if row is not None])


def _gridded(tasks: Iterable[Task]) -> list[GriddedTask]:
    found = [task for task in tasks if isinstance(task, GriddedTask)]
    if not found:
        raise RequestError(
            "product.kind: the blocks of mosaics and indices can be listed, not those of whole files"
        )
    return found


def _row(task: GriddedTask, band: Band, source: AssetRef, limits: Limits) -> dict[str, Any] | None:
    top, bottom, left, right = task.window
    grid = task.grid.grid[top:bottom, left:right]
    file = open_source(source.href, source.index, Budget.of(limits), source.signing)
    try:
        blocks = _blocks(file, grid, band)
        if not blocks:
            return None
        cost = file.cost(blocks)
        rows, columns = [row for row, _ in blocks], [column for _, column in blocks]
        return {
            "task": task.id,
            "band": band.label,
            "scene": source.scene,
            "href": source.href,
            "blocks": len(blocks),
            "requests": cost[0] if cost is not None else None,
            "bytes": cost[1] if cost is not None else None,
            "window": f"{min(rows)} {max(rows)} {min(columns)} {max(columns)}",
        }
    finally:
        file.close()


def _blocks(file: Source, grid: Grid, band: Band) -> set[Block]:
    placement = map_to_grid(file.info, grid, band.resampling, band.nodata)
    return {
        block
        for top in range(0, grid.shape[0], ROW_CHUNK)
        for block, _ in placement.required_blocks(top, min(top + ROW_CHUNK, grid.shape[0]))
    }


def write_vrts(tasks: Iterable[Task], folder: Path, limits: Limits) -> None:
    """A VRT per image on its grid, with the input bands by label, best scene on top; scenes of another CRS come through
    warped VRTs beside it. GDAL opens the files where they lie, as far as they need no account.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for task in {task.name: task for task in _gridded(tasks)}.values():
        grid = task.grid.grid
        bands = []
        names = Counter(band.name for band in task.bands)
        for band in task.bands:
            sources, nodata = [], band.nodata
            for source in reversed(band.sources):
                vrt, nodata = _source(source, band, grid, folder, nodata, limits)
                sources.append(vrt)
            bands.append(
                VrtBand(
                    _called(band, names),
                    band.dtype,
                    nodata,
                    band.scale,
                    band.offset,
                    band.resampling,
                    sources,
                )
            )
        (folder / f"{task.name}.vrt").write_bytes(make_vrt(grid, bands))


def _called(band: Band, names: Counter[str]) -> str:
    """A band by its name; of several of one name by that of its acquisition, too."""
    return band.name if names[band.name] == 1 else band.label


def _source(
    source: AssetRef, band: Band, grid: Grid, folder: Path, nodata: float | None, limits: Limits
) -> tuple[VrtSource, float | None]:
    budget = Budget.of(limits)
    file = open_source(source.href, source.index, budget, source.signing)
    info = file.info
    file.close()
    nodata = resolve_nodata(source.href, info.nodata, nodata)
    if same_crs(info.crs, str(grid.crs)):
        path = gdal_path(source.href)
        return VrtSource(path, False, source.index, info, source.add_offset), nodata
    name = f"{source.scene}_{band.name}_warped.vrt"
    (folder / name).write_bytes(
        warped_vrt(source.href, source.signing, grid, band.resampling, nodata, budget)
    )
    onto = warped_info(name, info, grid, nodata)
    return VrtSource(name, True, source.index, onto, source.add_offset), nodata
