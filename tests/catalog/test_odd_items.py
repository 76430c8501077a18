"""Items as they come in the wild: assets without a file, dates without a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from scenebeam.catalog.item_reader import scene_from_item
from scenebeam.collections import known_records
from scenebeam.execution.driver import run
from scenebeam.request import RunRequest
from scenebeam.sandbox.scenes import SCENES

S2 = next(
    one for one in known_records() if (one.provider, one.id) == ("earth-search", "sentinel-2-l2a")
)
GOOD, ODD = SCENES[0], SCENES[3]
NAIVE_NOON = "2020-10-31 12:00:00"


def item(**asset: Any) -> dict[str, Any]:
    """An item with one good asset, and `nir` as given."""
    return {
        "id": "S2B_odd",
        "collection": "sentinel-2-l2a",
        "properties": {"datetime": "2020-10-31"},
        "assets": {"red": {"href": "https://x/red.tif"}, "nir": asset},
    }


@pytest.mark.parametrize(
    "asset",
    [
        {"href": None},
        {},
        {"href": ""},
        {"href": None, "alternate": None},
        {"href": None, "alternate": {"s3": None}},
    ],
)
def test_an_asset_without_an_href_is_no_file_of_its_band(asset: dict[str, Any]) -> None:
    assert set(scene_from_item(item(**asset), S2).assets) == {"red"}


def test_an_asset_that_is_null_is_no_file_either() -> None:
    odd = item()
    odd["assets"]["nir"] = None
    assert set(scene_from_item(odd, S2).assets) == {"red"}


def test_an_alternate_stands_in_for_a_missing_href() -> None:
    asset = {"href": None, "alternate": {"s3": {"href": "https://y/nir.tif"}}}
    assert scene_from_item(item(**asset), S2).assets["nir"].href == "https://y/nir.tif"


@pytest.mark.parametrize(
    ("written", "hour"),
    [("2020-10-31", 0), ("20201031", 0), (NAIVE_NOON, 12), ("2020-10-31T12:00:00+02:00", 10)],
)
def test_a_date_without_a_time_is_midnight_utc(written: str, hour: int) -> None:
    odd = item()
    odd["properties"]["datetime"] = written
    assert scene_from_item(odd, S2).datetime == datetime(2020, 10, 31, hour, tzinfo=UTC)


def test_a_checksum_that_is_no_text_is_kept_as_text() -> None:
    assert (
        scene_from_item(item(href="https://x/n.tif", **{"file:checksum": 5}), S2)
        .assets["nir"]
        .checksum
        == "5"
    )


def null_href(odd: dict[str, Any]) -> None:
    odd["assets"]["nir"]["href"] = None


def no_href(odd: dict[str, Any]) -> None:
    del odd["assets"]["nir"]["href"]


def no_asset(odd: dict[str, Any]) -> None:
    odd["assets"]["nir"] = None


@pytest.mark.parametrize("spoil", [null_href, no_href, no_asset])
@pytest.mark.parametrize("self_link", [False, True])
def test_a_missing_href_costs_its_own_item_the_band_and_the_others_nothing(
    make_request: Callable[..., RunRequest],
    sandbox: Path,
    tmp_path: Path,
    spoil: Callable[[dict[str, Any]], None],
    self_link: bool,
) -> None:
    items = [scene.item(str(sandbox)) for scene in (GOOD, ODD)]
    spoil(items[1])
    if self_link:
        items[1]["links"] = [{"rel": "self", "href": "https://example.com/item.json"}]
        for asset in items[1]["assets"].values():
            if asset and asset.get("href"):
                asset["href"] = "https://127.0.0.1:1/never.tif"
    catalog = tmp_path / "items.json"
    catalog.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    request = make_request(
        catalog=str(catalog),
        area=None,
        product={"kind": "stack", "format": "vrt"},
        limits={"max_attempts": 1},
    )
    status = run(request)
    assert (status.done, status.failed) == (1, 1)
    assert (Path(request.output) / "stacks" / GOOD.id / f"{GOOD.id}.vrt").exists()
    assert "nir: the item has no file of nir" in status.message


def test_an_item_with_a_date_alone_makes_a_stack_of_midnight(
    make_request: Callable[..., RunRequest], sandbox: Path, tmp_path: Path
) -> None:
    one = GOOD.item(str(sandbox))
    one["properties"]["datetime"] = one["properties"]["datetime"][:10]
    catalog = tmp_path / "items.json"
    catalog.write_text(json.dumps({"type": "FeatureCollection", "features": [one]}))
    request = make_request(catalog=str(catalog), area=None, product={"kind": "stack"})
    assert run(request).state == "succeeded"
    made = json.loads((Path(request.output) / "stacks" / GOOD.id / f"{GOOD.id}.json").read_text())
    assert made["properties"]["datetime"] == f"{GOOD.acquired:%Y-%m-%d}T00:00:00Z"
