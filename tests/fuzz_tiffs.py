"""Fuzz the reader: damaged and forged TIFFs must be refused in words, or read as GDAL reads them.

    python tests/fuzz_tiffs.py --count 2000 --seed 0 --keep /tmp/found

Small images of every layout are written by rasterio and tifffile, and damaged: bytes are flipped,
cut and inserted, and fields of the header are set to what no writer would put there. Each mutant is
opened, read, looked at and validated in a child process. Anything but success or a SceneBeamError is
a finding: another exception, a crash, more than 10 s, more than 1 GiB of memory, and numbers or a
georeferencing that differ from what GDAL gives for the same file.
"""

from __future__ import annotations

import faulthandler
import itertools
import json
import logging
import os
import random
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import tifffile
from affine import Affine
from rasterio.windows import Window

from fuzzing import Child, run_command
from resident import reset_peak, resident_bytes

SECONDS = 10.0
"""That one file may take."""
LARGEST_GROWTH = 2**30
"""Bytes of memory that one file may take."""
_ORACLE_SECONDS = 10.0
_START_SECONDS = 120.0
_LARGEST_SEED = 256 * 1024
_SIDE = 16
"""Rows and columns of the windows that are read."""

# ---------------------------------------------------------------------------------------------
# Seeds


def make_seeds(folder: Path) -> dict[str, bytes]:
    """Write small images of every layout that the reader knows. Returns their bytes by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, options in _profiles().items():
            _write(folder / name, options)
        _write_mask(folder / "mask.tif")
        _write_bigendian(folder / "bigendian.tif", np.dtype(">u2"), predictor=True)
        _write_bigendian(folder / "bigendian_float.tif", np.dtype(">f4"), predictor=False)
    seeds = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    return seeds | _real_seeds()


def _real_seeds() -> dict[str, bytes]:
    """Small real files that lie beside the real scenes, where there are any."""
    scenes = os.environ.get("SCENEBEAM_REAL_DATA")
    found = sorted(Path(scenes).parent.glob("*/tiffs/*.tif")) if scenes else []
    return {
        f"real_{path.name}": path.read_bytes()
        for path in found
        if path.stat().st_size <= _LARGEST_SEED
    }


def _profiles() -> dict[str, dict[str, Any]]:
    """Options of rasterio, by the name of the file."""
    tiled = {"tiled": True, "blockxsize": 32, "blockysize": 16}
    geographic = {"crs": "EPSG:4326", "transform": Affine(0.001, 0, 22.5, 0, -0.001, 40.5)}
    custom = {"crs": "+proj=laea +lat_0=52 +lon_0=10 +x_0=1000 +y_0=0 +ellps=bessel +units=m"}
    southup = {"transform": Affine(10, 0, 600_000, 0, 10, 4_500_000)}
    point = {"AREA_OR_POINT": "Point"}
    return {
        "deflate.tif": {**tiled, "compress": "deflate", "predictor": 2, "nodata": 0},
        "deflate_float.tif": {**tiled, "compress": "deflate", "predictor": 3, "dtype": "float32"},
        "float_max.tif": {
            **tiled,
            "compress": "lzw",
            "dtype": "float32",
            "nodata": float(np.finfo("float32").min),
        },
        "zstd.tif": {**tiled, "compress": "zstd", "predictor": 2, "dtype": "int16"},
        "lzw.tif": {**tiled, "compress": "lzw", "predictor": 2, "dtype": "uint8"},
        "none.tif": {**tiled, "dtype": "float64", "nodata": float("nan")},
        "planar.tif": {**tiled, "compress": "deflate", "count": 4, "interleave": "band"},
        "pixel.tif": {**tiled, "compress": "deflate", "count": 4, "interleave": "pixel"},
        "strips.tif": {"compress": "deflate", "predictor": 2, "nodata": 0},
        "strips_none.tif": {"dtype": "int32", "blockysize": 8},
        "strips_lzw.tif": {"compress": "lzw", "count": 3, "dtype": "uint8"},
        "bigtiff.tif": {**tiled, "compress": "deflate", "BIGTIFF": "YES", "nodata": 0},
        "geographic.tif": {**tiled, **geographic, "compress": "deflate", "dtype": "int16"},
        "custom.tif": {**tiled, **custom, "compress": "deflate"},
        "southup.tif": {**tiled, **southup, "compress": "deflate"},
        "point.tif": {**tiled, "compress": "deflate", "tags": point, "nodata": 0},
        "sparse.tif": {**tiled, "compress": "deflate", "nodata": 7, "SPARSE_OK": True},
        "alpha.tif": {**tiled, "compress": "deflate", "count": 2, "ALPHA": "YES", "dtype": "uint8"},
        "described.tif": {**tiled, "compress": "deflate", "count": 2, "names": ("red", "nir")},
        "jpeg.tif": {
            **tiled,
            "compress": "jpeg",
            "count": 3,
            "dtype": "uint8",
            "photometric": "ycbcr",
            "interleave": "pixel",
        },
        "cog.tif": {
            "driver": "COG",
            "compress": "deflate",
            "predictor": 2,
            "blocksize": 128,
            "nodata": 0,
            "shape": (300, 260),
            "noise": 3,
        },
        "jp2.jp2": {"driver": "JP2OpenJPEG", "REVERSIBLE": "YES", "QUALITY": 100},
    }


def _pixels(shape: tuple[int, int, int], dtype: str, noise: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(5)
    slope = np.add.outer(np.arange(shape[1]) // 8, np.arange(shape[2]) // 8)
    pixels = 40 + slope + rng.integers(0, noise, shape)
    return (pixels % 250 if dtype.endswith("int8") else pixels).astype(dtype)


def _write(path: Path, options: dict[str, Any]) -> None:
    options = dict(options)
    height, width = options.pop("shape", (70, 100))
    noise, names = options.pop("noise", 100), options.pop("names", ())
    tags = options.pop("tags", {})
    profile = {
        "driver": "GTiff",
        "dtype": "uint16",
        "count": 1,
        "height": height,
        "width": width,
        "crs": "EPSG:32634",
        "transform": Affine(10, 0, 600_000, 0, -10, 4_500_000),
        **options,
    }
    pixels = _pixels((profile["count"], height, width), profile["dtype"], noise)
    if profile.get("SPARSE_OK"):
        pixels[:, :48, 32:] = 7
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels)
        file.update_tags(**tags)
        for number, name in enumerate(names, 1):
            file.set_band_description(number, name)


def _write_mask(path: Path) -> None:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        _write(path, {"tiled": True, "blockxsize": 32, "blockysize": 16, "compress": "deflate"})
        with rasterio.open(path, "r+") as file:
            valid = np.ones(file.shape, bool)
            valid[10:40, 20:70] = False
            file.write_mask(valid)


def _write_bigendian(path: Path, dtype: np.dtype[Any], *, predictor: bool) -> None:
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32634)
    tags = [
        (33550, "d", 3, (10.0, 10.0, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 600_000.0, 4_500_000.0, 0.0), True),
        (34735, "H", len(keys), keys, True),
    ]
    tifffile.imwrite(
        path,
        _pixels((1, 70, 100), dtype.name, 100)[0].astype(dtype),
        byteorder=">",
        tile=(16, 32),
        compression="deflate",
        predictor=predictor,
        photometric="minisblack",
        extratags=tags,
    )


# ---------------------------------------------------------------------------------------------
# Headers, as mutations need them

_SIZES = {
    **dict.fromkeys((1, 2, 6, 7), 1),
    **dict.fromkeys((3, 8), 2),
    **dict.fromkeys((4, 9, 11, 13), 4),
    **dict.fromkeys((5, 10, 12, 16, 17, 18), 8),
}
"""TIFF's types of numbers, and the bytes of one."""


@dataclass
class Entry:
    """One entry of an image file directory."""

    tag: int
    type: int
    count: int
    raw: bytes
    """Its last four or eight bytes: the value, or where it lies."""
    position: int = 0


@dataclass
class Header:
    """The directories of a TIFF: where they are, and their entries."""

    order: str
    big: bool
    pointers: list[int] = field(default_factory=list)
    """Where the offset of each directory is written; of the one after the last, too."""
    directories: list[list[Entry]] = field(default_factory=list)

    @property
    def offset(self) -> str:
        """The format of an offset."""
        return "Q" if self.big else "I"

    def pack(self, form: str, *values: int | float) -> bytes:
        """Numbers as this file has them; those out of range wrap around."""
        wrapped: list[int | float] = []
        for letter, value in zip(form, values, strict=True):
            if letter in "df":
                wrapped.append(value)
                continue
            span = 2 ** (8 * struct.calcsize(letter))
            whole = int(value) % span
            wrapped.append(whole - span if letter.islower() and whole >= span // 2 else whole)
        return struct.pack(self.order + form, *wrapped)

    def directory(self, entries: list[Entry], after: int) -> bytes:
        """The bytes of a directory."""
        body = self.pack("Q" if self.big else "H", len(entries))
        for one in sorted(entries, key=lambda entry: entry.tag):
            body += self.pack("HH" + self.offset, one.tag, one.type, one.count) + one.raw
        return body + self.pack(self.offset, after)


def read_header(content: bytes) -> Header | None:
    """Read the directories of a TIFF; None where it is none, or too broken to be understood."""
    if content[:2] not in (b"II", b"MM"):
        return None
    order = "<" if content[:2] == b"II" else ">"
    header = Header(order, content[2:4] in (b"+\0", b"\0+"))
    try:
        pointer = 8 if header.big else 4
        while len(header.directories) < 20:
            header.pointers.append(pointer)
            (start,) = struct.unpack_from(order + header.offset, content, pointer)
            if start == 0:
                break
            entries, pointer = _read_directory(content, start, header)
            header.directories.append(entries)
    except (struct.error, OverflowError):
        pass
    return header if header.directories else None


def _read_directory(content: bytes, start: int, header: Header) -> tuple[list[Entry], int]:
    counted, entry = ("Q", 20) if header.big else ("H", 12)
    (count,) = struct.unpack_from(header.order + counted, content, start)
    position = start + struct.calcsize(counted)
    entries = []
    for _ in range(min(count, 200)):
        form = header.order + "HH" + header.offset
        tag, kind, number = struct.unpack_from(form, content, position)
        head = struct.calcsize(form)
        raw = content[position + head : position + entry]
        entries.append(Entry(tag, kind, number, raw, position))
        position += entry
    return entries, position


# ---------------------------------------------------------------------------------------------
# Mutations

_ODD = (0, 1, 2, 3, 7, 15, 16, 17, 31, 100, 255, 256, 4096, 20_000, 65_535, 65_536, 2**24)
_HUGE = (2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
_STORAGE = (273, 279, 324, 325)
"""StripOffsets, StripByteCounts, TileOffsets, TileByteCounts."""
_TAGS: dict[int, tuple[int, ...]] = {
    254: (0, 1, 2, 4, 5, 255),
    256: (*_ODD, *_HUGE),
    257: (*_ODD, *_HUGE),
    258: (0, 1, 2, 4, 8, 12, 16, 24, 32, 64, 128, 65_535),
    259: (0, 1, 2, 4, 5, 6, 7, 8, 32_773, 32_946, 34_712, 34_887, 34_925, 50_000, 50_001, 65_535),
    262: (0, 1, 2, 3, 4, 5, 6, 8, 32_803, 65_535),
    266: (0, 1, 2, 3),
    274: (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
    277: (0, 1, 2, 3, 4, 5, 255, 20_000, 65_535),
    278: (*_ODD, *_HUGE),
    284: (0, 1, 2, 3),
    317: (0, 1, 2, 3, 4, 34_892),
    322: (*_ODD, *_HUGE),
    323: (*_ODD, *_HUGE),
    338: (0, 1, 2, 3, 999),
    339: (0, 1, 2, 3, 4, 5, 6, 7),
    32_997: (0, 1, 2, 65_535),
}
"""Tags with whole numbers, and what they are set to."""
_NUMBERS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-320, 1e-30, 1e300, -1e300, 2.0**31, float("nan"))
_DOUBLES = (*_NUMBERS, float("inf"), -float("inf"))
_TEXTS = (
    b"", b" ", b"nan", b"-nan", b"NaN", b"inf", b"-inf", b"1e400", b"-1e400", b"1_0", b"0x10", b"12abc",
    b"-9999", b"65536", b"0.5", b"0,5", b"7 8", b"  7", b"7\0\0", b"3.4e38", b"3.4028235677973366e+38",
    b"-3.4028234663852886e+38", b"9223372036854775807", b"18446744073709551616", b"\xff\xfe", b"\xd9\xa7",
    b"1" * 400, b"none", b"1.#QNAN", b"255", b"+7", b"7.0", b"7e0",
)  # fmt: skip
_BOMB = b"<!DOCTYPE a [%s]><GDALMetadata><Item name='x'>&x20;</Item></GDALMetadata>" % (
    b"<!ENTITY x0 'ha'>"
    + b"".join(b"<!ENTITY x%d '&x%d;&x%d;'>" % (n, n - 1, n - 1) for n in range(1, 31))
)
_DESCRIPTION = (
    b'<GDALMetadata><Item name="D" sample="%s" role="description">%s</Item></GDALMetadata>'
)
_SCALED = b'<GDALMetadata><Item name="O" sample="0" role="offset">%s</Item></GDALMetadata>'
_XML = (
    b"<GDALMetadata>", b"", b"<a/>", b"\xff\xfe<a/>", b"<GDALMetadata>" * 20_000, _BOMB,
    _DESCRIPTION % (b"-1", b"red"), _DESCRIPTION % (b"99999999999999999999", b"red"),
    _DESCRIPTION % (b"x", b"red"), _DESCRIPTION % (b"0", b"&#0;"), _DESCRIPTION % (b"0", b"r\xff"),
    _DESCRIPTION % (b"0", b"r" * 5000), _SCALED % b"nan",
    b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><GDALMetadata/>',
)  # fmt: skip
_KEYS = (
    1024,
    1025,
    1026,
    2048,
    2050,
    2052,
    2054,
    2056,
    2057,
    2059,
    3072,
    3074,
    3075,
    3076,
    4096,
    4099,
)
_CODES = (
    0,
    1,
    2,
    3,
    4326,
    4267,
    32634,
    32767,
    3857,
    2154,
    4979,
    9001,
    9002,
    9102,
    9105,
    29999,
    65535,
    4978,
    2277,
)

Change = tuple[bytes, str]
"""The content after a mutation, and what it was."""


def mutate(content: bytes, rng: random.Random) -> Change:
    """Damage a file in one to three ways."""
    told = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        header = read_header(content)
        kinds: tuple[Callable[..., Change], ...] = (_flip, _cut, _insert, _flip_head)
        if header is not None and rng.random() < 0.8:
            kinds = (
                _set_field,
                _set_next,
                _set_tag,
                _set_tag,
                _set_blocks,
                _set_georeference,
                _set_text,
                _drop,
            )
        elif header is None and rng.random() < 0.7:
            kinds = (_flip_head, _set_siz)
        content, what = rng.choice(kinds)(content, rng, header)
        told.append(what)
    return content, "; ".join(told)


def _flip(content: bytes, rng: random.Random, _: Header | None, most: int | None = None) -> Change:
    changed = bytearray(content)
    most = min(most or len(changed), len(changed))
    places = [rng.randrange(most) for _ in range(rng.choice((1, 1, 2, 4, 16)))] if most else []
    for place in places:
        changed[place] = rng.choice(
            (0, 1, 255, 128, changed[place] ^ (1 << rng.randrange(8)), rng.randrange(256))
        )
    return bytes(changed), f"flip bytes {places}"


def _flip_head(content: bytes, rng: random.Random, header: Header | None) -> Change:
    return _flip(content, rng, header, 600)


def _cut(content: bytes, rng: random.Random, _: Header | None) -> Change:
    most = min(len(content), rng.choice((16, 300, 1000, len(content), len(content))))
    size = rng.randrange(most + 1)
    return content[:size], f"cut at {size}"


def _set_siz(content: bytes, rng: random.Random, header: Header | None) -> Change:
    """Set a field of a JPEG 2000's SIZ segment: sizes of the image and its tiles (ISO 15444-1 A.5.1)."""
    place = content.find(b"\xff\x51")
    if place < 0:
        return _flip_head(content, rng, header)
    number, value = rng.randrange(8), rng.choice((*_ODD, *_HUGE[:3]))
    at = place + 6 + 4 * number
    return content[:at] + struct.pack(">I", value) + content[
        at + 4 :
    ], f"set field {number} of SIZ to {value}"


def _insert(content: bytes, rng: random.Random, _: Header | None) -> Change:
    place = rng.randrange(min(len(content), rng.choice((300, len(content)))) + 1)
    size = rng.choice((1, 2, 8, 100, 4096))
    if rng.random() < 0.3:
        return content[:place] + content[place + size :], f"delete {size} bytes at {place}"
    return content[:place] + rng.randbytes(size) + content[
        place:
    ], f"insert {size} bytes at {place}"


def _pick(header: Header, rng: random.Random) -> tuple[int, list[Entry]]:
    number = 0 if rng.random() < 0.7 else rng.randrange(len(header.directories))
    return number, header.directories[number]


def _set_field(content: bytes, rng: random.Random, header: Header) -> Change:
    """Set the tag, the type, the count or the value of any entry."""
    _, entries = _pick(header, rng)
    if not entries:
        return content, "nothing"
    one = rng.choice(entries)
    changed = bytearray(content)
    name = rng.choice(("tag", "type", "count", "count", "value", "value"))
    at, form = {
        "tag": (0, "H"),
        "type": (2, "H"),
        "count": (4, header.offset),
        "value": (12 if header.big else 8, header.offset),
    }[name]
    value = rng.choice(
        (*_ODD, *_HUGE, len(content), len(content) - 4, one.count + 1, one.count - 1, 8)
    )
    if name == "type":
        value = rng.choice((*range(20), 129, 65_535))
    packed = header.pack(form, value)
    changed[one.position + at : one.position + at + len(packed)] = packed
    return bytes(changed), f"set {name} of tag {one.tag} to {value}"


def _set_next(content: bytes, rng: random.Random, header: Header) -> Change:
    """Let a directory's offset point to itself, to another one, or to nowhere."""
    pointer = rng.choice(header.pointers)
    (first,) = struct.unpack_from(header.order + header.offset, content, header.pointers[0])
    value = rng.choice(
        (
            first,
            0,
            1,
            8,
            pointer,
            len(content),
            len(content) - 1,
            len(content) - 6,
            *_HUGE,
            first + 12,
        )
    )
    packed = header.pack(header.offset, value)
    return content[:pointer] + packed + content[
        pointer + len(packed) :
    ], f"point {pointer} to {value}"


def _rewritten(
    content: bytes,
    header: Header,
    number: int,
    entries: list[Entry],
    values: dict[int, tuple[int, int, bytes]],
) -> bytes:
    """The file with a new directory at its end, in which tags have other values: (type, count, bytes)."""
    size = 8 if header.big else 4
    entries = [entry for entry in entries if entry.tag not in values]
    body = bytearray(content + bytes(len(content) % 2))
    for tag, (kind, count, value) in values.items():
        raw = value.ljust(size, b"\0")
        if len(value) > size:
            raw = header.pack(header.offset, len(body))
            body += value + bytes(len(value) % 2)
        entries.append(Entry(tag, kind, count, raw))
    after = 0
    with suppress(IndexError, struct.error):
        (after,) = struct.unpack_from(
            header.order + header.offset, content, header.pointers[number + 1]
        )
    pointer, packed = header.pointers[number], header.pack(header.offset, len(body))
    body[pointer : pointer + len(packed)] = packed
    return bytes(body) + header.directory(entries, after)


def _set_tag(content: bytes, rng: random.Random, header: Header) -> Change:
    """Set a tag of whole numbers, of one that is there or is not."""
    number, entries = _pick(header, rng)
    tag = rng.choice(list(_TAGS))
    value = rng.choice(_TAGS[tag])
    kind, letter = (3, "H") if value < 2**16 else (4, "I") if value < 2**32 else (16, "Q")
    count = rng.choice((1, 1, 1, 1, 2, 3, 4))
    if tag in (258, 339) and rng.random() < 0.7:
        count = next((entry.count for entry in entries if entry.tag == 258), 1) % 64
    packed = header.pack(letter * count, *[value] * count)
    changed = _rewritten(content, header, number, entries, {tag: (kind, count, packed)})
    return changed, f"set tag {tag} of directory {number} to {count} x {value}"


def _set_blocks(content: bytes, rng: random.Random, header: Header) -> Change:
    """Set some offsets or sizes of blocks, or how many there are."""
    number, entries = _pick(header, rng)
    there = [entry for entry in entries if entry.tag in _STORAGE]
    if not there:
        return content, "nothing"
    one = rng.choice(there)
    count = (
        rng.choice((one.count, one.count, one.count, one.count - 1, one.count + 1, 1, 0, 5000))
        % 100_000
    )
    odd = (*_ODD, *_HUGE, len(content), len(content) - 1, 8)
    values = [
        rng.choice((rng.choice(odd), 8, rng.randrange(len(content) + 1))) for _ in range(count)
    ]
    if rng.random() < 0.5:
        values = [rng.choice(odd)] * count
    kind, letter = rng.choice(
        ((4, "I"), (16, "Q"), (3, "H"), (17, "q"), (9, "i"), (12, "d"), (1, "B"))
    )
    packed = header.pack(letter * count, *values)
    changed = _rewritten(content, header, number, entries, {one.tag: (kind, count, packed)})
    return (
        changed,
        f"set tag {one.tag} of directory {number} to {count} values like {values[:3]}, type {kind}",
    )


def _set_georeference(content: bytes, rng: random.Random, header: Header) -> Change:
    number, entries = _pick(header, rng)
    kind = rng.choice(("scale", "tiepoint", "matrix", "keys", "doubles", "number"))
    if kind in ("scale", "tiepoint", "matrix", "doubles"):
        tag, count = {
            "scale": (33550, 3),
            "tiepoint": (33922, 6),
            "matrix": (34264, 16),
            "doubles": (34736, 3),
        }[kind]
        usual: tuple[float, ...] = {
            "scale": (10.0, 10.0, 0.0),
            "tiepoint": (0.0, 0.0, 0.0, 6e5, 45e5, 0.0),
            "matrix": (10.0, 0.0, 0.0, 6e5, 0.0, -10.0, 0.0, 45e5, *[0.0] * 7, 1.0),
            "doubles": (6_378_137.0, 298.257223563, 0.0),
        }[kind]
        values = list(usual)
        for _ in range(rng.choice((1, 1, 2, count))):
            values[rng.randrange(count)] = rng.choice((*_DOUBLES, 10.0, 7.5, -10.0))
        values = values[: rng.choice((count, count, count, 2, 1, 0))]
        if rng.random() < 0.15:
            values += values
        packed = header.pack("d" * len(values), *values)
        changed = _rewritten(content, header, number, entries, {tag: (12, len(values), packed)})
        return changed, f"set {kind} of directory {number} to {values}"
    keys = [
        [1024, 0, 1, rng.choice((1, 1, 2, 3, 0, 32767))],
        [1025, 0, 1, rng.choice((1, 2, 2, 0, 3))],
    ]
    keys.append([3072, 0, 1, 32634] if keys[0][3] == 1 else [2048, 0, 1, 4326])
    for _ in range(rng.randrange(4)):
        place, code = rng.choice((0, 0, 0, 34736, 34737, 34735, 9)), rng.choice(_CODES)
        keys.append([rng.choice(_KEYS), place, rng.choice((0, 1, 1, 1, 3, 65535)), code])
    if rng.random() < 0.5:
        keys.sort()
    told = len(keys) if kind == "keys" else rng.choice((0, 1, 2, len(keys) + 1, 65535))
    version = rng.choice((1, 1, 1, 1, 0, 2, 65535))
    flat = [version, rng.choice((1, 1, 1, 0)), rng.choice((0, 1)), told, *itertools.chain(*keys)]
    flat = flat[: rng.choice((len(flat), len(flat), len(flat), 3, len(flat) - 1))]
    packed = header.pack("H" * len(flat), *flat)
    changed = _rewritten(content, header, number, entries, {34735: (3, len(flat), packed)})
    return changed, f"set GeoKeys of directory {number} to {flat}"


def _set_text(content: bytes, rng: random.Random, header: Header) -> Change:
    number, entries = _pick(header, rng)
    tag, texts = rng.choice(((42113, _TEXTS), (42113, _TEXTS), (42112, _XML)))
    text = rng.choice(texts) + rng.choice((b"\0", b"\0", b"\0", b""))
    kind = rng.choice((2, 2, 2, 2, 1, 7))
    changed = _rewritten(content, header, number, entries, {tag: (kind, len(text), text)})
    return changed, f"set tag {tag} of directory {number}, type {kind}, to {text[:60]!r}"


def _drop(content: bytes, rng: random.Random, header: Header) -> Change:
    """Leave an entry out."""
    number, entries = _pick(header, rng)
    if not entries:
        return content, "nothing"
    one = rng.choice(entries)
    left = [entry for entry in entries if entry is not one]
    return _rewritten(
        content, header, number, left, {}
    ), f"drop tag {one.tag} of directory {number}"


def mutants(seeds: dict[str, bytes], count: int, seed: int) -> Iterator[tuple[str, bytes, str]]:
    """Yield `count` mutants: name of the seed, content, and what was done to it."""
    names = sorted(seeds)
    for number in range(count):
        rng = random.Random(f"{seed}/{number}")
        name = names[number % len(names)] if number < len(names) else rng.choice(names)
        content, told = mutate(seeds[name], rng)
        yield name, content, told


# ---------------------------------------------------------------------------------------------
# The work, in a child process


@dataclass
class Reading:
    """What scenebeam made of a band."""

    info: Any
    windows: dict[tuple[int, int, int, int], Any]
    by_gdal: bool
    """Whether its pixels came by way of GDAL, too."""


def work() -> None:
    """Read names of files from stdin; answer each in two lines of JSON: ours, then GDAL's."""
    faulthandler.enable()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # nothing else writes between the answers
    from scenebeam.raster import band_reader
    from scenebeam.raster.source import OVERVIEW_PIXELS

    answers.write(json.dumps({"ready": True}) + "\n")
    for line in sys.stdin:
        task = json.loads(line)
        # Small images have overviews too; they are looked at where they are called large.
        vars(band_reader)["OVERVIEW_PIXELS"] = 8192 if task["small_look"] else OVERVIEW_PIXELS
        reset_peak()
        before = resident_bytes("VmRSS")
        faulthandler.dump_traceback_later(SECONDS * 0.9)
        started = time.monotonic()
        readings: dict[int, Reading] = {}
        problems = read_all(task["path"], readings, deep=task["deep"])
        seconds = time.monotonic() - started
        faulthandler.cancel_dump_traceback_later()
        growth = resident_bytes("VmHWM") - before
        ours = {"problems": problems, "bands": len(readings), "seconds": seconds, "growth": growth}
        answers.write(json.dumps(ours) + "\n")
        differs = compare(task["path"], readings) if readings else None
        answers.write(
            json.dumps({"differs": differs, "by_gdal": readings[1].by_gdal if readings else False})
            + "\n"
        )


def read_all(path: str, readings: dict[int, Reading], *, deep: bool) -> list[str]:
    """Read a file in every way that there is. Returns tracebacks of what must not be raised."""
    from scenebeam.errors import SceneBeamError
    from scenebeam.raster.reader import open_source
    from scenebeam.raster.tiff import missing_bytes, read_grid, read_layout
    from scenebeam.raster.validate import validate
    from scenebeam.request import Checks
    from scenebeam.transfer.rangefile import RangeFile
    from scenebeam.transfer.retry import Budget

    problems: list[str] = []

    def attempt(call: Callable[..., Any], *given: Any, **named: Any) -> Any:
        try:
            return call(*given, **named)
        except SceneBeamError:
            return None
        except Exception:
            problems.append(traceback.format_exc())
            return None

    budget = Budget(private=True, attempts=2, first_wait=0.01)
    first = attempt(open_source, path, 1, budget)
    for band in sorted({1, first.info.count}) if first is not None else []:
        source = attempt(open_source, path, band, budget)
        if source is None:
            continue
        readings[band] = Reading(source.info, {}, type(source).__name__ == "GdalSource")
        problems += _nonsense(source.info)
        for window in _windows(source.info.height, source.info.width):
            pixels = attempt(_read_window, source, window)
            if pixels is not None:
                readings[band].windows[window] = pixels
        attempt(source.sample_overview)
        attempt(source.sample_overview, at_full_size=True)
    attempt(lambda: read_layout(RangeFile(path, budget), overviews=True))
    attempt(read_grid, path, budget)
    attempt(validate, path, Checks(), deep=deep, pictures=deep)
    attempt(missing_bytes, path)
    return problems


def _read_window(source: Any, window: tuple[int, int, int, int]) -> Any:
    from scenebeam.raster.source import read_window

    pixels = read_window(source, *window)
    assert pixels.shape == window[2:], f"{window} came as {pixels.shape}"
    assert pixels.dtype == source.info.dtype, f"{source.info.dtype} came as {pixels.dtype}"
    return pixels


def _nonsense(info: Any) -> list[str]:
    """What an image that was opened says of itself and cannot be."""
    transform = np.array(info.transform[:6])
    if not np.isfinite(transform).all() or info.transform.determinant == 0:
        return [f"Nonsense: opened with the transform {transform.tolist()}"]
    if min(info.width, info.height, info.count, *info.block) < 1 or info.dtype.kind not in "uif":
        return [f"Nonsense: opened as {info}"]
    return []


def _windows(height: int, width: int) -> list[tuple[int, int, int, int]]:
    rows, columns = min(_SIDE, height), min(_SIDE, width)
    return [
        (0, 0, rows, columns),
        (height - rows, width - columns, rows, columns),
        ((height - rows) // 2, (width - columns) // 2, rows, columns),
    ]


def compare(path: str, readings: dict[int, Reading]) -> str | None:
    """Hold what was read against GDAL. Returns how they differ; None where they do not, or GDAL refuses."""
    options = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_NUM_THREADS": "1"}
    try:
        with rasterio.Env(**options), rasterio.open(path, sharing=False) as file:
            for band, reading in readings.items():
                differs = _compare_headers(file, band, reading.info) or _compare_pixels(
                    file, band, reading
                )
                if differs:
                    return f"band {band}: {differs}"
    except (rasterio.errors.RasterioError, OSError, ValueError):
        return None
    return None


def _turns(file: rasterio.DatasetReader) -> tuple[bool, bool]:
    """Whether rows and columns of a file run against south and east."""
    transform = file.transform
    if transform.b or transform.d:
        return False, False
    return transform.e > 0, transform.a < 0


def _compare_headers(file: rasterio.DatasetReader, band: int, info: Any) -> str | None:
    ours, theirs = (info.width, info.height, info.count), (file.width, file.height, file.count)
    if ours != theirs:
        return f"width, height, count are {ours}, GDAL has {theirs}"
    if info.dtype != np.dtype(file.dtypes[band - 1]):
        return f"dtype is {info.dtype}, GDAL has {file.dtypes[band - 1]}"
    transform = file.transform
    down, across = _turns(file)
    if down:
        transform = transform @ Affine.translation(0, file.height) @ Affine.scale(1, -1)
    if across:
        transform = transform @ Affine.translation(file.width, 0) @ Affine.scale(-1, 1)
    if not np.allclose(info.transform[:6], transform[:6], rtol=1e-12, atol=1e-12, equal_nan=True):
        return f"transform is {info.transform[:6]}, GDAL has {transform[:6]}"
    nodata = file.nodatavals[band - 1]
    if not _same_nodata(info.nodata, nodata, info.dtype):
        return f"nodata is {info.nodata}, GDAL has {nodata}"
    return _compare_crs(info.crs, file.crs)


def _same_nodata(ours: float | None, theirs: float | None, dtype: np.dtype[Any]) -> bool:
    """Whether two nodata values mark the same pixels of a dtype."""
    from scenebeam.raster.validity import nodata_in_dtype

    theirs = nodata_in_dtype(theirs, dtype)
    if ours is None or theirs is None:  # rasterio makes infinity of what a float cannot hold
        return ours is theirs or (theirs is not None and np.isinf(theirs))
    return ours == theirs or (np.isnan(ours) and np.isnan(theirs))


def _compare_crs(ours: str, theirs: Any) -> str | None:
    import pyproj

    if theirs is None:
        return f"CRS is {ours[:80]}, GDAL has none"
    known = pyproj.CRS.from_user_input(theirs.to_wkt())
    if known.is_compound:
        known = known.sub_crs_list[0]
    if rasterio.crs.CRS.from_user_input(ours) == theirs:
        return None
    if pyproj.CRS.from_user_input(ours).equals(known, ignore_axis_order=True):
        return None
    return f"CRS is {ours[:80]}, GDAL has {known.to_wkt()[:200]}"


def _compare_pixels(file: rasterio.DatasetReader, band: int, reading: Reading) -> str | None:
    down, across = _turns(file)
    for (row, column, height, width), ours in reading.windows.items():
        top = file.height - row - height if down else row
        left = file.width - column - width if across else column
        turn = (slice(None, None, -1 if down else 1), slice(None, None, -1 if across else 1))
        theirs = file.read(band, window=Window(left, top, width, height))[turn]
        seen = ~np.ma.getmaskarray(ours)
        ours = np.ma.getdata(ours)
        if not np.array_equal(ours[seen], theirs[seen], equal_nan=ours.dtype.kind == "f"):
            row_, column_ = np.argwhere(seen & (ours != theirs))[0]
            return f"pixel {row + row_}, {column + column_} is {ours[row_, column_]}, GDAL has {theirs[row_, column_]}"
    return None


# ---------------------------------------------------------------------------------------------
# The parent


@dataclass
class Finding:
    """What one mutant brought to light."""

    kind: str
    """`exception`, `crash`, `hang`, `memory` or `differs`."""
    seed: str
    mutation: str
    told: str
    file: str = ""

    @property
    def key(self) -> str:
        """What it has in common with findings of the same fault."""
        lines = [line for line in self.told.strip().splitlines() if line.strip()]
        places = [line.strip() for line in lines if "/scenebeam/" in line and "File" in line]
        return f"{self.kind}: {lines[-1][:160] if lines else ''} {places[-1] if places else ''}"


@dataclass
class Summary:
    """What came of a run."""

    count: int = 0
    opened: int = 0
    compared: int = 0
    oracle_failed: int = 0
    unsteady: int = 0
    """Files of which GDAL gave other pixels the second time."""
    slowest: float = 0.0
    largest_growth: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"{self.count} mutants in {self.seconds:.0f} s ({self.count / max(self.seconds, 1e-9):.1f} a second): "
            f"{self.opened} opened, {self.compared} compared with GDAL, which failed {self.oracle_failed} times "
            f"and differed from itself {self.unsteady} times; "
            f"slowest {self.slowest:.2f} s, most memory {self.largest_growth / 2**20:.0f} MiB"
        ]
        for key, number in Counter(one.key for one in self.findings).most_common():
            example = next(one for one in self.findings if one.key == key)
            lines += [
                f"{number} x {key}",
                f"    {example.seed}: {example.mutation[:300]}",
                f"    {example.file}",
            ]
        lines.append(f"{len(self.findings)} findings")
        return "\n".join(lines)


def fuzz(
    count: int, seed: int = 0, keep: Path | None = None, seconds: float = float("inf")
) -> Summary:
    """Read `count` mutants, or as many as `seconds` allow.

    Args:
        count: How many.
        seed: Of the random numbers: the same seed makes the same mutants.
        keep: A folder for files with findings.
        seconds: When to stop before.

    Returns:
        What came of it.
    """
    summary, started = Summary(), time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "seeds").mkdir()
        seeds = make_seeds(folder / "seeds")
        child: Child | None = None
        try:
            for number, (origin, content, told) in enumerate(mutants(seeds, count, seed)):
                if time.monotonic() - started > seconds:
                    break
                child = child or Child(__file__, _START_SECONDS)
                path = folder / f"mutant_{number}{Path(origin).suffix}"
                path.write_bytes(content)
                found = _read_mutant(child, path, summary, number)
                summary.findings += [
                    _kept(Finding(kind, origin, told, what), content, keep, f"{seed}_{number}")
                    for kind, what in found
                ]
                path.unlink()
                summary.count += 1
                if not child.usable:
                    child.close()
                    child = None
        finally:
            if child is not None:
                child.close()
    summary.seconds = time.monotonic() - started
    return summary


def _read_mutant(child: Child, path: Path, summary: Summary, number: int) -> list[tuple[str, str]]:
    """Have one file read, by scenebeam and then by GDAL. Returns (kind, words) of what must not be."""
    child.ask({"path": str(path), "deep": number % 5 == 0, "small_look": number % 2 == 0})
    ours = child.answer(SECONDS)
    if ours is None:
        kind = "hang" if child.running else "crash"
        return [(kind, f"exit code {child.code}\n{child.last_words()}")]
    found = [("exception", told) for told in ours["problems"]]
    if ours["growth"] > LARGEST_GROWTH:
        found.append(("memory", f"{ours['growth'] / 2**20:,.0f} MiB"))
    summary.slowest = max(summary.slowest, ours["seconds"])
    summary.largest_growth = max(summary.largest_growth, ours["growth"])
    summary.opened += bool(ours["bands"])
    theirs = child.answer(_ORACLE_SECONDS)
    if theirs is None:  # a crash or a hang of GDAL's own, in a file that we could read
        summary.oracle_failed += 1
    else:
        summary.compared += bool(ours["bands"])
        # libtiff accepts DEFLATE that comes to more than its block, and may leave pixels of it as
        # memory had them: then two readings by GDAL differ.
        if theirs["differs"] and theirs["by_gdal"] and ": pixel " in theirs["differs"]:
            summary.unsteady += 1
        elif theirs["differs"]:
            found.append(("differs", theirs["differs"]))
    return found


def _kept(finding: Finding, content: bytes, folder: Path | None, name: str) -> Finding:
    """The finding, with its file in a folder."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        finding.file = str(folder / f"{name}_{finding.kind}_{finding.seed}")
        Path(finding.file).write_bytes(content)
        Path(f"{finding.file}.txt").write_text(f"{finding.mutation}\n\n{finding.told}\n")
    return finding


if __name__ == "__main__":
    sys.exit(run_command(__doc__, work, fuzz))
