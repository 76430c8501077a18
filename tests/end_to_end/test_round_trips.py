"""What scenebeam wrote, scenebeam reads: archives as catalogs, tables, collections of others, chips without boundaries."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

from conftest import tree
from scenebeam.cli import main
from scenebeam.execution.driver import run
from scenebeam.request import RunRequest
from scenebeam.requestfile import load_request
from scenebeam.sandbox.scenes import SCENES
from scenebeam.storage import open_store

Make = Callable[..., RunRequest]
BANDS = ["B04", "nir", "SCL"]


@pytest.fixture
def archive(make_request: Make, tmp_path: Path) -> Path:
    """All scenes of the sandbox, downloaded."""
    request = make_request(
        output=str(tmp_path / "archive"), run="archive", product={"kind": "assets", "bands": BANDS}
    )
    assert run(request).state == "succeeded"
    return tmp_path / "archive"


def pixels(output: Path | str) -> dict[str, Any]:
    """The images of a run, by name."""
    found = {}
    for path in sorted(Path(output).glob("*/*/*.tif")):
        with rasterio.open(path) as file:
            found[str(path.relative_to(output))] = file.read()
    return found


def same_pixels(one: Path | str, other: Path | str) -> None:
    left, right = pixels(one), pixels(other)
    assert left.keys() == right.keys()
    assert left
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


@pytest.mark.parametrize("form", ["collection.json", "items.parquet"])
@pytest.mark.parametrize(
    "product",
    [
        {"kind": "mosaic", "bands": ["red", "nir", "scl"]},
        {"kind": "index", "index": "ndvi"},
        {"kind": "stack", "bands": ["red", "nir"], "format": "geotiff"},
    ],
    ids=lambda product: product["kind"],
)
def test_an_archive_is_a_catalog(
    make_request: Make, archive: Path, tmp_path: Path, form: str, product: dict[str, Any]
) -> None:
    """The same products as of the scenes themselves: shifts, passes, tiles and clouds are all known."""
    direct = make_request(output=str(tmp_path / "direct"), product=product)
    assert run(direct).state == "succeeded"
    moved = tmp_path / "moved"
    shutil.copytree(archive, moved)
    shutil.rmtree(archive)
    request = make_request(catalog=str(moved / form), output=str(tmp_path / "out"), product=product)
    assert run(request).state == "succeeded"
    same_pixels(tmp_path / "out", tmp_path / "direct")


@pytest.mark.parametrize("form", ["collection.json", "items.parquet"])
def test_an_archive_in_a_bucket_is_a_catalog(
    make_request: Make, prefix: str, tmp_path: Path, form: str
) -> None:
    """Dropped into the bucket; moved inside it, it is a catalog still."""
    dropped = make_request(
        output=f"{prefix}/dropped", run="archive", product={"kind": "assets", "bands": BANDS}
    )
    assert run(dropped).state == "succeeded"
    before, moved = open_store(f"{prefix}/dropped"), open_store(f"{prefix}/moved")
    for name in before.list():
        moved.write(name, before.read(name) or b"")
    before.delete(before.list())
    product = {"kind": "mosaic", "bands": ["red"]}
    request = make_request(
        catalog=f"{prefix}/moved/{form}", output=str(tmp_path / "out"), product=product
    )
    assert run(request).state == "succeeded"
    direct = make_request(output=str(tmp_path / "direct"), product=product)
    run(direct)
    same_pixels(tmp_path / "out", tmp_path / "direct")


def test_an_archive_is_the_root_of_a_time_series(
    make_request: Make, archive: Path, tmp_path: Path
) -> None:
    product = {"kind": "mosaic", "bands": ["red", "nir"]}
    direct = make_request(output=str(tmp_path / "direct"), product=product)
    run(direct)
    series = {
        "time_series": str(tmp_path / "direct" / "time_serie.csv"),
        "root": str(archive / "raw"),
    }
    shutil.copy(archive / "time_serie.csv", series["time_series"])
    request = make_request(catalog=series, dates=[], output=str(tmp_path / "out"), product=product)
    assert run(request).state == "succeeded"
    assert {name.split("/")[2] for name in pixels(tmp_path / "out")} == {"red.tif", "nir.tif"}


@pytest.mark.parametrize("kind", ["mosaic", "index"])
def test_a_table_of_products_is_a_catalog_of_its_own(
    make_request: Make, tmp_path: Path, kind: str
) -> None:
    """Hrefs start from the table: with an inline record its images can be mosaicked again."""
    product = (
        {"kind": "mosaic", "bands": ["scl"]}
        if kind == "mosaic"
        else {"kind": "index", "index": "ndvi"}
    )
    first = make_request(run="first", output=str(tmp_path / "first"), product=product)
    run(first)
    band = "scl" if kind == "mosaic" else "ndvi"
    record = {
        "id": "first",
        "title": "products",
        "dtype": "uint8" if kind == "mosaic" else "float32",
        "nodata": 0 if kind == "mosaic" else "nan",
        "bands": {band: {"asset": band, "resolution": 20.0 if kind == "mosaic" else 10.0}},
    }
    request = make_request(
        catalog=str(tmp_path / "first" / "items.parquet"),
        collections=[record],
        output=str(tmp_path / "out"),
        product={"kind": "mosaic", "bands": [band]},
        grid={"resolution": 20.0 if kind == "mosaic" else 10.0},
    )
    assert run(request).state == "succeeded"
    left, right = pixels(tmp_path / "first"), pixels(tmp_path / "out")
    assert len(left) == len(right) == 2
    for one, other in zip(left.values(), right.values(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_the_run_of_a_demo_can_be_run_again(tmp_path: Path) -> None:
    for product in ("fields", "landcover"):
        demo = CliRunner().invoke(
            main, ["demo", "--product", product, "-o", str(tmp_path / product)]
        )
        assert demo.exit_code == 0, demo.output
        (record,) = (tmp_path / product).glob("*/run.json")
        again = CliRunner().invoke(main, ["run", str(record)])
        assert again.exit_code == 0, again.output


# A catalog of others


@pytest.fixture
def flat(chips: Path, tmp_path: Path) -> Path:
    """A catalog of chips whose items lie beside its collection, with links and properties of its own."""
    folder = tmp_path / "flat"
    (folder / "masks").mkdir(parents=True)
    links = [
        {"rel": "root", "href": "../catalog.json", "type": "application/json"},
        {"rel": "license", "href": "https://example.com/license"},
    ]
    for path in sorted(chips.glob("ftw-*/ftw-*_2021.json")):
        item = json.loads(path.read_text())
        for asset in item["assets"].values():
            shutil.copy(path.parent / asset["href"], folder / "masks")
            asset["href"] = f"./masks/{Path(asset['href']).name}"
        item["links"] = [
            {"rel": "collection", "href": "./collection.json", "type": "application/json"}
        ]
        item["properties"]["own:name"] = "kept"
        (folder / path.name).write_text(json.dumps(item))
        links.append({"rel": "item", "href": f"./{path.name}", "type": "application/geo+json"})
    collection = json.loads((chips / "collection.json").read_text())
    collection["links"] = links
    (folder / "collection.json").write_text(json.dumps(collection))
    return folder


def test_a_catalog_of_others_is_only_added_to(fields_request: Make, flat: Path) -> None:
    own = json.loads((flat / "collection.json").read_text())["links"]
    masks = {path.name: path.read_bytes() for path in (flat / "masks").iterdir()}
    request = fields_request(
        **{
            "product.boundaries": None,
            "product.chips": str(flat),
            "output": str(flat),
            "product.bands": ["red"],
        }
    )
    assert run(request).state == "succeeded"
    links = json.loads((flat / "collection.json").read_text())["links"]
    assert links[: len(own)] == own
    items = [link["href"] for link in links if link["rel"] == "item"]
    assert len(items) == len(set(items))
    assert all((flat / href).is_file() for href in items)
    assert {path.name: path.read_bytes() for path in (flat / "masks").iterdir()} == masks
    chosen = 0
    for path in flat.glob("ftw-*_2021.json"):
        item = json.loads(path.read_text())
        assert item["properties"]["own:name"] == "kept"
        for link in item["links"]:
            if link["rel"].startswith("ftw:"):
                image = flat / link["href"]
                back = {one["rel"]: one["href"] for one in json.loads(image.read_text())["links"]}
                assert (image.parent / back["ftw:parent_chip"]).resolve() == path.resolve()
                chosen += 1
    assert chosen == len(list(flat.glob("ftw-*/*_s2.json"))) > 10
    assert run(request).requests == 0, "and it is a catalog of chips still"


# Chips without their boundaries


def test_chips_that_stand_need_no_boundaries(
    fields: Path, fields_request: Make, tmp_path: Path
) -> None:
    boundaries = tmp_path / "fields.geojson"
    shutil.copy(fields / "fields.geojson", boundaries)
    made = {"product.boundaries": str(boundaries), "product.bands": ["red"]}
    at_once = fields_request(output=str(tmp_path / "at-once"), **made)
    assert run(at_once).state == "succeeded"
    steps = {"output": str(tmp_path / "out"), **made}
    assert run(fields_request(**steps, **{"product.images": "none"})).state == "succeeded"
    boundaries.unlink()
    assert run(fields_request(**steps, **{"product.images": "select"})).state == "succeeded"
    assert run(fields_request(**steps, **{"product.images": "download"})).state == "succeeded"
    left, right = tree(tmp_path / "out"), tree(tmp_path / "at-once")
    assert left.keys() == right.keys()
    assert [
        name
        for name in left
        if left[name] != right[name] and name.endswith((".tif", ".json", ".csv"))
    ] == []


@pytest.mark.parametrize(
    ("size", "digits"),
    [(64, 3), (128, 3), (160, 2), pytest.param(16, 3, marks=pytest.mark.slow)],
)
def test_small_chips_are_named_by_finer_digits(
    fields_request: Make, size: int, digits: int
) -> None:
    request = fields_request(**{"product.grid": {"size": size}, "product.images": "none"})
    assert run(request).state == "succeeded"
    names = [path.name for path in Path(request.output).glob("ftw-*")]
    assert len(names) == len(set(names)) > 5
    assert {len(name) for name in names} == {len("ftw-34UFF_2021") + 2 * digits}


def test_the_catalog_of_items_is_no_path_of_this_machine(fields_request: Make) -> None:
    request = fields_request(**{"product.images": "select"})
    run(request)
    paths = sorted(Path(request.output).glob("ftw-*/ftw-*_2021.json"))
    assert paths
    for path in paths:
        assert json.loads(path.read_text())["properties"]["ftw:stac_host"] == "items.json"


def test_a_moved_run_goes_on_by_the_command(fields_request: Make, tmp_path: Path) -> None:
    request = fields_request(**{"product.images": "select", "product.bands": ["red"]})
    run(request)
    shutil.move(request.output, tmp_path / "moved")
    told = CliRunner().invoke(
        main, ["fields", "download", str(tmp_path / "moved"), "--runner", "serial"]
    )
    assert told.exit_code == 0, told.output
    assert list((tmp_path / "moved").glob("ftw-*/*_s2.tif"))
    assert not Path(request.output).exists()
    assert load_request(tmp_path / "moved" / "run.json")[0].output == str(tmp_path / "moved")


def test_a_scene_of_an_archive_says_where_it_is_from(archive: Path) -> None:
    item = json.loads((archive / "raw" / SCENES[0].id / f"{SCENES[0].id}.json").read_text())
    assert item["collection"] == "archive"
    assert item["properties"]["scenebeam:collection"] == "sentinel-2-l2a"
    assert item["assets"].keys() == set(BANDS)
