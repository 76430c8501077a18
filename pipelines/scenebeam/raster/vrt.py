"""VRTs: an XML file that lays other files onto a grid, written here and looked at before GDAL is let near it.

The format: https://gdal.org/drivers/raster/vrt.html.
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
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from scenebeam.errors import CheckError
from scenebeam.raster.gdal import OPTIONS, GdalFile
from scenebeam.raster.grid import Grid
from scenebeam.raster.source import RasterInfo
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
_RESAMPLING = {"cubic_spline": "cubicspline"}
_LARGEST_VRT = 10_000_000


@dataclass(frozen=True)
class VrtSource:
    """One file of a band."""

    path: str
    """As it stands in the VRT: relative to it, or a name that GDAL opens."""
    relative: bool
    band: int
    info: RasterInfo
    """Of the file, on a grid that differs from the VRT's by scale and place alone."""
    add_offset: int = 0
    """Taken out of every valid number."""


@dataclass(frozen=True)
class VrtBand:
    """One band of a VRT; of its sources the last lies on top."""

    name: str
    dtype: str
    nodata: float | None
    scale: float
    offset: float
    resampling: str
    sources: Sequence[VrtSource]


def make_vrt(grid: Grid, bands: Iterable[VrtBand]) -> bytes:
    """A VRT on `grid`: descriptions in lower case, for each source its own resampling, and shifts taken out."""
    root = ET.Element("VRTDataset", rasterXSize=str(grid.shape[1]), rasterYSize=str(grid.shape[0]))
    ET.SubElement(root, "SRS").text = str(grid.crs)
    a, b, c, d, e, f = tuple(grid.transform)[:6]
    ET.SubElement(root, "GeoTransform").text = ", ".join(repr(float(x)) for x in (c, a, b, f, d, e))
    for number, band in enumerate(bands, start=1):
        node = ET.SubElement(root, "VRTRasterBand", dataType=_TYPES[band.dtype], band=str(number))
        ET.SubElement(node, "Description").text = band.name.lower()
        if band.nodata is not None:
            ET.SubElement(node, "NoDataValue").text = _number(band.nodata)
        ET.SubElement(node, "Offset").text = repr(band.offset)
        ET.SubElement(node, "Scale").text = repr(band.scale)
        for source in band.sources:
            _add_source(node, grid, band, source)
    ET.indent(root)
    return ET.tostring(root) + b"\n"


def _add_source(node: ET.Element, grid: Grid, band: VrtBand, source: VrtSource) -> None:
    info = source.info
    way = _RESAMPLING.get(band.resampling, band.resampling)
    complex_source = ET.SubElement(node, "ComplexSource", resampling=way)
    name = ET.SubElement(complex_source, "SourceFilename", relativeToVRT=str(int(source.relative)))
    name.text = source.path
    ET.SubElement(complex_source, "SourceBand").text = str(source.band)
    # With its size told, a file is not opened before it is read.
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
    place = {"xOff": 0.0, "yOff": 0.0, "xSize": float(info.width), "ySize": float(info.height)}
    target = {
        "xOff": to_grid.c,
        "yOff": to_grid.f,
        "xSize": to_grid.a * info.width,
        "ySize": to_grid.e * info.height,
    }
    for tag, rect in (("SrcRect", place), ("DstRect", target)):
        ET.SubElement(
            complex_source, tag, {key: _number(round(value, 6)) for key, value in rect.items()}
        )
    if (
        info.masked
    ):  # GDAL heeds one of the two: a mask has a nodata value in it, but not the other way round
        ET.SubElement(complex_source, "UseMaskBand").text = "true"
    elif band.nodata is not None:
        ET.SubElement(complex_source, "NODATA").text = _number(band.nodata)
    if source.add_offset:
        ET.SubElement(complex_source, "LUT").text = _shift_table(
            info.dtype, band.nodata, source.add_offset
        )


def _shift_table(dtype: np.dtype[Any], nodata: float | None, add_offset: int) -> str:
    """`raster.merge.harmonize` in straight lines: what would fall to nodata or below is the lowest that is data."""
    limits = np.iinfo(dtype)
    lowest = int(limits.min) + (1 if nodata == limits.min else 0)
    return f"{lowest}:{lowest},{lowest + add_offset}:{lowest},{int(limits.max)}:{int(limits.max) - add_offset}"


def warped_vrt(
    href: str, signing: str, grid: Grid, resampling: str, nodata: float | None, budget: Budget
) -> bytes:
    """A VRT of one file warped onto `grid`, by GDAL when it is read. Opens the file."""
    file = GdalFile(RangeFile(href, budget, signing), budget)
    with (
        rasterio.Env(**OPTIONS),
        WarpedVRT(
            file.dataset(),
            crs=str(grid.crs),
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
    for node in root.iter("SourceDataset"):
        node.text, node.attrib["relativeToVRT"] = gdal_path(href), "0"
    ET.indent(root)
    return ET.tostring(root) + b"\n"


def gdal_path(href: str) -> str:
    """The name under which GDAL opens a file that needs no account."""
    where = sign(href)
    return (
        os.path.abspath(href.removeprefix("file://")) if where is None else f"/vsicurl/{where.url}"
    )


def warped_info(name: str, info: RasterInfo, grid: Grid, nodata: float | None) -> RasterInfo:
    """What a file says of itself once it is warped onto `grid`."""
    height, width = grid.shape
    return RasterInfo(
        name,
        str(grid.crs),
        grid.transform,
        width,
        height,
        info.count,
        info.dtype,
        nodata,
        (512, 128),
    )


def _number(value: float) -> str:
    return (
        str(int(value)) if float(value).is_integer() and abs(value) < 2**53 else repr(float(value))
    )


def parse_vrt(text: bytes, name: str) -> ET.Element:
    """The XML of a VRT. CheckError where it is not sound, or no VRT.

    Entities are refused: a VRT needs none, and they can blow up to any size.
    """
    if len(text) > _LARGEST_VRT:
        raise CheckError(f"{name} is larger than {_LARGEST_VRT:,} bytes: no VRT of bands is")
    guard = expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise CheckError(f"{name} declares XML entities, which a VRT does not need: refused")

    guard.EntityDeclHandler = refuse
    try:
        guard.Parse(text, True)
        root = ET.fromstring(text)
    except (expat.ExpatError, ET.ParseError) as error:
        raise CheckError(f"{name} is not sound XML: {error}; write it again") from None
    if root.tag != "VRTDataset":
        raise CheckError(f"{name} is XML, but no VRT: its root is {root.tag}")
    return root


def vrt_sources(root: ET.Element, vrt: Path) -> list[tuple[str, str]]:
    """(description of the band, file as it can be opened) for every source of a VRT."""
    found = []
    for band in root.iter("VRTRasterBand"):
        found += [
            (band.findtext("Description") or "", _resolved(node, vrt))
            for node in band.iter("SourceFilename")
        ]
    return found + [("", _resolved(node, vrt)) for node in root.iter("SourceDataset")]


def _resolved(node: ET.Element, vrt: Path) -> str:
    text = (node.text or "").strip()
    if text.startswith("/vsicurl/"):
        return text.removeprefix("/vsicurl/")
    if node.get("relativeToVRT") == "1" and not is_url(text):
        return os.path.normpath(vrt.parent / text)
    return text
