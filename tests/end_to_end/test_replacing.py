"""Replacing never destroys: what stands is whole until its successor is, in a folder and in a bucket.

Each product is made by one request, then by another, on a server that is unwell in between, and
with kills at many moments. Nothing that stood is lost, and nothing that is linked is dead.
"""

from __future__ import annotations

import json
import os
import posixpath
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import rustac

from conftest import OF_ITS_TIME, write_served_items
from lives import Killed, Lives
from scenebeam.errors import RequestError
from scenebeam.execution.driver import run
from scenebeam.request import RunRequest, is_url
from scenebeam.requestfile import load_request
from scenebeam.sandbox.server import Fault, SandboxServer, serve
from scenebeam.storage import open_store
from scenebeam.storage.store import SUPERSEDED

Make = Callable[..., RunRequest]

PRODUCTS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "mosaic": ("scenes", {}, {"product.method": "last"}),
    "shards": ("scenes", {"limits.memory": "100MB"}, {"product.method": "last"}),
    "stack": (
        "scenes",
        {"product": {"kind": "stack", "bands": ["red", "nir"]}},
        {"product.values": "raw"},
    ),
    "index": ("scenes", {"product": {"kind": "index", "index": "ndvi"}}, {"product.mask": False}),
    "assets": (
        "scenes",
        {"product": {"kind": "assets", "bands": ["red"]}},
        {"product.bands": ["nir"]},
    ),
    "fields": ("fields", {"product.bands": ["red"]}, {"product.bands": ["nir"]}),
    "landcover": ("landcover", {"product.include": [0]}, {"product.seed": 3}),
}
"""By name: which scenes, what is asked for first, and what then."""
_LONG = ("stack", "fields", "landcover")
"""Whose longer tests are left to `make test-slow`."""


def _marked(name: str, prefix: str = "") -> Any:
    return pytest.param(f"{prefix}{name}", marks=pytest.mark.slow if name in _LONG else ())


LOCAL_AND_CLOUD = [*PRODUCTS, *(_marked(name, "gs ") for name in PRODUCTS)]


class Case:
    """A product, and the server that its scenes come from."""

    def __init__(
        self, make: Make, server: SandboxServer, catalog: Path, output: str, name: str
    ) -> None:
        _, first, change = PRODUCTS[name]
        limits = {"limits.retry_wait": 0.01, "limits.max_attempts": 2}
        first = deepcopy(first)
        common = {**first, **limits, "catalog": str(catalog), "output": output}
        self.server, self.output = server, output
        self.first, self.then = make(**deepcopy(common)), make(**deepcopy({**common, **change}))
        self.store = open_store(output)

    def files(self) -> dict[str, bytes]:
        """What stands, but for what tells the time."""
        store = open_store(self.output)
        names = store._list_keys("")
        return {
            name: store.read(name) or b""
            for name in sorted(names)
            if not name.endswith(OF_ITS_TIME)
        }

    def unwell(self) -> None:
        self.server.faults = [Fault(pattern=r"\.tif", status=503)]

    def well(self) -> None:
        self.server.faults = []


@pytest.fixture
def served(
    sandbox: Path, fields: Path, landcover: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Any:
    """Scenes over HTTP, and the catalog that names them there."""
    name = request.param.removeprefix("gs ")
    folder = {"scenes": sandbox, "fields": fields, "landcover": landcover}[PRODUCTS[name][0]]
    with serve(folder) as server:
        yield (
            request.param,
            server,
            write_served_items(folder, server.url, tmp_path / "catalog.json"),
        )


@pytest.fixture
def case(
    served: tuple[str, SandboxServer, Path],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> Case:
    name, server, catalog = served
    in_cloud, name = name.startswith("gs "), name.removeprefix("gs ")
    output = request.getfixturevalue("prefix") if in_cloud else str(tmp_path / "out")
    maker = {"scenes": "make_request", "fields": "fields_request", "landcover": "landcover_request"}
    return Case(request.getfixturevalue(maker[PRODUCTS[name][0]]), server, catalog, output, name)


def dead_links(output: str) -> list[str]:
    """Hrefs of collections, items and tables that lead to nothing inside the output."""
    store, dead = open_store(output), []
    names = store._list_keys("")

    def check(where: str, href: str) -> None:
        if not is_url(href) and not os.path.isabs(href):
            target = posixpath.normpath(posixpath.join(posixpath.dirname(where), href))
            if target not in names:
                dead.append(f"{where}: {href}")

    for name in names:
        if name.endswith("collection.json") or (
            name.endswith(".json") and b'"Feature"' in (store.read(name) or b"")
        ):
            document = json.loads(store.read(name) or b"")
            for linked in [*document.get("links", []), *document.get("assets", {}).values()]:
                check(name, linked["href"])
        elif posixpath.basename(name) == "items.parquet" and not name.startswith("cells/"):
            with store.local_copy(name) as path:
                for item in rustac.read_sync(str(path))["features"]:
                    for linked in [*item.get("links", []), *item["assets"].values()]:
                        if linked and linked.get("href"):
                            check(name, linked["href"])
    return dead


def products(files: dict[str, bytes]) -> dict[str, bytes]:
    """Images, and the items beside them."""
    return {
        name: files[name]
        for name in files
        if "/" in name
        and not name.startswith(("parts/", "report/", "cells/"))
        and name.endswith((".tif", ".json"))
    }


def reference(case: Case, request: RunRequest) -> dict[str, bytes]:
    """What a request makes where nothing stood before."""
    fresh = request.model_copy(update={"output": f"{case.output}-fresh"})
    assert run(fresh).state == "succeeded"
    found = open_store(fresh.output)
    return {
        name: found.read(name) or b"" for name in found.list() if not name.endswith(OF_ITS_TIME)
    }


def same(files: dict[str, bytes], right: dict[str, bytes]) -> None:
    """The same files; those that name the output's own folder need not be the same."""
    assert files.keys() == right.keys()
    assert [name for name in products(files) if files[name] != right[name]] == []


@pytest.mark.parametrize("served", LOCAL_AND_CLOUD, indirect=True)
def test_what_cannot_be_replaced_now_stands(case: Case) -> None:
    """The old products stand while the new ones cannot be read, and are told so; then they are replaced."""
    assert run(case.first).state == "succeeded"
    before = case.files()
    with pytest.raises(RequestError, match="belongs to another request"):
        run(case.then)
    case.unwell()
    status = run(case.then, overwrite=True)
    assert status.state == "failed"
    stands = case.files()
    assert {name: stands.get(name) for name in products(before)} == products(before)
    assert dead_links(case.output) == []
    assert SUPERSEDED in stands
    case.well()
    assert run(case.then).state == "succeeded"
    same(case.files(), reference(case, case.then))
    assert dead_links(case.output) == []


@pytest.mark.parametrize("served", [name for name in PRODUCTS if name != "shards"], indirect=True)
def test_older_products_are_listed_as_such(case: Case) -> None:
    run(case.first)
    ids = listed(case)
    case.unwell()
    run(case.then, overwrite=True)
    older = listed(case)
    assert older.keys() == ids.keys()
    if "landcover" not in case.first.product.kind and case.first.product.kind != "fields":
        assert set(older.values()) == {True}
        assert set(ids.values()) == {None}


def listed(case: Case) -> dict[str, bool | None]:
    """Ids of the items of the output's table, and whether they are told to be of another request."""
    (name,) = [
        name
        for name in case.files()
        if name.endswith("items.parquet") and not name.startswith("cells/")
    ]
    with case.store.local_copy(name) as path:
        items = rustac.read_sync(str(path))["features"]
    return {item["id"]: item["properties"].get("scenebeam:superseded") for item in items}


@pytest.mark.parametrize("served", [_marked(name) for name in PRODUCTS], indirect=True)
def test_killed_while_replacing_nothing_is_lost_and_it_resumes(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(case.first)
    before = case.files()
    right = reference(case, case.then)
    published = Lives(monkeypatch)
    every = max(len(right) // 5, 1)
    kills = 0
    for allowed in range(2, len(right), every):
        shutil.rmtree(case.output)
        for name, content in before.items():
            path = Path(case.output) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        run(case.first)  # its status and page
        published.left = allowed
        try:
            run(case.then, overwrite=True)
        except Killed:
            kills += 1
        published.left = 10**9
        stands = case.files()
        if SUPERSEDED in stands:  # else the new ones are whole
            assert products(before).keys() <= stands.keys(), (
                f"after {allowed} files something is gone"
            )
        assert run(case.then, overwrite=not (Path(case.output) / "run.json").exists()).state in (
            "succeeded",
            "failed",
        )
        if run(case.then).state != "succeeded":
            pytest.fail("it does not resume")
        same(case.files(), right)
    assert kills > 2


@pytest.mark.parametrize("served", PRODUCTS, indirect=True)
def test_a_moved_output_is_gone_on_with_where_it_is(case: Case, tmp_path: Path) -> None:
    run(case.first)
    moved = tmp_path / "elsewhere" / "moved"
    moved.parent.mkdir()
    shutil.move(case.output, moved)
    case.server.reset_counts()
    request, _ = load_request(moved / "run.json")
    assert request.output == str(moved)
    before = {path: path.stat().st_mtime_ns for path in moved.rglob("*.tif")}
    assert run(request).state == "succeeded"
    assert not Path(case.output).exists()
    assert {path: path.stat().st_mtime_ns for path in moved.rglob("*.tif")} == before
    assert dead_links(str(moved)) == []
    assert not any(path.endswith(".tif") for path in case.server.requests)


@pytest.mark.parametrize("served", ["mosaic", "fields"], indirect=True)
def test_moved_while_it_is_replaced_it_is_made_anew(case: Case, tmp_path: Path) -> None:
    """Copies have other versions: which of the files are new cannot be told any more."""
    run(case.first)
    right = reference(case, case.then)
    case.unwell()
    run(case.then, overwrite=True)
    case.well()
    shutil.copytree(case.output, tmp_path / "copy")
    request, _ = load_request(tmp_path / "copy" / "run.json")
    assert run(request).state == "succeeded"
    copy = open_store(str(tmp_path / "copy"))
    same(
        {name: copy.read(name) or b"" for name in copy.list() if not name.endswith(OF_ITS_TIME)},
        right,
    )


@pytest.mark.parametrize("served", ["mosaic", "assets", "fields"], indirect=True)
def test_every_item_is_reachable_and_every_href_resolves(case: Case) -> None:
    import pystac

    run(case.first)
    output = Path(case.output)
    items = {path for path in output.rglob("*.json") if b'"Feature"' in path.read_bytes()[:40]}
    collection = pystac.Collection.from_file(str(output / "collection.json"))
    reached = {Path(item.self_href) for item in collection.get_items(recursive=True)}
    assert {path.resolve() for path in reached} == {path.resolve() for path in items}
    assert dead_links(case.output) == []
