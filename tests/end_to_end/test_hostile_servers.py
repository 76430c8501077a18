"""Servers that spoil a tenth of their answers: a run makes the right bytes, or it fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hostile import EVERY_MODE, Calm, Hostile, said, serve_hostile, spoil_in, weather
from scenebeam.multihash import file_multihash
from scenebeam.request import RunRequest
from scenebeam.sandbox import fields as fields_sandbox
from scenebeam.sandbox.scenes import SCENES
from scenebeam.transfer import addresses, download, http

Make = Callable[..., RunRequest]
SOME_MODES = ["shifted", "lying", "unended", "html206", "flip", "endless200", "drip", "404"]
"""Of each kind one: of every run's tests these are not slow."""


def tried(modes: list[str]) -> list[Any]:
    """Every mode as a parameter; all but some of them are slow."""
    slow = pytest.mark.slow
    return [mode if mode in modes else pytest.param(mode, marks=slow) for mode in EVERY_MODE]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up slow answers after fractions of a second, and endless files after some megabytes."""
    monkeypatch.setattr(http, "_WINDOW", 0.3)
    monkeypatch.setattr(addresses, "_HEADER_SECONDS", 1.0)
    monkeypatch.setattr(download, "_LARGEST_UNSIZED", 8 * 2**20)


@pytest.fixture(scope="module")
def host(sandbox: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    """The sandbox, at one address for all tests, so that calm and stormy runs can be compared."""
    with serve_hostile(sandbox) as server:
        server.catalog = tmp_path_factory.mktemp("catalog") / "items.json"
        write_items(server.catalog, [scene.item(server.url) for scene in SCENES])
        yield server


@pytest.fixture(scope="module")
def fields_host(fields: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    with serve_hostile(fields) as server:
        server.catalog = tmp_path_factory.mktemp("catalog") / "items.json"
        write_items(server.catalog, [one.item(server.url) for one in fields_sandbox.SCENES])
        yield server


def write_items(path: Path, items: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))


@pytest.fixture(autouse=True)
def calm_again(host: Hostile, fields_host: Hostile) -> Iterator[None]:
    yield
    host.spoil = fields_host.spoil = None


@pytest.fixture(scope="module")
def calm_products() -> Calm:
    return {}


@pytest.mark.parametrize("mode", EVERY_MODE)
def test_mosaics_of_a_hostile_server(
    host: Hostile,
    make_request: Make,
    calm_products: Calm,
    mode: str,
) -> None:
    request = make_request(catalog=str(host.catalog), dates="2021")
    status = weather(host, request, spoil_in(mode), "mosaics/", calm_products, "mosaic")
    if mode != "429-far":  # no number of tries waits for that
        assert status.state == "succeeded", said(request, status)


@pytest.mark.parametrize("mode", tried(SOME_MODES))
def test_stacks_of_a_hostile_server(
    host: Hostile,
    make_request: Make,
    calm_products: Calm,
    mode: str,
) -> None:
    changes = {
        "area": None,
        "select": {"scenes": [{"id": SCENES[0].id}]},
        "product": {"kind": "stack"},
    }
    request = make_request(catalog=str(host.catalog), **changes)
    weather(host, request, spoil_in(mode), "stacks/", calm_products, "stack")


@pytest.mark.parametrize("mode", tried(SOME_MODES))
def test_indices_of_a_hostile_server(
    host: Hostile,
    make_request: Make,
    calm_products: Calm,
    mode: str,
) -> None:
    product = {"kind": "index", "index": "ndvi"}
    request = make_request(catalog=str(host.catalog), dates="2021", product=product)
    weather(host, request, spoil_in(mode), "indices/", calm_products, "index")


@pytest.mark.parametrize("mode", tried(["shifted", "flip", "404"]))
def test_chips_of_a_hostile_server(
    fields_host: Hostile,
    fields_request: Make,
    calm_products: Calm,
    mode: str,
) -> None:
    asked = {"product.pixel_check": True, "product.bands": ["red", "nir"]}
    request = fields_request(catalog=str(fields_host.catalog), **asked)
    weather(fields_host, request, spoil_in(mode), "", calm_products, "fields")


@pytest.mark.parametrize("mode", tried(SOME_MODES))
def test_downloads_of_a_hostile_server(
    host: Hostile,
    make_request: Make,
    calm_products: Calm,
    mode: str,
) -> None:
    catalog = host.catalog
    if mode == "flip":
        # A flip may change no pixel: of a row of zeros, for one. Then a checksum alone can tell.
        catalog = catalog.with_name("checksums.json")
        write_items(catalog, [with_checksums(scene.item(host.url), host) for scene in SCENES])
    product = {"kind": "assets", "bands": ["red", "nir", "scl"]}
    request = make_request(catalog=str(catalog), product=product)
    weather(host, request, spoil_in(mode), "raw/", calm_products, f"assets of {catalog.name}")


def with_checksums(item: dict[str, Any], host: Hostile) -> dict[str, Any]:
    for asset in item["assets"].values():
        path = host.folder / asset["href"].removeprefix(f"{host.url}/")
        asset["file:checksum"] = file_multihash(path)
    return item


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("mode", [mode for mode in EVERY_MODE if "drip" not in mode])
def test_mosaics_of_a_very_hostile_server(
    host: Hostile, make_request: Make, calm_products: Calm, mode: str, seed: int
) -> None:
    """A third of all answers."""
    request = make_request(catalog=str(host.catalog), **{"product.bands": ["red", "nir", "scl"]})
    spoil = spoil_in(mode, seed=seed, **({} if mode in ("403", "404") else {"share": 0.34}))
    weather(host, request, spoil, "mosaics/", calm_products, "long mosaic")
