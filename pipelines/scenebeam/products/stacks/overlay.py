"""Publish a stack as a VRT that places the bands' own files on one grid."""

from __future__ import annotations

import os.path
from collections.abc import Mapping, Sequence

from scenebeam.errors import CheckError
from scenebeam.imaging.bands import scale_offset
from scenebeam.products.stacks.content import BandContent, nodata_of
from scenebeam.products.stacks.item import PublishedStack, StackedBand, stack_file
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
    contents: Mapping[str, BandContent],
    grid: Grid,
    store: Store,
) -> PublishedStack:
    """Publish the VRT of one stack. A band in another CRS gets a warped VRT of its own.

    Args:
        task: The task.
        stack: Suffix of the stack.
        bands: Its bands in canonical order, and the headers of their files.
        contents: Name of a band → its pixels.
        grid: Its grid.
        store: The output.

    Raises:
        CheckError: A band has invalid pixels that no number can mark.
    """
    pixels = grid.shape[0] * grid.shape[1]
    entries, stacked = [], []
    for band, info in bands:
        content = contents[band.name]
        nodata = _vrt_nodata(band, info, content)
        if same_crs(info.crs, grid.crs):
            source = VrtSource(
                path=_relative_path(task, info.href, store),
                relative=True,
                band=band.asset.index,
                info=info,
                add_offset=_add_offset(task, band),
            )
        else:
            source = _warped_source(task, band, info, grid, nodata, store)
        scale, offset = scale_offset(band.asset, task.values)
        dtype = info.dtype.name
        entries.append(VrtBand(band.name, dtype, nodata, scale, offset, band.resampling, [source]))
        stacked.append(StackedBand(band, dtype, nodata, content.valid / pixels))
    with store.open_write(task.stack_key(stack)) as file:
        file.write(make_vrt(grid, entries))
    return PublishedStack(grid, stacked, stack_file(task, stack, file.size, file.checksum))


def _vrt_nodata(band: StackBand, info: RasterInfo, content: BandContent) -> float | None:
    """Return the nodata value of a band in a VRT, which has no masks."""
    nodata = nodata_of(band, info)
    if nodata is None and content.masked:
        nodata = content.unused_number(info.dtype)
        if nodata is None:
            raise CheckError(
                f"{band.name} has invalid pixels, but all numbers of its dtype are in use, so that "
                "a VRT cannot mark them; use format: geotiff"
            )
    return nodata


def _add_offset(task: StackTask, band: StackBand) -> int:
    return 0 if task.values == "raw" else band.asset.add_offset


def _relative_path(task: StackTask, href: str, store: Store) -> str:
    """Return the path of a file relative to the VRT's folder."""
    return os.path.relpath(href, os.path.dirname(store.uri_for(task.stack_key(""))))


def _warped_source(
    task: StackTask,
    band: StackBand,
    info: RasterInfo,
    grid: Grid,
    nodata: float | None,
    store: Store,
) -> VrtSource:
    """Publish a VRT that warps a band onto the grid, and return it as a source."""
    name = f"{band.name}_warped.vrt"
    document = warped_vrt(info.href, "none", grid, band.resampling, nodata, Budget())
    store.write(task.file_key(name), document)
    return VrtSource(
        path=name,
        relative=True,
        band=band.asset.index,
        info=warped_info(name, info, grid, nodata),
        add_offset=_add_offset(task, band),
    )
