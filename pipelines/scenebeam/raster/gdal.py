"""Blocks by GDAL: JPEG 2000, masks, exotic codecs and projections.

GDAL never touches the network here. A remote file is opened over our own range reader, as if it
were alone in the world: no side-car files, no redirects of GDAL's own, and what goes wrong while it
reads is known from the reader, whatever GDAL makes of it. A file is opened as what its first bytes
say that it is, by that driver and no other; a format that names other files (VRT) is opened only
where its user names such a file on this machine.
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
from scenebeam.raster.georeference import crs_of_wkt, is_placed, north_up
from scenebeam.raster.source import LOOK, Block, RasterInfo, Source
from scenebeam.raster.tiff import MAGIC, SMALLEST_ENTRY, missing_bytes
from scenebeam.raster.validity import Array, held_nodata, masked
from scenebeam.transfer.rangefile import RangeFile
from scenebeam.transfer.pools import io_threads
from scenebeam.transfer.retry import Budget
from scenebeam.transfer.signing import redact_url, sign

OPTIONS: dict[str, Any] = {
    # Side-car files are not looked for: an image is one file.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_CACHEMAX": 64 * 2**20,  # in bytes: rasterio does not take it for megabytes, as GDAL would
    # Decoders that run in threads of their own lose their errors, and leave blank what they could not decode.
    "GDAL_NUM_THREADS": "1",
}
_MASK_BESIDE = {"GDAL_DISABLE_READDIR_ON_OPEN": "FALSE"}
_DRIVERS = {
    **dict.fromkeys(MAGIC, "GTiff"),
    b"\0\0\0\x0cjP  \r\n\x87\n": "JP2OpenJPEG",
    b"\xff\x4f\xff\x51": "JP2OpenJPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
}
"""First bytes → the driver that opens such a file."""
_LOCAL_DRIVERS = ["HFA", "ENVI", "EHdr", "AAIGrid", "SRTMHGT", "NITF", "GRIB"]
"""Formats without first bytes of their own, tried for files of this machine."""
LARGEST_BLOCK = 2**29
"""Bytes that GDAL may have to decode at once."""


class _Alone:
    """What GDAL sees of the world while it opens a file: this one."""

    def __init__(self, name: str, file: RangeFile) -> None:
        self._name, self._file = name, file

    def open(self, path: str, mode: str = "rb", **_: Any) -> io.RawIOBase:
        if path != self._name:
            raise FileNotFoundError(path)
        # An exception would stay behind in the interpreter, and come out of some later call.
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


FileContainer.register(_Alone)


def has_mask_beside(href: str) -> bool:
    """Whether a mask lies beside a file of this machine, as GDAL names it; beside remote files none
    is looked for.
    """
    return os.path.exists(f"{href.removeprefix('file://')}.msk")


def driver_of(head: bytes) -> str | None:
    """GDAL's driver for a file that begins with these bytes; None where they are of no image format
    that is read.
    """
    return next((driver for magic, driver in _DRIVERS.items() if head.startswith(magic)), None)


class GdalFile:
    """One file, open in GDAL and shared by the sources of its bands. A GDAL dataset is for one
    thread at a time.
    """

    def __init__(self, file: RangeFile, budget: Budget) -> None:
        self.href, self.signing, self.budget = file.href, file.signing, budget
        self.local = sign(self.href, self.signing) is None
        self._lock = threading.Lock()
        self._options = {**OPTIONS, **_MASK_BESIDE} if has_mask_beside(self.href) else OPTIONS
        # rasterio keeps what it has opened for GDAL in a context variable. Threads have contexts of
        # their own: a file opened by one and closed by another leaves an exception behind.
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
        path = self.href.removeprefix("file://")
        try:
            with rasterio.Env(**self._options):
                if not self.local:
                    if driver is None:
                        raise ReadError(
                            f"{redact_url(self.href)} cannot be opened as an image: it is {_looks_like(file.head)}"
                        )
                    dataset = rasterio.open(
                        "image", driver=driver, sharing=False, opener=_Alone("image", file)
                    )
                    if file.fault is not None:  # GDAL makes do with what it has got
                        dataset.close()
                        raise file.fault
                    return dataset
                if driver is None and path.lower().endswith(".vrt"):
                    driver = "VRT"
                return DatasetReader(path, driver=driver or _LOCAL_DRIVERS, sharing=False)
        except (rasterio.errors.RasterioError, OSError, ValueError) as error:
            if file.fault is not None:
                raise file.fault from None
            why = (
                str(error).replace("'image'", "it") if driver else f"it is {_looks_like(file.head)}"
            )
            raise ReadError(
                f"{redact_url(self.href)} cannot be opened as an image: {why}"
            ) from None

    def dataset(self) -> DatasetReader:
        """The file as GDAL has it, for one thread."""
        return self._dataset

    def _check(self) -> None:
        """Raise ReadError where the image is none that scenebeam reads."""
        file, name = self._dataset, redact_url(self.href)
        reason = ""
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
        elif file.driver == "GTiff" and SMALLEST_ENTRY * _block_count(file) > self._file.size:
            reason = f"has a header of {_block_count(file):,} blocks, more than a file of its size can list"
        elif _natural_bytes(file) > LARGEST_BLOCK:
            reason = f"has blocks of {_natural_bytes(file):,} bytes, more than the {LARGEST_BLOCK:,} that can be decoded"
        if reason:
            file.close()
            raise ReadError(f"{name} {reason}")

    def _info(self) -> RasterInfo:
        file = self._dataset
        transform, self._down, self._across = north_up(file.transform, file.height, file.width)
        natural = file.block_shapes[0]
        # Whole natural blocks, enough of them together to make a call into GDAL worth its while.
        rows, columns = (side * max(1, 1024 // side) for side in natural)
        dtype = np.dtype(file.dtypes[0])
        return RasterInfo(
            self.href,
            crs_of_wkt(file.crs.to_wkt()) or "",
            transform,
            file.width,
            file.height,
            file.count,
            dtype,
            held_nodata(file.nodatavals[0], dtype),
            (rows, columns),
            _descriptions(file),
            file.driver,
            _has_mask(file),
        )

    def band_info(self, band: int) -> RasterInfo:
        """What the file says of one band, from 1."""
        dtype = np.dtype(self._dataset.dtypes[band - 1])
        return replace(
            self.info, dtype=dtype, nodata=held_nodata(self._dataset.nodatavals[band - 1], dtype)
        )

    def read(
        self, band: int, window: Window | None, what: str, shape: tuple[int, int] | None = None
    ) -> Array:
        """A window of a band, or all of it; with a `shape` every so many-th pixel.

        Raises ReadError: permanent where two independent readings bring the same bytes, and GDAL
        can read neither.
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
                self._judge(error, what)
            else:
                self._failed = None
                return pixels
        raise ReadError(
            f"{redact_url(self.href)}: {what} comes differently each time that it is read",
            permanent=False,
        )

    def _judge(self, error: Exception, what: str) -> None:
        """Open the file anew after a read that failed. Raises ReadError where another try cannot
        help.
        """
        file, failed = self._file, self._failed
        told = file.fault or ReadError(
            f"{redact_url(self.href)}: {what} cannot be read: {_reason(error)}"
        )
        self._reopen()
        if not told.permanent or self.local or (failed is not None and failed.agrees_with(file)):
            self._failed = None
            raise told from None
        self._failed = file

    def _reopen(self) -> None:
        """GDAL keeps blocks of a failed read; a new dataset has none of them. The bytes are asked
        for anew.
        """
        self._dataset.close()
        try:
            self._file = RangeFile(self.href, self.budget, self.signing, fresh=True)
            self._dataset = self._open(self._file)
        except ReadError as error:
            raise ReadError(str(error), permanent=self.local and error.permanent) from None

    def _pixels(self, band: int, window: Window | None, shape: tuple[int, int] | None) -> Array:
        turned = self._turned(window)
        with rasterio.Env(**self._options):
            pixels: Array = self._dataset.read(band, window=turned, out_shape=shape)
            valid = (
                self._dataset.read_masks(band, window=turned, out_shape=shape) != 0
                if self.info.masked
                else None
            )
        if self._file.fault is not None:
            raise self._file.fault
        if self._down or self._across:
            flip = (
                slice(None, None, -1 if self._down else 1),
                slice(None, None, -1 if self._across else 1),
            )
            pixels = np.ascontiguousarray(pixels[flip])
            valid = None if valid is None else valid[flip]
        if self.local:
            self.budget.count(pixels.nbytes)
        return masked(pixels, valid)

    def _turned(self, window: Window | None) -> Window | None:
        """A window of the image as `info` has it, in rows and columns of the file."""
        if window is None:
            return None
        row, column = window.row_off, window.col_off
        if self._down:
            row = self.info.height - row - window.height
        if self._across:
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
        window = Window(
            column, row, min(width, self.info.width - column), min(height, self.info.height - row)
        )
        return self._file.read(self._band, window, f"block {block}")

    def sample_overview(self, *, at_full_size: bool = False) -> list[Array]:
        """See Source."""
        info = self.info
        missing = missing_bytes(info.href.removeprefix("file://")) if self._file.local else 0
        if missing:
            raise ReadError(f"{info.href} is truncated: {missing:,} bytes of it are not there")
        step = max(1, round((info.width * info.height / LOOK) ** 0.5))
        shape = (-(-info.height // step), -(-info.width // step))
        self._file.read(self._band, Window(info.width - 1, info.height - 1, 1, 1), "its last pixel")
        return [self._file.read(self._band, None, "it", shape)]


def _natural_bytes(file: DatasetReader) -> int:
    """Bytes of a block as the file has it."""
    rows, columns = file.block_shapes[0]
    # Of JPEG 2000 no metadata is asked for: GDAL 3.10 looks for it without end where a box of length 0
    # stands in another one. Its tiles hold all bands.
    whole = file.driver == "JP2OpenJPEG" or file.profile.get("interleave") == "pixel"
    bands = file.count if whole else 1
    return int(rows * columns * bands * max(np.dtype(dtype).itemsize for dtype in file.dtypes))


def _block_count(file: DatasetReader) -> int:
    """Blocks of one band."""
    rows, columns = file.block_shapes[0]
    return int(-(-file.height // rows) * -(-file.width // columns))


def _has_mask(file: DatasetReader) -> bool:
    """Whether more than a nodata value says where there is data."""
    flags = {flag.name for band in file.mask_flag_enums for flag in band}
    return bool(flags & {"per_dataset", "alpha"})


def _descriptions(file: DatasetReader) -> tuple[str, ...]:
    """What a file calls its bands; empty where it does not say, or not in UTF-8."""
    try:
        texts = file.descriptions
    except UnicodeDecodeError:
        return ()
    return tuple(text or "" for text in texts) if any(texts) else ()


def _looks_like(head: bytes) -> str:
    """What a file that is no image seems to be, for messages."""
    text = head[:200].lstrip().lower()
    if text.startswith((b"<html", b"<!doctype")):
        return "an HTML page"
    return "XML" if text.startswith(b"<") else "no GeoTIFF, JPEG 2000, PNG or JPEG"


def _reason(error: Exception) -> str:
    """The innermost message of a chain of GDAL's errors."""
    while error.__cause__ is not None:
        error = error.__cause__  # type: ignore[assignment]
    return f"{type(error).__name__}: {str(error).strip()}"
