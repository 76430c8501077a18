"""Open bands of raster files for reading by range requests.

There are two readers. Plain GeoTIFFs go through our block reader (`blocks`), which fetches and
decodes each block once; everything else goes through GDAL (`gdal`). Both give the same blocks of
the same numbers, with the same georeferencing and validity. Only `open_source` decides between
them.
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
"""Open files by href, signing, and identity of the budget: bands share the header and the blocks of
their file within one task.
"""
_open_files_lock = threading.Lock()


def open_source(href: str, band: int, budget: Budget, signing: str = "none") -> Source:
    """Open one band of a raster file.

    Args:
        href: Unsigned address of the file, or a path on this machine.
        band: The band, from 1.
        budget: Limits of the task that reads.
        signing: How requests are signed, as its collection record says: see `transfer.signing`.

    Raises:
        ReadError: The file is not a georeferenced image, or has no such band. The error is
            permanent only if a second, independent request returned the same bytes.
    """
    file = _shared_file(href, budget, signing)
    count = file.layout.count if isinstance(file, TiffFile) else file.info.count
    if not 1 <= band <= count:
        raise ReadError(f"{redact_url(href)} has {count} bands, not a band {band}")
    return open_band(file, band) if isinstance(file, TiffFile) else GdalSource(file, band)


def _shared_file(href: str, budget: Budget, signing: str) -> OpenFile:
    key = (href, signing, id(budget))
    with _open_files_lock:
        file = _open_files.get(key)
    if file is None:
        # Opened without the lock, so that many headers can be fetched at once. If two threads open
        # the same file, the first one to finish wins.
        file = _open(href, budget, signing)
        with _open_files_lock:
            file = _open_files.setdefault(key, file)
    return file


def _open(href: str, budget: Budget, signing: str) -> OpenFile:
    """Open a file. A permanent error has to be confirmed by a second, independent request."""
    previous: RangeFile | None = None
    for attempt in range(max(budget.attempts, 2)):
        file: RangeFile | None = None
        try:
            file = RangeFile(href, budget, signing, fresh=attempt > 0)
            return _open_with_reader(file, budget)
        except ReadError as error:
            is_local = sign(href, signing) is None
            if not error.permanent or is_local:
                raise
            if attempt > 0 and _agree(previous, file):
                raise
            previous = file
    raise ReadError(
        f"{redact_url(href)} differs each time it is read; run again later", permanent=False
    )


def _agree(one: RangeFile | None, other: RangeFile | None) -> bool:
    """Return whether two requests had the same result: no file, or the same bytes."""
    if one is None or other is None:
        return one is other
    return one.agrees_with(other)


def _open_with_reader(file: RangeFile, budget: Budget) -> OpenFile:
    layout = None if has_mask_beside(file.href) else read_layout(file)
    return GdalFile(file, budget) if layout is None else TiffFile(layout, file, budget)
