"""Headers that no writer would write: refused in words, or read as GDAL reads them.

Each file is built here byte by byte, so that it is wrong in one place only.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import rasterio
from affine import Affine

from resident import PEAK_KIB
from scenebeam.errors import ReadError
from scenebeam.execution.driver import run
from scenebeam.raster import blocks
from scenebeam.raster.band_reader import TiffSource
from scenebeam.raster.codecs import decode
from scenebeam.raster.damage import damage_of
from scenebeam.raster.reader import open_source
from scenebeam.raster.source import Source, read_window
from scenebeam.raster.tiff import missing_bytes
from scenebeam.raster.validate import validate
from scenebeam.raster.validity import nodata_in_dtype
from scenebeam.request import Checks
from scenebeam.requestfile import validate_request
from scenebeam.transfer.retry import Budget

SHORT, LONG, ASCII, BYTE, UNDEFINED, DOUBLE, IFD, LONG8, SSHORT = 3, 4, 2, 1, 7, 12, 13, 16, 8
WIDTH, HEIGHT, SAMPLE_BITS, COMPRESSION, SAMPLES, PREDICTOR = 256, 257, 258, 259, 277, 317
STRIP_OFFSETS, ROWS_PER_STRIP, STRIP_SIZES = 273, 278, 279
TILE_WIDTH, TILE_HEIGHT, OFFSETS, SIZES, FORMAT = 322, 323, 324, 325, 339
SCALE, TIEPOINT, KEYS, TEXTS, METADATA, NODATA = 33550, 33922, 34735, 34737, 42112, 42113
LETTERS = {SHORT: "H", SSHORT: "h", LONG: "I", IFD: "I", DOUBLE: "d", LONG8: "Q"}
FIRST = 16
"""Where the pixels lie: behind the longest header of a file."""
PIXELS = np.random.default_rng(11).integers(1, 60_000, (64, 64)).astype("<u2")

Tags = dict[int, tuple[int, Sequence[float] | bytes] | None]
TILED: Tags = {
    WIDTH: (LONG, [64]),
    HEIGHT: (LONG, [64]),
    SAMPLE_BITS: (SHORT, [16]),
    COMPRESSION: (SHORT, [8]),
    262: (SHORT, [1]),
    SAMPLES: (SHORT, [1]),
    284: (SHORT, [1]),
    TILE_WIDTH: (LONG, [64]),
    TILE_HEIGHT: (LONG, [64]),
    FORMAT: (SHORT, [1]),
    SCALE: (DOUBLE, [10, 10, 0]),
    TIEPOINT: (DOUBLE, [0, 0, 0, 600_000, 4_500_000, 0]),
    KEYS: (SHORT, [1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32634]),
}
"""One tile of 64 x 64 uint16."""


STRIPS: Tags = {
    TILE_WIDTH: None,
    TILE_HEIGHT: None,
    OFFSETS: None,
    SIZES: None,
    ROWS_PER_STRIP: (LONG, [64]),
}


def directory(start: int, tags: Tags, *, big: bool = False, after: int = 0) -> bytes:
    """One directory that lies at `start`, with the values of its tags behind it."""
    offset, width = ("Q", 8) if big else ("I", 4)
    known = {tag: value for tag, value in sorted(tags.items()) if value is not None}
    head = struct.pack("<Q" if big else "<H", len(known))
    behind = start + len(head) + (4 + 2 * width) * len(known) + width
    values = b""
    for tag, (kind, value) in known.items():
        packed = (
            value
            if isinstance(value, bytes)
            else struct.pack(f"<{len(value)}{LETTERS[kind]}", *value)
        )
        head += struct.pack(f"<HH{offset}", tag, kind, len(value))
        if len(packed) <= width:
            head += packed.ljust(width, b"\0")
        else:
            head += struct.pack(f"<{offset}", behind + len(values))
            values += packed
    return head + struct.pack(f"<{offset}", after) + values


def build(
    path: Path, changes: Tags | None = None, data: bytes | None = None, *, big: bool = False
) -> Path:
    """Write a tiled file of which some tags are other ones; None leaves one out."""
    data = zlib.compress(PIXELS.tobytes()) if data is None else data
    tags: Tags = {OFFSETS: (LONG, [FIRST]), SIZES: (LONG, [len(data)])}
    start = FIRST + len(data) + len(data) % 2
    head = (
        struct.pack("<2sHHHQ", b"II", 43, 8, 0, start)
        if big
        else struct.pack("<2sHI", b"II", 42, start)
    )
    head = head.ljust(FIRST, b"\0") + data + bytes(len(data) % 2)
    path.write_bytes(head + directory(start, {**TILED, **tags, **(changes or {})}, big=big))
    return path


def open_band(path: Path, band: int = 1) -> Source:
    return open_source(str(path), band, Budget(private=True))


def whole(source: Source) -> np.ndarray:
    return read_window(source, 0, 0, source.info.height, source.info.width)


def errors(path: Path) -> str:
    report = validate(str(path), Checks(), deep=True)
    return "; ".join(finding.message for finding in report.findings if finding.level == "error")


def test_the_file_that_all_others_are_made_of_is_read(tmp_path: Path) -> None:
    source = open_band(build(tmp_path / "x.tif"))
    assert isinstance(source, TiffSource)
    np.testing.assert_array_equal(whole(source), PIXELS)
    assert damage_of(source) == ""


# What GDAL reads in another way than the plain one


TEXTS_OF_NODATA = [
    b"none\0", b"\xff\xfe\0", b"\0", b" \0", b"+7\0", b"1_0\0", b"0x10\0", b"12abc\0", b"7 8\0", b"0,5\0", b"7e0\0",
    b"1.#QNAN\0", b"inf\0", b"-inf\0", b"\xd9\xa7\0", b"65536\0", b"nan\0", b"7\0\0\0", b"7", b"-9999\0",
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["<u2", "<f4"])
@pytest.mark.parametrize("text", TEXTS_OF_NODATA)
def test_any_nodata_text_is_what_gdal_makes_of_it(tmp_path: Path, text: bytes, dtype: str) -> None:
    of_floats: Tags = {FORMAT: (SHORT, [3]), SAMPLE_BITS: (SHORT, [32])}
    data = zlib.compress(PIXELS.astype(dtype).tobytes())
    changes = of_floats if dtype == "<f4" else {}
    path = build(tmp_path / "x.tif", {**changes, NODATA: (ASCII, text)}, data)
    ours = open_band(path).info
    with rasterio.open(path) as file:
        theirs = file.nodata
    np.testing.assert_equal(ours.nodata, nodata_in_dtype(theirs, ours.dtype))


@pytest.mark.parametrize("kind", [BYTE, UNDEFINED])
def test_a_nodata_value_of_another_type_than_text_counts(tmp_path: Path, kind: int) -> None:
    path = build(tmp_path / "x.tif", {NODATA: (kind, b"7\0")})
    assert open_band(path).info.nodata == 7


@pytest.mark.parametrize(
    "keys",
    [
        [1, 1, 0, 4, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32634],
        [1, 1, 0, 2, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32634],
        [1, 1, 0, 4, 1024, 0, 1, 1, 1025, 0, 1, 1, 1026, 34737, 30, 0, 3072, 0, 1, 32634],
        [1, 1, 0, 4, 1024, 0, 1, 1, 1025, 0, 1, 1, 1026, 34736, 1, 5, 3072, 0, 1, 32634],
        [2, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32634],
        [1, 9, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32634],
        [1, 1, 0, 4, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633, 3072, 0, 1, 32634],
        [1, 1, 0],
    ],
    ids=["too few", "too many", "no text", "no double", "version", "revision", "twice", "cut"],
)
def test_geokeys_that_are_not_as_the_standard_has_them_are_left_to_gdal(
    tmp_path: Path, keys: list[int]
) -> None:
    path = build(tmp_path / "x.tif", {KEYS: (SHORT, keys)})
    with rasterio.open(path) as file:
        theirs = file.crs
    if theirs is None or not theirs.is_projected:
        with pytest.raises(ReadError, match="its pixels cannot be placed"):
            open_band(path)
    else:
        assert rasterio.crs.CRS.from_user_input(open_band(path).info.crs) == theirs


@pytest.mark.parametrize(
    "text",
    [b"WGS 84\0/ UTM zone 34N|\0", b"WGS 84\0|\0", b"\0\0\x81\xa4\2\0\2\0", b"WGS\x84 84|\0"],
)
def test_a_citation_that_no_reader_can_read_is_left_to_gdal(tmp_path: Path, text: bytes) -> None:
    keys = [
        1,
        1,
        0,
        4,
        1024,
        0,
        1,
        1,
        1025,
        0,
        1,
        1,
        1026,
        34737,
        len(text) - 1,
        0,
        3072,
        0,
        1,
        32634,
    ]
    path = build(tmp_path / "x.tif", {KEYS: (SHORT, keys), TEXTS: (ASCII, text)})
    with rasterio.open(path) as file:
        theirs = file.crs
    if theirs is None:
        with pytest.raises(ReadError, match="has no CRS"):
            open_band(path)
    else:
        assert rasterio.crs.CRS.from_user_input(open_band(path).info.crs) == theirs


def test_a_predictor_of_an_odd_type_is_what_gdal_makes_of_it(tmp_path: Path) -> None:
    path = build(tmp_path / "x.tif", {PREDICTOR: (IFD, [2])})
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(whole(open_band(path)), file.read(1))


@pytest.mark.parametrize("text", [b"nan\0", b"7\0", b"18446744073709551615\0"])
def test_nodata_values_of_64_bit_integers_are_gdals(tmp_path: Path, text: bytes) -> None:
    wide: Tags = {SAMPLE_BITS: (SHORT, [64]), NODATA: (ASCII, text)}
    path = build(tmp_path / "x.tif", wide, zlib.compress(PIXELS.astype("<u8").tobytes()))
    with rasterio.open(path) as file:
        np.testing.assert_equal(
            open_band(path).info.nodata, nodata_in_dtype(file.nodata, np.dtype("uint64"))
        )


def test_a_pixel_scale_that_is_no_double_is_left_to_gdal(tmp_path: Path) -> None:
    path = build(tmp_path / "x.tif", {SCALE: (LONG8, [10, 10, 0])}, big=True)
    with rasterio.open(path) as file:
        assert open_band(path).info.transform == file.transform


def test_half_floats_are_read_as_gdal_reads_them(tmp_path: Path) -> None:
    halves = (PIXELS / 8).astype("<f2")
    changes: Tags = {FORMAT: (SHORT, [3])}
    source = open_band(build(tmp_path / "x.tif", changes, zlib.compress(halves.tobytes())))
    assert source.info.dtype == np.float32
    np.testing.assert_array_equal(whole(source), halves.astype(np.float32))


def test_a_predictor_says_nothing_where_nothing_is_compressed(tmp_path: Path) -> None:
    changes: Tags = {COMPRESSION: (SHORT, [1]), PREDICTOR: (SHORT, [2])}
    source = open_band(build(tmp_path / "x.tif", changes, PIXELS.tobytes()))
    assert isinstance(source, TiffSource)
    np.testing.assert_array_equal(whole(source), PIXELS)


def test_a_block_that_was_never_written_holds_what_gdal_makes_of_its_nodata_value(
    tmp_path: Path,
) -> None:
    path = build(
        tmp_path / "x.tif", {OFFSETS: (LONG, [0]), SIZES: (LONG, [0]), NODATA: (ASCII, b"65536\0")}
    )
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(whole(open_band(path)), file.read(1))


def test_a_description_that_is_no_utf_8_is_read_as_latin_1(tmp_path: Path) -> None:
    text = b'<GDALMetadata><Item name="D" sample="0" role="description">r\xff</Item></GDALMetadata>'
    tiled: Tags = {METADATA: (ASCII, text + b"\0")}
    places: Tags = {
        COMPRESSION: (SHORT, [1]),
        STRIP_OFFSETS: (LONG, [FIRST]),
        STRIP_SIZES: (LONG, [8192]),
    }
    source = open_band(build(tmp_path / "x.tif", {**tiled, **STRIPS, **places}, PIXELS.tobytes()))
    assert source.info.descriptions == ("rÿ",)
    np.testing.assert_array_equal(whole(source), PIXELS)


@pytest.mark.parametrize(
    "odd",
    [
        {TILE_HEIGHT: (LONG, [16])},
        {STRIP_OFFSETS: (SSHORT, [FIRST])},
        {STRIP_SIZES: (SSHORT, [PIXELS.nbytes])},
        {ROWS_PER_STRIP: (SSHORT, [64])},
    ],
    ids=["a side of tiles", "offsets", "sizes", "rows"],
)
def test_strips_of_an_odd_header_are_what_gdal_makes_of_them(tmp_path: Path, odd: Tags) -> None:
    places: Tags = {STRIP_OFFSETS: (LONG, [FIRST]), STRIP_SIZES: (LONG, [PIXELS.nbytes])}
    path = build(
        tmp_path / "x.tif", {COMPRESSION: (SHORT, [1]), **STRIPS, **places, **odd}, PIXELS.tobytes()
    )
    try:
        source = open_band(path)
    except ReadError:
        return  # GDAL opens it no more than we do
    assert not isinstance(source, TiffSource)


def test_entities_of_metadata_are_not_multiplied(tmp_path: Path) -> None:
    entities = "".join(f"<!ENTITY x{n} '&x{n - 1};&x{n - 1};'>" for n in range(1, 31))
    text = f"<!DOCTYPE a [<!ENTITY x0 'ha'>{entities}]><GDALMetadata><Item name='x'>&x30;</Item></GDALMetadata>"
    path = build(tmp_path / "x.tif", {METADATA: (ASCII, text.encode() + b"\0")})
    np.testing.assert_array_equal(whole(open_band(path)), PIXELS)


# What cannot be placed


NOWHERE: dict[str, Tags] = {
    "nan": {TIEPOINT: (DOUBLE, [0, 0, 0, float("nan"), 0, 0])},
    "infinite": {SCALE: (DOUBLE, [float("inf"), 10, 0])},
    "far": {TIEPOINT: (DOUBLE, [0, 0, 0, 0, float("-inf"), 0])},
    "tiny": {SCALE: (DOUBLE, [1e-308, 1e-308, 0])},
    "none": {SCALE: None, TIEPOINT: None},
}


@pytest.mark.parametrize("name", NOWHERE)
def test_an_image_whose_header_places_it_nowhere_is_refused(tmp_path: Path, name: str) -> None:
    path = build(tmp_path / "x.tif", NOWHERE[name])
    with pytest.raises(ReadError, match=r"has the transform \(.*\): its pixels cannot be placed"):
        open_band(path)
    assert "its pixels cannot be placed" in errors(path)


# Sizes


def test_an_image_without_rows_is_refused(tmp_path: Path) -> None:
    path = build(tmp_path / "x.tif", {HEIGHT: (LONG, [0])})
    assert path.stat().st_size < 9000
    with pytest.raises(ReadError, match="64 x 0 pixels"):
        open_band(path)
    assert "64 x 0 pixels" in errors(path)


def peak(call: Callable[[], Any]) -> int:
    """Bytes that Python and NumPy had at once during a call."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("compression", [1, 5, 8, 50_000])
def test_a_tile_of_gigabytes_is_refused_before_memory_is_asked_for(
    tmp_path: Path, compression: int
) -> None:
    side: Tags = {
        TILE_WIDTH: (LONG, [48_000]),
        TILE_HEIGHT: (LONG, [48_000]),
        COMPRESSION: (SHORT, [compression]),
    }
    image: Tags = {WIDTH: (LONG, [48_000]), HEIGHT: (LONG, [48_000])}
    path = build(tmp_path / "x.tif", {**image, **side}, b"x" * 10)
    assert path.stat().st_size < 400

    def refused() -> None:
        with pytest.raises(
            ReadError,
            match="4,608,000,000 bytes exceed the 268,435,456 that can be decoded",
        ):
            open_band(path)
        assert "268,435,456" in errors(path)

    assert peak(refused) < 2**24


@pytest.mark.parametrize("compression", [1, 8])
def test_a_strip_of_gigabytes_is_refused_before_memory_is_asked_for(
    tmp_path: Path, compression: int
) -> None:
    strip: Tags = {
        STRIP_OFFSETS: (LONG, [FIRST]),
        STRIP_SIZES: (LONG, [10]),
        ROWS_PER_STRIP: (LONG, [2**31]),
        COMPRESSION: (SHORT, [compression]),
    }
    no_tiles: Tags = {OFFSETS: None, SIZES: None, TILE_WIDTH: None, TILE_HEIGHT: None}
    sides: Tags = {WIDTH: (LONG, [48_000]), HEIGHT: (LONG, [48_000])}
    path = build(tmp_path / "x.tif", {**strip, **no_tiles, **sides}, b"x" * 10)
    script = (
        "import sys\n"
        "from scenebeam.raster.validate import validate\n"
        "from scenebeam.request import Checks\n"
        f"before = {PEAK_KIB}\n"
        "report = validate(sys.argv[1], Checks(), deep=True)\n"
        f"print({PEAK_KIB} - before, report.valid)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    growth, valid = done.stdout.split()
    assert valid == "False"
    assert int(growth) * 1024 < 2**28


def test_blocks_that_lie_beyond_all_files_are_truncated(tmp_path: Path) -> None:
    for offset, size in ((FIRST, 2**62), (2**62, 2**62), (2**40, 100)):
        changes: Tags = {OFFSETS: (LONG8, [offset]), SIZES: (LONG8, [size])}
        path = build(tmp_path / "x.tif", changes, big=True)
        source = open_band(path)
        with pytest.raises(ReadError, match=r"is truncated|cannot be read"):
            whole(source)
        with pytest.raises(ReadError, match="is truncated: .* bytes are missing"):
            source.sample_overview()
        assert missing_bytes(str(path)) == offset + size - path.stat().st_size


@pytest.mark.parametrize("side", [WIDTH, HEIGHT])
def test_more_strips_than_a_file_of_its_size_can_list_are_refused(
    tmp_path: Path, side: int
) -> None:
    odd: Tags = {
        side: (LONG, [2**24]),
        PREDICTOR: (SHORT, [2]),
        338: (SHORT, [2]),
        SAMPLES: (SHORT, [2]),
    }
    path = build(
        tmp_path / "x.tif", {**odd, SAMPLE_BITS: (SHORT, [16, 16]), FORMAT: (SHORT, [1, 1])}
    )
    with pytest.raises(
        ReadError, match="has a header of 262,144 blocks, more than a file of its size can list"
    ):
        open_band(path)


def test_jpeg_2000_with_a_box_of_no_length_in_another_one_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "x.jp2"
    profile = {"driver": "JP2OpenJPEG", "width": 64, "height": 64, "count": 1, "dtype": "uint16"}
    placed = {"crs": "EPSG:32634", "transform": Affine(10, 0, 600_000, 0, -10, 4_500_000)}
    with rasterio.open(path, "w", **profile, **placed, REVERSIBLE="YES", QUALITY=100) as file:
        file.write(PIXELS, 1)
    content = path.read_bytes()
    label = content.index(b"\x11lbl gml.data")
    path.write_bytes(content[:label] + b"\0" + content[label + 1 :])
    script = (
        "import sys\n"
        "from scenebeam.raster.reader import open_source\n"
        "from scenebeam.transfer.retry import Budget\n"
        "print(open_source(sys.argv[1], 1, Budget(private=True)).sample_overview()[0].mean())\n"
    )
    command = [sys.executable, "-c", script, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert float(done.stdout) == pytest.approx(PIXELS.mean())


def test_a_look_at_large_blocks_takes_the_memory_of_one(tmp_path: Path) -> None:
    side = 6144  # 36 MiB of uint8
    tile = imagecodecs.zstd_encode(np.full((side, side), 7, np.uint8).tobytes())
    sides: Tags = {one: (LONG, [3 * side]) for one in (WIDTH, HEIGHT)}
    tiles: Tags = {one: (LONG, [side]) for one in (TILE_WIDTH, TILE_HEIGHT)}
    kind: Tags = {COMPRESSION: (SHORT, [50_000]), SAMPLE_BITS: (SHORT, [8])}
    places: Tags = {OFFSETS: (LONG, [FIRST] * 9), SIZES: (LONG, [len(tile)] * 9)}
    source = open_band(build(tmp_path / "x.tif", {**sides, **tiles, **kind, **places}, bytes(tile)))
    pieces: list[np.ndarray] = []
    assert peak(lambda: pieces.extend(source.sample_overview())) < 5 * side**2
    assert len(pieces) == 9
    assert sum(piece.size for piece in pieces) < 10 * 2**20
    assert all((piece == 7).all() for piece in pieces)


def test_blocks_that_overlap_are_read_each_for_itself(tmp_path: Path) -> None:
    # The second block lies inside the first one, behind what of that is decoded.
    one, other = zlib.compress(PIXELS.tobytes()), zlib.compress(PIXELS[::-1].tobytes())
    data = one + other + bytes(1000)
    changes: Tags = {
        WIDTH: (LONG, [128]),
        OFFSETS: (LONG, [FIRST, FIRST + len(one)]),
        SIZES: (LONG, [len(data), len(other)]),
    }
    path = build(tmp_path / "x.tif", changes, data)
    budget = Budget(private=True)
    source = open_source(str(path), 1, budget)
    before = budget.requests
    np.testing.assert_array_equal(whole(source), np.hstack([PIXELS, PIXELS[::-1]]))
    assert budget.requests == before + 1


# Chains of directories


def chained(path: Path, tags: Tags, count: int, back_to: int | None, cut: int = 0) -> Path:
    """A file of several directories, the last of which leads back to one of them."""
    data = zlib.compress(PIXELS.tobytes())
    strips = tags.get(ROWS_PER_STRIP) is not None
    offsets, sizes = (STRIP_OFFSETS, STRIP_SIZES) if strips else (OFFSETS, SIZES)
    own: Tags = {**TILED, **tags, offsets: (LONG, [FIRST]), sizes: (LONG, [len(data)])}
    first = FIRST + len(data) + len(data) % 2
    content = (
        struct.pack("<2sHI", b"II", 42, first).ljust(FIRST, b"\0") + data + bytes(len(data) % 2)
    )
    step = len(directory(first, own))
    step += step % 2
    for number in range(count):
        after = first + step * (number + 1)
        if number == count - 1:
            after = 0 if back_to is None else first + step * back_to
        start = first + step * number
        reduced: Tags = {254: (LONG, [1])} if number and not strips else {}
        body = directory(start, {**own, **reduced} if not reduced else own, after=after)
        content += body.ljust(step, b"\0")
    path.write_bytes(content[: len(content) - cut] if cut else content)
    return path


@pytest.mark.parametrize("strips", [False, True], ids=["tiles", "strips"])
@pytest.mark.parametrize(("count", "back_to"), [(1, 0), (3, 1), (150, 120), (2000, None)])
def test_a_chain_of_directories_ends_where_it_leads_back(
    tmp_path: Path, strips: bool, count: int, back_to: int | None
) -> None:
    path = chained(tmp_path / "x.tif", STRIPS if strips else {}, count, back_to)
    assert missing_bytes(str(path)) == 0
    source = open_band(path)
    np.testing.assert_array_equal(whole(source), PIXELS)
    assert [piece.shape for piece in source.sample_overview()] == [(64, 64)]
    assert errors(path) == ""


@pytest.mark.parametrize("strips", [False, True], ids=["tiles", "strips"])
@pytest.mark.parametrize("cut", [10, 100, 250])
def test_a_file_that_is_cut_within_its_second_directory_is_truncated(
    tmp_path: Path, cut: int, strips: bool
) -> None:
    path = chained(tmp_path / "x.tif", STRIPS if strips else {}, 2, None, cut)
    assert missing_bytes(str(path)) > 0
    with pytest.raises(ReadError, match=r"is truncated: [\d,]+ bytes are missing"):
        open_band(path).sample_overview()
    assert "is truncated" in errors(path)


# Kinds of numbers


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "complex_int16"])
def test_complex_numbers_are_refused_in_words(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "x.tif"
    profile = {
        "driver": "GTiff",
        "width": 64,
        "height": 64,
        "count": 1,
        "dtype": dtype,
        "crs": "EPSG:32634",
    }
    with rasterio.open(path, "w", **profile, tiled=True, transform=Affine(10, 0, 0, 0, -10, 0)):
        pass
    with pytest.raises(
        ReadError, match="holds complex numbers; scenebeam reads integers and floats"
    ):
        open_band(path)
    assert "holds complex numbers" in errors(path)


# Many bands


@pytest.mark.parametrize("planar", [1, 2])
def test_a_file_of_20_000_bands_is_told_in_words(tmp_path: Path, planar: int) -> None:
    places = 20_000 if planar == 2 else 1
    sides: Tags = dict.fromkeys((WIDTH, HEIGHT, TILE_WIDTH, TILE_HEIGHT), (LONG, [16]))
    kinds: Tags = {
        SAMPLE_BITS: (SHORT, [8] * 20_000),
        FORMAT: (SHORT, [1] * 20_000),
        SAMPLES: (SHORT, [20_000]),
    }
    tile = zlib.compress(np.arange(16 * 16 * 20_000 // places, dtype=np.uint8).tobytes())
    stored: Tags = {
        OFFSETS: (LONG, [FIRST] * places),
        SIZES: (LONG, [len(tile)] * places),
        284: (SHORT, [planar]),
    }
    path = build(tmp_path / "x.tif", {**sides, **kinds, **stored}, tile)
    assert whole(open_band(path, 20_000)).shape == (16, 16)
    assert errors(path) == (
        "it has 20,000 bands, more than the 1,000 that are checked; split it into files of fewer bands"
    )


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A number for each block that is decoded."""
    calls: list[int] = []

    def counted(layout: Any, encoded: memoryview, rows: int | None = None) -> Any:
        calls.append(len(encoded))
        return decode(layout, encoded, rows)

    monkeypatch.setattr(blocks, "decode", counted)
    return calls


BANDS, SIDE = 224, 320


@pytest.fixture
def spectra(tmp_path: Path) -> Path:
    """A file of 224 bands, pixel by pixel, in 25 blocks."""
    rng = np.random.default_rng(2)
    pixels = rng.integers(1000, 4000, (BANDS, SIDE, SIDE)).astype(np.uint16)
    path = tmp_path / "spectra.tif"
    profile = {
        "driver": "GTiff",
        "width": SIDE,
        "height": SIDE,
        "count": BANDS,
        "dtype": "uint16",
        "nodata": 0,
    }
    tiled = {
        "tiled": True,
        "blockxsize": 64,
        "blockysize": 64,
        "interleave": "pixel",
        "compress": "zstd",
    }
    placed = {"crs": "EPSG:32632", "transform": Affine(10, 0, 600_000, 0, -10, 5_200_000)}
    with rasterio.open(path, "w", **profile, **tiled, **placed) as file:
        file.write(pixels)
    return path


def test_each_block_of_many_bands_is_decoded_once_for_all_of_them(
    spectra: Path, decoded: list[int]
) -> None:
    budget = Budget(private=True)
    sources = [open_source(str(spectra), band, budget) for band in range(1, BANDS + 1)]
    with rasterio.open(spectra) as file:
        for band, source in enumerate(sources, start=1):
            found = whole(source)
            if band % 50 == 0:
                np.testing.assert_array_equal(found, file.read(band))
    assert len(decoded) == 25
    assert budget.bytes < 1.3 * spectra.stat().st_size


def test_bands_are_validated_without_decoding_blocks_for_each(
    spectra: Path, decoded: list[int]
) -> None:
    assert errors(spectra) == ""
    assert len(decoded) < 25 * 4, "every block once for each look at the file, not for each band"


def test_bytes_are_read_once_where_decoded_blocks_find_no_room(
    spectra: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "_MAX_KEPT_MANY_BANDS", 1)
    budget = Budget(private=True)
    sources = [open_source(str(spectra), band, budget) for band in (1, 2, 224)]
    found = [whole(source) for source in sources]
    with rasterio.open(spectra) as file:
        np.testing.assert_array_equal(found, file.read([1, 2, 224]))
    assert 3 * 25 - 2 <= len(decoded) <= 3 * 25
    assert budget.bytes < 1.3 * spectra.stat().st_size


def test_deep_looks_at_many_bands_hold_the_pixels_of_one(spectra: Path) -> None:
    source = open_band(spectra)
    file = SIDE * SIDE * BANDS * 2
    assert peak(lambda: damage_of(source)) < file / 2


def test_a_stack_of_many_bands_reads_its_file_once(
    spectra: Path, tmp_path: Path, decoded: list[int]
) -> None:
    names = [f"b{number:03}" for number in range(1, BANDS + 1)]
    record = {
        "id": "spectra",
        "provider": "file",
        "sensor": "optical",
        "dtype": "uint16",
        "nodata": 0,
        "bands": {
            name: {"asset": "all", "band": n, "resolution": 10} for n, name in enumerate(names, 1)
        },
    }
    west, south, east, north = rasterio.warp.transform_bounds(
        "EPSG:32632", 4326, 600_000, 5_200_000 - 10 * SIDE, 600_000 + 10 * SIDE, 5_200_000
    )
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "scene",
        "collection": "spectra",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, south, east, north],
        "properties": {"datetime": "2024-05-01T10:00:00Z"},
        "links": [],
        "assets": {"all": {"href": str(spectra)}},
    }
    items = tmp_path / "items.json"
    items.write_text(json.dumps({"type": "FeatureCollection", "features": [item]}))
    document = {
        "run": "spectra",
        "catalog": str(items),
        "collections": [record],
        "product": {"kind": "stack", "format": "geotiff", "bands": names},
        "output": str(tmp_path / "out"),
        "runner": "serial",
    }
    status = run(validate_request(document))
    assert status.state == "succeeded", status.message
    (stack,) = (tmp_path / "out" / "stacks" / "scene").glob("*.tif")
    with rasterio.open(stack) as ours, rasterio.open(spectra) as theirs:
        assert ours.count == BANDS
        np.testing.assert_array_equal(ours.read([1, 100, 224]), theirs.read([1, 100, 224]))
    assert len(decoded) < 2 * 25
    assert sum(decoded) < 1.3 * spectra.stat().st_size
