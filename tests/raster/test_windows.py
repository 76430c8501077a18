"""Windows of one file on many grids: the same pixels as one by one, and every block fetched once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.warp import reproject
from rasterio.windows import Window

from scenebeam.raster.cog import CogBand, CogProfile, small_cog
from scenebeam.raster.grid import Grid
from scenebeam.raster.reader import open_source
from scenebeam.raster.windows import Windows
from scenebeam.sandbox.scenes import SCENES
from scenebeam.sandbox.server import SandboxServer
from scenebeam.transfer.retry import Budget

SCENE = SCENES[0]


def grid(row: int, column: int, side: int = 64, resolution: float = 10) -> Grid:
    return Grid(
        (side, side),
        from_origin(SCENE.left + column * 10, SCENE.top - row * 10, resolution, resolution),
        "EPSG:32634",
    )


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 960), st.integers(0, 960)), min_size=1, max_size=30),
    st.randoms(),
)
def test_each_grid_gets_its_own_pixels(
    sandbox: Path, places: list[tuple[int, int]], order: object
) -> None:
    path = sandbox / SCENE.id / "red.tif"
    windows = Windows(
        open_source(str(path), 1, Budget(private=True)),
        [grid(*place) for place in places],
        "nearest",
        0,
    )
    numbers = sorted(range(len(places)), key=windows.first_block)
    with rasterio.open(path) as file:
        for number in numbers:
            row, column = places[number]
            np.testing.assert_array_equal(
                windows.read(number), file.read(1, window=Window(column, row, 64, 64))
            )
    assert not windows._blocks  # nothing is kept


def test_every_block_is_fetched_once(server: SandboxServer) -> None:
    places = [(row, column) for row in range(0, 960, 90) for column in range(0, 960, 90)]
    source = open_source(f"{server.url}/{SCENE.id}/red.tif", 1, Budget(private=True))
    windows = Windows(source, [grid(*place) for place in places], "nearest", 0)
    assert windows.blocks == [(row, column) for row in range(4) for column in range(4)]
    size = sum((source.cost([block]) or (0, 0))[1] for block in windows.blocks)
    server.reset_counts()
    for number in sorted(range(len(places)), key=windows.first_block):
        windows.read(number)
    assert (
        size <= server.bytes_sent <= size + 8 * 16
    )  # GDAL keeps four bytes before each block, and four behind
    assert sum(server.requests.values()) <= 4


def test_few_rows_of_blocks_are_held(sandbox: Path) -> None:
    source = open_source(str(sandbox / SCENE.id / "red.tif"), 1, Budget(private=True))
    places = [(row, 100) for row in range(0, 960, 16)]
    windows = Windows(source, [grid(*place) for place in places], "nearest", 0)
    most = 0
    for number in sorted(range(len(places)), key=windows.first_block):
        windows.read(number)
        most = max(most, len(windows._blocks))
    assert most <= 3  # the row that is read, one more, and one that a grid lies across


@pytest.mark.parametrize("band", ["swir16", "scl"])
def test_coarser_bands_and_other_crs(sandbox: Path, band: str) -> None:
    path, method = sandbox / SCENE.id / f"{band}.tif", "nearest" if band == "scl" else "bilinear"
    grids = [
        grid(40, 60),
        grid(333, 77),
        grid(500, 500, 50, 17.0),
        Grid((40, 40), from_origin(23.95, 40.6, 1e-4, 1e-4), "EPSG:4326"),
    ]
    windows = Windows(open_source(str(path), 1, Budget(private=True)), grids, method, 0)
    with rasterio.open(path) as file:
        whole = file.read(1)
        for number in sorted(range(len(grids)), key=windows.first_block):
            expected = np.zeros(grids[number].shape, whole.dtype)
            reproject(
                whole, expected, src_transform=file.transform, src_crs=file.crs, src_nodata=0, dst_nodata=0,
                dst_transform=grids[number].transform, dst_crs=str(grids[number].crs), resampling=Resampling[method],
            )  # fmt: skip
            off = np.abs(windows.read(number).astype(int) - expected)
            assert (off > (0 if number < 2 else 1)).mean() < (1e-9 if number < 2 else 0.03)


def test_a_grid_beyond_the_image_is_nodata_there(sandbox: Path) -> None:
    windows = Windows(
        open_source(str(sandbox / SCENE.id / "red.tif"), 1, Budget(private=True)),
        [grid(-32, 992), grid(5000, 0)],
        "nearest",
        0,
    )
    corner = windows.read(0)
    assert (corner[:32] == 0).all()
    assert (corner[:, 32:] == 0).all()
    assert (corner[32:, :32] > 0).all()
    assert (windows.read(1) == 0).all()


@pytest.mark.parametrize("shift", [0, 5], ids=["pasted", "warped"])
def test_where_a_file_that_declares_no_nodata_ends_is_told_apart(sandbox: Path, shift: int) -> None:
    source = open_source(str(sandbox / SCENE.id / "red.tif"), 1, Budget(private=True))
    corner, inside = grid(-32, 992), grid(100, 100)
    moved = [
        Grid(one.shape, one.transform @ Affine.translation(shift / 10, 0), one.crs)
        for one in (corner, inside)
    ]
    windows = Windows(source, moved, "nearest", None)
    values, extent = windows.read_and_extent(0)
    assert extent is not None
    assert not extent[:32].any()
    assert extent[32:, :30].all()
    assert (values[~extent] == 0).all()
    values, extent = windows.read_and_extent(1)
    assert extent is None or extent.all()
    assert (values > 0).all()


@pytest.mark.parametrize(
    ("side", "tile"), [(16, 16), (96, 96), (250, 256), (256, 256), (512, 512), (700, 512)]
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "float32"])
def test_small_cogs_hold_what_was_put_in(tmp_path: Path, side: int, tile: int, dtype: str) -> None:
    pixels = np.random.default_rng(1).integers(1, 200, (3, side, side)).astype(dtype)
    profile = CogProfile(
        side, side, np.dtype(dtype), 0, "EPSG:32633", from_origin(600_000, 5_000_000, 10, 10),
        bands=tuple(CogBand(name, 0.5, 1.0) for name in ("a", "b", "c")),
    )  # fmt: skip
    content = small_cog(pixels, profile)
    assert content == small_cog(pixels, profile)
    (tmp_path / "x.tif").write_bytes(content)
    from rio_cogeo import cog_validate

    valid, errors, _ = cog_validate(tmp_path / "x.tif")
    assert valid, errors
    with rasterio.open(tmp_path / "x.tif") as file:
        np.testing.assert_array_equal(file.read(), pixels)
        assert file.block_shapes == [(tile, tile)] * 3
        assert (file.descriptions, file.scales, file.nodata) == (("a", "b", "c"), (0.5,) * 3, 0)
        assert (file.crs.to_epsg(), file.transform) == (32633, profile.transform)
        assert len(file.overviews(1)) == (1 if side > 512 else 0)
