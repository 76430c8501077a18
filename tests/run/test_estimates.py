"""What a plan says that it will take, against what the run then takes: within a factor of 1.3, or in the range told."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from conftest import write_served_items
from resident import PEAK_KIB
from scenebeam.cli import main
from scenebeam.execution.driver import run
from scenebeam.execution.explain import describe, explain
from scenebeam.planning.search import make_plan
from scenebeam.request import RunRequest
from scenebeam.requestfile import validate_request
from scenebeam.sandbox.server import SandboxServer, serve
from scenebeam.status import RunStatus
from scenebeam.tasks import Estimate

Make = Callable[..., RunRequest]
FACTOR = 1.3
IMAGES = (".tif", ".jp2", ".png")

SCENES: dict[str, dict[str, Any]] = {
    "mosaic": {"product": {"kind": "mosaic", "bands": ["red", "nir", "scl"]}},
    "median": {"product": {"kind": "mosaic", "bands": ["red"], "method": "median"}},
    "shards": {"product": {"kind": "mosaic", "bands": ["red"]}, "limits.memory": "100MB"},
    "mostly empty": {
        "product": {"kind": "mosaic", "bands": ["red"]},
        "area": {"bbox": [23.6, 40.2, 24.4, 40.8]},
    },
    "index": {"product": {"kind": "index", "index": "ndvi"}},
    "months": {"product": {"kind": "index", "index": "ndvi", "per": "month"}},
    "vrt": {"product": {"kind": "stack", "bands": ["red", "nir"], "format": "vrt"}},
    "geotiff": {
        "product": {"kind": "stack", "bands": ["red", "nir", "swir16"], "format": "geotiff"}
    },
    "assets": {"product": {"kind": "assets", "bands": ["red", "SCL"]}},
}
FIELDS: dict[str, dict[str, Any]] = {
    "download": {},
    "pixel check": {"product.pixel_check": True},
    "select": {"product.images": "select"},
    "masks": {"product.images": "none"},
}


def within(told: list[int] | tuple[int, int], found: int) -> bool:
    least, most = told
    return least / FACTOR <= found <= most * FACTOR


def compare(request: RunRequest) -> tuple[Estimate, RunStatus]:
    """Plan and run a request, and hold one against the other."""
    estimate = make_plan(request, measure=True).estimate
    status = run(request)
    assert status.state == "succeeded", status.message
    output = Path(request.output)
    written = sum(path.stat().st_size for path in output.rglob("*") if path.suffix in IMAGES)
    requests = estimate.requests, estimate.most_requests
    read = estimate.read_bytes, estimate.most_read_bytes
    write = estimate.write_bytes, estimate.most_write_bytes
    assert within(requests, status.requests), f"requests: {requests} told, {status.requests} made"
    assert within(read, status.read_bytes), f"read: {read} told, {status.read_bytes} read"
    assert within(write, written), f"written: {write} told, {written} written"
    return estimate, status


def served(folder: Path, target: Path) -> Iterator[tuple[SandboxServer, Path]]:
    with serve(folder) as server:
        yield server, write_served_items(folder, server.url, target)


@pytest.mark.parametrize("where", ["served", "local"])
@pytest.mark.parametrize("product", SCENES)
def test_products_of_scenes(
    make_request: Make, served_items: Path, product: str, where: str
) -> None:
    catalog = {"catalog": str(served_items)} if where == "served" else {}
    compare(make_request(**SCENES[product], **catalog))


@pytest.mark.parametrize("product", FIELDS)
def test_field_chips(fields: Path, fields_request: Make, tmp_path: Path, product: str) -> None:
    for _, catalog in served(fields, tmp_path / "items.json"):
        compare(fields_request(catalog=str(catalog), **FIELDS[product]))


def test_land_cover_chips(landcover: Path, landcover_request: Make, tmp_path: Path) -> None:
    for _, catalog in served(landcover, tmp_path / "items.json"):
        compare(landcover_request(catalog=str(catalog), **{"product.zip": False}))


REAL_BANDS = {"red": "B04", "nir": "B08", "scl": "SCL"}
REAL: dict[str, dict[str, Any]] = {
    "mosaic": {"kind": "mosaic", "bands": list(REAL_BANDS)},
    "index": {"kind": "index", "index": "ndvi"},
    "vrt": {"kind": "stack", "bands": ["red", "nir"], "format": "vrt"},
    "geotiff": {"kind": "stack", "bands": ["red", "nir"], "format": "geotiff"},
    "assets": {"kind": "assets", "bands": list(REAL_BANDS)},
}


@pytest.mark.parametrize("product", REAL)
@pytest.mark.parametrize("area", ["scene", "part"])
def test_a_real_scene(real_data: Path, tmp_path: Path, product: str, area: str) -> None:
    folder = real_data / "sentinel-2-l2a-29RKH"
    item = json.loads((folder / "S2A_29RKH_20200219_0_L2A.json").read_text())
    item["links"] = []
    with serve(folder) as server:
        for band, name in REAL_BANDS.items():
            item["assets"][band]["href"] = f"{server.url}/{name}.tif"
        catalog = tmp_path / "items.json"
        catalog.write_text(json.dumps({"type": "FeatureCollection", "features": [item]}))
        west, south, east, north = item["bbox"]
        middle = [
            west + (east - west) / 3,
            south + (north - south) / 3,
            west + (east - west) / 2,
            south + (north - south) / 2,
        ]
        document = {
            "catalog": str(catalog),
            "collections": ["sentinel-2-l2a"],
            "product": REAL[product],
            "output": str(tmp_path / "out"),
            "runner": "serial",
        }
        if area == "part":
            document["area"] = {"bbox": middle}
        compare(validate_request(document))


# Memory


@pytest.mark.parametrize("product", ["mosaic", "index", "vrt", "geotiff", "assets"])
def test_memory_is_no_more_than_told(make_request: Make, tmp_path: Path, product: str) -> None:
    request = make_request(**SCENES[product])
    told = explain(make_plan(request, measure=True))["memory_bytes"]
    (tmp_path / "request.json").write_text(request.model_dump_json())
    body = (
        "import sys\n"
        "from scenebeam.requestfile import load_request\n"
        "from scenebeam.execution.driver import run\n"
        "run(load_request(sys.argv[1])[0])\n"
        "print(1024 * " + PEAK_KIB + ")\n"
    )
    command = [sys.executable, "-c", body, str(tmp_path / "request.json")]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(found.stdout) <= told * FACTOR


# What is said


def test_numbers_for_machines_and_words_for_people(make_request: Make, tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text(make_request().model_dump_json())
    told = CliRunner().invoke(main, ["plan", str(tmp_path / "request.json"), "--json"])
    facts = json.loads(told.output)
    for name in ("requests", "read_bytes", "write_bytes"):
        least, most = facts[name]
        assert isinstance(least, int)
        assert 0 < least <= most
    assert isinstance(facts["memory_bytes"], int)
    assert isinstance(facts["seconds"], float)
    assert facts["dataflow"].keys() == {"minutes", "usd"}
    shown = CliRunner().invoke(main, ["plan", str(tmp_path / "request.json")]).output
    assert " to " in next(line for line in shown.splitlines() if line.startswith("requests"))
    assert "MB" in next(line for line in shown.splitlines() if line.startswith("bytes to read"))


@pytest.mark.parametrize(
    ("product", "tasks"),
    [
        ({"kind": "mosaic", "bands": ["red", "nir"]}, 2),
        ({"kind": "assets", "bands": ["red", "nir"]}, 6),
        ({"kind": "stack", "bands": ["red", "nir"], "required": ["red"]}, 6),
        ({"kind": "index", "index": "ndvi"}, 2),
    ],
    ids=lambda one: one["kind"] if isinstance(one, dict) else "",
)
def test_a_band_that_is_in_no_item_is_said(
    make_request: Make, tmp_path: Path, product: dict[str, Any], tasks: int
) -> None:
    catalog = json.loads(Path(str(make_request().catalog)).read_text())
    for feature in catalog["features"]:
        del feature["assets"]["nir"]
    (tmp_path / "catalog.json").write_text(json.dumps(catalog))
    facts = explain(
        make_plan(make_request(catalog=str(tmp_path / "catalog.json"), product=product))
    )
    assert facts["lacking_bands"] == {"nir": tasks}
    assert describe(facts)["missing bands"] == f"nir in {tasks} tasks"


def test_no_band_is_said_to_be_missing_where_none_is(make_request: Make) -> None:
    facts = explain(make_plan(make_request()))
    assert facts["lacking_bands"] == {}
    assert describe(facts)["missing bands"] == ""


def test_sizes_are_asked_of_a_few_files(
    make_request: Make, served_items: Path, server: SandboxServer
) -> None:
    make_plan(
        make_request(catalog=str(served_items), product={"kind": "assets", "bands": ["red"]}),
        measure=True,
    )
    assert sum(server.requests.values()) == 3


def test_a_catalog_that_knows_the_shape_tells_the_size(make_request: Make, tmp_path: Path) -> None:
    catalog = json.loads(Path(str(make_request().catalog)).read_text())
    for feature in catalog["features"]:
        feature["assets"]["red"]["href"] = "https://127.0.0.1:9/none.tif"
        feature["assets"]["red"]["proj:shape"] = [1000, 2000]
    (tmp_path / "catalog.json").write_text(json.dumps(catalog))
    request = make_request(
        catalog=str(tmp_path / "catalog.json"), product={"kind": "assets", "bands": ["red"]}
    )
    document = request.model_dump(mode="json")
    document["limits"] |= {"private_addresses": True}
    estimate = make_plan(validate_request(document), measure=True).estimate
    assert estimate.read_bytes == 6 * 1000 * 2000


def test_a_shard_that_only_touches_a_footprint_is_estimated(make_request: Make) -> None:
    """Where a window begins on the edge of a footprint, both share a line."""
    request = make_request(
        **{"limits.memory": "270MiB", "product.bands": ["red", "green"]}, area=None
    )
    plan = make_plan(request)
    assert len(plan.tasks) > 2, "there are shards"
    assert plan.estimate.read_bytes > 0
