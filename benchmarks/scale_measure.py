"""What `scale.py` measures: real runs, plans, searches and reports of this code.

Tasks are those of `scale_tasks.py`. A plan of many scenes needs no files: its items name files that do not exist, of which the planner then
assumes the usual layout.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from common import TILES, full_size_tiles
from composite import SCENES
from scale_tasks import Document, fastest, measure_tasks, request_of

from scenebeam.sandbox.scenes import SandboxScene

ROUNDS = 2
BANDS = ("red", "nir", "scl")
DATES = 4
"""Acquisitions of a month that its filter on clouds leaves: see `scale.py`."""
INDEX = {"kind": "index", "index": "ndvi"}
COMPOSITE = {
    "kind": "composite",
    "bands": ["red", "nir"],
    "method": "median",
    "period": "month",
}
PLANS: tuple[tuple[Document, int, int, float], ...] = (
    (INDEX, 3, 2, 10.0),
    (INDEX, 3, 16, 10.0),
    (COMPOSITE, 2, 4, 10.0),
    (COMPOSITE, 4, 6, 10.0),
    (COMPOSITE, 10, 4, 1000.0),
)
"""Product, tiles along a side, dates, and meters per pixel of the plans that are measured."""
_NO_SERVER = "http://127.0.0.1:9"
_UNLIMITED = {"max_bytes": "1PB", "max_attempts": 1, "retry_seconds": 0}
_FIRST = datetime(2023, 4, 3, 9, 20, 31)


def many_items(side: int, dates: int) -> list[Document]:
    """Return items of a square of side x side tiles on some dates, without files."""
    items = []
    for date in range(dates):
        for column in range(side):
            for row in range(side):
                scene = SandboxScene(
                    f"34T{chr(65 + column)}{chr(65 + row)}",
                    32634,
                    300_000 + 100_000 * column,
                    5_000_000 - 100_000 * row,
                    # Days may not follow the revisit: a plan of many dates is still of one month.
                    _FIRST + timedelta(hours=26 * date),
                    size=10980,
                )
                item = scene.item(_NO_SERVER)
                # The sandbox has a vertex every 500 m; items of catalogs have the corners.
                ring = item["geometry"]["coordinates"][0]
                corners = [*ring[:: len(ring) // 4][:4], ring[0]]
                item["geometry"] = {"type": "Polygon", "coordinates": [corners]}
                items.append(item)
    return items


def measure_plan(folder: Path, product: Document, side: int, dates: int, meters: float) -> Document:
    """Plan and freeze a square of tiles, and read the plan back.

    Args:
        folder: Where the output is.
        product: The product.
        side: Tiles along a side.
        dates: Dates.
        meters: Size of a pixel.
    """
    from scenebeam.planning.plan import PLAN_FILE, freeze, read_plan
    from scenebeam.planning.search import make_plan
    from scenebeam.storage import open_store

    bounds = [300_000, 5_000_000 - 100_000 * side, 300_000 + 100_000 * side, 5_000_000]
    grid = {"crs": "EPSG:32634", "resolution": meters, "bounds": bounds}
    items = many_items(side, dates)
    request = request_of(folder, items, product, grid=grid, limits=_UNLIMITED)
    store = open_store(request.output)
    start = time.perf_counter()
    plan = make_plan(request)
    tasks: list[Any] = list(plan.tasks)
    freeze(plan, store)
    frozen = time.perf_counter()
    assert read_plan(store) is not None
    read = time.perf_counter() - frozen
    sources = 0
    for task in tasks:
        sources += sum(len(band.sources) for band in task.bands)
    return {
        "scenes": len(items),
        "tasks": len(plan.tasks),
        "sources": sources,
        "seconds": frozen - start,
        "read": read,
        "bytes": store.size(PLAN_FILE),
    }


def measure_report(folder: Path, outcome: str, dates: int) -> Document:
    """Report on the tasks of a plan, none of whose outputs exist, and merge their outcomes."""
    from scenebeam.planning.plan import freeze
    from scenebeam.planning.search import make_plan
    from scenebeam.planning.start import new_status
    from scenebeam.report.finish import finish
    from scenebeam.report.outcomes import (
        Outcomes,
        merge_parts,
        outcomes_folder,
        part_key,
        write_part,
    )
    from scenebeam.storage import open_store
    from scenebeam.tasks import Outcome

    bounds = [300_000, 4_700_000, 600_000, 5_000_000]
    grid = {"crs": "EPSG:32634", "resolution": 10, "bounds": bounds}
    request = request_of(folder, many_items(3, dates), INDEX, grid=grid, limits=_UNLIMITED)
    store = open_store(request.output)
    plan = make_plan(request)
    freeze(plan, store)
    one = Outcome.model_validate_json(outcome)
    status = new_status(plan, store, "serial")
    folder_key = outcomes_folder(status)
    parts = []
    for row, task in enumerate(plan.tasks):
        parts.append(part_key(folder_key, row))
        write_part([one.model_copy(update={"task": task.id})], store, parts[-1])
    start = time.perf_counter()
    merged_key = merge_parts(parts, store)
    merged = time.perf_counter()
    finish(plan, Outcomes([merged_key], store), store, status)
    return {
        "tasks": len(plan.tasks),
        "merge": merged - start,
        "report": time.perf_counter() - merged,
    }


def measure_search(folder: Path, side: int, dates: int) -> Document:
    """Search a catalog on loopback, without the interval between requests."""
    from scenebeam.catalog import api
    from scenebeam.catalog.search import search_items
    from scenebeam.products import product_of

    items, interval = many_items(side, dates), api.REQUEST_INTERVAL
    with _catalog(items) as url:
        request = request_of(
            folder, [], INDEX, catalog=url, dates="2023", area={"bbox": [-180, -80, 180, 80]}
        )
        queries = product_of("index").search_scope(request).queries
        api.REQUEST_INTERVAL = 0.0
        try:
            start = time.perf_counter()
            found = search_items(request, queries)
            seconds = time.perf_counter() - start
        finally:
            api.REQUEST_INTERVAL = interval
    assert len(found) == len(items)
    return {"items": len(items), "pages": -(-len(items) // 100), "seconds": seconds}


@contextmanager
def _catalog(items: Sequence[Document]) -> Iterator[str]:
    """Serve items as a STAC API, in pages of the requested length."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            return

        def do_GET(self) -> None:
            url = f"http://{self.headers['Host']}"
            search = {"rel": "search", "href": f"{url}/search", "method": "POST"}
            conforms = [
                f"https://api.stacspec.org/v1.0.0/{name}" for name in ("core", "item-search")
            ]
            landing = {
                "type": "Catalog",
                "stac_version": "1.0.0",
                "id": "many",
                "description": "Many",
            }
            self._answer({**landing, "conformsTo": conforms, "links": [search]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            first, limit = int(body.get("token", 0)), int(body["limit"])
            links = []
            if first + limit < len(items):
                url = f"http://{self.headers['Host']}/search"
                following = {"merge": True, "body": {"token": first + limit}}
                links = [{"rel": "next", "href": url, "method": "POST", **following}]
            page = list(items[first : first + limit])
            self._answer({"type": "FeatureCollection", "features": page, "links": links})

        def _answer(self, document: Document) -> None:
            content = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def measure_listing(folder: Path, keys: int) -> float:
    """Return the seconds per key of a listing of a local folder."""
    from scenebeam.storage import open_store

    store = open_store(str(folder / "listed"))
    for number in range(keys):
        store.write(f"parts/a/{number:05d}.part", b"")
    start = time.perf_counter()
    assert len(store.list("parts/a/")) == keys
    return (time.perf_counter() - start) / keys


def narrow_memory(folder: Path, width: int) -> tuple[int, Document]:
    """Return a `limits.memory` for composites of a width, and the planner's numbers behind it."""
    from scenebeam.planning.search import make_plan
    from scenebeam.products.composites.memory import column_bytes

    grid = {
        "crs": "EPSG:32634",
        "resolution": 1000,
        "bounds": [300_000, 4_700_000, 600_000, 5_000_000],
    }
    items = many_items(3, DATES)
    plan = make_plan(request_of(folder, items, COMPOSITE, grid=grid, limits=_UNLIMITED))
    task: Any = plan.tasks[0]
    dtypes = [band.dtype for band in task.encodings]
    per_column = column_bytes(task.bands, DATES, dtypes)
    fixed = task.estimate.memory - (task.window[3] - task.window[2]) * per_column
    per_date = column_bytes([*task.bands] * 2, 2 * DATES, dtypes) - per_column
    numbers = {"fixed": fixed, "column": per_column, "column_per_date": per_date / DATES}
    return fixed + width * per_column, numbers


def fit(rows: Sequence[Document], names: Sequence[str], value: str) -> list[float]:
    """Fit non-negative factors of some columns to another one, by relative error.

    Factors that would be negative are set to 0, one after another, and the others fitted again.
    """
    used = list(names)
    while True:
        weights = np.array([1 / max(row[value], 1e-9) for row in rows])
        matrix = np.array([[row[name] for name in used] for row in rows]) * weights[:, None]
        factors, *_ = np.linalg.lstsq(matrix, np.ones(len(rows)), rcond=None)
        if (factors >= 0).all():
            found = dict(zip(used, factors, strict=True))
            return [float(found.get(name, 0.0)) for name in names]
        used.pop(int(factors.argmin()))


def measure(folder: Path) -> Document:
    """Measure everything, and return it as JSON."""
    for tile in (*TILES[:1], *SCENES[:DATES]):
        full_size_tiles(BANDS, (tile,))

    def fresh(name: str) -> Path:
        path = folder / name
        path.mkdir()
        return path

    memory, numbers = narrow_memory(fresh("memory"), 700)
    found: Document = {"planner": numbers}
    cases: dict[str, tuple[Document, Sequence[SandboxScene], int]] = {
        "index": (INDEX, TILES[:1], 0),
        "composite": (COMPOSITE, SCENES[:DATES], 0),
        "narrow": (COMPOSITE, SCENES[:DATES], memory),
    }
    for name, case in cases.items():
        rounds = [measure_tasks(fresh(f"{name}{round}"), *case) for round in range(ROUNDS)]
        found[name] = fastest(rounds)
    plans = []
    for number, (product, side, dates, meters) in enumerate(PLANS):
        plans.append(measure_plan(fresh(f"plan{number}"), product, side, dates, meters))
    found["plans"] = plans
    outcome = found["index"].pop("outcome")
    for name in ("composite", "narrow"):
        del found[name]["outcome"]
    found["reports"] = [
        measure_report(fresh(f"report{dates}"), outcome, dates) for dates in (2, 16)
    ]
    found["search"] = measure_search(fresh("search"), 8, 16)
    found["list_key"] = measure_listing(fresh("list"), 2000)
    return found
