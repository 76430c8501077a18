"""The reader against rasterio, bit for bit: every layout of the fast door, and what goes through the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.windows import Window

from scenebeam.errors import ReadError
from scenebeam.raster.reader import open_source
from scenebeam.raster.source import read_window
from scenebeam.sandbox.server import Fault, SandboxServer, serve
from scenebeam.transfer.retry import Budget

GRID = {"crs": "EPSG:32634", "transform": Affine(10, 0, 600_000, 0, -10, 4_500_000)}


@pytest.fixture
def make_file(tmp_path: Path) -> Callable[..., Path]:
    def make(
        name: str = "x.tif",
        *,
        dtype: str = "uint16",
        shape: tuple[int, ...] = (1, 300, 420),
        **options: object,
    ) -> Path:
        rng = np.random.default_rng(7)
        pixels = (rng.normal(1000, 300, shape)).clip(0, 60000)
        pixels = (pixels % 250 if dtype.endswith("int8") else pixels).astype(dtype)
        path = tmp_path / name
        profile = {
            "driver": "GTiff",
            "count": shape[0],
            "height": shape[1],
            "width": shape[2],
            "dtype": dtype,
        }
        with rasterio.open(path, "w", **{**profile, **GRID, **options}) as file:
            file.write(pixels)
        return path

    return make


def same_as_rasterio(path: Path, band: int = 1) -> str:
    source = open_source(str(path), band, Budget(private=True))
    with rasterio.open(path) as file:
        info = source.info
        assert (info.width, info.height, info.count) == (file.width, file.height, file.count)
        assert info.transform == file.transform
        assert info.nodata == file.nodata or (np.isnan(info.nodata or 0) and np.isnan(file.nodata))
        assert rasterio.crs.CRS.from_user_input(info.crs) == file.crs
        for row, column, height, width in (
            (0, 0, info.height, info.width),
            (13, 200, 250, 150),
            (299, 419, 1, 1),
        ):
            expected = file.read(band, window=Window(column, row, width, height))
            found = read_window(source, row, column, height, width)
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)
    source.close()
    return type(source).__name__


TILED = {"tiled": True, "blockxsize": 128, "blockysize": 64}


FAST = [
    (dtype, compress, predictor)
    for dtype in ("uint8", "int16", "uint16", "int32", "float32", "float64")
    for compress in ("none", "deflate", "lzw", "zstd")
    for predictor in (1, 3 if dtype.startswith("float") else 2)
    if compress != "none" or predictor == 1
]


@pytest.mark.parametrize(("dtype", "compress", "predictor"), FAST)
def test_tiled_files_go_through_the_fast_door(
    make_file: Callable[..., Path], dtype: str, compress: str, predictor: int
) -> None:
    path = make_file(dtype=dtype, compress=compress, predictor=predictor, nodata=0, **TILED)
    assert same_as_rasterio(path) == "TiffSource"


STRIPS = [
    (compress, rows, interleave)
    for compress in ("none", "deflate", "lzw", "zstd")
    for rows in (1, 7, 64, 300)
    for interleave in ("band", "pixel")
]


@pytest.mark.parametrize(("compress", "rows", "interleave"), STRIPS)
def test_strips_are_blocks_too(
    make_file: Callable[..., Path], compress: str, rows: int, interleave: str
) -> None:
    options = {} if compress == "none" else {"predictor": 2}
    path = make_file(
        shape=(2, 300, 420),
        compress=compress,
        blockysize=rows,
        interleave=interleave,
        nodata=0,
        tiled=False,
        **options,
    )
    assert same_as_rasterio(path, 2) == "StripSource"


def test_a_damaged_strip_is_an_error(make_file: Callable[..., Path]) -> None:
    """Whatever the codec makes of it: libtiff takes some damage for pixels."""
    path = make_file(compress="deflate", blockysize=50, tiled=False)
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 3, len(content) - 100, 1500):
        content[place] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(ReadError, match="corrupt"):
        read_window(open_source(str(path), 1, Budget(private=True)), 0, 0, 300, 420)


@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize("band", [1, 2, 3])
def test_one_band_of_many(make_file: Callable[..., Path], interleave: str, band: int) -> None:
    path = make_file(
        shape=(3, 300, 420), interleave=interleave, compress="deflate", predictor=2, **TILED
    )
    assert same_as_rasterio(path, band) == "TiffSource"


@pytest.mark.parametrize(
    "options",
    [
        {"BIGTIFF": "YES", **TILED},
        {"ENDIANNESS": "BIG", "compress": "deflate", "predictor": 2, **TILED},
        {"ENDIANNESS": "BIG", "dtype": "float32", "compress": "deflate", "predictor": 3, **TILED},
        {"driver": "COG", "compress": "deflate", "blocksize": 128},
        {"SPARSE_OK": True, "nodata": 0, **TILED},
        {"crs": "EPSG:4326", "transform": Affine(0.001, 0, 23, 0, -0.001, 41), **TILED},
        {"nodata": float("nan"), "dtype": "float32", **TILED},
    ],
    ids=["bigtiff", "big-endian", "big-endian-float", "cog", "sparse", "geographic", "nan"],
)
def test_other_forms_of_tiled_files(make_file: Callable[..., Path], options: dict) -> None:
    assert same_as_rasterio(make_file(**options)) == "TiffSource"


@pytest.mark.parametrize(
    "options",
    [
        {"name": "x.jp2", "driver": "JP2OpenJPEG", "quality": 100, "reversible": "YES"},
        {
            "dtype": "uint8",
            "shape": (3, 300, 420),
            "compress": "jpeg",
            "photometric": "YCBCR",
            **TILED,
        },
        {"crs": "+proj=laea +lat_0=50 +lon_0=11.3 +ellps=sphere", **TILED},
        {"NBITS": 12, **TILED},
        {"compress": "packbits", **TILED},
    ],
    ids=["jpeg2000", "jpeg", "own-crs", "12-bit", "packbits"],
)
def test_all_else_goes_through_rasterio(make_file: Callable[..., Path], options: dict) -> None:
    options = dict(options)
    assert same_as_rasterio(make_file(options.pop("name", "x.tif"), **options)) == "GdalSource"


@pytest.mark.parametrize(
    "options",
    [
        {"name": "x.jp2", "driver": "JP2OpenJPEG", "quality": 100, "reversible": "YES"},
        {"tiled": False, "compress": "lzw"},
    ],
    ids=["jpeg2000", "strips"],
)
def test_the_other_door_reads_over_http_too(make_file: Callable[..., Path], options: dict) -> None:
    options = dict(options)
    path = make_file(options.pop("name", "x.tif"), **options)
    with serve(path.parent) as server, rasterio.open(path) as file:
        source = open_source(f"{server.url}/{path.name}", 1, Budget(private=True))
        np.testing.assert_array_equal(
            read_window(source, 20, 30, 200, 300), file.read(1)[20:220, 30:330]
        )
        source.close()
        assert server.statuses[404] == 0, "no side-car files are asked for"


def test_a_point_raster_lies_half_a_pixel_off(make_file: Callable[..., Path]) -> None:
    path = make_file(**TILED)
    with rasterio.open(path, "r+") as file:
        file.update_tags(AREA_OR_POINT="Point")
    assert same_as_rasterio(path) == "TiffSource"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_window_reads_as_rasterio_reads_it(sandbox: Path, data: st.DataObject) -> None:
    path = next(sandbox.glob("S2A_34TGL_2022*_1_L2A/red.tif"))
    row, column = data.draw(st.integers(0, 1000)), data.draw(st.integers(0, 1000))
    height, width = data.draw(st.integers(1, 1024 - row)), data.draw(st.integers(1, 1024 - column))
    with rasterio.open(path) as file:
        expected = file.read(1, window=Window(column, row, width, height))
    np.testing.assert_array_equal(
        read_window(open_source(str(path), 1, Budget(private=True)), row, column, height, width),
        expected,
    )


def test_blocks_are_fetched_once_and_neighbours_together(server: SandboxServer) -> None:
    budget = Budget(private=True)
    source = open_source(f"{server.url}/S2A_34TGL_20210610_1_L2A/red.tif", 1, budget)
    assert budget.requests == 1, "a header is one request"
    read_window(source, 0, 0, 1024, 1024)  # 4 x 4 blocks, all of them neighbours in the file
    assert budget.requests == 2
    read_window(source, 0, 300, 600, 200)  # column 1 of rows 0 to 2: three runs
    assert budget.requests == 5
    spans = [(start, stop) for _, start, stop in server.ranges[2:]]
    assert len(set(spans)) == 3


def test_real_files_of_many_kinds_read_the_same(real_data: Path) -> None:
    files = sorted([*real_data.glob("*/*.tif*"), *real_data.glob("*/*.TIF")])
    assert len(files) > 20
    for path in files:
        source = open_source(str(path), 1, Budget(private=True))
        with rasterio.open(path) as file:
            height, width = min(1200, file.height), min(1100, file.width)
            row, column = (file.height - height) // 2, (file.width - width) // 2
            expected = file.read(1, window=Window(column, row, width, height))
            np.testing.assert_array_equal(read_window(source, row, column, height, width), expected)
            assert source.info.nodata == file.nodata
            assert source.info.transform.almost_equals(file.transform, 1e-9)
        source.close()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda data: b"", "empty"),
        (lambda data: b"<html>not found</html>", "cannot be opened"),
        (lambda data: data[:40], "cannot be"),
        (lambda data: data[: len(data) // 2], "truncated"),
        (lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2), "corrupt"),
    ],
    ids=["empty", "html", "header-only", "truncated", "zeroed"],
)
def test_a_broken_file_is_never_a_blank_block(
    make_file: Callable[..., Path], spoil: Callable, told: str
) -> None:
    path = make_file(compress="deflate", predictor=2, **TILED)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ReadError, match=told) as fault:
        read_window(open_source(str(path), 1, Budget(private=True)), 0, 0, 300, 420)
    assert fault.value.permanent


def test_a_file_without_a_crs_cannot_be_placed(make_file: Callable[..., Path]) -> None:
    with pytest.raises(ReadError, match="no CRS"):
        open_source(str(make_file(crs=None, **TILED)), 1, Budget(private=True))


def test_a_band_that_is_not_there_is_named(make_file: Callable[..., Path]) -> None:
    with pytest.raises(ReadError, match="has 1 bands, not a band 4"):
        open_source(str(make_file(**TILED)), 4, Budget(private=True))


def test_a_block_that_arrives_corrupt_is_an_error(server: SandboxServer) -> None:
    server.faults.append(Fault("red.tif", corrupt=True))
    source = open_source(f"{server.url}/S2A_34TGL_20210610_1_L2A/red.tif", 1, Budget(private=True))
    with pytest.raises(ReadError, match="corrupt"):
        read_window(source, 0, 0, 600, 600)
