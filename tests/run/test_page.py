"""The page of a run: what it says is what the tables say, whatever the run's size."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import imagecodecs
import numpy as np
import pytest
import rasterio
import shapely
from shapely.geometry import box

from browser import dom, screenshot
from scenebeam.collections import known_records
from scenebeam.execution.driver import run
from scenebeam.figures.maps import MAX_MARKS, coverage_map, locator_map
from scenebeam.products.base import PageFacts
from scenebeam.products.fields.product import PRODUCT
from scenebeam.products.fields.request import FieldsRequest
from scenebeam.raster.render import Style
from scenebeam.report.charts import spread, timeline
from scenebeam.report.facts import Facts, Histogram, Measure, SceneFact, gather, merge_histograms
from scenebeam.report.pictures import (
    EMBEDDED,
    Gallery,
    Legend,
    Picture,
    best_product,
    draw_gallery,
    published_gallery,
)
from scenebeam.report.products import ProductFact
from scenebeam.report.render import render
from scenebeam.request import RunRequest
from scenebeam.status import PAGE_FILE, RunStatus
from scenebeam.storage import open_store
from scenebeam.storage.local import LocalStore

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


def decode(content: bytes) -> np.ndarray:
    return np.asarray(imagecodecs.webp_decode(content, hasalpha=True))


class MemoryStore(LocalStore):
    """A store in which every picture has the same content."""

    def __init__(self) -> None:
        pass

    def read(self, key: str) -> bytes | None:
        return b"picture"


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
        failures=[{"task": f"t{n}", "kind": "ReadError", "reason": HOSTILE} for n in range(200)],
        failure_reasons=Counter({HOSTILE: 5000}),
        gallery=published_gallery(
            [f"chips/{n // 200:05d}/chip_{n:06d}.png" for n in range(count)], MemoryStore()
        ),
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
    assert page.tags["img"] == 3, "two products, and the enlarged picture"
    embedded = [link for link in page.links if link.startswith("data:image/webp;base64,")]
    assert len(embedded) == 3, "two products and one on the map: the page can be mailed"
    for link in page.links:
        if link in embedded:
            continue
        assert not re.match(r"\w+:|//", link), link
        assert (done / "report" / link).resolve().is_file(), link
    for told in (
        "2 of 2",
        "6 of 7",
        "2 mosaic products of 6 scenes",
        "20210610T092031Z",
        '<th scope="row">older processing of the same acquisition</th>',
        "1 left out",
        "Color picture of red, green, blue",
    ):
        assert told in text, told
    assert "http" not in re.sub(r'xmlns="[^"]+"', "", text)


def test_a_resumed_run_has_it_too(done: Path, make_request: Make) -> None:
    (done / "mosaics/20210610T092031Z/20210610T092031Z.json").unlink()
    (done / PAGE_FILE).unlink()
    run(make_request(**{"product.bands": ["red", "green", "blue", "scl"]}))
    assert Parser((done / PAGE_FILE).read_text()).tags["img"] == 3


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
    assert page.tags["img"] == 24 + 1
    assert sum(link.startswith("data:") for link in page.links) == EMBEDDED
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
    found = coverage_map(products=np.asarray([sides], object), names=["fiji"])
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


@pytest.mark.parametrize(
    "area", [box(20, 0, 21, 10.5), box(20, 60, 41, 62), box(-0.1, 50, 0, 50.1)]
)
def test_a_map_has_one_scale_in_both_directions(area: shapely.Polygon) -> None:
    found = coverage_map(area=area)
    assert found is not None
    [outline] = [mark for mark in found.marks if mark.kind == "area"]
    points = np.array([float(text) for text in re.findall(r"[\d.]+", outline.path)]).reshape(-1, 2)
    width, height = np.ptp(points, axis=0)
    west, south, east, north = area.bounds
    across = (east - west) * np.cos(np.radians((south + north) / 2))
    assert height / width == pytest.approx((north - south) / across, rel=0.02)
    assert width <= found.frame[2]
    assert height <= found.frame[3]


def test_the_scale_bar_is_as_long_as_it_says() -> None:
    area = box(20, 40, 21, 41)
    found = coverage_map(area=area)
    assert found is not None
    assert found.scale_bar is not None
    kilometers = float(found.scale_bar.text.removesuffix(" km"))
    [outline] = [mark for mark in found.marks if mark.kind == "area"]
    heights = [float(text) for text in re.findall(r"[\d.]+", outline.path)][1::2]
    per_pixel = 111.32 / (max(heights) - min(heights))
    assert found.scale_bar.at * per_pixel == pytest.approx(kilometers, rel=0.01)


@pytest.mark.parametrize(
    "area",
    [
        box(22, 40, 23, 41),
        box(179.5, -17, 180.5, -16),
        box(-60, -89, 60, -80),
        box(-180, -90, 180, 90),
    ],
)
def test_a_small_map_shows_where_on_earth_it_is(area: shapely.Polygon) -> None:
    found = locator_map(np.asarray([area], object))
    assert found is not None
    kinds = {mark.kind for mark in found.marks}
    assert {"coasts", "here"} <= kinds
    for mark in found.marks:
        assert "nan" not in mark.path


def result_of(script: str, page: Path, *options: str) -> Any:
    """Append a script to a page, open it, and return the JSON that the script made its title."""
    page.write_text(page.read_text().replace("</body>", script))
    title = re.search("<title>(.*?)</title>", dom(f"file://{page}", page.parent, *options))
    assert title is not None
    return json.loads(title[1])


def product(
    name: str, *, valid: float | None = 100.0, cloud: float | None = 0.0, **more: Any
) -> ProductFact:
    fields: dict[str, Any] = {
        "when": BEGAN, "item": "", "files": (), "bands": {}, "missing": (), "corners": (), **more
    }  # fmt: skip
    return ProductFact(name, valid=valid, cloud=cloud, **fields)


def test_the_first_picture_is_the_most_complete_then_the_clearest_then_the_newest() -> None:
    products = [
        product("cloudy", cloud=60.0), product("cut", valid=40.0), product("newer"), product("older"), product("unknown", valid=None, cloud=None)
    ]  # fmt: skip
    assert products[best_product(products)].id == "newer"
    assert products[best_product(products[:2])].id == "cloudy"


def test_pictures_share_one_stretch_that_clouds_do_not_change(done: Path) -> None:
    """A pixel with the same numbers has the same color in every picture of a run."""
    facts = gather(
        RunStatus(run="x", state="succeeded"), "items.parquet", PageFacts(), set(open_store(str(done)).list()),
        open_store(str(done)),
    )  # fmt: skip
    records = [record for record in known_records() if record.id == "sentinel-2-l2a"]
    with_masks = draw_gallery(
        facts.products, records, are_indices=False, store=open_store(str(done))
    )
    assert with_masks.legends
    [limits] = set(with_masks.legends[0].limits)
    seen = {}
    for picture in with_masks.pictures:
        image = decode(picture.embedded)
        with rasterio.open(done / f"mosaics/{picture.caption.split(',')[0]}/red.tif") as file:
            red = file.read(1, out_shape=image.shape[:2])  # an overview
        # Cloud is far brighter than anything else.
        cloud = image[red > 4000][:, :3]
        assert len(cloud) > 1000
        assert (cloud > 240).mean() > 0.95, "but for what the compression changes"
        assert (image[red == 0][:, 3] == 0).all()
        level = (np.clip((red / 1e4 - limits[0]) / (limits[1] - limits[0]), 0, 1) ** 0.8 * 255)[
            red > 0
        ]
        off = np.abs(image[..., 0][red > 0] - level)
        assert np.median(off) < 4, "but for what the compression changes"
        seen[picture.caption] = np.percentile(red[red > 0], 99) / 1e4
    assert limits[1] < max(seen.values()), "the cloud of one date does not darken the others"


def test_pictures_of_products_that_are_gone_go_too(done: Path, make_request: Make) -> None:
    old = done / "report/pictures/gone.webp"
    old.write_bytes(b"")
    run(make_request(**{"product.bands": ["red", "green", "blue", "scl"]}))
    assert not old.exists()
    assert len(list(old.parent.iterdir())) == 2


def test_a_product_that_cannot_be_read_has_no_picture_and_the_run_is_fine(
    done: Path, make_request: Make
) -> None:
    (done / "mosaics/20210610T092031Z/green.tif").write_bytes(b"not a TIFF")
    status = run(make_request(**{"product.bands": ["red", "green", "blue", "scl"]}))
    assert status.state == "succeeded"
    assert status.pictures == ("report/pictures/20220615T092029Z.webp",)


def test_an_index_has_a_ramp_and_classes_have_names(make_request: Make) -> None:
    request = make_request(product={"kind": "index", "index": "ndvi"})
    assert run(request).state == "succeeded"
    text = (Path(request.output) / PAGE_FILE).read_text()
    assert "ndvi: -1" in text
    assert "linear-gradient(90deg" in text
    request = make_request(**{"product.bands": ["scl"]}, output=f"{request.output}-classes")
    assert run(request).state == "succeeded"
    text = (Path(request.output) / PAGE_FILE).read_text()
    assert '#00a000"></i>4 vegetation</li>' in text


def test_the_page_of_chips_shows_images_beside_labels_and_says_what_is_missing(
    fields_request: Make,
) -> None:
    request = fields_request()
    status = run(request)
    output = Path(request.output)
    text = (output / "report" / "index.html").read_text()
    shown = Parser(text)
    chips = len(list(output.glob("*/*_semantic_2_class.tif")))
    images = len(list(output.glob("*/*_image_s2.tif")))
    assert f"{chips} chips and {images} images of " in text
    drawn = {path.stem for path in (output / "report" / "pictures").iterdir()}
    assert len(drawn) == chips + images
    labels = next(name for name in sorted(drawn) if not name.endswith("_s2"))
    pixels = decode((output / "report" / "pictures" / f"{labels}.webp").read_bytes())
    # Fields are green, the background is not.
    colors = {tuple(color) for color in pixels.reshape(-1, pixels.shape[-1])[:, :3].tolist()}
    assert {(227, 220, 203), (111, 166, 58)} <= {nearest(color) for color in colors}
    assert "1 field" in text
    assert "whole cloud cover" in text  # without pixel_check
    assert status.incomplete > 0
    assert "no planting scene within" in text
    assert "chips_status.csv" in text
    assert shown


def nearest(color: tuple[int, ...]) -> tuple[int, ...]:
    """The class color that a lossy picture shows."""
    known = [(227, 220, 203), (111, 166, 58), (47, 75, 28)]
    return min(known, key=lambda one: sum((a - b) ** 2 for a, b in zip(one, color, strict=True)))


def test_a_careful_choice_of_scenes_needs_no_caution(fields_request: Make) -> None:
    for changes in ({"product.pixel_check": True}, {"product.images": "none"}):
        request = fields_request(**changes)
        assert PRODUCT.caution(cast(RunRequest[FieldsRequest], request)) == ""
    seven = fields_request(**{"product.cloud_cover_scene": 7})
    assert "at most 7 %" in PRODUCT.caution(cast(RunRequest[FieldsRequest], seven))


def test_what_failed_comes_first_and_says_why(make_request: Make) -> None:
    failures = [{"task": f"t{n}", "kind": "ReadError", "reason": "no such file"} for n in range(3)]
    failures.append({"task": "t9", "kind": "no_scenes", "reason": "no clear scene"})
    facts = Facts(
        RunStatus(run="x", state="partial", tasks=9, done=5, failed=3, skipped=1, retriable=3), {}, failures=failures,
        failure_reasons=Counter(row["reason"] for row in failures),
        products=[product("one", missing=("red: S2: HTTP 404",))],
        gallery=Gallery([Picture("p.webp", "one", "a picture", size=(2, 2), embedded=b"x")], [Legend(Style("gray", ("red",)), [(0, 1)])], 1),
    )  # fmt: skip
    text = render(facts, None, "/out").decode()
    Parser(text)
    assert "<b>3 ×</b> no such file" in text
    assert "one: red: S2: HTTP 404" in text
    assert text.index("no such file") < text.index('class="hero"')


@pytest.mark.cloud
def test_the_page_in_a_browser(done: Path, tmp_path: Path) -> None:
    url = f"file://{done / PAGE_FILE}"
    for name, size, options in (
        ("page-light", (1100, 2400), ()),
        ("page-dark", (1100, 2400), ("--blink-settings=preferredColorScheme=0",)),
        ("page-tablet", (800, 3000), ()),
        ("page-tablet-dark", (800, 3000), ("--blink-settings=preferredColorScheme=0",)),
        ("page-phone", (500, 3600), ()),
        ("page-phone-dark", (500, 3600), ("--blink-settings=preferredColorScheme=0",)),
    ):
        colours, found = screenshot(url, tmp_path, name, size, *options)
        assert found == size
        assert colours > 50, "an empty page"


@pytest.mark.cloud
@pytest.mark.parametrize("width", [500, 800, 1200])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_are_legible_and_nothing_is_cut_off(
    done: Path, tmp_path: Path, width: int, theme: str
) -> None:
    """Contrast is measured as WCAG 2.1 defines it: 4.5 for text, 3 for the lines of the map."""
    script = """<script>
      const parse = text => text.match(/[\\d.]+/g).map(Number);
      const channel = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
      const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
      const contrast = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      function ground(node) {
        for (; node; node = node.parentElement) {
          const color = parse(getComputedStyle(node).backgroundColor);
          if (color.length < 4 || color[3] > 0) return luminance(color);
        }
        return 1;
      }
      const found = [];
      for (const node of document.querySelectorAll("h1, h2, h3, p, th, td, li, a, span, small, figcaption, summary, text")) {
        if (!node.textContent.trim() || !node.getClientRects().length) continue;
        const style = getComputedStyle(node), color = node.tagName === "text" ? style.fill : style.color;
        const value = contrast(luminance(parse(color)), ground(node));
        if (value < 4.5) found.push(`${node.tagName} ${node.textContent.slice(0, 20)}: ${value.toFixed(2)}`);
      }
      for (const kind of ["coasts", "area", "scene", "outline", "frame", "selected"]) {
        const node = document.querySelector(`path.${kind}`);
        if (!node) continue;
        const style = getComputedStyle(node), color = style.stroke === "none" ? style.fill : style.stroke;
        const value = contrast(luminance(parse(color)), ground(node));
        if (value < 3) found.push(`${kind}: ${value.toFixed(2)}`);
      }
      const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
      if (wide > 0) found.push(`the page is ${wide} pixels too wide`);
      for (const image of document.images) if (!image.alt && !image.closest("dialog")) found.push(`no alt: ${image.src}`);
      document.title = JSON.stringify(found);
    </script></body>"""
    options = [f"--window-size={width},2000"]
    if theme == "dark":
        options.append("--blink-settings=preferredColorScheme=0")
    shutil.copytree(done, tmp_path / "copy")
    assert result_of(script, tmp_path / "copy" / PAGE_FILE, *options) == []


@pytest.mark.cloud
def test_a_picture_is_enlarged_by_click_and_turned_by_key(done: Path, tmp_path: Path) -> None:
    script = """<script>
      const seen = [];
      const text = () => box.querySelector("p").textContent;
      document.querySelector(".hero a").click(); seen.push(box.open, text());
      document.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight"})); seen.push(text());
      seen.push(box.querySelector("img").src.startsWith("data:image/webp"));
      document.getElementById("close").click(); seen.push(box.open);
      document.title = JSON.stringify(seen);
    </script></body>"""
    shutil.copytree(done, tmp_path / "copy")
    page = tmp_path / "copy" / PAGE_FILE
    opened, first, second, embedded, closed = result_of(script, page)
    assert (opened, embedded, closed) == (True, True, False)
    assert first.endswith("(1 of 2)")
    assert second.endswith("(2 of 2)")


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
    path.write_text(text)
    shown = result_of(script, path)
    step = 21  # pictures between two that are shown: 50,000 in at most 2,400
    names = [f"chip_{n:06d}" for n in (0, 24 * step, 48 * step)]
    assert shown == [*names, 2381 - 99 * 24, True]
    screenshot(f"file://{path}", tmp_path, "page-fifty-thousand", (1100, 3200))
