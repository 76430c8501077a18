"""TIFFs that say what they hold in unusual ways: their pixels are valid, placed and marked as GDAL has it, or refused in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import CRS
from rasterio.enums import ColorInterp
from rasterio.warp import reproject, transform_bounds
from rio_cogeo.cogeo import cog_validate

from scenebeam.errors import ReadError
from scenebeam.execution.driver import run
from scenebeam.raster.reader import open_source
from scenebeam.raster.source import read_window
from scenebeam.raster.validate import validate
from scenebeam.request import Checks
from scenebeam.requestfile import validate_request
from scenebeam.status import RunStatus
from scenebeam.transfer.retry import Budget

LEFT, TOP = 600_000, 4_500_000
TILED = {"tiled": True, "blockxsize": 64, "blockysize": 64}
STRIPS: dict[str, Any] = {"tiled": False, "blockxsize": None, "blockysize": 8}
BOUNDS = [LEFT, TOP - 1280, LEFT + 1600, TOP]
"""The ground of the first file, and 320 m east of it."""


def numbers(seed: int, low: int, high: int, dtype: str = "uint8", side: int = 128) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (side, side)).astype(dtype)


def write(
    path: Path,
    pixels: np.ndarray,
    *,
    left: float = LEFT,
    mask: np.ndarray | None = None,
    **changes: Any,
) -> Path:
    profile = {
        "driver": "GTiff", "dtype": pixels.dtype, "height": pixels.shape[-2], "width": pixels.shape[-1], "count": 1,
        "crs": "EPSG:32634", "transform": Affine(10, 0, left, 0, -10, TOP), "compress": "deflate", **TILED, **changes,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels, 1)
        if mask is not None:
            file.write_mask(mask)
    return path


class Case:
    """Scenes of one band each, best first, and the mosaic of them on a grid that they share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(
        self,
        files: list[Path],
        record: dict[str, Any],
        grid: dict[str, Any] | None = None,
        **product: Any,
    ) -> RunStatus:
        items = [self._item(file, number) for number, file in enumerate(files)]
        (self.folder / "items.json").write_text(
            json.dumps({"type": "FeatureCollection", "features": items})
        )
        self.request = validate_request(
            {
                "catalog": str(self.folder / "items.json"),
                "collections": [
                    {"id": "c", "bands": {"b": {"asset": "b", "resolution": 10}}, **record}
                ],
                "grid": {"crs": "EPSG:32634", "bounds": BOUNDS} if grid is None else grid,
                "product": {"kind": "mosaic", "bands": ["b"], **product},
                "output": str(self.folder / "out"),
                "runner": "serial",
            }
        )
        return run(self.request, overwrite=True)

    def _item(self, file: Path, number: int) -> dict[str, Any]:
        with rasterio.open(file) as opened:
            crs = opened.crs or "EPSG:32634"
            try:
                west, south, east, north = transform_bounds(crs, "EPSG:4326", *opened.bounds)
            except Exception:  # a CRS that PROJ cannot use
                west, south, east, north = 22.17, 40.63, 22.19, 40.65
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        return {
            "type": "Feature", "stac_version": "1.0.0", "id": file.stem, "collection": "c", "bbox": [west, south, east, north],
            "geometry": {"type": "Polygon", "coordinates": [ring]}, "links": [], "assets": {"b": {"href": str(file)}},
            "properties": {"datetime": "2023-01-01T10:00:00Z", "eo:cloud_cover": number},
        }  # fmt: skip

    @property
    def path(self) -> Path:
        (found,) = (self.folder / "out").glob("mosaics/*/b.tif")
        return found

    @property
    def pixels(self) -> np.ma.MaskedArray:
        with rasterio.open(self.path) as file:
            return file.read(1, masked=True)

    @property
    def asset(self) -> dict[str, Any]:
        return json.loads((self.path.parent / f"{self.path.parent.name}.json").read_text())[
            "assets"
        ]["b"]

    def valid_percent(self) -> float:
        return self.asset["raster:bands"][0]["statistics"]["valid_percent"]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def with_internal_mask(folder: Path, pixels: np.ndarray, mask: np.ndarray) -> Path:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        return write(folder / "masked.tif", pixels, mask=mask)


def with_mask_beside(folder: Path, pixels: np.ndarray, mask: np.ndarray) -> Path:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False):
        path = write(folder / "masked.tif", pixels, mask=mask)
    assert path.with_name("masked.tif.msk").exists()
    return path


def with_alpha(folder: Path, pixels: np.ndarray, mask: np.ndarray) -> Path:
    path = folder / "masked.tif"
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "height": 128,
        "width": 128,
        "count": 2,
        "crs": "EPSG:32634",
    }
    with rasterio.open(
        path, "w", **profile, **TILED, transform=Affine(10, 0, LEFT, 0, -10, TOP), ALPHA="YES"
    ) as file:
        file.colorinterp = [ColorInterp.gray, ColorInterp.alpha]
        file.write(np.stack([pixels, mask * np.uint8(100)]))
    return path


MASKS = {"internal": with_internal_mask, "beside": with_mask_beside, "alpha": with_alpha}


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize(
    "record", [{"dtype": "uint8"}, {"dtype": "uint8", "nodata": 0}], ids=["no-nodata", "nodata"]
)
def test_masked_pixels_are_no_data(case: Case, kind: str, record: dict[str, Any]) -> None:
    """What a mask or an alpha band hides never covers another tile, and is a hole where there is no other."""
    junk, other = numbers(1, 90, 110), numbers(2, 190, 210)
    shown = np.zeros((128, 128), bool)
    shown[:, :64] = True
    first = MASKS[kind](case.folder, junk, shown.astype("uint8"))
    second = write(case.folder / "other.tif", other[:, :96], left=LEFT + 640)
    assert case.run([first, second], record).state == "succeeded"
    expected = np.ma.masked_all((128, 160), "uint8")
    expected[:, :64] = junk[:, :64]
    expected[:, 64:] = other[:, :96]
    np.testing.assert_array_equal(case.pixels.filled(0), expected.filled(0))
    assert not np.ma.is_masked(case.pixels)
    case.run([first], record)
    found = case.pixels
    np.testing.assert_array_equal(
        np.ma.getmaskarray(found), np.pad(~shown, ((0, 0), (0, 32)), constant_values=True)
    )
    np.testing.assert_array_equal(found[:, :64], junk[:, :64])
    assert case.valid_percent() == 40.0


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic"])
def test_masked_pixels_have_no_weight_when_they_are_warped(case: Case, resampling: str) -> None:
    """As GDAL warps the same pixels with a nodata value."""
    pixels, mask = numbers(3, 90, 110), np.ones((128, 128), np.uint8)
    mask[40:70, 30:90] = 0
    grid = {"crs": "EPSG:32635", "resolution": 10, "bounds": [92_600, 4_509_000, 93_800, 4_510_200]}
    case.run(
        [with_internal_mask(case.folder, pixels, mask)],
        {"dtype": "uint8"},
        grid,
        resampling=resampling,
    )
    truth = np.zeros((120, 120), np.uint8)
    reproject(
        np.where(mask, pixels, 0), truth, src_transform=Affine(10, 0, LEFT, 0, -10, TOP), src_crs="EPSG:32634",
        src_nodata=0, dst_nodata=0, dst_crs="EPSG:32635", dst_transform=Affine(10, 0, 92_600, 0, -10, 4_510_200),
        resampling=rasterio.enums.Resampling[resampling],
    )  # fmt: skip
    found = case.pixels.filled(0)
    assert (found > 0).sum() > 5000
    assert ((found > 0) != (truth > 0)).mean() < 0.01
    assert (np.abs(found.astype(int) - truth)[(found > 0) & (truth > 0)] > 1).mean() < 0.01


def test_a_nodata_value_that_the_dtype_cannot_hold_is_none(case: Case) -> None:
    """Blocks that were never written are 0 then, as GDAL has them, and what the value would wrap to is data."""
    pixels = numbers(4, 150, 250)
    pixels[:64, 64:] = 0
    path = write(case.folder / "sparse.tif", pixels, nodata=200, SPARSE_OK=True)
    path.write_bytes(path.read_bytes().replace(b"200\0", b"-99\0"))
    with rasterio.open(path) as file:
        truth = file.read(1)
    source = open_source(str(path), 1, Budget())
    assert source.info.nodata is None
    np.testing.assert_array_equal(read_window(source, 0, 0, 128, 128), truth)
    case.run([path], {"dtype": "uint8"})
    np.testing.assert_array_equal(case.pixels[:, :128], truth)
    assert np.ma.getmaskarray(case.pixels)[:, 128:].all()


def test_a_datum_of_its_own_is_not_taken_for_a_code(case: Case) -> None:
    """The international ellipsoid without a shift is not ED50, which PROJ finds nearest: 60 m lie between them."""
    crs = "+proj=utm +zone=34 +ellps=intl +towgs84=0,0,0 +units=m +no_defs"
    pixels = numbers(5, 500, 9000, "uint16")
    path = write(case.folder / "datum.tif", pixels, crs=crs, nodata=0)
    info = open_source(str(path), 1, Budget()).info
    assert not info.crs.startswith("EPSG:")
    case.run([path], {"dtype": "uint16", "nodata": 0})
    truth = np.zeros((128, 160), np.uint16)
    reproject(
        pixels, truth, src_transform=Affine(10, 0, LEFT, 0, -10, TOP), src_crs=crs, src_nodata=0, dst_nodata=0,
        dst_crs="EPSG:32634", dst_transform=Affine(10, 0, LEFT, 0, -10, TOP),
    )  # fmt: skip
    assert (case.pixels.filled(0) != truth).mean() < 0.01


@pytest.mark.parametrize("crs", ["EPSG:32634", "EPSG:4326", "EPSG:3035", "EPSG:2100", "EPSG:5070"])
def test_a_code_stays_a_code(case: Case, crs: str) -> None:
    transform = (
        Affine(0.001, 0, 22, 0, -0.001, 41)
        if crs == "EPSG:4326"
        else Affine(10, 0, LEFT, 0, -10, TOP)
    )
    for name, options in (("tiled", {}), ("strips", STRIPS)):
        path = write(
            case.folder / f"{name}.tif", numbers(6, 1, 9), crs=crs, transform=transform, **options
        )
        assert open_source(str(path), 1, Budget()).info.crs == crs


@pytest.mark.parametrize(
    "crs", ["EPSG:2263", "+proj=utm +zone=34 +datum=WGS84 +units=us-ft", "EPSG:4807"]
)
def test_units_and_meridians_other_than_plain_ones_are_gdals_to_tell(case: Case, crs: str) -> None:
    """US feet, grads from Paris: the header's code or keys are read by GDAL, and nothing is lost."""
    path = write(case.folder / "x.tif", numbers(6, 1, 9), crs=crs)
    with rasterio.open(path) as file:
        assert CRS.from_user_input(open_source(str(path), 1, Budget()).info.crs).equals(
            CRS.from_wkt(file.crs.to_wkt()), ignore_axis_order=True
        )


@pytest.mark.parametrize("tiled", [True, False])
def test_a_negative_pixel_scale_is_placed_as_gdal_places_it(case: Case, tiled: bool) -> None:
    pixels = numbers(7, 500, 9000, "uint16")
    options = {} if tiled else STRIPS
    path = write(case.folder / "x.tif", pixels, nodata=0, **options)
    scale = np.array([10.0, 10.0, 0.0]).tobytes()
    content = path.read_bytes()
    assert content.count(scale) == 1
    path.write_bytes(content.replace(scale, np.array([10.0, -10.0, 0.0]).tobytes()))
    with rasterio.open(path) as file:
        truth = file.transform
    assert open_source(str(path), 1, Budget()).info.transform == truth


@pytest.mark.parametrize("tiled", [True, False])
@pytest.mark.parametrize("turned", ["south-up", "east-left", "both"])
def test_an_image_that_is_turned_over_is_its_north_up_twin(
    case: Case, tiled: bool, turned: str
) -> None:
    pixels = numbers(8, 500, 9000, "uint16")
    down, across = turned != "east-left", turned != "south-up"
    stored = pixels[:: -1 if down else 1, :: -1 if across else 1]
    transform = Affine(
        -10 if across else 10,
        0,
        LEFT + (1280 if across else 0),
        0,
        10 if down else -10,
        TOP - (1280 if down else 0),
    )
    options = {} if tiled else STRIPS
    path = write(
        case.folder / "turned.tif",
        np.ascontiguousarray(stored),
        transform=transform,
        nodata=0,
        **options,
    )
    assert case.run([path], {"dtype": "uint16", "nodata": 0}).incomplete == 0
    np.testing.assert_array_equal(case.pixels[:, :128], pixels)
    source = open_source(str(path), 1, Budget())
    np.testing.assert_array_equal(read_window(source, 5, 9, 100, 70), pixels[5:105, 9:79])


def test_a_rotated_image_is_warped(case: Case) -> None:
    pixels = numbers(9, 500, 9000, "uint16")
    transform = (
        Affine.translation(LEFT + 300, TOP - 100) @ Affine.rotation(-20) @ Affine.scale(10, -10)
    )
    path = write(case.folder / "rotated.tif", pixels, transform=transform, nodata=0)
    case.run([path], {"dtype": "uint16", "nodata": 0})
    truth = np.zeros((128, 160), np.uint16)
    reproject(
        pixels, truth, src_transform=transform, src_crs="EPSG:32634", src_nodata=0, dst_nodata=0, dst_crs="EPSG:32634",
        dst_transform=Affine(10, 0, LEFT, 0, -10, TOP),
    )  # fmt: skip
    assert (case.pixels.filled(0) != truth).mean() < 0.02


@pytest.mark.parametrize(
    "nodata",
    [
        -3.4028234663852886e38,
        3.4028234663852886e38,
        -3.4028235e38,
        1e20,
        -1e20,
        0.1,
        -9999.9,
        float("nan"),
    ],
)
@pytest.mark.parametrize("tiled", [True, False])
def test_any_float_nodata_survives_to_items_and_tables(
    case: Case, nodata: float, tiled: bool
) -> None:
    """Compared as float32, in both doors, with the record's own word for it."""
    pixels = np.random.default_rng(10).normal(0.3, 0.1, (128, 128)).astype("float32")
    pixels[:, 64:] = nodata
    options = {} if tiled else STRIPS
    path = write(case.folder / "x.tif", pixels, nodata=nodata, **options)
    status = case.run(
        [path], {"dtype": "float32", "nodata": nodata if np.isfinite(nodata) else "nan"}
    )
    assert (status.state, status.incomplete) == ("succeeded", 0)
    assert np.ma.getmaskarray(case.pixels)[:, 64:].all()
    np.testing.assert_array_equal(case.pixels[:, :64], pixels[:, :64])
    told = case.asset["raster:bands"][0]["nodata"]
    assert np.float32(told) == np.float32(nodata) or (told == "nan" and np.isnan(nodata))
    assert (case.folder / "out" / "items.parquet").exists()


def test_nodata_values_that_differ_are_still_a_conflict(case: Case) -> None:
    path = write(case.folder / "x.tif", numbers(1, 1, 9).astype("float32"), nodata=0.1)
    status = case.run([path], {"dtype": "float32", "nodata": 0.2})
    assert status.state == "failed"
    assert "its collection declares 0.2" in status.message


@pytest.mark.parametrize(
    ("dtype", "method"),
    [("uint8", "first"), ("uint8", "max"), ("int16", "median"), ("float32", "first")],
)
def test_holes_that_no_nodata_value_marks_have_a_mask(case: Case, dtype: str, method: str) -> None:
    """A gap between two tiles of a collection without a nodata value, and the ground beyond them."""
    one, other = (numbers(seed, 90, 110, dtype, 64) for seed in (11, 12))
    files = [
        write(case.folder / "a.tif", one),
        write(case.folder / "b.tif", other, left=LEFT + 800),
    ]
    status = case.run(files, {"dtype": dtype}, method=method)
    assert status.state == "succeeded"
    valid = np.zeros((128, 160), bool)
    valid[:64, :64] = valid[:64, 80:144] = True
    found = case.pixels
    np.testing.assert_array_equal(np.ma.getmaskarray(found), ~valid)
    np.testing.assert_array_equal(found[:64, :64], one)
    assert case.valid_percent() == round(100 * valid.mean(), 4)
    assert cog_validate(case.path, strict=True) == (True, [], [])


def test_an_image_without_holes_has_no_mask(case: Case) -> None:
    case.run(
        [write(case.folder / "a.tif", numbers(13, 0, 255))],
        {"dtype": "uint8"},
        {"crs": "EPSG:32634", "bounds": [LEFT, TOP - 1280, LEFT + 1280, TOP]},
    )
    with rasterio.open(case.path) as file:
        assert file.mask_flag_enums == ([rasterio.enums.MaskFlags.all_valid],)


def test_a_masked_mosaic_in_shards_is_that_in_one(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(14)
    path = write(case.folder / "a.tif", rng.integers(0, 250, (1500, 1100)).astype("uint8"))
    grid = {
        "crs": "EPSG:32634",
        "bounds": [LEFT - 3000, TOP - 16_000, LEFT + 11_000, TOP + 2000],
        "resolution": 10,
    }
    case.run([path], {"dtype": "uint8"}, grid)
    whole = case.path.read_bytes()
    with rasterio.open(case.path) as file:
        assert file.overviews(1) == [2, 4]
    monkeypatch.setattr("scenebeam.imaging.shards._LARGEST_SHARD", 2**19)
    monkeypatch.setattr("scenebeam.imaging.shards._CELL_LEVELS", 1)
    assert case.run([path], {"dtype": "uint8"}, grid).tasks > 2
    assert case.path.read_bytes() == whole
    assert cog_validate(case.path, strict=True) == (True, [], [])


def test_a_crs_that_proj_cannot_use_leaves_that_tile_out(case: Case) -> None:
    good = write(case.folder / "good.tif", numbers(15, 500, 9000, "uint16"), nodata=0)
    odd = write(case.folder / "odd.tif", numbers(16, 500, 9000, "uint16"), nodata=0)
    odd.write_bytes(
        odd.read_bytes().replace(np.uint16(32634).tobytes(), np.uint16(29999).tobytes())
    )
    status = case.run([odd, good], {"dtype": "uint16", "nodata": 0})
    assert (status.state, status.incomplete) == ("succeeded", 1)
    (missing,) = case.asset["scenebeam:missing"]
    assert missing["scene"] == "odd"
    assert "CRS" in missing["reason"]
    report = validate(str(odd), Checks())
    assert not report.valid
    assert "CRS" in report.explain()


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "complex_int16"])
def test_complex_numbers_are_refused_in_words(case: Case, dtype: str) -> None:
    path = case.folder / "x.tif"
    profile = {
        "driver": "GTiff",
        "dtype": dtype,
        "height": 64,
        "width": 64,
        "count": 1,
        "crs": "EPSG:32634",
    }
    with rasterio.open(path, "w", **profile, transform=Affine(10, 0, LEFT, 0, -10, TOP)) as file:
        file.write(np.zeros((1, 64, 64), "complex64" if dtype == "complex_int16" else dtype))
    with pytest.raises(ReadError, match="complex numbers"):
        open_source(str(path), 1, Budget())
    assert "complex numbers" in validate(str(path), Checks()).explain()


def test_a_file_that_ends_within_its_header_is_named(case: Case) -> None:
    path = write(case.folder / "x.tif", numbers(17, 1, 9, side=512))
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2])
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(ReadError, match=r"x\.tif"):
        read_window(open_source(str(path), 1, Budget()), 0, 0, 512, 512)


def lzw_decode(data: bytes) -> bytes:
    """As TIFF 6.0 section 13 has it; ValueError where a code of 4094 or more is used before the table is cleared."""
    bits = "".join(f"{byte:08b}" for byte in data)
    table: list[bytes] = []
    out, position, width, before = bytearray(), 0, 9, b""
    while True:
        code, position = int(bits[position : position + width], 2), position + width
        if code == 257:
            return bytes(out)
        if code == 256:
            table = [*(bytes([number]) for number in range(256)), b"", b""]
            width, before = 9, b""
            continue
        if code < len(table):
            entry = table[code]
        elif code == len(table) and before:
            entry = before + before[:1]
        else:
            raise ValueError(f"code {code} is not in the table of {len(table)}")
        out += entry
        if before:
            table.append(before + entry[:1])
        if len(table) > 4095:
            raise ValueError("entry 4095 was added: Clear comes too late")
        before = entry
        width = max(9, (len(table) + 1).bit_length()) if len(table) < 4095 else 12


@pytest.mark.parametrize("kind", ["noise", "smooth", "blank"])
def test_lzw_clears_its_table_as_the_specification_says(kind: str) -> None:
    from scenebeam.raster.codecs import encode

    pixels = {
        "noise": numbers(18, 0, 60_000, "uint16", 64),
        "smooth": (np.arange(64 * 64).reshape(64, 64) // 7).astype("uint16"),
        "blank": np.zeros((64, 64), "uint16"),
    }[kind]
    differences = np.diff(pixels, axis=1, prepend=np.uint16(0))
    assert lzw_decode(encode(pixels, "lzw")) == differences.astype("uint16").tobytes()


def make_dem(folder: Path) -> Path:
    pixels = np.random.default_rng(19).normal(300, 80, (200, 200)).astype("float32")
    return write(
        folder / "dem.tif",
        pixels,
        crs="EPSG:4326",
        transform=Affine(1 / 3600, 0, 24, 0, -1 / 3600, 41),
    )


@pytest.mark.parametrize("kind", ["mosaic", "stack"])
def test_a_model_in_degrees_has_pixels_of_metres(case: Case, kind: str) -> None:
    """By the built-in record of Copernicus GLO-30: 30 m, not 0.00028 m."""
    path = make_dem(case.folder)
    item = case._item(path, 0)
    item |= {"collection": "cop-dem-glo-30", "assets": {"data": {"href": str(path)}}}
    (case.folder / "items.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": [item]})
    )
    request = validate_request(
        {
            "catalog": str(case.folder / "items.json"), "collections": ["cop-dem-glo-30"], "runner": "serial",
            "product": {"kind": kind, "bands": ["elevation"], **({"format": "geotiff"} if kind == "stack" else {})},
            "output": str(case.folder / "out"),
        }
    )  # fmt: skip
    status = run(request)
    assert status.state == "succeeded", status.message
    (made,) = list((case.folder / "out").rglob("*.tif"))
    with rasterio.open(made) as file:
        pixel = file.transform.a
        assert pixel == 30 if kind == "mosaic" else pixel == pytest.approx(1 / 3600)


def test_a_grid_of_too_many_pixels_is_refused_with_the_figure(
    case: Case, make_request: Callable[..., Any]
) -> None:
    from scenebeam.errors import RequestError
    from scenebeam.planning.search import make_plan

    with pytest.raises(
        RequestError, match=r"pixels of 0\.0003, more than limits\.max_pixels = 100,000,000,000"
    ):
        make_plan(make_request(**{"grid.resolution": 0.0003}))
    with pytest.raises(RequestError, match=r"limits\.max_pixels = 1,000"):
        make_plan(make_request(**{"limits.max_pixels": 1000}))
