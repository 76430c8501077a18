"""Whole images copied block by block: the pixels of decoding and encoding, without doing either."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.shutil import copy as copy_raster

from scenebeam.errors import ReadError
from scenebeam.raster.block_copy import as_copyable, copy_blocks
from scenebeam.raster.cog import CogProfile, write_cog
from scenebeam.raster.compose import compose
from scenebeam.raster.grid import Grid
from scenebeam.raster.layers import BandLayers, Layer
from scenebeam.raster.pyramid import Pyramid, level_shapes
from scenebeam.raster.reader import open_source
from scenebeam.sandbox.server import Fault, serve
from scenebeam.transfer.retry import Budget

TRANSFORM = Affine(10, 0, 600_000, 0, -10, 4_500_000)


def write_image(path: Path, shape: tuple[int, int], dtype: str = "uint16", **options: Any) -> Path:
    """An image with smooth and noisy parts and a hole, as a COG by GDAL unless options say otherwise."""
    rng = np.random.default_rng(7)
    rows, columns = np.indices(shape)
    pixels = (rows * 3 + columns * 2) % 5000 + 100 + rng.integers(0, 50, shape)
    pixels[: shape[0] // 5, : shape[1] // 6] = 0
    if dtype == "uint8":
        pixels = pixels % 256
    profile = {
        "driver": "COG", "compress": "DEFLATE", "predictor": "YES", "blocksize": 256,
        "overview_resampling": "AVERAGE", **options,
    }  # fmt: skip
    plain = path.with_name("plain.tif")
    with rasterio.open(
        plain, "w", driver="GTiff", height=shape[0], width=shape[1], count=1, dtype=dtype, nodata=0,
        crs="EPSG:32634", transform=TRANSFORM,
    ) as file:  # fmt: skip
        file.write(pixels.astype(dtype), 1)
    copy_raster(plain, path, **profile)
    return path


def grid_of(path: Path) -> Grid:
    with rasterio.open(path) as file:
        return Grid(file.shape, file.transform, str(file.crs))


def copied(
    path: Path | str, grid: Grid, target: Path, dtype: str = "uint16", *, average: bool = True
) -> tuple[list[np.ndarray], float]:
    """Copy an image to a COG; returns the sampled blocks, and the fraction of valid pixels."""
    source = open_source(str(path), 1, Budget(private=True, first_wait=0.01))
    found = as_copyable(source, grid, np.dtype(dtype), "deflate")
    assert found is not None
    tiff, side = found, found.info.block[0]
    pyramid = Pyramid(
        level_shapes(*grid.shape), np.dtype(dtype), 0, average=average, block_size=side
    )
    samples: list[np.ndarray] = []
    valid = copy_blocks(tiff, pyramid, 2**20, samples.append)
    profile = CogProfile.for_grid(grid, np.dtype(dtype), 0, block_size=side)
    with target.open("wb") as file:
        write_cog(file, profile, pyramid.finish(), pyramid.masks)
    return samples, valid


def encoded(
    path: Path, grid: Grid, target: Path, dtype: str = "uint16", *, average: bool = True
) -> None:
    """Decode an image and encode it as a COG of our own."""
    source = open_source(str(path), 1, Budget(private=True))
    band = BandLayers("b", [Layer("x", source)], np.dtype(dtype), 0, "nearest", "first")
    pyramid = Pyramid(level_shapes(*grid.shape), np.dtype(dtype), 0, average=average)
    for _, _, pixels in compose(grid, [band]):
        pyramid.add(pixels)
    profile = CogProfile.for_grid(grid, np.dtype(dtype), 0)
    with target.open("wb") as file:
        write_cog(file, profile, pyramid.finish(), pyramid.masks)


def levels_of(path: Path) -> list[np.ndarray]:
    with rasterio.open(path) as file:
        found = [file.read(1)]
        count = len(file.overviews(1))
    for level in range(count):
        with rasterio.open(path, overview_level=level) as file:
            found.append(file.read(1))
    return found


@pytest.mark.parametrize("dtype", ["uint16", "uint8", "int16"])
@pytest.mark.parametrize("shape", [(1536, 2048), (1100, 1300), (2745, 1373), (300, 200)])
@pytest.mark.parametrize("average", [True, False])
def test_copied_pixels_are_those_of_encoding(
    tmp_path: Path, dtype: str, shape: tuple[int, int], average: bool
) -> None:
    """On all levels: even where the overviews of GDAL differ from ours, at odd sizes and for nearest."""
    resampling = "AVERAGE" if average else "NEAREST"
    path = write_image(tmp_path / "image.tif", shape, dtype, overview_resampling=resampling)
    grid = grid_of(path)
    copied(path, grid, tmp_path / "copied.tif", dtype, average=average)
    encoded(path, grid, tmp_path / "encoded.tif", dtype, average=average)
    ours, theirs = levels_of(tmp_path / "copied.tif"), levels_of(tmp_path / "encoded.tif")
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_blocks_are_copied_and_not_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_image(tmp_path / "image.tif", (2048, 2048))
    monkeypatch.setattr("scenebeam.raster.pyramid.encode", None)  # to encode would raise
    samples, valid = copied(path, grid_of(path), tmp_path / "copied.tif")
    blocks = (2048 // 256) ** 2
    assert 8 <= len(samples) < blocks / 3
    with rasterio.open(path) as one, rasterio.open(tmp_path / "copied.tif") as other:
        assert one.block_shapes == other.block_shapes == [(256, 256)]
        np.testing.assert_array_equal(one.read(), other.read())
        assert valid == pytest.approx((one.read(1) != 0).mean(), abs=0.01)


def test_overviews_of_another_kind_are_made_anew(tmp_path: Path) -> None:
    path = write_image(tmp_path / "image.tif", (1024, 1024), overview_resampling="NEAREST")
    copied(path, grid_of(path), tmp_path / "copied.tif")
    encoded(path, grid_of(path), tmp_path / "encoded.tif")
    ours, theirs, source = (
        levels_of(tmp_path / "copied.tif"),
        levels_of(tmp_path / "encoded.tif"),
        levels_of(path),
    )
    np.testing.assert_array_equal(ours[1], theirs[1])
    assert not np.array_equal(ours[1], source[1])


def test_sparse_blocks_are_written(tmp_path: Path) -> None:
    path = tmp_path / "sparse.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=1024, width=1024, count=1, dtype="uint16", nodata=0,
        crs="EPSG:32634", transform=TRANSFORM, tiled=True, blockxsize=256, blockysize=256,
        compress="deflate", predictor=2, sparse_ok=True,
    ) as file:  # fmt: skip
        file.write(np.full((256, 256), 7, "uint16"), 1, window=((256, 512), (512, 768)))
    copied(path, grid_of(path), tmp_path / "copied.tif")
    encoded(path, grid_of(path), tmp_path / "encoded.tif")
    for one, other in zip(
        levels_of(tmp_path / "copied.tif"), levels_of(tmp_path / "encoded.tif"), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "options",
    [
        {"compress": "LZW"},
        {"compress": "ZSTD"},
        {"predictor": "NO"},
        {"driver": "GTiff", "tiled": False, "blockysize": 16, "predictor": 2, "blocksize": None},
    ],
    ids=str,
)
def test_other_encodings_are_not_copied(tmp_path: Path, options: dict[str, Any]) -> None:
    options = dict(options)
    if options.get("driver") == "GTiff":
        path = tmp_path / "image.tif"
        plain = write_image(tmp_path / "cog.tif", (600, 600)).with_name("plain.tif")
        copy_raster(plain, path, driver="GTiff", compress="DEFLATE", predictor=2)
    else:
        path = write_image(tmp_path / "image.tif", (600, 600), **options)
    source = open_source(str(path), 1, Budget(private=True))
    assert as_copyable(source, grid_of(path), np.dtype("uint16"), "deflate") is None


def test_other_grids_and_dtypes_are_not_copied(tmp_path: Path) -> None:
    path = write_image(tmp_path / "image.tif", (600, 600))
    source, grid = open_source(str(path), 1, Budget(private=True)), grid_of(path)
    assert as_copyable(source, grid, np.dtype("uint16"), "deflate") is not None
    for other in (
        Grid((600, 599), grid.transform, "EPSG:32634"),
        Grid((600, 600), grid.transform @ Affine.translation(1, 0), "EPSG:32634"),
        Grid((600, 600), grid.transform @ Affine.translation(0.5, 0), "EPSG:32634"),
        Grid((600, 600), grid.transform, "EPSG:32635"),
    ):
        assert as_copyable(source, other, np.dtype("uint16"), "deflate") is None
    assert as_copyable(source, grid, np.dtype("int32"), "deflate") is None
    assert as_copyable(source, grid, np.dtype("uint16"), "zstd") is None


def test_a_corrupt_block_in_the_sample_is_an_error(tmp_path: Path) -> None:
    path = write_image(tmp_path / "image.tif", (600, 600))
    with serve(tmp_path) as server:
        server.faults.append(Fault("image", corrupt=True))
        with pytest.raises(ReadError):
            copied(f"{server.url}/image.tif", grid_of(path), tmp_path / "copied.tif")


def test_each_byte_is_read_once(tmp_path: Path) -> None:
    path = write_image(tmp_path / "image.tif", (2048, 2048))
    with serve(tmp_path) as server:
        copied(f"{server.url}/image.tif", grid_of(path), tmp_path / "copied.tif")
        pixel_ranges = sorted((start, stop) for _, start, stop in server.ranges if start > 0)
    assert all(stop <= start for (_, stop), (start, _) in pairwise(pixel_ranges))
