"""The page of a run: what it says is what the tables say, whatever the run's size."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from shapely.geometry import box

from browser import dom, screenshot
from scenebeam.execution.driver import run
from scenebeam.products.base import PageFacts
from scenebeam.report import gather, render
from scenebeam.report.facts import Facts, Histogram, Measure, SceneFact, merge_histograms
from scenebeam.report.figures import MAX_MARKS, coverage_map, spread, timeline
from scenebeam.request import RunRequest
from scenebeam.status import PAGE_FILE, RunStatus
from scenebeam.storage import open_store

Make = Callable[..., RunRequest]
BEGAN = datetime(2023, 6, 1, tzinfo=UTC)
HOSTILE = "</script><script>alert(1)</script>\"'&"


class Parser(HTMLParser):
    """The tags of a page, by name, and that each that is opened is closed."""

    EMPTY = frozenset({"meta", "img", "path", "br", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.links: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.EMPTY or (
            tag == "path" and not (self.get_starttag_text() or "").endswith("/>")
        ):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def large(count: int = 50_000) -> Facts:
    """What a run of so many chips comes to."""
    west, south = np.divmod(np.arange(count), 250)
    record: dict[str, Any] = {
        "request": {"product": {"kind": "landcover"}, "catalog": "planetary-computer"}, "selection": "400 scenes found",
        "versions": {"scenebeam": "0.1.0"},
    }  # fmt: skip
    status = RunStatus(
        run="chips", state="partial", tasks=300, done=298, failed=2, started=BEGAN, finished=BEGAN + timedelta(hours=3),
        message=HOSTILE,
    )  # fmt: skip
    return Facts(
        status,
        record,
        scenes=[
            SceneFact(f"s{n}", BEGAN + timedelta(hours=5 * n), n % 101, n % 3 == 0)
            for n in range(20_000)
        ],
        scene_footprints=shapely.box(np.arange(400) / 10, 40, np.arange(400) / 10 + 1, 41),
        product_footprints=shapely.box(west / 50, south / 50, west / 50 + 0.02, south / 50 + 0.02),
        product_names=[f"chip_{n:06d}" for n in range(count)],
        groups={
            "Products by class": Counter(water=20_000, trees=30_000),
            "Chips by area": Counter(map(str, range(300))),
        },
        colors={"water": "#419bdf"},
        measures=[
            Measure(
                "Cloud",
                "%",
                [n % 30 for n in range(count)],
                [f"chip_{n:06d}" for n in range(count)],
            )
        ],
        histograms=[Histogram("red", [0, 1, 2], [3, 4])],
        failures=[{"task": f"t{n}", "kind": "ReadError", "reason": HOSTILE} for n in range(5000)],
        pictures=[f"chips/{n // 200:05d}/chip_{n:06d}.png" for n in range(count)],
    )


@pytest.fixture
def done(make_request: Make) -> Path:
    request = make_request(**{"product.bands": ["red", "green", "blue", "scl"]})
    assert run(request).state == "succeeded"
    return Path(request.output)


def test_a_run_has_a_page_that_needs_no_network(done: Path) -> None:
    text = (done / PAGE_FILE).read_text()
    page = Parser(text)
    assert page.tags["svg"] >= 6
    assert page.tags["img"] == 2
    for link in page.links:
        assert not re.match(r"\w+:|//", link), link
        assert (done / "report" / link).resolve().is_file(), link
    for told in (
        "2 of 2",
        "6 of 7",
        "20210610T092031Z",
        "older processing of the same acquisition left out 1",
    ):
        assert told in text
    assert "http" not in re.sub(r'xmlns="[^"]+"', "", text)


def test_a_resumed_run_has_it_too(done: Path, make_request: Make) -> None:
    (done / "mosaics/20210610T092031Z/20210610T092031Z.json").unlink()
    (done / PAGE_FILE).unlink()
    run(make_request(**{"product.bands": ["red", "green", "blue", "scl"]}))
    assert Parser((done / PAGE_FILE).read_text()).tags["img"] == 2


def test_numbers_of_a_mosaic_are_told_by_its_item(done: Path) -> None:
    folder = done / "mosaics" / "20210610T092031Z"
    assets = json.loads((folder / "20210610T092031Z.json").read_text())["assets"]
    for band in ("red", "scl"):
        found = assets[band]["raster:bands"][0]["histogram"]
        with rasterio.open(folder / f"{band}.tif") as file:
            pixels = file.read(1)
        assert pixels[pixels > 0].min() - 0.5 <= found["min"] < found["max"] <= pixels.max() + 0.5
        assert found["count"] == len(found["buckets"])
    classes = np.unique(pixels[pixels > 0])
    drawn = [found["min"] + 0.5 + number for number, count in enumerate(found["buckets"]) if count]
    assert set(drawn) <= set(classes.tolist()), "classes are counted, not averaged"
    status = RunStatus(run="x", state="succeeded")
    facts = gather(status, "items.parquet", PageFacts(), set(), open_store(str(done)))
    assert {histogram.band for histogram in facts.histograms} == {"red", "green", "blue", "scl"}
    both = [
        json.loads(path.read_text())["assets"]["red"]["raster:bands"][0]
        for path in done.glob("mosaics/*/*.json")
    ]
    red = next(one for one in facts.histograms if one.band == "red")
    assert sum(red.counts) == pytest.approx(sum(sum(one["histogram"]["buckets"]) for one in both))
    [valid] = [one for one in facts.measures if one.title.startswith("Valid")]
    assert sorted(valid.values) == sorted(one["statistics"]["valid_percent"] for one in both)


def test_histograms_become_one() -> None:
    one = {"count": 2, "min": 0.0, "max": 2.0, "buckets": [3, 1]}
    other = {"count": 2, "min": 2.0, "max": 4.0, "buckets": [5, 7]}
    found = merge_histograms("red", [one, other, one])
    assert (list(found.edges), list(found.counts)) == ([0, 1, 2, 3, 4], [6, 2, 5, 7])


def test_a_page_of_fifty_thousand_chips_is_small() -> None:
    text = render(large(), box(0, 0, 4, 5), "gs://bucket/chips").decode()
    assert len(text) < 2_000_000
    page = Parser(text)
    assert page.tags["path"] < 6 * MAX_MARKS
    assert page.tags["img"] == 24
    assert "2,381 of 50,000" in text
    assert "Showing 200 of 5,000 failures" in text
    assert "<script>alert" not in text
    assert "#419bdf" in text


def test_a_run_that_made_nothing_has_a_page() -> None:
    status = RunStatus(run="x", state="failed", message="no scene could be read")
    page = Parser(render(Facts(status, {}), None, "/out").decode())
    assert page.tags["svg"] == 0


def test_the_map_does_not_go_round_the_world() -> None:
    sides = shapely.MultiPolygon([box(179.5, -17, 180, -16), box(-180, -17, -179.5, -16)])
    facts = Facts(
        RunStatus(run="x", state="succeeded"),
        {},
        product_footprints=np.asarray([sides], object),
        product_names=["fiji"],
    )
    found = coverage_map(facts, None)
    assert found is not None
    assert [tick.text for tick in found.below] == ["179.5°E", "180°E", "179.5°W"]
    [mark] = [mark for mark in found.marks if mark.kind == "product"]
    assert mark.path.count("M") == 1, "its two halves meet"


def test_scenes_of_unknown_cloud_are_drawn_below_all_others() -> None:
    scenes = [SceneFact("a", BEGAN, None, True), SceneFact("b", BEGAN, 0.0, False)]
    found = timeline(scenes)
    assert found is not None
    heights = {
        mark.title[:1]: float(mark.path.split()[1].partition("a")[0]) for mark in found.marks
    }
    assert heights["a"] > heights["b"]
    assert [mark.kind for mark in found.marks] == ["unselected", "selected"], (
        "selected scenes are drawn on top"
    )
    assert timeline([]) is None


def test_a_number_that_is_the_same_for_all_is_drawn() -> None:
    assert len(spread(Measure("x", "", [3.0] * 50, ["a"] * 50)).marks) == 1


@pytest.mark.cloud
def test_the_page_in_a_browser(done: Path, tmp_path: Path) -> None:
    url = f"file://{done / PAGE_FILE}"
    for name, size, options in (
        ("page-light", (1100, 2400), ()),
        ("page-dark", (1100, 2400), ("--blink-settings=preferredColorScheme=0",)),
        ("page-phone", (500, 3600), ()),
    ):
        colours, found = screenshot(url, tmp_path, name, size, *options)
        assert found == size
        assert colours > 50, "an empty page"


@pytest.mark.cloud
def test_pictures_are_paged_by_button_and_by_key(tmp_path: Path) -> None:
    text = render(large(), None, "/out").decode()
    script = """<script>
      const first = () => document.querySelector(".gallery figcaption").textContent, seen = [first()];
      document.getElementById("next").click(); seen.push(first());
      document.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight"})); seen.push(first());
      for (let n = 0; n < 200; n++) document.getElementById("next").click();
      seen.push(document.querySelectorAll(".gallery img").length, document.getElementById("next").disabled);
      document.title = JSON.stringify(seen);
    </script></body>"""
    (tmp_path / "report").mkdir()
    path = tmp_path / PAGE_FILE
    path.write_text(text.replace("</body>", script))
    title = re.search("<title>(.*?)</title>", dom(f"file://{path}", tmp_path))
    assert title is not None
    step = 21  # pictures between two that are shown: 50,000 in at most 2,400
    names = [f"chips/{n // 200:05d}/chip_{n:06d}.png" for n in (0, 24 * step, 48 * step)]
    assert json.loads(title[1]) == [*names, 2381 - 99 * 24, True]
    screenshot(f"file://{path}", tmp_path, "page-fifty-thousand", (1100, 3200))
