"""The least set of scenes that covers what an acquisition shows of the area."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import box, mapping
from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.acquisition import Acquisition, coverage
from scenebeam.catalog.cover import minimal_cover
from scenebeam.catalog.scene import Scene
from scenebeam.errors import RequestError
from scenebeam.planning.search import search
from scenebeam.requestfile import validate_request

NOON = datetime(2023, 6, 1, 12, tzinfo=UTC)
AREA = box(0, 0, 1, 1)


def taken(*footprints: BaseGeometry | None, area: BaseGeometry | None = AREA) -> Acquisition:
    scenes = []
    for number, footprint in enumerate(footprints):
        scenes.append(Scene(f"s{number}", "c", "p", NOON, NOON, footprint=footprint))
    return Acquisition(NOON, tuple(scenes), coverage(scenes, area))


def names(one: Acquisition) -> list[str]:
    return [scene.id for scene in one.scenes]


@pytest.mark.parametrize(
    ("footprints", "left"),
    [
        ([box(0, 0, 1, 1), box(0, 0, 1, 1)], ["s0"]),
        ([box(0, 0, 0.4, 1), box(-1, -1, 2, 2)], ["s1"]),
        ([box(0, 0, 0.6, 1), box(0.3, 0, 0.7, 1), box(0.4, 0, 1, 1)], ["s0", "s2"]),
        ([box(0, 0, 0.6, 1), box(0.4, 0, 1, 1)], ["s0", "s1"]),
        ([box(0, 0, 0.4, 1), box(0.6, 0, 1, 1)], ["s0", "s1"]),
        ([box(0, 0, 1, 1), box(1, 0, 2, 1)], ["s0"]),
        ([box(0, 0, 1, 1), box(0.5, 0.5, 0.6, 0.6), None], ["s0", "s1", "s2"]),
        ([box(5, 5, 6, 6)], ["s0"]),
        ([], []),
    ],
    ids=["twins", "larger", "middle", "overlap", "gap", "edge", "unknown", "elsewhere", "none"],
)
def test_what_adds_nothing_is_left_out(
    footprints: list[BaseGeometry | None],
    left: list[str],
) -> None:
    assert names(minimal_cover(taken(*footprints), AREA)) == left


def test_a_scene_that_later_ones_make_superfluous_goes() -> None:
    """The largest comes first, and the two that are needed beside it cover all of it."""
    middle, left, right = box(0.2, 0, 0.8, 1), box(0, 0, 0.5, 1), box(0.5, 0, 1, 1)
    assert names(minimal_cover(taken(middle, left, right), AREA)) == ["s1", "s2"]


def test_a_pixel_counts_and_less_does_not() -> None:
    pixel = 10 / 111_320
    whole = box(0, 0, 1, 1)
    sliver, grain = box(1 - pixel, 0, 1, pixel * 2), box(1 - pixel / 2, 0, 1, pixel / 2)
    for part, count in ((sliver, 2), (grain, 1)):
        assert (
            len(minimal_cover(taken(shapely.difference(whole, part), part), AREA).scenes) == count
        )


def test_without_an_area_all_that_is_shown_is_covered() -> None:
    one = taken(box(0, 0, 1, 1), box(0.2, 0.2, 0.8, 0.8), box(3, 3, 4, 4), area=None)
    assert names(minimal_cover(one, None)) == ["s0", "s2"]


squares = st.builds(
    lambda x, y, size: box(x / 10, y / 10, (x + size) / 10, (y + size) / 10),
    st.integers(-2, 9),
    st.integers(-2, 9),
    st.integers(1, 6),
)


@given(st.lists(squares, max_size=8))
def test_coverage_stays_and_none_that_is_left_is_superfluous(
    footprints: list[BaseGeometry],
) -> None:
    one = taken(*footprints)
    least = minimal_cover(one, AREA)
    assert minimal_cover(one, AREA) == least
    assert minimal_cover(least, AREA) == least
    assert set(names(least)) <= set(names(one))
    assert names(least) == sorted(names(least)), "the order stays"
    assert least.coverage == pytest.approx(one.coverage, abs=1e-9)
    if not least.coverage:
        return
    for scene in least.scenes:
        others = [other for other in least.scenes if other is not scene]
        assert (coverage(others, AREA) or 0) < least.coverage


def test_an_unknown_word_is_told() -> None:
    document = {"catalog": "x.json", "collections": ["sentinel-2-l2a"], "output": "o"}
    with pytest.raises(RequestError, match=r"select\.cover"):
        validate_request({**document, "select": {"cover": "most"}, "product": {"kind": "assets"}})


# The recorded series of Thessaloniki. Its area is a square of ten columns here, and a tile shows
# some of them: what each date's recorded tiles add up to is as recorded, to the part of the area
# that one of them leaves out.
GAP = 0.00147
COLUMNS = {
    "34TFL": box(0, 0, 0.6, 1),
    "34TFK": box(0.5, 0, 0.8, 1),
    "34TGL": box(0.7, 0, 1 - GAP, 1),
    "35TKE": box(0.9, 0, 1, 1),
    "35TKF": box(0.75, 0, 1, 1),
    "34TGK": box(0.55, 0, 0.75, 1),
}
"""Footprints by tile."""


def tile_of(scene: str) -> str:
    return scene.split("_")[5].removeprefix("T")


def all_tiles_of(recorded: list[str]) -> list[str]:
    """A date's recorded scenes with all others that a search brings, which show nothing more."""
    tiles = {tile_of(name) for name in recorded}
    others = ["34TGK"]
    if "35TKF" in tiles:
        others += ["34TGL", "35TKE"]
    elif "35TKE" in tiles:
        others += ["34TFM"]
    else:
        others += ["34TGM"]
    return [*recorded, *(f"{recorded[0].rsplit('_T', 1)[0]}_T{tile}_0" for tile in others)]


def write_scene(root: Path, name: str, clouds: dict[str, float], footprint: BaseGeometry) -> None:
    cloud = clouds.get(name)
    properties = {} if cloud is None else {"eo:cloud_cover": cloud}
    item = {"id": name, "geometry": mapping(footprint), "properties": properties, "assets": {}}
    (root / name).mkdir(parents=True)
    (root / name / f"{name}.json").write_text(json.dumps(item))


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def selected(table: Path, root: Path, **select: Any) -> list[Any]:
    request = validate_request(
        {
            "catalog": {"time_series": str(table), "root": str(root)},
            "collections": ["sentinel-2-l2a"],
            "area": {"bbox": [0, 0, 1, 1]},
            "product": {"kind": "mosaic", "bands": ["red"]},
            "select": select,
            "output": str(root / "out"),
        }
    )
    return list(search(request).selection.acquisitions)


def count(acquisitions: Iterable[Acquisition]) -> int:
    return sum(len(one.scenes) for one in acquisitions)


def test_the_recorded_series_needs_46_of_its_82_scenes(real_data: Path, tmp_path: Path) -> None:
    recorded = read(real_data / "thessaloniki" / "time_series.csv")
    clouds = {}
    for scene in read(real_data / "thessaloniki" / "scenes_selected.csv"):
        clouds[scene["id"]] = float(scene["cloud_cover"])
    lines = ["acq_datetime,tile_ids,cloud_score"]
    for one in recorded:
        scenes = all_tiles_of(one["tile_ids"].split("|"))
        for name in scenes:
            footprint = COLUMNS.get(tile_of(name), COLUMNS["34TGK"])
            write_scene(tmp_path / "raw", name, clouds, footprint)
        lines.append(f"{one['acq_datetime']},{'|'.join(scenes)},{one['cloud_score']}")
    table = tmp_path / "time_series.csv"
    table.write_text("\n".join(lines) + "\n")
    assert count(selected(table, tmp_path / "raw")) == 82
    least = selected(table, tmp_path / "raw", cover="least")
    assert count(least) == 46
    for one, wanted in zip(least, recorded, strict=True):
        assert one.acquired == datetime.fromisoformat(wanted["acq_datetime"])
        assert "|".join(names(one)) == wanted["tile_ids"], "the order is the table's"
        assert one.cloud_cover == float(wanted["cloud_score"])
        assert one.coverage == pytest.approx(float(wanted["coverage_frac"]), abs=1e-4)
