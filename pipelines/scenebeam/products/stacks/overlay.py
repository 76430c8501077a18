"""Overlay: a VRT that lays the bands' own files onto the grid of their stack."""

from __future__ import annotations

import os.path
from collections.abc import Mapping, Sequence

from scenebeam.errors import CheckError
from scenebeam.products.stacks.encode import BandOnGrid, nodata_of
from scenebeam.products.stacks.item import MadeStack, scale_offset
from scenebeam.products.stacks.task import StackBand, StackTask
from scenebeam.raster.grid import Grid, same_crs
from scenebeam.raster.source import RasterInfo
from scenebeam.raster.vrt import VrtBand, VrtSource, make_vrt, warped_info, warped_vrt
from scenebeam.storage import Store
from scenebeam.transfer.retry import Budget


def write_overlay(
    task: StackTask,
    stack: str,
    bands: Sequence[tuple[StackBand, RasterInfo]],
    content: Mapping[str, BandOnGrid],
    grid: Grid,
    store: Store,
) -> MadeStack:
    """Publish the VRT of one stack. A band in another CRS has a warped VRT of its own beside it."""
    entries = []
    for band, info in bands:
        nodata = nodata_of(band, info)
        if nodata is None and content[band.name].masked:
            nodata = content[band.name].free_number(info.dtype)
            if nodata is None:
                raise CheckError(
                    f"{band.name} has holes, and no number to mark them by in a VRT: take format: geotiff"
                )
        if same_crs(info.crs, str(grid.crs)):
            source = VrtSource(
                _path(task, info.href, store), True, band.asset.index, info, _shift(task, band)
            )
        else:
            source = _warped(task, band, info, grid, nodata, store)
        entries.append(
            VrtBand(
                band.name,
                info.dtype.name,
                nodata,
                *scale_offset(band, task.values),
                band.resampling,
                [source],
            )
        )
    document = make_vrt(grid, entries)
    with store.open_write(task.stack_key(stack)) as file:
        file.write(document)
    kinds = [(entry.dtype, entry.nodata) for entry in entries]
    pixels = grid.shape[0] * grid.shape[1]
    valid = [content[band.name].valid / pixels for band, _ in bands]
    return MadeStack(grid, [band for band, _ in bands], kinds, valid, file.size, file.checksum)


def _shift(task: StackTask, band: StackBand) -> int:
    return 0 if task.values == "raw" else band.asset.add_offset


def _path(task: StackTask, href: str, store: Store) -> str:
    """A file as the VRT names it: from the VRT's own folder."""
    folder = os.path.dirname(store.uri_for(task.stack_key("")))
    return os.path.relpath(href, folder)


def _warped(
    task: StackTask,
    band: StackBand,
    info: RasterInfo,
    grid: Grid,
    nodata: float | None,
    store: Store,
) -> VrtSource:
    name = f"{band.name}_warped.vrt"
    content = warped_vrt(info.href, "none", grid, band.resampling, nodata, Budget())
    store.write(task.file_key(name), content)
    onto = warped_info(name, info, grid, nodata)
    return VrtSource(name, True, band.asset.index, onto, _shift(task, band))
