"""What `scenebeam info FILE` says of files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner

from scenebeam.cli import main
from scenebeam.errors import ReadError
from scenebeam.raster.describe import describe_file

PROFILE = {
    "driver": "GTiff",
    "height": 70,
    "width": 90,
    "count": 2,
    "dtype": "int16",
    "crs": "EPSG:32634",
    "nodata": -9,
}


def write(path: Path, **changes: object) -> Path:
    with rasterio.open(
        path, "w", **{**PROFILE, "transform": Affine(10, 0, 600_000, 0, -10, 4_500_000), **changes}
    ) as file:
        file.descriptions = ("red", "nir")
        file.write(np.ones((2, 70, 90), "int16"))
    return path


def test_a_file_is_described_as_the_reader_sees_it(tmp_path: Path) -> None:
    found = describe_file(str(write(tmp_path / "x.tif", tiled=True, blockxsize=32, blockysize=16)))
    assert found["read"] == "by blocks"
    assert (found["width"], found["height"], found["count"], found["bands"]) == (
        90,
        70,
        2,
        ["red", "nir"],
    )
    assert (found["dtype"], found["nodata"], found["crs"]) == (["int16"], ["-9.0"], "EPSG:32634")
    assert found["bounds"] == [600_000, 4_499_300, 600_900, 4_500_000]
    assert found["block"] == [16, 32]
    assert (
        describe_file(str(write(tmp_path / "packed.tif", compress="packbits")))["read"]
        == "through GDAL"
    )


def test_the_command(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif")
    shown = CliRunner().invoke(main, ["info", str(path)])
    assert shown.exit_code == 0
    assert "EPSG:32634" in shown.output
    assert (
        json.loads(CliRunner().invoke(main, ["info", "--json", str(path)]).output)[0]["driver"]
        == "GTiff"
    )
    (tmp_path / "no.tif").write_text("<html>moved</html>")
    refused = CliRunner().invoke(main, ["info", str(tmp_path / "no.tif")])
    assert refused.exit_code == 1
    assert "cannot be opened as an image" in refused.output
    with pytest.raises(ReadError):
        describe_file(str(tmp_path / "gone.tif"))
