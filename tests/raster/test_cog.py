"""COGs: valid by two judges, the same pixels back, and the same bytes each time."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import rasterio
from affine import Affine
from rio_cogeo import cog_validate

from scenebeam.raster.block_codecs._codec import Codec
from scenebeam.raster.codecs import CODECS
from scenebeam.raster.cog import CogBand, CogProfile, Level, stack_levels, write_cog
from scenebeam.raster.pyramid import Pyramid, halve, level_shapes


def cog(
    pixels: np.ndarray,
    nodata: float | None,
    codec: str = "deflate",
    *,
    average: bool = True,
    **more: Any,
) -> bytes:
    pyramid = Pyramid(
        level_shapes(*pixels.shape), pixels.dtype, nodata, codec=codec, average=average
    )
    for top in range(0, len(pixels), 512):
        pyramid.add(pixels[top : top + 512])
    levels = [Level(tiles.height, tiles.width, tiles.sizes, tiles) for tiles in pyramid.finish()]
    transform = Affine(10, 0, 600_000, 0, -10, 4_500_000)
    height, width = pixels.shape
    profile = CogProfile(
        height, width, pixels.dtype, nodata, "EPSG:32634", transform, codec, **more
    )
    file = io.BytesIO()
    write_cog(file, profile, levels)
    return file.getvalue()


def some(shape: tuple[int, int], dtype: str, nodata: float | None) -> np.ndarray:
    rng = np.random.default_rng(3)
    pixels = rng.normal(100, 30, shape).clip(1, 250).astype(dtype)
    if nodata is not None:
        pixels[: shape[0] // 3, : shape[1] // 2] = nodata
    return pixels


@pytest.mark.parametrize("codec", [name for name, codec in CODECS.items() if codec.encode])
@pytest.mark.parametrize(
    ("dtype", "nodata", "shape"),
    [
        ("uint8", 0, (700, 300)),
        ("uint16", 0, (1537, 1025)),
        ("int16", -999, (513, 2100)),
        ("int32", 7, (512, 512)),
        ("float32", float("nan"), (1030, 511)),
        ("float64", -1, (600, 1300)),
        ("uint16", None, (1, 1)),
    ],
)
def test_pixels_come_back_and_judges_are_content(
    tmp_path: Path, codec: str, dtype: str, nodata: float | None, shape: tuple[int, int]
) -> None:
    pixels = some(shape, dtype, nodata)
    path = tmp_path / "x.tif"
    path.write_bytes(
        cog(pixels, nodata, codec, bands=(CogBand("red", 1e-4, -0.1),), tags={"A": "<&>"})
    )
    assert cog_validate(path, strict=True) == (True, [], [])
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), pixels)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG", "GDAL knows the layout"
        assert (file.descriptions, file.scales, file.offsets) == (("red",), (1e-4,), (-0.1,))
        assert file.tags()["A"] == "<&>"
        assert file.crs.to_epsg() == 32634
        assert file.overviews(1) == [2**n for n in range(1, len(level_shapes(*shape)))]
        assert file.profile["blockxsize"] == 512 or max(shape) < 512


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_a_codec_without_predictor_is_written_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    packbits = Codec(
        tags=(32773,),
        decode=lambda encoded, size: np.frombuffer(
            imagecodecs.packbits_decode(bytes(encoded)), np.uint8
        ),
        encode=imagecodecs.packbits_encode,
        has_predictor=False,
    )
    monkeypatch.setitem(CODECS, "packbits", packbits)
    pixels = some((700, 300), dtype, 0)
    path = tmp_path / "x.tif"
    path.write_bytes(cog(pixels, 0, "packbits"))
    with rasterio.open(path) as file:
        assert file.compression.value == "PACKBITS"
        np.testing.assert_array_equal(file.read(1), pixels)


def test_overviews_are_the_means_of_what_is_valid(tmp_path: Path) -> None:
    pixels = some((1200, 1100), "uint16", 0)
    pixels[700, 700], pixels[701, 701] = 0, 9  # a hole in 2 x 2 leaves the mean of the other three
    path = tmp_path / "x.tif"
    path.write_bytes(cog(pixels, 0))
    quads = pixels.reshape(600, 2, 550, 2).astype(float)
    count = (quads > 0).sum(axis=(1, 3))
    expected = np.where(count > 0, np.floor(quads.sum(axis=(1, 3)) / np.maximum(count, 1) + 0.5), 0)
    with rasterio.open(path, overview_level=0) as file:
        np.testing.assert_array_equal(file.read(1), expected)


def test_classes_are_picked_not_averaged(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).choice([3, 8, 11], (1200, 1100)).astype(np.uint8)
    path = tmp_path / "x.tif"
    path.write_bytes(cog(pixels, 0, average=False))
    with rasterio.open(path, overview_level=1) as file:
        np.testing.assert_array_equal(file.read(1), pixels[::4, ::4])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32"])
@pytest.mark.parametrize("shape", [(64, 64), (65, 63), (1, 7), (130, 2)])
def test_halving_is_the_same_for_every_number_type(dtype: str, shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(2).integers(1, 250, shape).astype(dtype)
    padded = np.pad(pixels, ((0, shape[0] % 2), (0, shape[1] % 2)), mode="edge").astype(float)
    mean = padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2).mean(axis=(1, 3))
    expected = mean if dtype == "float32" else np.floor(mean + 0.5)
    np.testing.assert_allclose(halve(pixels, 0, average=True), expected)


def test_the_same_pixels_give_the_same_bytes() -> None:
    pixels = some((1537, 1025), "uint16", 0)
    assert len({hashlib.sha256(cog(pixels, 0)).hexdigest() for _ in range(3)}) == 1


def test_a_large_file_becomes_a_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scenebeam.raster.cog._CLASSIC_LIMIT", 100_000)
    pixels = some((1537, 1025), "uint16", 0)
    data = cog(pixels, 0)
    assert data[:4] == b"II\x2b\x00"
    path = tmp_path / "x.tif"
    path.write_bytes(data)
    assert cog_validate(path, strict=True)[0]
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), pixels)


@pytest.mark.parametrize("shape", [(700, 1300), (300, 200)])
def test_several_bands_lie_one_after_another(tmp_path: Path, shape: tuple[int, int]) -> None:
    bands = [some(shape, "uint16", 0) + number for number in range(3)]
    levels = []
    for number, pixels in enumerate(bands):
        pyramid = Pyramid(level_shapes(*shape), pixels.dtype, 0, average=number < 2)
        for top in range(0, len(pixels), 512):
            pyramid.add(pixels[top : top + 512])
        levels.append(pyramid.finish())
    names = ("red", "nir", "scl")
    told = tuple(CogBand(name, 1e-4, -0.1 * number) for number, name in enumerate(names))
    transform = Affine(10, 0, 600_000, 0, -10, 4_500_000)
    profile = CogProfile(*shape, np.dtype("uint16"), 0, "EPSG:32634", transform, bands=told)
    path = tmp_path / "x.tif"
    with path.open("wb") as file:
        write_cog(file, profile, stack_levels(levels))
    assert cog_validate(path, strict=True) == (True, [], [])
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(), bands)
        assert (file.descriptions, file.offsets) == (names, (0.0, -0.1, -0.2))
        assert file.interleaving is rasterio.enums.Interleaving.band
        for number in range(len(level_shapes(*shape)) - 1):
            with rasterio.open(path, overview_level=number) as overview:
                assert overview.count == 3
