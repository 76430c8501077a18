"""Files that were damaged after they had been made: found by --verify, by their size when they are read, by checksums where asked."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from conftest import tree
from scenebeam.errors import RequestError
from scenebeam.execution.driver import run
from scenebeam.request import RunRequest
from scenebeam.sandbox.scenes import SCENES
from scenebeam.sandbox.server import SandboxServer

Make = Callable[..., RunRequest]


def flip(path: Path) -> None:
    """Change a byte in the middle; the size stays."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def remove(path: Path) -> None:
    path.unlink()


def files(output: Path) -> dict[str, bytes]:
    """All but tables, of which some tell what the last run has taken."""
    return {name: data for name, data in tree(output).items() if not name.endswith(".csv")}


@pytest.fixture
def case(request: pytest.FixtureRequest) -> RunRequest:
    makers: dict[str, tuple[str, dict[str, Any]]] = {
        "mosaic": ("make_request", {}),
        "index": ("make_request", {"product": {"kind": "index", "index": "ndvi"}}),
        "stack": (
            "make_request",
            {"product": {"kind": "stack", "bands": ["red", "nir"], "format": "geotiff"}},
        ),
        "assets": ("make_request", {"product": {"kind": "assets", "bands": ["red"]}}),
        "fields": ("fields_request", {"product.bands": ["red"]}),
        "landcover": ("landcover_request", {"product.include": [0]}),
    }
    maker, changes = makers[request.param]
    found: RunRequest = request.getfixturevalue(maker)(**changes)
    return found


@pytest.mark.parametrize("damage", [flip, cut, remove])
@pytest.mark.parametrize(
    "case", ["mosaic", "index", "stack", "assets", "fields", "landcover"], indirect=True
)
def test_what_is_damaged_is_made_anew_and_nothing_else(
    case: RunRequest, damage: Callable[[Path], None]
) -> None:
    assert run(case).state == "succeeded"
    output = Path(case.output)
    right = files(output)
    images = sorted(path for path in output.rglob("*.tif") if "processed" not in path.parts)
    victims = [images[0], images[-1]]
    if damage is remove and case.product.kind == "landcover":
        victims = []  # an image that is gone leaves its record, as before
    before = {path: path.stat().st_mtime_ns for path in images}
    for victim in victims:
        damage(victim)
    assert run(case, verify=True).state == "succeeded"
    assert files(output) == right
    if case.product.kind in ("assets", "fields"):
        anew = {path for path in images if path.stat().st_mtime_ns != before[path]}
        if case.product.kind == "assets":
            assert anew == set(victims)
        else:  # of a chip all masks are drawn together
            assert {path.parent for path in anew} == {victim.parent for victim in victims}


@pytest.mark.parametrize("case", ["mosaic"], indirect=True)
def test_without_damage_nothing_is_made(case: RunRequest) -> None:
    run(case)
    before = tree(Path(case.output))
    assert run(case, verify=True).requests == 0
    assert tree(Path(case.output)) == before


# Raw files of a time series


@pytest.fixture
def series(make_request: Make, served_items: Path, tmp_path: Path) -> Callable[..., RunRequest]:
    """A time series over scenes that were downloaded, each beside its item."""
    archive = make_request(
        catalog=str(served_items),
        output=str(tmp_path / "raw"),
        product={"kind": "assets", "bands": ["B04"]},
    )
    assert run(archive).state == "succeeded"
    table = {
        "time_series": str(tmp_path / "raw" / "time_serie.csv"),
        "root": str(tmp_path / "raw" / "raw"),
    }

    def make(name: str, **changes: Any) -> RunRequest:
        product = {"kind": "mosaic", "bands": ["B04"]}
        return make_request(
            catalog=table, dates=[], output=str(tmp_path / name), product=product, **changes
        )

    return make


def pixels(request: RunRequest) -> dict[str, Any]:
    found = {}
    for path in sorted(Path(request.output).glob("mosaics/*/B04.tif")):
        with rasterio.open(path) as file:
            found[path.parent.name] = file.read()
    return found


def raw(tmp_path: Path) -> Path:
    return tmp_path / "raw" / "raw" / SCENES[0].id / "B04.tif"


@pytest.mark.parametrize(
    ("damage", "checksums", "found"), [(cut, False, True), (flip, True, True), (flip, False, False)]
)
def test_a_damaged_raw_file_is_read_from_where_it_was_fetched(
    series: Callable[..., RunRequest],
    server: SandboxServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
    checksums: bool,
    found: bool,
) -> None:
    whole = series("whole")
    assert run(whole).state == "succeeded"
    damage(raw(tmp_path))
    server.reset_counts()
    request = series("out", **{"checks.checksums": checksums})
    status = run(request)
    assert (f"{SCENES[0].id}/B04.tif" in caplog.text and "read from" in caplog.text) is found
    assert bool(server.ranges) is found
    if found:
        assert (status.state, status.incomplete) == ("succeeded", 0)
        for name, expected in pixels(whole).items():
            np.testing.assert_array_equal(pixels(request)[name], expected)


def test_a_damaged_raw_file_without_a_source_is_named(
    series: Callable[..., RunRequest], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    item = raw(tmp_path).with_name(f"{SCENES[0].id}.json")
    document = json.loads(item.read_text())
    del document["assets"]["B04"]["scenebeam:source"]
    item.write_text(json.dumps(document))
    cut(raw(tmp_path))
    status = run(series("out"))
    assert "has 1,000 bytes, and its item says" in caplog.text
    assert status.incomplete == 1


# Scenes that were named, and are not there


@pytest.mark.parametrize(
    "product",
    [{"kind": "assets", "bands": ["red"]}, {"kind": "mosaic", "bands": ["red"]}],
    ids=lambda p: p["kind"],
)
def test_a_scene_that_the_catalog_lacks_is_a_row_and_no_success(
    make_request: Make, product: dict[str, Any]
) -> None:
    scenes = [{"id": SCENES[0].id}, {"id": "NOT_THERE"}]
    request = make_request(product=product, select={"scenes": scenes})
    for _ in range(2):  # and so the next time
        status = run(request)
        assert (status.state, status.failed, status.exit_code) == ("partial", 1, 1)
        assert status.message == "NOT_THERE: the catalog has no such scene"
        with (Path(request.output) / "failures.csv").open(newline="") as file:
            (row,) = csv.DictReader(file)
        assert (row["task"], row["kind"]) == ("NOT_THERE", "absent_scene")
    if product["kind"] == "assets":
        with (Path(request.output) / "assets_manifest_selected.csv").open(newline="") as file:
            rows = {row["scene_id"]: row["available_red"] for row in csv.DictReader(file)}
        assert rows == {SCENES[0].id: "True", "NOT_THERE": "False"}


# More of what was downloaded


def test_a_larger_download_keeps_what_stands(
    make_request: Make, served_items: Path, server: SandboxServer
) -> None:
    product = {"kind": "assets", "bands": ["red", "nir"]}
    request = make_request(catalog=str(served_items), product={**product, "download_n": 1})
    assert run(request).state == "succeeded"
    output = Path(request.output)
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.tif")}
    assert len(before) == 2
    server.reset_counts()
    more = make_request(catalog=str(served_items), product={**product, "download_n": 3})
    assert (run(more).state, run(more).tasks) == ("succeeded", 3)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list(output.rglob("*.tif"))) == 6
    touched = {path for path, begin, end in server.ranges if end - begin > 1}
    assert len(touched) == 4


def test_wider_dates_keep_what_stands(make_request: Make) -> None:
    request = make_request(dates="2021")
    run(request)
    output = Path(request.output)
    before = {path: path.stat().st_mtime_ns for path in output.glob("mosaics/*/*")}
    assert (run(make_request()).state, len(list(output.glob("mosaics/*")))) == ("succeeded", 2)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_narrower_dates_would_lose_a_product_and_are_refused(make_request: Make) -> None:
    run(make_request())
    with pytest.raises(RequestError, match="1 finished products .* do not belong to this request"):
        run(make_request(dates="2021"))


@pytest.mark.parametrize("most", [0.0, 50.0, 100.0])
def test_cloud_over_the_area_is_a_column_and_a_filter(make_request: Make, most: float) -> None:
    request = make_request(**{"select.max_aoi_cloud": most})
    run(request)
    with (Path(request.output) / "scenes_catalog.csv").open(newline="") as file:
        clouds = {row["id"]: row["aoi_cloud_percent"] for row in csv.DictReader(file)}
    with (Path(request.output) / "scenes_selected.csv").open(newline="") as file:
        selected = {row["id"]: float(row["aoi_cloud_percent"]) for row in csv.DictReader(file)}
    assert all(value <= most for value in selected.values())
    measured = {name: float(value) for name, value in clouds.items() if value}
    assert len(measured) >= 6
    assert {name for name, value in measured.items() if value > most}.isdisjoint(selected)


def test_the_cloud_over_the_area_is_that_of_its_pixels(make_request: Make, sandbox: Path) -> None:
    """Against rasterio: cloud classes among the valid pixels whose centers lie in the area."""
    from rasterio.features import geometry_mask
    from rasterio.warp import transform_geom

    request = make_request(**{"select.max_aoi_cloud": 100})
    run(request)
    with (Path(request.output) / "scenes_selected.csv").open(newline="") as file:
        told = {row["id"]: float(row["aoi_cloud_percent"]) for row in csv.DictReader(file)}
    assert request.area is not None
    assert request.area.bbox is not None
    west, south, east, north = request.area.bbox
    ring = [(west, south), (east, south), (east, north), (west, north), (west, south)]
    for name, cloud in told.items():
        with rasterio.open(sandbox / name / "scl.tif") as file:
            classes = file.read(1)
            area = transform_geom("EPSG:4326", file.crs, {"type": "Polygon", "coordinates": [ring]})
            there = ~geometry_mask([area], classes.shape, file.transform) & (classes != 0)
        expected = 100 * np.isin(classes[there], (3, 8, 9, 10)).mean()
        assert cloud == pytest.approx(expected, abs=0.3)
