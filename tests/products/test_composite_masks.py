"""Masks of composites and mosaics, fallbacks, and what is left out with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from composites import BANDS, GRID, Make, composite_request, item_of, read, table
from known_series import best_first, classes, inside, known, observations
from scenebeam.errors import RequestError
from scenebeam.execution.driver import run
from scenebeam.planning.search import make_plan
from scenebeam.raster.morphology import dilate, erode, opened
from scenebeam.request import RunRequest
from scenebeam.requestfile import validate_request
from scenebeam.sandbox import earth
from scenebeam.sandbox.scenes import COLLECTION
from scenebeam.sandbox.series import SERIES, write_series
from scenebeam.sandbox.server import serve

APRIL = "2023-04-01/2023-04-30"
WEIGHTS = {"distance": 3, "day": 1, "sensor": 0, "opacity": 0}
MARGIN = 60
"""Pixels around the grid in which hidden areas are worked out too."""


def median_of(pixels: np.ndarray, valid: np.ndarray) -> np.ndarray:
    stack = np.where(valid, pixels.astype(float), np.nan)
    stack = np.where(valid.any(axis=0), stack, 0)
    return np.rint(np.nanmedian(stack, axis=0)).astype(np.uint16)


def clear_dates(hides: Any) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of the red band in April, and where a scene's hidden areas leave them clear."""
    pixels, _, dates = observations(["red"], GRID, 4)
    x, y = GRID.centers
    wide_x = GRID.left + 5 + 10 * np.arange(-MARGIN, GRID.columns + MARGIN)
    wide_y = GRID.top - 5 - 10 * np.arange(-MARGIN, GRID.rows + MARGIN)
    wide = np.meshgrid(wide_x, wide_y)
    inner = (slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    valid = np.zeros(pixels.shape[1:], bool)
    for number, scenes in enumerate(dates):
        for scene in scenes:
            day = earth.day_number(scene.acquired)
            covered = known(scene, *wide)
            hidden = hides(classes(*wide, day), covered)[inner]
            valid[number] |= inside(scene, x, y) & covered[inner] & ~hidden
    return pixels[0], valid


@pytest.mark.parametrize(
    ("mask", "hides"),
    [
        (
            {"band": "scl", "keep": [4, 5, 6]},
            lambda numbers, covered: ~np.isin(numbers, (4, 5, 6)) & covered,
        ),
        (
            {"band": "SCL", "drop": [9], "dilate": 100},
            lambda numbers, covered: dilate((numbers == 9) & covered, 10),
        ),
        (
            {"dilate": 40, "erode": 30, "open": 20},
            lambda numbers, covered: dilate(
                erode(opened(np.isin(numbers, (3, 8, 9, 10)) & covered, 2), 3), 4
            ),
        ),
        (False, lambda numbers, covered: np.zeros(numbers.shape, bool)),
    ],
    ids=["keep", "drop and dilate", "all three", "none"],
)
def test_masks_by_classes(composite: Make, mask: object, hides: Any) -> None:
    request = composite(bands=["red"], mask=mask, dates=APRIL)
    assert run(request).state == "succeeded"
    pixels, valid = clear_dates(hides)
    if mask is False:
        valid = observations(["red"], GRID, 4, masked=False)[1]
    np.testing.assert_array_equal(read(request, "2023-04", "red"), median_of(pixels, valid))


def write_mask(path: Path, scene: Any, *, crs: str | None = "EPSG:32634") -> None:
    """A mask of 30 m, on a lattice of its own: 1 in a square that depends on the date."""
    side = scene.size // 3 + 2
    mask = np.zeros((side, side), np.uint8)
    first = earth.day_number(scene.acquired) % 90
    mask[first : first + 60, first : first + 40] = 1
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=side,
        width=side,
        count=1,
        dtype="uint8",
        crs=crs,
        transform=Affine(30, 0, scene.left - 15, 0, -30, scene.top + 15),
    ) as file:
        file.write(mask, 1)


def own_clear(scene: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    first = earth.day_number(scene.acquired) % 90
    column, row = (x - (scene.left - 15)) // 30, ((scene.top + 15) - y) // 30
    in_rows = (row >= first) & (row < first + 60)
    return ~(in_rows & (column >= first) & (column < first + 40))


@pytest.mark.parametrize("product", ["composite", "mosaic"])
def test_a_mask_of_ones_own_per_scene(composite: Make, tmp_path: Path, product: str) -> None:
    """On a grid of its own, by nearest neighbor. A scene without its mask is left out."""
    folder = tmp_path / "masks"
    folder.mkdir()
    lacking = "S2A_34TGL_20230413_1_L2A"
    for scene in SERIES:
        if scene.id != lacking:
            write_mask(folder / f"{scene.id}.tif", scene)
    mask = {"path": f"{folder}/{{id}}.tif", "drop": [1]}
    x, y = GRID.centers
    if product == "mosaic":
        request = composite(dates="2023-04-18", mask=mask, kind="mosaic")
        assert run(request).state == "succeeded"
        with rasterio.open(Path(request.output, "mosaics/20230418T092031Z/red.tif")) as file:
            found = file.read(1)
        seen = np.zeros(found.shape, bool)
        for scene in SERIES:
            if scene.acquired.day == 18 and scene.acquired.month == 4:
                seen |= inside(scene, x, y) & own_clear(scene, x, y)
        day = earth.day_number(next(s.acquired for s in SERIES if s.id.endswith("20230418_1_L2A")))
        np.testing.assert_array_equal(found, np.where(seen, earth.pixel("red", x, y, day), 0))
        return
    request = composite(dates=APRIL, mask=mask)
    status = run(request)
    assert status.state == "succeeded"
    pixels, _, dates = observations(BANDS, GRID, 4)
    valid = np.zeros(pixels.shape[1:], bool)
    for number, scenes in enumerate(dates):
        for scene in scenes:
            if scene.id != lacking:
                valid[number] |= inside(scene, x, y) & own_clear(scene, x, y)
    for band, name in enumerate(BANDS):
        np.testing.assert_array_equal(
            read(request, "2023-04", name), median_of(pixels[band], valid)
        )
    assert item_of(request, "2023-04")["properties"]["scenebeam:complete"] is False
    row = table(request)["2023-04"]
    assert row["missing"] == lacking
    assert "No such file" in row["message"]


def test_an_id_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path)
    document = json.loads((tmp_path / "items.json").read_text())
    for item in document["features"]:
        item["id"] = f"../../{item['id']}"
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(document))
    mask = {"path": f"{tmp_path}/masks/{{id}}.tif", "drop": [1]}
    request = composite_request(path, tmp_path / "out", mask=mask)
    with pytest.raises(RequestError, match=r"cannot be a part of a path"):
        make_plan(request)


def test_a_mask_without_a_crs_is_an_error(composite: Make, tmp_path: Path) -> None:
    """Of all scenes: nothing can be made, and the reason is named."""
    for scene in SERIES:
        write_mask(tmp_path / f"{scene.id}.tif", scene, crs=None)
    request = composite(dates=APRIL, mask={"path": f"{tmp_path}/{{id}}.tif", "drop": [1]})
    assert run(request).state == "failed"
    row = table(request)["2023-04"]
    assert row["status"] == "failed_missing_inputs"
    assert "CRS" in row["message"]


def test_mosaics_are_masked_by_the_record(composite: Make) -> None:
    request = composite(dates="2023-04-18", mask=True, kind="mosaic", bands=["red", "scl"])
    assert run(request).state == "succeeded"
    pixels, valid, dates = observations(["red"], GRID, 4)
    number = next(n for n, scenes in enumerate(dates) if scenes[0].acquired.day == 18)
    folder = Path(request.output, "mosaics/20230418T092031Z")
    with rasterio.open(folder / "red.tif") as file:
        expected = np.where(valid[number], pixels[0, number], 0)
        np.testing.assert_array_equal(file.read(1), expected)
    with rasterio.open(folder / "scl.tif") as file:
        assert set(np.unique(file.read(1))) == {0, 4, 5, 6}
    item = json.loads((folder / "20230418T092031Z.json").read_text())
    assert item["properties"]["scenebeam:masked_by"] == ["scl"]
    assert set(item["assets"]) == {"red", "scl", "thumbnail"}


def test_pixels_with_too_few_observations_have_no_data(composite: Make) -> None:
    request = composite(dates=APRIL, min_observations=5, extra=["observations"])
    assert run(request).state == "succeeded"
    pixels, valid, _ = observations(BANDS, GRID, 4)
    count = valid.sum(axis=0)
    expected = np.where(count >= 5, median_of(pixels[0], valid), 0)
    np.testing.assert_array_equal(read(request, "2023-04", "red"), expected)
    np.testing.assert_array_equal(read(request, "2023-04", "observations"), count)


@pytest.mark.parametrize("method", ["median", "first-clear", "medoid"])
def test_the_fallback_fills_what_has_too_few(composite: Make, method: str) -> None:
    """Pixels with fewer than two clear dates in ten days are made of the whole month."""
    periods = ["2023-04-11/2023-04-20", "2023-04-21/2023-04-30"]
    request = composite(
        dates=APRIL,
        period=periods,
        fallback="month",
        min_observations=2,
        method=method,
        extra=["filled"],
    )
    assert run(request).state == "succeeded"
    pixels, valid, dates = observations(BANDS, GRID, 4)
    order = best_first(dates)
    for name, days in (("20230411-20230420", (13, 18)), ("20230421-20230430", (23, 28))):
        own = np.array([scenes[0].acquired.day in days for scenes in dates])
        own_valid = valid & own[:, None, None]
        enough = own_valid.sum(axis=0) >= 2
        filled = ~enough & (valid.sum(axis=0) >= 2)
        used = np.where(enough, own_valid, valid & filled)
        if method == "median":
            expected = median_of(pixels[1], used)
        else:
            # Those of the period come first, best first.
            places = sorted(order, key=lambda place: not own[place])
            score = np.zeros(used.shape)
            if method == "medoid":
                floats = np.where(used, pixels.astype(float), np.nan)
                floats = np.where(used.any(axis=0), floats, 0)
                middle = np.nanmedian(floats, axis=1)
                score = -((pixels - middle[:, None]) ** 2).sum(axis=0)
            ranked = np.where(used[places], score[places], -np.inf)
            chosen = np.array(places)[ranked.argmax(axis=0)]
            taken = np.take_along_axis(pixels[1], chosen[None], axis=0)[0]
            expected = np.where(enough | filled, taken, 0)
        np.testing.assert_array_equal(read(request, name, "nir"), expected)
        flags = np.where(enough | filled, filled, 255)
        np.testing.assert_array_equal(read(request, name, "filled"), flags)


def test_a_period_without_scenes_is_named(composite: Make) -> None:
    request = composite(dates="2023-03-01/2023-04-30")
    status = run(request)
    assert status.state == "succeeded"
    assert status.skipped == 1
    rows = table(request)
    assert rows["2023-04"]["status"] == "success"
    assert rows["2023-03"]["status"] == "no_scenes"
    assert rows["2023-03"]["message"] == "no scenes in 2023-03"


@pytest.mark.parametrize(
    ("dates", "period", "names"),
    [
        ("2023-04-15/2023-05-10", "month", ["2023-04", "2023-05"]),
        ("2023", "quarter", ["2023-Q1", "2023-Q2", "2023-Q3", "2023-Q4"]),
        (["2023-04", "2023-05-20"], "year", ["2023"]),
        (
            "2023-04-01/2023-04-25",
            "P10D",
            ["20230401-20230410", "20230411-20230420", "20230421-20230425"],
        ),
        ("2023-04-01/2023-05-31", "P1M", ["20230401-20230430", "20230501-20230531"]),
        ("2023-04", ["2023-04-02/2023-04-09"], ["20230402-20230409"]),
    ],
)
def test_periods_are_folders(composite: Make, dates: object, period: object, names: Any) -> None:
    plan = make_plan(composite(dates=dates, period=period))
    assert [task.id for task in plan.tasks] == names


def test_clear_ground_is_not_read_again(series_sandbox: Path, tmp_path: Path) -> None:
    """Of the scenes after the first, `first-clear` reads headers, masks and a few blocks."""
    with serve(series_sandbox) as server:
        items = [scene.item(server.url) for scene in SERIES]
        path = tmp_path / "items.json"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
        fetched = {}
        for method in ("first-clear", "median"):
            request = composite_request(
                path, tmp_path / method, dates=APRIL, method=method, bands=["nir"]
            )
            server.ranges.clear()
            assert run(request).state == "succeeded"
            fetched[method] = {
                name for name, begin, _ in server.ranges if begin > 0 and "nir" in name
            }
    # The first date is clear, so no later one of this tile is read. The southern tile ends at a
    # swath, whose edge no date shows.
    northern = {name for name in fetched["first-clear"] if "34TGL" in name}
    assert ["20230403" in name for name in northern] == [True]
    assert len(fetched["median"]) == 9


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": {"percentile": 101}}, "percentile must be from 0 to 100"),
        ({"method": "average"}, "'average' is not one of best-pixel, first-clear"),
        ({"method": "max"}, "max needs a parameter"),
        ({"method": {"median": 3}}, "'median' takes no parameter"),
        ({"bands": ["red", "day"], "extra": ["day"]}, "day is the name of a band too"),
        ({"mask": {"band": "scl"}}, "band needs one of keep, drop, bits and above"),
        ({"mask": {"keep": [4]}}, "keep needs a band"),
        ({"mask": {"probability": "cloud", "drop": [1]}}, "probability needs above"),
        ({"mask": {"path": "mask.tif", "drop": [1]}}, "path needs {id}"),
        ({"mask": {"band": "scl", "path": "{id}", "drop": [1]}}, "give one of band, probability"),
        ({"mask": {"dilate": -1}}, "at least 0"),
        ({"period": "P0D"}, "'P0D' is not month, quarter, year"),
        ({"period": "fortnight"}, "'fortnight' is not month"),
        ({"min_observations": 0}, "at least 1"),
    ],
)
def test_a_wrong_request_is_refused(composite: Make, fields: dict[str, Any], message: str) -> None:
    with pytest.raises((RequestError, ValueError)) as refused:
        composite(**fields)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": {"max": "nope"}}, "unknown band 'nope'"),
        ({"mask": {"band": "nope", "drop": [1]}}, "has no band nope"),
        ({"mask": {"probability": "cloud", "above": 40}}, "has no band cloud"),
        ({"bands": ["scl"], "method": "median"}, "would mix classes"),
        ({"method": "median", "extra": ["source"]}, "median combines scenes"),
        ({"method": "median", "extra": ["emad"]}, "median has no emad"),
        ({"method": "first-clear", "extra": ["score"]}, "first-clear has no score"),
    ],
)
def test_what_the_collection_lacks_is_named(
    composite: Make, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError) as refused:
        make_plan(composite(**fields))
    assert message in str(refused.value)


def test_collections_with_other_units_are_refused(tmp_path: Path) -> None:
    """Two records of the same files, one of which is scaled differently."""
    write_series(tmp_path)
    document = json.loads((tmp_path / "items.json").read_text())
    for number, item in enumerate(document["features"]):
        item["collection"] = "one" if number % 2 else "other"
    path = tmp_path / "two.json"
    path.write_text(json.dumps(document))

    def record(name: str, scale: float) -> dict[str, Any]:
        bands = {
            "red": {"asset": "red", "resolution": 10},
            "nir": {"asset": "nir", "resolution": 10},
        }
        return {"id": name, "dtype": "uint16", "nodata": 0, "scale": scale, "bands": bands}

    records = [record("one", 1e-4), record("other", 2e-4)]
    request = composite_request(path, tmp_path / "out", collections=records, mask=False)
    with pytest.raises(RequestError, match="different values of red"):
        make_plan(request)


@pytest.mark.parametrize("kind", ["composite", "mosaic"])
def test_a_record_without_classes_cannot_mask(tmp_path: Path, kind: str) -> None:
    write_series(tmp_path)
    document = json.loads((tmp_path / "items.json").read_text())
    for item in document["features"]:
        item["collection"] = "plain"
    path = tmp_path / "plain.json"
    path.write_text(json.dumps(document))
    record = {"id": "plain", "dtype": "uint16", "nodata": 0}
    record["bands"] = {"red": {"asset": "red", "resolution": 10}}
    request = composite_request(
        path, tmp_path / "out", collections=[record], mask=True, bands=["red"], kind=kind
    )
    with pytest.raises(RequestError, match="plain names no classes of clouds"):
        make_plan(request)


def test_scenes_far_from_clouds_are_better(composite: Make) -> None:
    """The score of the best pixel falls towards clouds; without clouds, the day decides."""
    score = {"required_distance": 600, "target_day": 108, "weights": WEIGHTS}
    request = composite(method="best-pixel", score=score, dates=APRIL, extra=["score", "day"])
    assert run(request).state == "succeeded"
    _, valid, dates = observations(BANDS, GRID, 4)
    x, y = GRID.centers
    best = read(request, "2023-04", "score")
    assert np.isnan(best[~valid.any(axis=0)]).all()
    seen = best[valid.any(axis=0)]
    assert ((seen > 0) & (seen <= 1)).all()
    days = np.array([scenes[0].acquired.timetuple().tm_yday for scenes in dates])
    day = read(request, "2023-04", "day")
    # April 18 is the target day: it is taken wherever it is clear and far from clouds.
    number = next(n for n, scenes in enumerate(dates) if scenes[0].acquired.day == 18)
    hidden = np.isin(classes(x, y, earth.day_number(dates[number][0].acquired)), (3, 8, 9, 10))
    far = valid[number] & ~dilate(hidden, 62)
    far[:62], far[-62:], far[:, :62], far[:, -62:] = False, False, False, False
    assert far.any()
    assert (day[far] == days[number]).all()


def test_the_example_is_valid() -> None:
    request = validate_request(
        {
            "catalog": "earth-search",
            "collections": [COLLECTION],
            "area": {"bbox": [22.8, 40.5, 23.0, 40.7]},
            "dates": "2023",
            "product": {
                "kind": "composite",
                "bands": ["red", "nir"],
                "mask": {"band": "scl", "keep": [2, 4, 5, 6, 11]},
                "extra": ["observations", "day"],
            },
            "output": "out",
        }
    )
    assert isinstance(request, RunRequest)
