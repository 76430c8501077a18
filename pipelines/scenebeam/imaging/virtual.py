"""The virtual index of a plan: which blocks of which files its tasks read, and VRTs of its images.

Only headers are read, no pixels.
"""

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
    """List the blocks that tasks read, from one header per file.

    Blocks that higher-priority scenes cover are included, so this is the most that may be read.

    Args:
        tasks: Tasks of a gridded product.
        limits: Timeouts and retries.

    Returns:
        A row per task and file: number of blocks, of requests and of bytes (empty if GDAL reads the
        file), and the window of blocks as first row, last row, first column and last column.

    Raises:
        RequestError: The product is not gridded.
        ReadError: A header cannot be read.
    """
    files = []
    for task in _gridded_tasks(tasks):
        for band in task.bands:
            files += [(task, band, source) for source in band.sources]

    def row(file: tuple[GriddedTask, Band, AssetRef]) -> dict[str, Any] | None:
        return _block_row(*file, limits)

    rows = io_threads().map(row, files)
    return Table(_COLUMNS, [row for row in rows if row is not None])


def _gridded_tasks(tasks: Iterable[Task]) -> list[GriddedTask]:
    gridded = [task for task in tasks if isinstance(task, GriddedTask)]
    if not gridded:
        raise RequestError(
            "product.kind: only the blocks of mosaics and indices can be listed; other products "
            "read whole files"
        )
    return gridded


def _block_row(
    task: GriddedTask, band: Band, source: AssetRef, limits: Limits
) -> dict[str, Any] | None:
    """Return the row of one file; None if the task reads no block of it."""
    top, bottom, left, right = task.window
    grid = task.grid.grid[top:bottom, left:right]
    file = open_source(source.href, source.index, Budget.of(limits), source.signing)
    try:
        blocks = _required_blocks(file, grid, band)
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


def _required_blocks(file: Source, grid: Grid, band: Band) -> set[Block]:
    mapping = map_to_grid(file.info, grid, band.resampling, band.nodata)
    blocks: set[Block] = set()
    for top in range(0, grid.shape[0], ROW_CHUNK):
        bottom = min(top + ROW_CHUNK, grid.shape[0])
        blocks.update(block for block, _ in mapping.required_blocks(top, bottom))
    return blocks


def write_vrts(tasks: Iterable[Task], folder: Path, limits: Limits) -> None:
    """Write a VRT for each image, on its grid, with the bands that it is made of.

    Scenes are stacked in order of priority. Those in another CRS are warped by VRTs of their own.
    GDAL opens the files at their place, unless they need credentials.

    Args:
        tasks: Tasks of a gridded product; shards of one image share a VRT.
        folder: Where the VRTs are written; it is created.
        limits: Timeouts and retries.

    Raises:
        RequestError: The product is not gridded.
        ReadError: A header cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images = {task.name: task for task in _gridded_tasks(tasks)}
    for task in images.values():
        counts = Counter(band.name for band in task.bands)
        bands = []
        for band in task.bands:
            # The label is needed only if several acquisitions have the band.
            name = band.name if counts[band.name] == 1 else band.label
            bands.append(_vrt_band(name, band, task.grid.grid, folder, limits))
        (folder / f"{task.name}.vrt").write_bytes(make_vrt(task.grid.grid, bands))


def _vrt_band(name: str, band: Band, grid: Grid, folder: Path, limits: Limits) -> VrtBand:
    sources = []
    nodata = band.nodata
    # In a VRT, the last source is on top.
    for source in reversed(band.sources):
        vrt_source, nodata = _vrt_source(source, band, grid, folder, nodata, limits)
        sources.append(vrt_source)
    return VrtBand(name, band.dtype, nodata, band.scale, band.offset, band.resampling, sources)


def _vrt_source(
    source: AssetRef, band: Band, grid: Grid, folder: Path, nodata: float | None, limits: Limits
) -> tuple[VrtSource, float | None]:
    """Return the source of a VRT and its nodata value. Write a warped VRT if its CRS differs."""
    budget = Budget.of(limits)
    file = open_source(source.href, source.index, budget, source.signing)
    info = file.info
    file.close()
    nodata = resolve_nodata(source.href, info.nodata, nodata)
    if same_crs(info.crs, grid.crs):
        path = gdal_path(source.href)
        return VrtSource(path, False, source.index, info, source.add_offset), nodata
    name = f"{source.scene}_{band.name}_warped.vrt"
    document = warped_vrt(source.href, source.signing, grid, band.resampling, nodata, budget)
    (folder / name).write_bytes(document)
    warped = warped_info(name, info, grid, nodata)
    return VrtSource(name, True, source.index, warped, source.add_offset), nodata
