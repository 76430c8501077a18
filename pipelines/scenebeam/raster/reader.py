"""Reader: bands of raster files by range request, each block fetched once and decoded once.

Two doors, one room. GeoTIFFs go through our own block reader; all else goes through GDAL.
Both give the same blocks of the same numbers, valid and placed by the same rules; `open_source`
alone chooses.
"""

from __future__ import annotations

import threading
from weakref import WeakValueDictionary

from scenebeam.errors import ReadError
from scenebeam.raster.band_reader import open_band
from scenebeam.raster.blocks import TiffFile
from scenebeam.raster.gdal import GdalFile, GdalSource, has_mask_beside
from scenebeam.raster.source import Source
from scenebeam.raster.tiff import read_layout
from scenebeam.transfer.rangefile import RangeFile
from scenebeam.transfer.retry import Budget
from scenebeam.transfer.signing import redact_url, sign

OpenFile = TiffFile | GdalFile

_open_files: WeakValueDictionary[tuple[str, str, int], OpenFile] = WeakValueDictionary()
"""Files that are open, by href, signing and the task's budget: the bands of one file share its
header and its blocks.
"""
_opening = threading.Lock()


def open_source(href: str, band: int, budget: Budget, signing: str = "none") -> Source:
    """Open band `band` (from 1) of a file by its unsigned href; `signing` is its record's (see
    `access`).

    Raises ReadError where it is no georeferenced image or has no such band. That is permanent only
    where a second, independent reading of the file's header brings the same bytes.
    """
    file = _shared(href, budget, signing)
    count = file.layout.count if isinstance(file, TiffFile) else file.info.count
    if not 1 <= band <= count:
        raise ReadError(f"{redact_url(href)} has {count} bands, not a band {band}")
    return open_band(file, band) if isinstance(file, TiffFile) else GdalSource(file, band)


def _shared(href: str, budget: Budget, signing: str) -> OpenFile:
    key = (href, signing, id(budget))
    with _opening:
        file = _open_files.get(key)
    if file is None:
        file = _open(href, budget, signing)
        with _opening:
            file = _open_files.setdefault(key, file)
    return file


def _open(href: str, budget: Budget, signing: str) -> OpenFile:
    """Open a file; what speaks against it for good is believed where it is read twice."""
    first: RangeFile | None = None
    for attempt in range(max(budget.attempts, 2)):
        file: RangeFile | None = None
        try:
            file = RangeFile(href, budget, signing, fresh=attempt > 0)
            return _opened(file, budget)
        except ReadError as error:
            if not error.permanent or sign(href, signing) is None:
                raise
            if attempt > 0 and _same(first, file):
                raise
            first = file
    raise ReadError(
        f"{redact_url(href)} comes differently each time that it is read; run again later",
        permanent=False,
    )


def _same(one: RangeFile | None, other: RangeFile | None) -> bool:
    """Whether two readings came to the same: neither brought a file, or both brought the same
    bytes.
    """
    if one is None or other is None:
        return one is other
    return one.agrees_with(other)


def _opened(file: RangeFile, budget: Budget) -> OpenFile:
    layout = None if has_mask_beside(file.href) else read_layout(file)
    return GdalFile(file, budget) if layout is None else TiffFile(layout, file, budget)
