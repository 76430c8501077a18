"""Composites of the sandbox: every pixel worked out from the synthetic Earth with NumPy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
from rio_cogeo import cog_validate

from composites import BANDS, GRID, Make, item_of, read, table
from conftest import tree
from known_series import best_first, hidden, known, observations
from lives import Lives
from scenebeam.execution.driver import run
from scenebeam.planning.search import make_plan
from scenebeam.request.sections import Runner
from scenebeam.sandbox import earth


def reduced(pixels: np.ndarray, valid: np.ndarray, how: Callable[..., np.ndarray]) -> np.ndarray:
    """A reduction of one band over the dates, rounded half to even; 0 where nothing is clear."""
    floats = np.where(valid, pixels.astype(float), np.nan)
    filled = np.where(valid.any(axis=0), floats, 0)
    return np.rint(how(filled)).astype(np.uint16)


def lower_quartile(stack: np.ndarray) -> np.ndarray:
    """As `np.nanpercentile`, which takes a minute for these pixels."""
    ordered = np.sort(stack, axis=0)  # NaN last
    place = 0.25 * ((~np.isnan(stack)).sum(axis=0) - 1)
    low = np.floor(place).astype(int)[None]
    high = np.ceil(place).astype(int)[None]
    below, above = (np.take_along_axis(ordered, at, axis=0)[0] for at in (low, high))
    return below + (above - below) * (place - low[0])


@pytest.mark.parametrize(
    ("method", "how"),
    [
        ("median", lambda stack: np.nanmedian(stack, axis=0)),
        ("mean", lambda stack: np.nanmean(stack, axis=0)),
        ({"percentile": 25}, lower_quartile),
    ],
    ids=["median", "mean", "percentile"],
)
def test_methods_that_combine_each_band(
    composite: Make, method: object, how: Callable[..., np.ndarray]
) -> None:
    request = composite(method=method, extra=["observations", "day"])
    assert run(request).state == "succeeded"
    for month, period in ((4, "2023-04"), (5, "2023-05")):
        pixels, valid, dates = observations(BANDS, GRID, month)
        for band, name in enumerate(BANDS):
            expected = reduced(pixels[band], valid, how)
            np.testing.assert_array_equal(read(request, period, name), expected)
        np.testing.assert_array_equal(read(request, period, "observations"), valid.sum(axis=0))
        days = np.array([scenes[0].acquired.timetuple().tm_yday for scenes in dates])
        stack = np.broadcast_to(days[:, None, None], valid.shape)
        expected = reduced(stack, valid, lambda stack: np.nanmedian(stack, axis=0))
        np.testing.assert_array_equal(read(request, period, "day"), expected)


def chosen_pixels(
    pixels: np.ndarray, valid: np.ndarray, order: list[int], score: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """All bands of the clear date with the highest score, the first in the order if equal."""
    ranked = np.where(valid[order], score[order], -np.inf)
    chosen = np.array(order)[ranked.argmax(axis=0)]
    taken = np.take_along_axis(pixels, chosen[None, None], axis=1)[:, 0]
    return np.where(valid.any(axis=0), taken, 0), np.where(valid.any(axis=0), chosen, -1)


def scores(method: Any, pixels: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """How good each date is, by the definition of the method."""
    if method == "first-clear":
        return np.zeros(valid.shape)
    if method == "medoid":
        middle = np.nanmedian(np.where(valid, pixels.astype(float), np.nan), axis=1)
        return -((pixels - middle[:, None]) ** 2).sum(axis=0)
    red, nir = (pixels * np.float32(1e-4)).astype(np.float32)
    return {"ndvi": (nir - red) / (nir + red), "red": -red}[next(iter(method.values()))]


@pytest.mark.filterwarnings("ignore:All-NaN slice")
@pytest.mark.parametrize(
    "method",
    ["first-clear", "medoid", {"max": "ndvi"}, {"min": "red"}],
    ids=["first", "medoid", "max", "min"],
)
def test_methods_that_take_whole_pixels(composite: Make, method: object) -> None:
    """The spectrum is one that was measured; day and source say when and by which scene."""
    request = composite(method=method, extra=["day", "source"])
    assert run(request).state == "succeeded"
    for month, period in ((4, "2023-04"), (5, "2023-05")):
        pixels, valid, dates = observations(BANDS, GRID, month)
        order = best_first(dates)
        expected, chosen = chosen_pixels(pixels, valid, order, scores(method, pixels, valid))
        for name, band in zip(BANDS, expected, strict=True):
            np.testing.assert_array_equal(read(request, period, name), band)
        days = np.array([scenes[0].acquired.timetuple().tm_yday for scenes in dates])
        np.testing.assert_array_equal(
            read(request, period, "day"), np.where(chosen < 0, 0, days[chosen])
        )
        source = read(request, period, "source")
        links = [
            link for link in item_of(request, period)["links"] if link["rel"] == "derived_from"
        ]
        assert (source == 65535).sum() == (chosen < 0).sum()
        for number, link in enumerate(links):
            here = chosen[source == number]
            title = link.get("title") or link["href"]
            for date in np.unique(here):
                assert any(scene.id in title for scene in dates[date])


def test_the_output_is_a_cog_with_provenance(composite: Make) -> None:
    request = composite(extra=["observations"])
    assert run(request).state == "succeeded"
    folder = Path(request.output, "composites", "2023-04")
    for name in (*BANDS, "observations"):
        assert cog_validate(folder / f"{name}.tif", strict=True, quiet=True)[0]
    item = pystac.Item.from_file(str(folder / "2023-04.json"))
    pystac.Item.from_dict({**item.to_dict(), "stac_extensions": []}).validate()
    assert item.properties["start_datetime"] == "2023-04-01T00:00:00Z"
    assert item.properties["end_datetime"].startswith("2023-04-30T23:59:59")
    assert len([link for link in item.links if link.rel == "derived_from"]) == 9
    assert item.properties["scenebeam:masked_by"] == ["scl"]
    assert "eo:cloud_cover" not in item.properties
    assert (folder / "thumbnail.png").is_file()
    assert {row["status"] for row in table(request).values()} == {"success"}


def test_shards_and_resumed_runs_have_the_same_bytes(composite: Make, tmp_path: Path) -> None:
    whole = composite(method="medoid", extra=["observations", "source"], mask={"dilate": 150})
    assert run(whole).state == "succeeded"
    bands = (*BANDS, "observations", "source")
    expected = {name: read(whole, "2023-04", name) for name in bands}
    sharded = composite(
        method="medoid",
        extra=["observations", "source"],
        mask={"dilate": 150},
        limits={"memory": 500 * 2**20},
    ).model_copy(update={"output": str(tmp_path / "sharded")})
    plan = make_plan(sharded)
    assert len(plan.tasks) > 2, "the plan has no shards"
    assert run(sharded).state == "succeeded"
    for name, pixels in expected.items():
        np.testing.assert_array_equal(read(sharded, "2023-04", name), pixels)
    before = tree(tmp_path / "sharded")
    Path(sharded.output, "composites", "2023-04", "2023-04.json").unlink()
    assert run(sharded).state == "succeeded"
    after = tree(tmp_path / "sharded")
    images = [name for name in before if name.endswith(".tif")]
    assert images
    assert all(before[name] == after[name] for name in images)


@pytest.mark.parametrize("fill", [None, "linear"], ids=["periods", "series"])
def test_killed_at_any_publication_it_resumes_to_the_same_bytes(
    composite: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fill: str | None
) -> None:
    fields: dict[str, Any] = {
        "method": "medoid",
        "extra": ["day"],
        "bands": ["red"],
        "limits": {"memory": 350 * 2**20},
        "fill": fill,
    }
    calm = composite(**fields).model_copy(update={"output": str(tmp_path / "calm")})
    assert run(calm).state == "succeeded"
    expected = tree(tmp_path / "calm" / "composites")
    lives = Lives(monkeypatch)
    hits = 0
    for after in range(4, 24, 3):
        request = composite(**fields).model_copy(update={"output": str(tmp_path / f"{after}")})
        hits += lives.die_twice(request, after, 2)
        assert run(request).state == "succeeded"
        assert tree(tmp_path / f"{after}" / "composites") == expected
    assert hits > 6


def test_on_beam_the_bytes_are_the_same(composite: Make, tmp_path: Path) -> None:
    request = composite(method="first-clear", extra=["source"], bands=["nir"])
    assert run(request).state == "succeeded"
    direct = request.model_copy(
        update={"output": str(tmp_path / "direct"), "runner": Runner(kind="direct")}
    )
    assert run(direct).state == "succeeded"
    assert tree(tmp_path / "direct" / "composites") == tree(Path(request.output, "composites"))


def test_bands_of_two_resolutions_share_a_grid(composite: Make) -> None:
    """Of 20 m, each pixel is four of 10 m."""
    request = composite(bands=["red", "swir16"], method="median", dates="2023-04")
    assert run(request).state == "succeeded"
    x, y = GRID.centers
    _, valid, dates = observations(["red"], GRID, 4)
    coarse = []
    for scenes in dates:
        day = earth.day_number(scenes[0].acquired)
        coarse.append(earth.pixel("swir16", x // 20 * 20 + 10, y // 20 * 20 + 10, day))
        # The swath ends in the pixels of 20 m as well.
    seen = np.zeros(valid.shape, bool)
    for number, scenes in enumerate(dates):
        for scene in scenes:
            seen[number] |= known(scene, x, y) & ~hidden(scene, x, y)
    expected = reduced(np.stack(coarse), seen, lambda stack: np.nanmedian(stack, axis=0))
    np.testing.assert_array_equal(read(request, "2023-04", "swir16"), expected)
