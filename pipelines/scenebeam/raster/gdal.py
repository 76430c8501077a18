"""Read blocks with GDAL: JPEG 2000, masks, unusual codecs and projections.

GDAL never touches the network. A remote file is opened through our own range reader, as if it were
alone in the world: GDAL sees no sidecar files and follows no redirects. Errors while reading are
known from the range reader, whatever GDAL makes of them.

A file is opened as what its first bytes say it is, with that driver and no other. A format that
refers to other files (VRT) is only opened if the user names such a file on this machine.
"""

from __future__ import annotations

import contextvars
import io
import os.path
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np
import rasterio
from rasterio.abc import FileContainer
from rasterio.io import DatasetReader
from rasterio.windows import Window

from scenebeam.errors import ReadError
from scenebeam.raster.gdal_dataset import (
    band_descriptions,
    block_count,
    has_mask,
    innermost_error,
    looks_like,
    natural_block_bytes,
)
from scenebeam.raster.georeference import crs_of_wkt, is_placed, north_up
from scenebeam.raster.source import OVERVIEW_PIXELS, Block, RasterInfo, Source
from scenebeam.raster.tiff import MAGIC, SMALLEST_ENTRY, missing_bytes
from scenebeam.raster.validity import Array, as_masked, nodata_in_dtype
from scenebeam.transfer.pools import io_threads
from scenebeam.transfer.rangefile import RangeFile
from scenebeam.transfer.retry import Budget
from scenebeam.transfer.signing import redact_url, sign

OPTIONS: dict[str, Any] = {
    # Do not look for sidecar files: an image is one file.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # In bytes: unlike GDAL, rasterio does not take small numbers for megabytes.
    "GDAL_CACHEMAX": 64 * 2**20,
    # With several threads, GDAL's decoders lose their errors, and leave blank what they could not
    # decode.
    "GDAL_NUM_THREADS": "1",
}
_OPTIONS_WITH_MASK_BESIDE = {**OPTIONS, "GDAL_DISABLE_READDIR_ON_OPEN": "FALSE"}
_DRIVERS = {
    **dict.fromkeys(MAGIC, "GTiff"),
    b"\0\0\0\x0cjP  \r\n\x87\n": "JP2OpenJPEG",
    b"\xff\x4f\xff\x51": "JP2OpenJPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
}
"""First bytes of a file → the driver that opens it."""
_LOCAL_DRIVERS = ["HFA", "ENVI", "EHdr", "AAIGrid", "SRTMHGT", "NITF", "GRIB"]
"""Drivers that are tried for other files, but only on this machine."""
LARGEST_BLOCK = 2**29
"""Bytes that GDAL may have to decode at once."""
_BLOCK_SIDE = 1024
"""Shortest side of our blocks, in pixels: small ones are not worth a call of GDAL each."""


class _SingleFile:
    """A file system, for rasterio's `opener`, that contains a single file."""

    def __init__(self, name: str, file: RangeFile) -> None:
        self._name, self._file = name, file

    def open(self, path: str, mode: str = "rb", **_: Any) -> io.RawIOBase:
        if path != self._name:
            raise FileNotFoundError(path)
        # Exceptions cannot pass through GDAL. They would stay in the interpreter, and come up in
        # some later call. A silent file reads as empty, and `RangeFile.fault` has the error.
        return self._file.open(silent=True)

    def isfile(self, path: str) -> bool:
        return path == self._name

    def isdir(self, path: str) -> bool:
        return False

    def ls(self, path: str) -> list[str]:
        return []

    def mtime(self, path: str) -> int:
        return 0

    def size(self, path: str) -> int:
        return self._file.size if path == self._name else 0


FileContainer.register(_SingleFile)


def has_mask_beside(href: str) -> bool:
    """Return whether a local file has a mask file (.msk) beside it; False for remote files."""
    return os.path.exists(f"{href.removeprefix('file://')}.msk")


def driver_of(head: bytes) -> str | None:
    """Return GDAL's driver for a file by its first bytes; None for an unknown format."""
    for magic, driver in _DRIVERS.items():
        if head.startswith(magic):
            return driver
    return None


class GdalFile:
    """One file, open in GDAL and shared by the sources of its bands.

    A GDAL dataset must not be used by two threads at once; `read` takes turns.
    """

    def __init__(self, file: RangeFile, budget: Budget) -> None:
        self.href, self.signing, self.budget = file.href, file.signing, budget
        self.local = sign(self.href, self.signing) is None
        self._lock = threading.Lock()
        self._options = _OPTIONS_WITH_MASK_BESIDE if has_mask_beside(self.href) else OPTIONS
        # rasterio keeps the files that it has opened for GDAL in a context variable. Threads have
        # contexts of their own: a file that one thread opens and another one closes leaves an
        # exception behind. So everything runs in the same context.
        self._context = contextvars.copy_context()
        self._failed: RangeFile | None = None
        self._file, self._dataset = file, self._context.run(self._open, file)
        self._context.run(self._check)
        self.info = self._context.run(self._info)

    def __del__(self) -> None:
        if hasattr(self, "_dataset"):
            self._context.run(self._dataset.close)

    def _open(self, file: RangeFile) -> DatasetReader:
        driver = driver_of(file.head)
        try:
            with rasterio.Env(**self._options):
                return self._open_local(driver) if self.local else self._open_remote(driver, file)
        except (rasterio.errors.RasterioError, OSError, ValueError) as error:
            if file.fault is not None:
                raise file.fault from None
            reason = f"it is {looks_like(file.head)}"
            if driver is not None:
                reason = str(error).replace("'image'", "it")
            raise ReadError(
                f"{redact_url(self.href)} cannot be opened as an image: {reason}"
            ) from None

    def _open_local(self, driver: str | None) -> DatasetReader:
        path = self.href.removeprefix("file://")
        if driver is None and path.lower().endswith(".vrt"):
            driver = "VRT"
        return DatasetReader(path, driver=driver or _LOCAL_DRIVERS, sharing=False)

    def _open_remote(self, driver: str | None, file: RangeFile) -> DatasetReader:
        if driver is None:
            raise ReadError(
                f"{redact_url(self.href)} cannot be opened as an image: "
                f"it is {looks_like(file.head)}"
            )
        opener = _SingleFile("image", file)
        dataset = rasterio.open("image", driver=driver, sharing=False, opener=opener)
        if file.fault is not None:  # GDAL opens a file even if some of its header was not read
            dataset.close()
            raise file.fault
        return dataset

    def dataset(self) -> DatasetReader:
        """Return the dataset, for use by a single thread."""
        return self._dataset

    def _check(self) -> None:
        """Raise ReadError if scenebeam cannot read the image, or should not try."""
        file, reason = self._dataset, ""
        if file.width < 1 or file.height < 1 or file.count < 1:
            reason = f"is an image of {file.width} x {file.height} pixels and {file.count} bands"
        elif any(dtype.startswith("complex") for dtype in file.dtypes):
            reason = "holds complex numbers; scenebeam reads integers and floats"
        elif file.crs is None:
            reason = "has no CRS: its pixels cannot be placed"
        elif crs_of_wkt(file.crs.to_wkt()) is None:
            reason = "has a CRS that PROJ cannot use: its pixels cannot be placed"
        elif not is_placed(file.transform):
            reason = f"has the transform {tuple(file.transform)[:6]}: its pixels cannot be placed"
        elif file.driver == "GTiff" and SMALLEST_ENTRY * block_count(file) > self._file.size:
            blocks = f"{block_count(file):,} blocks"
            reason = f"has a header of {blocks}, more than a file of its size can list"
        elif natural_block_bytes(file) > LARGEST_BLOCK:
            size = f"{natural_block_bytes(file):,} bytes"
            reason = f"has blocks of {size}, more than the {LARGEST_BLOCK:,} that can be decoded"
        if reason:
            file.close()
            raise ReadError(f"{redact_url(self.href)} {reason}")

    def _info(self) -> RasterInfo:
        file = self._dataset
        transform, self._flip_rows, self._flip_columns = north_up(
            file.transform, file.height, file.width
        )
        # Blocks of our own: as many whole blocks of the file as are worth a call of GDAL.
        rows, columns = (side * max(1, _BLOCK_SIDE // side) for side in file.block_shapes[0])
        dtype = np.dtype(file.dtypes[0])
        return RasterInfo(
            self.href,
            crs_of_wkt(file.crs.to_wkt()) or "",
            transform,
            file.width,
            file.height,
            file.count,
            dtype,
            nodata_in_dtype(file.nodatavals[0], dtype),
            (rows, columns),
            band_descriptions(file),
            file.driver,
            has_mask(file),
        )

    def band_info(self, band: int) -> RasterInfo:
        """Return what the file says about one band, from 1."""
        dtype = np.dtype(self._dataset.dtypes[band - 1])
        nodata = nodata_in_dtype(self._dataset.nodatavals[band - 1], dtype)
        return replace(self.info, dtype=dtype, nodata=nodata)

    def read(
        self, band: int, window: Window | None, what: str, shape: tuple[int, int] | None = None
    ) -> Array:
        """Read pixels of a band.

        Args:
            band: The band, from 1.
            window: Window in pixels of `info`; None for the whole image.
            what: What is read, for messages.
            shape: Shape of the result, decimated by GDAL; None for full size.

        Returns:
            2-D array; a masked array if the file's mask hides some of it.

        Raises:
            ReadError: GDAL cannot read the pixels. The error is permanent if a second,
                independent request returned the same bytes.
        """
        with self._lock:
            return self._context.run(self._read, band, window, what, shape)

    def _read(
        self, band: int, window: Window | None, what: str, shape: tuple[int, int] | None
    ) -> Array:
        for _ in range(max(self.budget.attempts, 2)):
            try:
                pixels = self._pixels(band, window, shape)
            except (rasterio.errors.RasterioError, OSError, ValueError, ReadError) as error:
                self._reopen_or_raise(error, what)
            else:
                self._failed = None
                return pixels
        raise ReadError(
            f"{redact_url(self.href)}: {what} differs each time it is read", permanent=False
        )

    def _reopen_or_raise(self, error: Exception, what: str) -> None:
        """Open the file again after a failed read, for another attempt.

        Raises:
            ReadError: Another attempt cannot help, because it already failed on the same bytes.
        """
        file, failed = self._file, self._failed
        fault = file.fault or ReadError(
            f"{redact_url(self.href)}: {what} cannot be read: {innermost_error(error)}"
        )
        self._reopen()
        is_confirmed = failed is not None and failed.agrees_with(file)
        if not fault.permanent or self.local or is_confirmed:
            self._failed = None
            raise fault from None
        self._failed = file

    def _reopen(self) -> None:
        """Open a new dataset over independent requests: GDAL caches blocks of a failed read."""
        self._dataset.close()
        try:
            self._file = RangeFile(self.href, self.budget, self.signing, fresh=True)
            self._dataset = self._open(self._file)
        except ReadError as error:
            raise ReadError(str(error), permanent=self.local and error.permanent) from None

    def _pixels(self, band: int, window: Window | None, shape: tuple[int, int] | None) -> Array:
        window = self._flipped(window)
        valid = None
        with rasterio.Env(**self._options):
            pixels: Array = self._dataset.read(band, window=window, out_shape=shape)
            if self.info.masked:
                valid = self._dataset.read_masks(band, window=window, out_shape=shape) != 0
        if self._file.fault is not None:
            raise self._file.fault
        if self._flip_rows or self._flip_columns:
            flip = (
                slice(None, None, -1 if self._flip_rows else 1),
                slice(None, None, -1 if self._flip_columns else 1),
            )
            pixels = np.ascontiguousarray(pixels[flip])
            valid = None if valid is None else valid[flip]
        if self.local:  # remote reads are counted by the range reader
            self.budget.count(pixels.nbytes)
        return as_masked(pixels, valid)

    def _flipped(self, window: Window | None) -> Window | None:
        """Convert a window of the north-up image to rows and columns of the file."""
        if window is None:
            return None
        row, column = window.row_off, window.col_off
        if self._flip_rows:
            row = self.info.height - row - window.height
        if self._flip_columns:
            column = self.info.width - column - window.width
        return Window(column, row, window.width, window.height)


class GdalSource(Source):
    """One band of a file that GDAL reads."""

    def __init__(self, file: GdalFile, band: int) -> None:
        self._file, self._band = file, band
        self.info = file.band_info(band)

    def fetch(self, blocks: Iterable[Block]) -> dict[Block, Future[Array]]:
        """See Source."""
        return {block: io_threads().submit(self._read, block) for block in blocks}

    def _read(self, block: Block) -> Array:
        height, width = self.info.block
        row, column = block[0] * height, block[1] * width
        rows, columns = min(height, self.info.height - row), min(width, self.info.width - column)
        return self._file.read(self._band, Window(column, row, columns, rows), f"block {block}")

    def sample_overview(self, *, at_full_size: bool = False) -> list[Array]:
        """See Source. GDAL decimates: from overviews if there are any."""
        info = self.info
        missing = missing_bytes(info.href.removeprefix("file://")) if self._file.local else 0
        if missing:
            raise ReadError(f"{info.href} is truncated: {missing:,} bytes are missing")
        step = max(1, round((info.width * info.height / OVERVIEW_PIXELS) ** 0.5))
        shape = (-(-info.height // step), -(-info.width // step))
        self._file.read(self._band, Window(info.width - 1, info.height - 1, 1, 1), "its last pixel")
        return [self._file.read(self._band, None, "it", shape)]
