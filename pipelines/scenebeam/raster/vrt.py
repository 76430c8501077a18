"""VRTs: XML files that place other files on a grid. They are written here, and parsed before use.

The format is described in https://gdal.org/drivers/raster/vrt.html.
"""

from __future__ import annotations

import os.path
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from scenebeam.errors import CheckError
from scenebeam.raster.gdal import OPTIONS, GdalFile
from scenebeam.raster.grid import Grid
from scenebeam.raster.source import RasterInfo
from scenebeam.raster.text import number_text
from scenebeam.request import is_url
from scenebeam.transfer.rangefile import RangeFile
from scenebeam.transfer.retry import Budget
from scenebeam.transfer.signing import sign

_TYPES = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "float32": "Float32",
    "float64": "Float64",
}
"""NumPy dtype → GDAL data type."""
_RESAMPLING = {"cubic_spline": "cubicspline"}
"""rasterio's name → the name in VRTs, where they differ."""
_LARGEST_VRT = 10_000_000
_WARPED_BLOCK = (512, 128)
"""Rows and columns of the blocks of GDAL's warped VRTs."""


@dataclass(frozen=True)
class VrtSource:
    """One file of a band."""

    path: str
    """As written in the VRT: relative to it, or a name that GDAL opens."""
    relative: bool
    band: int
    info: RasterInfo
    """Of the file. Its grid may differ from that of the VRT by scale and offset only."""
    add_offset: int = 0
    """Subtracted from every valid pixel."""


@dataclass(frozen=True)
class VrtBand:
    """One band of a VRT."""

    name: str
    dtype: str
    nodata: float | None
    scale: float
    offset: float
    resampling: str
    sources: Sequence[VrtSource]
    """From bottom to top: the last one covers the others."""


def make_vrt(grid: Grid, bands: Iterable[VrtBand]) -> bytes:
    """Write a VRT on a grid.

    Args:
        grid: The grid.
        bands: The bands. Each source is resampled on its own, and its offset subtracted.

    Returns:
        XML, with band descriptions in lower case.
    """
    root = ET.Element("VRTDataset", rasterXSize=str(grid.shape[1]), rasterYSize=str(grid.shape[0]))
    ET.SubElement(root, "SRS").text = grid.crs
    coefficients = [repr(float(number)) for number in _gdal_geotransform(grid.transform)]
    ET.SubElement(root, "GeoTransform").text = ", ".join(coefficients)
    for number, band in enumerate(bands, start=1):
        node = ET.SubElement(root, "VRTRasterBand", dataType=_TYPES[band.dtype], band=str(number))
        ET.SubElement(node, "Description").text = band.name.lower()
        if band.nodata is not None:
            ET.SubElement(node, "NoDataValue").text = number_text(band.nodata)
        ET.SubElement(node, "Offset").text = repr(band.offset)
        ET.SubElement(node, "Scale").text = repr(band.scale)
        for source in band.sources:
            _add_source(node, grid, band, source)
    ET.indent(root)
    return ET.tostring(root) + b"\n"


def _gdal_geotransform(transform: Affine) -> tuple[float, ...]:
    a, b, c, d, e, f = tuple(transform)[:6]
    return c, a, b, f, d, e


def _add_source(node: ET.Element, grid: Grid, band: VrtBand, source: VrtSource) -> None:
    info = source.info
    complex_source = ET.SubElement(
        node, "ComplexSource", resampling=_RESAMPLING.get(band.resampling, band.resampling)
    )
    name = ET.SubElement(complex_source, "SourceFilename", relativeToVRT=str(int(source.relative)))
    name.text = source.path
    ET.SubElement(complex_source, "SourceBand").text = str(source.band)
    # With these properties, GDAL does not open the file before it reads pixels of it.
    ET.SubElement(
        complex_source,
        "SourceProperties",
        RasterXSize=str(info.width),
        RasterYSize=str(info.height),
        DataType=_TYPES[info.dtype.name],
        BlockXSize=str(info.block[1]),
        BlockYSize=str(info.block[0]),
    )
    to_grid = ~grid.transform @ info.transform
    width, height = float(info.width), float(info.height)
    _add_rectangle(complex_source, "SrcRect", 0.0, 0.0, width, height)
    _add_rectangle(
        complex_source,
        "DstRect",
        to_grid.c,
        to_grid.f,
        to_grid.a * info.width,
        to_grid.e * info.height,
    )
    # GDAL applies only one of both. A mask includes the nodata value, but not the other way around.
    if info.masked:
        ET.SubElement(complex_source, "UseMaskBand").text = "true"
    elif band.nodata is not None:
        ET.SubElement(complex_source, "NODATA").text = number_text(band.nodata)
    if source.add_offset:
        table = _offset_table(info.dtype, band.nodata, source.add_offset)
        ET.SubElement(complex_source, "LUT").text = table


def _add_rectangle(
    node: ET.Element, tag: str, x: float, y: float, width: float, height: float
) -> None:
    sides = {"xOff": x, "yOff": y, "xSize": width, "ySize": height}
    ET.SubElement(node, tag, {key: number_text(round(side, 6)) for key, side in sides.items()})


def _offset_table(dtype: np.dtype[Any], nodata: float | None, add_offset: int) -> str:
    """Lookup table that subtracts an offset, as `merge.harmonize` does.

    GDAL interpolates linearly between the entries. Numbers that would fall to nodata or below
    become the lowest that is data.
    """
    limits = np.iinfo(dtype)
    lowest, highest = int(limits.min) + (1 if nodata == limits.min else 0), int(limits.max)
    entries = [(lowest, lowest), (lowest + add_offset, lowest), (highest, highest - add_offset)]
    return ",".join(f"{number}:{result}" for number, result in entries)


def warped_vrt(
    href: str, signing: str, grid: Grid, resampling: str, nodata: float | None, budget: Budget
) -> bytes:
    """Write a VRT of one file that GDAL warps onto a grid when it is read. Opens the file.

    Args:
        href: Unsigned address of the file, or a path on this machine.
        signing: How requests are signed: see `transfer.signing`.
        grid: The grid.
        resampling: Name of a member of `rasterio.enums.Resampling`.
        nodata: Nodata value of the file.
        budget: Limits of the task that reads.
    """
    file = GdalFile(RangeFile(href, budget, signing), budget)
    with (
        rasterio.Env(**OPTIONS),
        WarpedVRT(
            file.dataset(),
            crs=grid.crs,
            transform=grid.transform,
            height=grid.shape[0],
            width=grid.shape[1],
            resampling=Resampling[resampling],
            src_nodata=nodata,
            nodata=nodata,
        ) as warped,
        rasterio.MemoryFile(ext=".vrt") as memory,
    ):
        rasterio.shutil.copy(warped, memory.name, driver="VRT")
        root = ET.fromstring(memory.read())
    # The VRT refers to the file as we opened it, in memory: put in a name that GDAL can open.
    for node in root.iter("SourceDataset"):
        node.text, node.attrib["relativeToVRT"] = gdal_path(href), "0"
    ET.indent(root)
    return ET.tostring(root) + b"\n"


def gdal_path(href: str) -> str:
    """Return the name under which GDAL opens a file that needs no credentials."""
    request = sign(href)
    if request is None:
        return os.path.abspath(href.removeprefix("file://"))
    return f"/vsicurl/{request.url}"


def warped_info(name: str, info: RasterInfo, grid: Grid, nodata: float | None) -> RasterInfo:
    """Describe a file as `warped_vrt` warps it onto a grid.

    Args:
        name: Name of the VRT.
        info: The file before it is warped.
        grid: The target grid.
        nodata: Nodata value of the result, if any.
    """
    height, width = grid.shape
    return RasterInfo(
        name,
        grid.crs,
        grid.transform,
        width,
        height,
        info.count,
        info.dtype,
        nodata,
        _WARPED_BLOCK,
    )


def parse_vrt(text: bytes, name: str) -> ET.Element:
    """Parse the XML of a VRT.

    Entities are refused: VRTs do not need them, and they can expand to any size.

    Args:
        text: The XML.
        name: Name of the file, for messages.

    Raises:
        CheckError: The XML is too large or invalid, declares entities, or is not a VRT.
    """
    if len(text) > _LARGEST_VRT:
        raise CheckError(f"{name} is larger than {_LARGEST_VRT:,} bytes; VRTs of bands are not")
    guard = expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise CheckError(f"{name} declares XML entities, which a VRT does not need: refused")

    guard.EntityDeclHandler = refuse
    try:
        guard.Parse(text, True)
        root = ET.fromstring(text)
    except (expat.ExpatError, ET.ParseError) as error:
        raise CheckError(f"{name} is not valid XML: {error}; write it again") from None
    if root.tag != "VRTDataset":
        raise CheckError(f"{name} is XML, but not a VRT: its root is {root.tag}")
    return root


def vrt_sources(root: ET.Element, vrt: Path) -> list[tuple[str, str]]:
    """List the sources of a VRT.

    Args:
        root: Its XML: see `parse_vrt`.
        vrt: Its path.

    Returns:
        (description of the band, path or URL) of each source.
    """
    sources = []
    for band in root.iter("VRTRasterBand"):
        description = band.findtext("Description") or ""
        for node in band.iter("SourceFilename"):
            sources.append((description, _resolved(node, vrt)))
    for node in root.iter("SourceDataset"):
        sources.append(("", _resolved(node, vrt)))
    return sources


def _resolved(node: ET.Element, vrt: Path) -> str:
    name = (node.text or "").strip()
    if name.startswith("/vsicurl/"):
        return name.removeprefix("/vsicurl/")
    if node.get("relativeToVRT") == "1" and not is_url(name):
        return os.path.normpath(vrt.parent / name)
    return name
