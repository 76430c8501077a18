"""Placing on a grid: pasted and repeated pixels exactly, warped ones as rasterio.warp.reproject gives them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import Resampling
from rasterio.warp import reproject, transform_bounds

from scenebeam.raster.compose import compose
from scenebeam.raster.gdal_warp import GdalWarp
from scenebeam.raster.grid import Grid
from scenebeam.raster.layers import BandLayers, Layer
from scenebeam.raster.reader import open_source
from scenebeam.raster.warp import map_to_grid
from scenebeam.transfer.retry import Budget


@pytest.fixture(scope="module")
def red(sandbox: Path) -> Path:
    return sandbox / "S2A_34TGL_20210610_1_L2A" / "red.tif"


def composed(path: Path, grid: Grid, resampling: str = "nearest") -> np.ndarray:
    source = open_source(str(path), 1, Budget(private=True))
    band = BandLayers(
        "b", [Layer("x", source)], source.info.dtype, source.info.nodata, resampling, "first"
    )
    return np.concatenate([strip for _, _, strip in compose(grid, [band])])


def reprojected(path: Path, grid: Grid, resampling: str) -> np.ndarray:
    with rasterio.open(path) as file:
        found = np.zeros(grid.shape, file.dtypes[0])
        reproject(
            file.read(1), found, src_transform=file.transform, src_crs=file.crs, src_nodata=file.nodata, dst_nodata=0,
            dst_transform=grid.transform, dst_crs=grid.crs, resampling=Resampling[resampling],
        )  # fmt: skip
    return found


def own_grid(path: Path) -> Grid:
    with rasterio.open(path) as file:
        return Grid((file.height, file.width), file.transform, "EPSG:32634")


@settings(max_examples=25, deadline=None)
@given(
    st.integers(-1200, 1200), st.integers(-1200, 1200), st.integers(1, 1300), st.integers(1, 1300)
)
def test_same_grid_in_same_numbers_out(
    sandbox: Path, down: int, right: int, height: int, width: int
) -> None:
    path = sandbox / "S2A_34TGL_20210610_1_L2A" / "red.tif"
    grid = own_grid(path)
    moved = Grid((height, width), grid.transform @ Affine.translation(right, down), "EPSG:32634")
    with rasterio.open(path) as file:
        everywhere = np.pad(file.read(1), 2600)
    expected = everywhere[2600 + down :, 2600 + right :][:height, :width]
    np.testing.assert_array_equal(composed(path, moved), expected)


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic", "average"])
def test_same_grid_is_never_resampled(red: Path, resampling: str) -> None:
    with rasterio.open(red) as file:
        np.testing.assert_array_equal(composed(red, own_grid(red), resampling), file.read(1))


def test_20_m_on_10_m_is_aligned_by_edges(sandbox: Path, red: Path) -> None:
    swir = sandbox / "S2A_34TGL_20210610_1_L2A" / "swir16.tif"
    with rasterio.open(swir) as file:
        doubled = file.read(1).repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(composed(swir, own_grid(red)), doubled)
    # An odd origin: the first row and column show half a pixel of 20 m.
    odd = Grid((333, 401), own_grid(red).transform @ Affine.translation(7, 11), "EPSG:32634")
    np.testing.assert_array_equal(composed(swir, odd), doubled[11:344, 7:408])
    np.testing.assert_array_equal(
        composed(swir, own_grid(red)), reprojected(swir, own_grid(red), "nearest")
    )


GRIDS = [
    ("EPSG:32635", 10),
    ("EPSG:32634", 7.5),
    ("EPSG:32634", 25),
    ("EPSG:4326", 0.0001),
    ("EPSG:3035", 10),
]


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic", "average"])
@pytest.mark.parametrize(("crs", "resolution"), GRIDS)
def test_warped_as_reproject_does_it(
    red: Path, crs: str, resolution: float, resampling: str
) -> None:
    with rasterio.open(red) as file:
        left, bottom, right, top = transform_bounds(file.crs, crs, *file.bounds)
    shape = (int((top - bottom) / resolution) + 1, int((right - left) / resolution) + 1)
    grid = Grid(shape, Affine(resolution, 0, left, 0, -resolution, top), crs)
    found, expected = (
        composed(red, grid, resampling).astype(int),
        reprojected(red, grid, resampling).astype(int),
    )
    far = np.abs(found - expected) > 1
    assert far.mean() < 2e-4, f"{far.sum()} of {far.size} pixels are more than 1 DN off"
    if resampling == "nearest" and crs != "EPSG:3035":
        np.testing.assert_array_equal(found, expected)


def test_the_cheapest_way_is_taken(red: Path) -> None:
    info = open_source(str(red), 1, Budget(private=True)).info
    grid = own_grid(red)
    assert type(map_to_grid(info, grid, "bilinear", 0)).__name__ == "AlignedCopy"
    half = Grid((2048, 2048), Affine(5, 0, grid.transform.c, 0, -5, grid.transform.f), "EPSG:32634")
    assert type(map_to_grid(info, half, "nearest", 0)).__name__ == "AlignedCopy"
    assert type(map_to_grid(info, half, "bilinear", 0)).__name__ == "IntegerUpsample"
    assert type(map_to_grid(info, half, "cubic", 0)).__name__ == "GdalWarp"
    shifted = Grid(grid.shape, grid.transform @ Affine.translation(0.5, 0), "EPSG:32634")
    assert type(map_to_grid(info, shifted, "nearest", 0)).__name__ == "GdalWarp"


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([5, 10]), st.integers(-300, 1000), st.integers(1, 400))
def test_columns_of_a_block_that_are_not_needed_are_not_read(
    sandbox: Path, resolution: int, right: int, width: int
) -> None:
    path = sandbox / "S2A_34TGL_20210610_1_L2A" / "red.tif"
    source = open_source(str(path), 1, Budget(private=True))
    corner = own_grid(path).transform
    transform = Affine(resolution, 0, corner.c + right * 10, 0, -resolution, corner.f)
    grid = Grid((300, width), transform, "EPSG:32634")
    mapping = map_to_grid(source.info, grid, "nearest", 0)
    blocks = [block for block, _ in mapping.required_blocks(0, 300)]
    read = {block: future.result() for block, future in source.fetch(blocks).items()}

    def needed_only(block: tuple[int, int]) -> np.ndarray:
        pixels = np.full_like(read[block], 65535)
        pixels[:, mapping.columns_of(block)] = read[block][:, mapping.columns_of(block)]
        return pixels

    for whole, part in zip(
        mapping.resample(0, 300, blocks, read.__getitem__),
        mapping.resample(0, 300, blocks, needed_only),
        strict=True,
    ):
        np.testing.assert_array_equal(whole[1], part[1])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32"])
@pytest.mark.parametrize("factor", [2, 3, 6])
@pytest.mark.parametrize("holes", [False, True])
def test_a_whole_factor_is_interpolated_as_reproject_does_it(
    tmp_path: Path, dtype: str, factor: int, holes: bool
) -> None:
    rng = np.random.default_rng(11)
    pixels = rng.integers(1, 250 if dtype == "uint8" else 30_000, (700, 530)).astype(dtype)
    if dtype.startswith("int"):
        pixels -= 1000
    if holes:
        pixels[300:420, 200:260] = 0
    path = tmp_path / "coarse.tif"
    profile = {
        "driver": "GTiff",
        "tiled": True,
        "blockxsize": 128,
        "blockysize": 128,
        "nodata": 0 if holes else None,
    }
    with rasterio.open(
        path, "w", height=700, width=530, count=1, dtype=dtype, crs="EPSG:32634",
        transform=Affine(10 * factor, 0, 600_000, 0, -10 * factor, 4_500_000), **profile,
    ) as file:  # fmt: skip
        file.write(pixels, 1)
    whole = Grid(
        (700 * factor, 530 * factor), Affine(10, 0, 600_000, 0, -10, 4_500_000), "EPSG:32634"
    )
    part = Grid((601, 703), whole.transform @ Affine.translation(37, 411), "EPSG:32634")
    assert (
        type(
            map_to_grid(open_source(str(path), 1, Budget(private=True)).info, whole, "bilinear", 0)
        ).__name__
        == "IntegerUpsample"
    )
    expected = reprojected(path, whole, "bilinear")
    for grid, window in ((whole, np.s_[:, :]), (part, np.s_[411 : 411 + 601, 37 : 37 + 703])):
        found = composed(path, grid, "bilinear")
        if dtype == "float32":
            np.testing.assert_allclose(found, expected[window], rtol=1e-6)
        else:
            difference = np.abs(found.astype(int) - expected[window].astype(int))
            # Weights of a third are no binary numbers: a half may fall on the other side of a whole number.
            assert difference.max() <= (0 if factor == 2 else 1)


def written(path: Path, pixels: np.ndarray, nodata: float | None) -> Path:
    """Write pixels of 10 m in zone 35, with the western edge of the tile 34 columns into it."""
    with rasterio.open(
        path, "w", driver="GTiff", height=pixels.shape[0], width=pixels.shape[1], count=1, dtype=pixels.dtype,
        crs="EPSG:32635", transform=Affine(10, 0, 199_980, 0, -10, 4_500_000), nodata=nodata,
        tiled=True, blockxsize=256, blockysize=256,
    ) as file:  # fmt: skip
        file.write(pixels, 1)
    return path


def other_zone(path: Path, resolution: float = 10, west: int = 0, east: int = 0) -> Grid:
    """Return a grid of zone 34 around a file, with more columns in the west and in the east."""
    with rasterio.open(path) as file:
        left, bottom, right, top = transform_bounds(file.crs, "EPSG:32634", *file.bounds)
    shape = (
        int((top - bottom) / resolution) + 1,
        int((right - left) / resolution) + 1 + west + east,
    )
    transform = Affine(resolution, 0, left - west * resolution, 0, -resolution, top)
    return Grid(shape, transform, "EPSG:32634")


DTYPES = ["uint8", "int8", "uint16", "int16", "int32", "uint32", "float32", "float64"]


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic"])
@pytest.mark.parametrize(
    ("dtype", "resolution"),
    [*((dtype, 10) for dtype in DTYPES), ("uint16", 7.5), ("uint16", 25), ("float32", 25)],
)
@pytest.mark.parametrize("holes", [False, True])
def test_valid_pixels_need_no_mask(
    tmp_path: Path, dtype: str, resampling: str, resolution: float, holes: bool
) -> None:
    rng = np.random.default_rng(20)
    limits = np.iinfo(dtype) if dtype[0] in "iu" else None
    low, high = (max(limits.min, -30_000), min(limits.max, 30_000)) if limits else (-2.0, 3.0)
    pixels = (low + (high - low) * rng.random((700, 640))).astype(dtype)
    nodata = pixels.min()  # at the end of the range: no mean of others is equal to it
    pixels[pixels == nodata] = pixels.max()
    if holes:
        pixels[300:420, 200:260] = nodata
    path = written(tmp_path / "tile.tif", pixels, float(nodata))
    # Rows as GDAL warps them at once, of which the tile covers a part.
    grid = other_zone(path, resolution, west=100, east=50)
    mapping = map_to_grid(
        open_source(str(path), 1, Budget(private=True)).info, grid, resampling, float(nodata)
    )
    assert isinstance(mapping, GdalWarp)
    expected = np.full(grid.shape, nodata, dtype)
    with rasterio.open(path) as file:
        reproject(
            file.read(1), expected, src_transform=file.transform, src_crs=file.crs, src_nodata=float(nodata),
            dst_nodata=float(nodata), dst_transform=grid.transform, dst_crs="EPSG:32634",
            resampling=Resampling[resampling], XSCALE=mapping._scale[0], YSCALE=mapping._scale[1],
            # One row at a time at most: parts of rows have ends of their own.
            SRC_FILL_RATIO_HEURISTICS="FALSE",
        )  # fmt: skip
    assert (expected != nodata).mean() > 0.5
    found = composed(path, grid, resampling)
    if dtype.startswith("float"):
        # GDAL counts source pixels from the corner of the array that it gets, in float64.
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic", "average"])
@pytest.mark.parametrize("nodata", [0, None])
def test_a_window_has_the_pixels_of_the_whole(
    tmp_path: Path, resampling: str, nodata: int | None
) -> None:
    rng = np.random.default_rng(21)
    pixels = rng.integers(1, 30_000, (900, 3000)).astype("uint16")
    pixels[:, 1200:1300] = 0  # nodata, or data where there is none
    path = written(tmp_path / "tile.tif", pixels, nodata)
    whole = other_zone(path, west=2500, east=1000)
    assert whole.shape[1] > 6000
    expected = composed(path, whole, resampling)
    source = open_source(str(path), 1, Budget(private=True))
    for top, left, height, width in (
        (0, 0, 600, 4096),
        (17, 2400, 700, 1700),
        (512, 3000, 300, 3000),
    ):
        window = Grid(
            (height, width), whole.transform @ Affine.translation(left, top), "EPSG:32634"
        )
        band = BandLayers("b", [Layer("x", source)], source.info.dtype, nodata, resampling, "first")
        found = np.concatenate([rows for _, _, rows in compose(window, [band], whole=whole)])
        np.testing.assert_array_equal(found, expected[top : top + height, left : left + width])
