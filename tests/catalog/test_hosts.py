"""Catalogs that back each other: one scene at several hosts is one scene, each file with its own provider's rules."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

from scenebeam.catalog.hosts import merge_hosts
from scenebeam.catalog.item_reader import scene_from_item
from scenebeam.catalog.scene import Scene
from scenebeam.catalog.select import drop_duplicates
from scenebeam.cli import main
from scenebeam.collections import known_records
from scenebeam.errors import CatalogError, RequestError
from scenebeam.execution.driver import run
from scenebeam.request import RunRequest
from scenebeam.requestfile import validate_request
from scenebeam.sandbox.scenes import AREA, COLLECTION, DATES

Document = dict[str, Any]
BEFORE = "20210610T092031Z"
PRODUCT = "S2A_MSIL2A_20230202T092109_N{baseline}_R093_T34TFL_20230202T155145"


def of_provider(provider: str, baseline: str = "05.10", tile: str = "34TFL") -> Scene:
    """One scene as a provider describes it."""
    product = PRODUCT.format(baseline=baseline.replace(".", "")).replace("34TFL", tile)
    own: dict[str, Document] = {
        "earth-search": {
            "s2:product_uri": f"{product}.SAFE",
            "s2:processing_baseline": baseline,
            "grid:code": f"MGRS-{tile}",
            "created": "2023-02-03T00:00:00Z",
        },
        "planetary-computer": {
            "s2:datatake_id": f"GS2A_20230202T092109_039788_N{baseline}",
            "s2:product_uri": f"{product}.SAFE",
            "s2:processing_baseline": baseline,
            "s2:mgrs_tile": tile,
        },
        "cdse": {
            "eopf:datatake_id": f"GS2A_20230202T092109_039788_N{baseline}",
            "processing:version": baseline,
            "grid:code": f"MGRS-{tile}",
        },
    }
    names = {"earth-search": "S2A_34TFL_20230202_0_L2A", "planetary-computer": product, "cdse": product}  # fmt: skip
    item = {
        "id": names[provider],
        "collection": COLLECTION,
        "geometry": {"type": "Polygon", "coordinates": [[[22, 40], [23, 40], [23, 41], [22, 40]]]},
        "properties": {
            # Providers state the time of a tile, or that of its pass.
            "datetime": "2023-02-02T09:21:09.024Z" if provider == "cdse" else "2023-02-02T09:25:41Z",
            "platform": "sentinel-2a" if provider != "planetary-computer" else "Sentinel-2A",
            **own[provider],
        },
        "assets": {},
    }  # fmt: skip
    [record] = [r for r in known_records() if r.id == COLLECTION and r.provider == provider]
    scene = scene_from_item(item, record)
    return Scene(**{**scene.__dict__, "host": provider})


PROVIDERS = ("earth-search", "planetary-computer", "cdse")


def test_one_scene_at_three_providers_is_one_scene() -> None:
    for order in (PROVIDERS, PROVIDERS[::-1]):
        scenes = [of_provider(provider) for provider in PROVIDERS]
        [merged] = merge_hosts(scenes, order)
        assert merged.provider == order[0]
        assert [scene.provider for scene in merged.alternates] == list(order[1:])


def test_another_tile_or_baseline_is_another_scene_and_the_newest_is_kept() -> None:
    scenes = [
        of_provider("earth-search", "04.00"),
        of_provider("cdse", "05.10"),
        of_provider("planetary-computer", "04.00"),
        of_provider("cdse", tile="34TFK"),
    ]
    merged = merge_hosts(scenes, PROVIDERS)
    assert len(merged) == 3
    kept = drop_duplicates(merged)
    assert sorted((scene.provider, scene.tile) for scene in kept) == [
        ("cdse", "34TFK"),
        ("cdse", "34TFL"),
    ]


def test_a_processing_of_the_same_baseline_is_another_state_at_any_host() -> None:
    def identity_of(*scenes: Scene) -> str:
        [kept] = drop_duplicates(merge_hosts(scenes, PROVIDERS))
        return kept.identity

    def processed_again(scene: Scene) -> Scene:
        again = scene.id.replace("20230202T155145", "20230301T000000")
        properties = {**scene.properties, "s2:product_uri": f"{again}.SAFE"}
        return replace(scene, id=again, properties=properties, processed=("z",))

    before = [of_provider(provider) for provider in PROVIDERS[1:]]
    after = [processed_again(scene) for scene in before]
    assert identity_of(*before) == identity_of(before[0]) == identity_of(before[1])
    assert identity_of(*before, *after) == identity_of(*after) == identity_of(after[1])
    assert identity_of(*before) != identity_of(*after)


def test_without_a_product_name_a_second_processing_is_numbered() -> None:
    old = of_provider("earth-search")
    old = replace(old, properties={**old.properties, "s2:product_uri": ""})
    new = replace(old, id="S2A_34TFL_20230202_1_L2A", processed=("z",))
    [alone] = merge_hosts([old], PROVIDERS)
    [kept] = drop_duplicates(merge_hosts([old, new], PROVIDERS))
    assert kept.id == new.id
    assert kept.identity != alone.identity


# Two hosts on disk


class Hosts:
    """The scenes of the sandbox at two hosts; the second stores an offset of 1000."""

    def __init__(self, sandbox: Path, folder: Path) -> None:
        self.folder = folder
        document = json.loads((sandbox / "items.json").read_text())
        self.first: dict[str, Document] = {item["id"]: item for item in document["features"]}
        self.second: dict[str, Document] = {}
        for name in self.first:
            copied = folder / "first" / name
            shutil.copytree(sandbox / name, copied)
            item = json.loads(
                json.dumps(self.first[name]).replace(str(sandbox / name), str(copied))
            )
            self.first[name] = item
            if "20210610" in name:
                # The first host has removed an offset that the second has kept.
                item["properties"]["s2:processing_baseline"] = "05.10"
                item["properties"]["earthsearch:boa_offset_applied"] = True
            self.second[f"{name}_copy"] = self._copy(name, item)
        self.write()

    def _copy(self, name: str, item: Document) -> Document:
        """The scene at the second host: with an id, an offset and hrefs of its own."""
        copied = self.folder / "second" / name
        shutil.copytree(self.folder / "first" / name, copied)
        text = json.dumps(item).replace(str(self.folder / "first"), str(self.folder / "second"))
        other: Document = json.loads(text)
        other["id"] = f"{name}_copy"
        if not item["properties"]["earthsearch:boa_offset_applied"]:
            return other
        other["properties"]["earthsearch:boa_offset_applied"] = False
        with rasterio.open(copied / "red.tif") as file:
            pixels, profile = file.read(), file.profile
        profile |= {"driver": "GTiff", "tiled": True, "blockxsize": 512, "blockysize": 512}
        (copied / "red.tif").unlink()
        with rasterio.open(copied / "red.tif", "w", **profile) as file:
            file.write(np.where(pixels == 0, 0, pixels + 1000).astype(pixels.dtype))
        return other

    def write(self) -> None:
        for name, items in (("a", self.first), ("b", self.second)):
            features = [items[key] for key in sorted(items)]
            (self.folder / f"{name}.json").write_text(
                json.dumps({"type": "FeatureCollection", "features": features})
            )


@pytest.fixture
def hosts(sandbox: Path, tmp_path: Path) -> Hosts:
    return Hosts(sandbox, tmp_path)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., RunRequest]:
    def request(output: str, catalog: Any, **changes: Any) -> RunRequest:
        document: Document = {
            "run": "test",
            "catalog": catalog,
            "collections": [COLLECTION],
            "area": {"bbox": list(AREA)},
            "dates": DATES,
            "product": {"kind": "mosaic", "bands": ["red", "scl"]},
            "output": str(tmp_path / output),
            "runner": "serial",
        }
        return validate_request({**document, **changes})

    return request


Make = Callable[..., RunRequest]


def pixels(output: str, band: str = "red") -> np.ndarray:
    [path] = Path(output).glob(f"mosaics/{BEFORE}/**/{band}.tif")
    with rasterio.open(path) as file:
        return np.asarray(file.read(1))


def test_what_one_catalog_lacks_another_serves(hosts: Hosts, make: Make, tmp_path: Path) -> None:
    whole = run(make("whole", str(tmp_path / "a.json")))
    [missing] = [key for key in hosts.first if "34TGK_20210610" in key]
    del hosts.first[missing]
    hosts.write()
    status = run(make("both", [str(tmp_path / "a.json"), str(tmp_path / "b.json")]))
    assert (status.state, status.incomplete) == ("succeeded", 0)
    for band in ("red", "scl"):
        assert (pixels(status.output, band) == pixels(whole.output, band)).all()
    item = json.loads((Path(status.output) / f"mosaics/{BEFORE}/{BEFORE}.json").read_text())
    scenes = item["assets"]["red"]["scenebeam:scenes"]
    assert sorted(name.endswith("_copy") for name in scenes) == [False, False, True]


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_file_that_cannot_be_read_is_read_from_another_catalog(
    hosts: Hosts, make: Make, tmp_path: Path, damage: str
) -> None:
    """The copy has an offset of its own: it is removed by its own rule."""
    whole = run(make("whole", str(tmp_path / "a.json")))
    for name in hosts.first:
        if "35TKF_20210610" in name:
            path = tmp_path / "first" / name / "red.tif"
            content = path.read_bytes()
            path.unlink()
            if damage == "truncated":
                path.write_bytes(content[: len(content) // 3])
    alone = run(make("alone", str(tmp_path / "a.json")))
    assert alone.incomplete == 1
    assert (pixels(alone.output) != pixels(whole.output)).any()
    status = run(make("both", [str(tmp_path / "a.json"), str(tmp_path / "b.json")]))
    assert (status.state, status.incomplete) == ("succeeded", 0)
    assert (pixels(status.output) == pixels(whole.output)).all()


def test_raw_numbers_are_never_read_from_a_copy_with_another_offset(
    hosts: Hosts, make: Make, tmp_path: Path
) -> None:
    for name in hosts.first:
        if "34TGK_20210610" in name:
            (tmp_path / "first" / name / "red.tif").unlink()
    product = {"kind": "mosaic", "bands": ["red"], "values": "raw"}
    both = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    assert run(make("raw", both, product=product)).incomplete == 1


def test_a_series_does_not_change_when_another_catalog_catches_up(
    hosts: Hosts, make: Make, tmp_path: Path
) -> None:
    both = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    late = {key: item for key, item in hosts.first.items() if "34TGK_20210610" in key}
    for key in late:
        del hosts.first[key]
    hosts.write()
    first = run(make("series", both, series=True))
    assert first.state == "succeeded"
    hosts.first |= late
    hosts.write()
    second = run(make("series", both, series=True))
    assert (second.kept, second.replaced) == (2, 0)


def test_one_catalog_that_is_down_stops_nothing(hosts: Hosts, make: Make, tmp_path: Path) -> None:
    gone = "http://127.0.0.1:9/one"
    limits = {"max_attempts": 1}
    status = run(make("one", [gone, str(tmp_path / "a.json")], limits=limits))
    assert status.state == "succeeded"
    with pytest.raises(CatalogError, match="127.0.0.1:9/one"):
        run(make("none", [gone, "http://127.0.0.1:9/two"], limits=limits))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"catalog": []}, "a list of different ones"),
        ({"catalog": ["a.json", "a.json"]}, "a list of different ones"),
        ({"product": {"kind": "fields", "year": 2021, "boundaries": "x.geojson"}}, "takes one"),
    ],
)
def test_lists_of_catalogs_that_are_none(make: Make, changes: Document, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        make("x", changes.pop("catalog", ["a.json", "b.json"]), **{"area": None, "dates": [], **changes})  # fmt: skip


def test_completeness_says_which_catalog_lacks_what_since_when(
    hosts: Hosts, make: Make, tmp_path: Path
) -> None:
    [missing] = [key for key in hosts.first if "34TGK_20210610" in key]
    del hosts.first[missing]
    hosts.write()
    both = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    file = tmp_path / "request.json"
    file.write_text(make("table", both).model_dump_json())

    def rows() -> list[dict[str, str]]:
        told = CliRunner().invoke(main, ["scenes", str(file), "--completeness"])
        assert told.exit_code == 0, told.output
        with (tmp_path / "table" / "catalog_completeness.csv").open() as table:
            return list(csv.DictReader(table))

    first = rows()
    [lacking] = [row for row in first if not row["scene"]]
    assert (lacking["tile"], lacking["catalog"]) == ("34TGK", both[0])
    assert lacking["acquired"] == "2021-06-10T09:20:31Z"
    hosts.first[missing] = {**hosts.second[f"{missing}_copy"], "id": missing}
    hosts.write()
    (tmp_path / "table" / "catalog_completeness.csv").write_text(
        (tmp_path / "table" / "catalog_completeness.csv").read_text().replace(lacking["since"], "2020-01-01T00:00:00Z")
    )  # fmt: skip
    second = rows()
    assert all(row["scene"] for row in second)
    known = [row for row in second if row["since"] == "2020-01-01T00:00:00Z"]
    assert len(second) - len(known) == 1
