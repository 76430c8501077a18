"""Standing requests: items come shuffled, twice and not at all, and every series is passed over when it is due."""

from __future__ import annotations

import base64
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from test_launch import Desk

from scenebeam.cloud.catalogs import find_items
from scenebeam.cloud.http import HttpRequest
from scenebeam.cloud.items import ItemFacts, grid_zone_bounds, item_bbox, read_items
from scenebeam.cloud.launch import LaunchHandler, RetryableError
from scenebeam.cloud.ledger import Ledger
from scenebeam.cloud.messages import FINALIZED, PUBLISHED, read_message
from scenebeam.cloud.ownership import take_output
from scenebeam.cloud.page import handle
from scenebeam.cloud.runs import Runs
from scenebeam.cloud.series import SeriesHandler
from scenebeam.cloud.settings import CloudSettings
from scenebeam.cloud.standing import StandingRequest, StandingRequests
from scenebeam.errors import CatalogError, RequestError
from scenebeam.requestfile import validate_request
from scenebeam.status import RunStatus, now
from scenebeam.storage import open_store

Document = dict[str, Any]
REQUEST: Document = {
    "run": "valley",
    "catalog": "https://stac.example.com",
    "collections": ["sentinel-2-l2a"],
    "area": {"bbox": [23.0, 40.0, 24.0, 41.0]},
    "dates": "2024-01-01/..",
    "select": {"max_cloud_cover": 40},
    "product": {"kind": "mosaic", "bands": ["red"]},
    "series": True,
    "output": "gs://products/valley",
}


def item(name: str = "S2A_34TFL_1", **changes: Any) -> Document:
    document: Document = {
        "type": "Feature",
        "id": name,
        "collection": "sentinel-2-l2a",
        "bbox": [23.5, 40.5, 24.5, 41.5],
        "geometry": None,
        "properties": {
            "datetime": "2024-06-01T09:20:31Z",
            "platform": "sentinel-2a",
            "eo:cloud_cover": 12.0,
            "s2:processing_baseline": "05.10",
        },
        "assets": {"red": {"href": "https://x/red.tif"}},
    }
    for key, value in changes.items():
        holder = document["properties"] if key in document["properties"] else document
        holder[key] = value
    return document


@pytest.fixture(autouse=True)
def _products(emulator: str) -> None:
    """The bucket of the products, in which an upload looks for another deployment."""


class Deployment:
    """A deployment on folders, whose launcher keeps a list."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.requests = folder / "requests"
        self.settings = CloudSettings(
            **{
                "state": str(folder / "state"),
                "outputs": ("gs://products",),
                "requests": (str(self.requests),),
                "catalogs": ("https://stac.example.com", "http://127.0.0.1"),
                "claim_seconds": 0.3,
                "debounce_seconds": 0.0,
                "check_seconds": 10**6,
                **settings,
            }
        )
        self.store = open_store(self.settings.state)
        self.runs, self.desk = Runs(self.store), Desk()
        self.told: list[Any] = []
        launcher = LaunchHandler(
            self.settings, self.runs, self.desk, lambda *words: self.told.append(words)
        )
        self.standing = StandingRequests(self.store)
        self.handler = SeriesHandler(launcher, self.standing)

    def upload(self, name: str = "valley.yaml", **changes: Any) -> list[RunStatus]:
        path = self.requests / "standing" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**REQUEST, **changes}))
        data = {"bucket": "b", "name": "n", "generation": str(time.time_ns())}
        message = read_message(FINALIZED, "upload", data)
        return self.handler.handle(type(message)(message.id, reference=str(path)))

    def publish(self, document: Any, **attributes: str) -> list[RunStatus]:
        data = base64.b64encode(json.dumps(document).encode()).decode()
        body = {"message": {"data": data, "attributes": attributes, "messageId": str(time.time_ns())}}  # fmt: skip
        return self.handler.handle(read_message(PUBLISHED, "event", body))

    def sweep(self) -> list[RunStatus]:
        body = {"message": {"attributes": {"sweep": "series"}, "messageId": str(time.time_ns())}}
        return self.handler.handle(read_message(PUBLISHED, "event", body))

    def end(
        self, series: str, state: str = "succeeded", cost: float | None = None, **counts: int
    ) -> None:
        """The job of a series ends."""
        self.desk.active.clear()
        ended = {"state": state, "finished": now(), "cost": cost, "waiting": 0, **counts}
        status = self.runs.update(series, lambda one: (one or pytest.fail("none")).model_copy(update=ended))  # fmt: skip
        Ledger(self.store).enter(status)

    @property
    def id(self) -> str:
        return self.standing.list()[0].id


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    made = Deployment(tmp_path)
    made.upload()
    # The first pass: everything up to now.
    made.sweep()
    made.end(made.id)
    made.desk.started.clear()
    return made


# Standing requests


def test_a_standing_request_is_launched_at_once(tmp_path: Path) -> None:
    made = Deployment(tmp_path)
    assert [status.state for status in made.upload()] == ["queued"]
    assert made.desk.started == []
    [status] = made.sweep()
    assert (status.state, status.id) == ("queued", made.id)
    assert made.sweep() == []
    assert len(made.desk.started) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"series": False}, "set series: true"),
        ({"dates": "2024-13"}, "not a date"),
        ({"output": "gs://elsewhere/x"}, "is not below"),
        ({"product": {"kind": "mosaik"}}, "mosaik"),
    ],
)
def test_one_that_is_not_valid_is_rejected_beside_its_file(
    tmp_path: Path, changes: Document, said: str
) -> None:
    made = Deployment(tmp_path)
    [status] = made.upload(**changes)
    assert status.state == "rejected"
    reason = made.requests / "standing" / "valley.yaml.rejected.txt"
    assert said in reason.read_text()
    assert made.sweep() == []
    made.upload()
    assert not reason.exists()
    assert len(made.sweep()) == 1


def test_a_lost_upload_is_found_and_a_removed_file_stops(tmp_path: Path) -> None:
    made = Deployment(tmp_path)
    folder = made.requests / "standing"
    folder.mkdir(parents=True)
    (folder / "valley.yaml").write_text(json.dumps(REQUEST))
    assert len(made.sweep()) == 1
    made.end(made.id)
    series = made.id
    (folder / "valley.yaml").unlink()
    made.sweep()
    assert made.standing.list() == []
    made.standing.mark_pending(series)
    assert made.sweep() == []


def test_two_files_cannot_stand_for_one_output(deployment: Deployment) -> None:
    [status] = deployment.upload("other.yaml", run="other", dates="2023-01-01/..")
    assert status.state == "rejected"
    assert "belongs to the standing request" in status.message
    # The same file may change: it is the same series.
    assert deployment.upload(dates="2023-01-01/..")[0].id == deployment.id
    assert len(deployment.standing.list()) == 1


# Items


ENVELOPES: dict[str, Callable[[Document], Any]] = {
    "item": lambda one: one,
    "collection": lambda one: {"type": "FeatureCollection", "features": [one]},
    "sns": lambda one: {"Type": "Notification", "Message": json.dumps(one)},
    "sns of a collection": lambda one: {
        "Type": "Notification",
        "Message": json.dumps({"type": "FeatureCollection", "features": [one]}),
    },
}


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_an_item_starts_one_pass(deployment: Deployment, envelope: str) -> None:
    assert deployment.publish(ENVELOPES[envelope](item())) == []
    assert len(deployment.sweep()) == 1
    assert len(deployment.desk.started) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"collection": "landsat-c2-l2"},
        {"datetime": "2023-12-31T23:59:59Z"},
        {"eo:cloud_cover": 41.0},
        {"bbox": [24.1, 40.0, 25.0, 41.0]},
        {"bbox": [23.0, 41.5, 24.0, 42.0]},
    ],
)
def test_an_item_of_nothing_that_stands_starts_nothing(
    deployment: Deployment, changes: Document
) -> None:
    deployment.publish(item(**changes))
    assert deployment.sweep() == []


def test_many_items_of_one_acquisition_are_one_pass_and_none_starts_twice(
    deployment: Deployment,
) -> None:
    items = [item(f"S2A_{number}") for number in range(20)] * 2
    random.Random(1).shuffle(items)
    for one in items:
        deployment.publish(one)
    assert len(deployment.sweep()) == 1
    deployment.end(deployment.id)
    for one in items:
        deployment.publish(one)
    assert deployment.sweep() == []
    # A newer processing is something new.
    deployment.publish(item("S2A_3", **{"s2:processing_baseline": "05.11"}))
    assert len(deployment.sweep()) == 1


def test_items_are_waited_for_before_a_pass(tmp_path: Path) -> None:
    made = Deployment(tmp_path, debounce_seconds=0.6)
    made.upload()
    assert made.sweep() == []
    time.sleep(0.7)
    assert len(made.sweep()) == 1


def test_a_pass_that_runs_is_waited_for(deployment: Deployment) -> None:
    deployment.publish(item("one"))
    assert len(deployment.sweep()) == 1
    deployment.publish(item("two"))
    assert deployment.sweep() == []
    deployment.end(deployment.id)
    assert len(deployment.sweep()) == 1
    assert len(set(deployment.desk.started)) == 2


def test_a_failed_launch_is_tried_again(deployment: Deployment) -> None:
    deployment.publish(item())
    deployment.desk.faults = [RetryableError("Dataflow is busy")]
    assert deployment.sweep() == []
    time.sleep(0.4)
    assert len(deployment.sweep()) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"assets": {}}, "it has no assets"),
        ({"collection": None}, "it names no collection"),
        ({"datetime": "soon"}, "no datetime"),
        ({"datetime": f"{datetime.now(UTC) + timedelta(days=3):%Y-%m-%dT%H:%M:%SZ}"}, "in the future"),
        ({"id": 7}, "has an id"),
    ],
)  # fmt: skip
def test_items_that_are_none_are_put_aside_with_the_reason(
    deployment: Deployment, changes: Document, said: str
) -> None:
    [status] = deployment.publish(item(**changes))
    assert status.state == "rejected"
    assert said in status.message
    assert deployment.sweep() == []


def test_a_request_is_still_a_request(deployment: Deployment) -> None:
    [status] = deployment.publish({**REQUEST, "series": False, "output": "gs://products/once"})
    assert (status.state, status.output) == ("queued", "gs://products/once")
    assert read_items(b"not json") is None
    assert read_items(json.dumps(REQUEST).encode()) is None
    with pytest.raises(RequestError, match="a list of at most"):
        read_items(b'{"type": "FeatureCollection", "features": 3}')


@pytest.mark.parametrize(
    ("bbox", "other", "near"),
    [
        ([170, 0, -170, 10], [-179, 1, -178, 2], True),
        ([170, 0, -170, 10], [0, 1, 1, 2], False),
        ([170, 0, -170, 10], [175, 1, 176, 2], True),
    ],
)
def test_areas_across_the_antimeridian_match(
    bbox: list[float], other: list[float], near: bool
) -> None:
    request = validate_request({**REQUEST, "area": {"bbox": bbox}})
    standing = StandingRequest.of("x", "y", request)
    assert standing.matches(ItemFacts.of(item(bbox=other)), []) is near


def test_bounds_come_from_the_geometry_where_no_box_is() -> None:
    outline = {"type": "Polygon", "coordinates": [[[1, 2], [3, 2], [3, 5], [1, 2]]]}
    assert item_bbox(item(bbox=None, geometry=outline)) == (1, 2, 3, 5)
    assert item_bbox(item(bbox=[1, 2, 0, 3, 5, 100])) == (1, 2, 3, 5)
    assert item_bbox(item(bbox=["a", 2, 3, 4])) is None


# Bounds


def test_no_more_runs_than_allowed(tmp_path: Path) -> None:
    made = Deployment(tmp_path, max_runs=2)
    for number in range(4):
        made.upload(f"{number}.yaml", run=f"r{number}", output=f"gs://products/{number}")
    assert len(made.sweep()) == 2
    assert made.sweep() == []
    for status in list(made.runs.statuses()):
        made.end(status.id)
    assert len(made.sweep()) == 2


def test_a_spent_budget_refuses_with_the_figure(tmp_path: Path) -> None:
    made = Deployment(tmp_path, max_monthly_cost=10.0)
    made.upload()
    made.sweep()
    made.end(made.id, cost=7.5)
    made.publish(item("one"))
    [status] = made.sweep()
    stored = json.loads((Path(made.settings.state) / f"runs/{status.id}/request.json").read_text())
    assert stored["limits"]["max_cost"] == 2.5
    made.end(made.id, cost=2.5)
    made.publish(item("two"))
    [refused, *_] = made.sweep()
    assert refused.state == "rejected"
    assert "has spent about 10.00 USD of 10.00 USD this month" in refused.message
    assert Ledger(made.store).by_run() == {made.id: 10.0}
    # And so is any other run.
    [other] = made.publish({**REQUEST, "series": False, "output": "gs://products/once"})
    assert "has spent about 10.00 USD" in other.message
    page = handle(HttpRequest("GET", "/series", {}), made.runs, made.settings)
    assert json.loads(page.body)["spent_this_month"] == 10.0
    shown = handle(HttpRequest("GET", "/series", {}, "text/html"), made.runs, made.settings)
    assert b"10.00 of 10.00 USD" in shown.body


def test_a_spent_budget_stops_no_upload_and_forgets_no_mark(tmp_path: Path) -> None:
    made = Deployment(tmp_path, max_monthly_cost=1.0)
    made.upload()
    made.sweep()
    made.end(made.id, cost=1.0)
    made.publish(item("one"))
    assert made.sweep()[0].state == "rejected"
    # Uploaded while nothing is left: what was left then is not part of the request.
    assert made.upload()[0].state == "queued"
    stored = json.loads(made.standing.request(made.id) or b"")
    assert stored["limits"]["max_cost"] is None
    richer = Deployment(tmp_path, max_monthly_cost=5.0)
    assert [status.state for status in richer.sweep()] == ["queued"]


def test_a_rejected_file_changes_nothing_of_the_accepted_one(deployment: Deployment) -> None:
    before = deployment.standing.request(deployment.id)
    deployment.upload("other.yaml", dates="2000-01-01/..")
    assert deployment.standing.request(deployment.id) == before


def test_a_pass_that_failed_is_tried_again_when_the_catalog_is_asked(tmp_path: Path) -> None:
    made = Deployment(tmp_path, check_seconds=0.0)
    made.upload()
    made.sweep()
    made.end(made.id, "failed")
    assert len(made.sweep()) == 1


@pytest.mark.parametrize("bbox", [[10**400, 0, 1, 1], [0, 0, 1e9, 1], [True, 0, 1, 1]])
def test_boxes_that_are_none_match_by_everything_else(bbox: list[Any]) -> None:
    request = validate_request(REQUEST)
    standing = StandingRequest.of("x", "y", request)
    assert standing.matches(ItemFacts.of(item(bbox=bbox)), []) in (True, False)


def test_a_sweep_at_the_same_time_removes_no_newer_mark(deployment: Deployment) -> None:
    deployment.publish(item("one"))
    [(series, old)] = deployment.standing.pending().items()
    # Another sweep launches the pass, which ends, and the next item arrives.
    deployment.sweep()
    deployment.end(series)
    deployment.publish(item("two"))
    assert not deployment.standing.start_pass(series, old)
    assert len(deployment.sweep()) == 1


def test_what_waits_is_made_by_the_next_pass_as_long_as_passes_get_on(
    deployment: Deployment,
) -> None:
    series = deployment.id
    for done, launched in ((3, 1), (2, 0)):
        deployment.publish(item(f"item-{done}"))
        deployment.sweep()
        deployment.end(series, "partial", waiting=4, done=done, kept=2)
        assert len(deployment.sweep()) == launched
        if launched:
            deployment.end(series)


def test_a_second_deployment_on_one_output_is_refused(tmp_path: Path, prefix: str) -> None:
    output = f"{prefix}/valley"
    take_output(output, "gs://elsewhere/state")
    made = Deployment(tmp_path, outputs=(prefix,))
    [status] = made.upload(output=output)
    assert status.state == "rejected"
    assert "belongs to the deployment that deployment.json there names" in status.message
    assert (made.requests / "standing" / "valley.yaml.rejected.txt").exists()
    with pytest.raises(RequestError, match=r"deployment\.json"):
        take_output(output, made.settings.state)
    take_output(output, "gs://elsewhere/state/")
    [other] = made.upload(output=f"{prefix}/hills")
    assert other.state == "queued"


def test_tiles_are_searched_in_their_grid_zones() -> None:
    assert grid_zone_bounds(["34TFL"]) == (18, 40, 24, 48)
    assert grid_zone_bounds(["34TFL", "35SKA"]) == (18, 32, 30, 48)
    assert grid_zone_bounds(["1CCV", "60XWT"]) == (-180, -80, 180, 84)
    assert grid_zone_bounds(["32VLM"]) == (3, 56, 15, 64)
    assert grid_zone_bounds(["nowhere"]) is None
    assert grid_zone_bounds([]) is None


def test_a_cost_is_entered_once(tmp_path: Path) -> None:
    ledger = Ledger(open_store(str(tmp_path)))
    status = RunStatus(run="x", state="succeeded", id="x-1", job="j+1", cost=1.25, started=now())
    for _ in range(3):
        ledger.enter(status)
    ledger.enter(status.model_copy(update={"job": "other"}))
    ledger.enter(status.model_copy(update={"cost": None, "job": "none"}))
    assert ledger.spent(datetime.now(UTC)) == 2.5
    assert ledger.spent(datetime.now(UTC) - timedelta(days=40)) == 0


# Catalogs


@pytest.fixture
def api() -> Iterator[tuple[str, list[Document]]]:
    """A STAC API with the items of a list, in pages of one."""
    items: list[Document] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self, document: Any) -> None:
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.answer({"links": [{"rel": "search", "href": f"{url}/search", "method": "POST"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            place = body.get("token", 0)
            links = []
            if place + 1 < len(items):
                links = [{"rel": "next", "href": f"{url}/search", "method": "POST", "merge": True, "body": {"token": place + 1}}]  # fmt: skip
            self.answer({"features": items[place : place + 1], "links": links})

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield url, items
    server.shutdown()


def test_what_nobody_announced_is_found_in_the_catalog(
    tmp_path: Path, api: tuple[str, list[Document]]
) -> None:
    url, items = api
    made = Deployment(tmp_path, check_seconds=0.0, catalogs=(url,))
    made.upload(catalog=url)
    made.sweep()
    made.end(made.id)
    assert made.sweep() == []
    items += [item("one"), item("two")]
    assert len(made.sweep()) == 1
    made.end(made.id)
    assert made.sweep() == []
    # What was found is not new when it is announced afterwards.
    made.publish(items[1])
    assert made.sweep() == []


def test_a_catalog_that_cannot_be_asked_is_asked_by_a_pass(tmp_path: Path) -> None:
    made = Deployment(tmp_path, check_seconds=0.0, catalogs=("http://127.0.0.1:9/x",))
    made.upload(catalog="http://127.0.0.1:9/x")
    assert len(made.sweep()) == 1
    made.end(made.id)
    assert len(made.sweep()) == 1


# Pages


def test_series_have_pages(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made, output = Deployment(tmp_path), tmp_path / "products" / "valley"
    made.upload()
    # A folder in place of the bucket.
    made.standing._update(
        lambda known: [one.model_copy(update={"output": str(output)}) for one in known]
    )
    settings = made.settings.model_copy(update={"outputs": (str(tmp_path / "products"),)})

    def get(path: str, accept: str = "") -> tuple[int, bytes]:
        response = handle(HttpRequest("GET", path, {}, accept), made.runs, settings)
        return response.status, response.body

    series = made.id
    [listed] = json.loads(get("/series")[1])["series"]
    assert (listed["id"], listed["waiting"], listed["state"]) == (series, True, None)
    made.sweep()
    made.end(series, cost=1.5)
    output.mkdir(parents=True)
    rows = [
        {"product": "a", "datetime": "2024-06-01T09:00:00Z", "state": "made", "scenes": ["x", "y"], "made": "2024-06-01T15:00:00Z", "delay_hours": 6.0},
        {"product": "b", "datetime": "2024-06-04T09:00:00Z", "state": "gone", "scenes": ["z"], "made": "2024-06-04T19:00:00Z", "delay_hours": 10.0},
        {"product": "<c>", "datetime": "2024-07-04T09:00:00Z", "state": "failed", "scenes": [], "reason": "HTTP 503"},
        {"product": "odd", "datetime": None, "state": "made", "scenes": []},
        "odd",
    ]  # fmt: skip
    (output / "series.json").write_text(json.dumps({"run": "valley", "products": rows}))
    document = json.loads(get(f"/series/{series}")[1])
    assert document["counts"] == {"failed": 1, "gone": 1, "made": 2}
    assert (document["median_delay_hours"], document["cost"]) == (8.0, 1.5)
    assert [month["month"] for month in document["calendar"]] == ["2024-07", "2024-06"]
    assert document["calendar"][1]["days"][3] == {"day": 4, "state": "gone", "products": ["b"]}
    status, page = get(f"/series/{series}", "text/html")
    assert status == 200
    assert b"day-gone" in page
    assert b"&lt;c&gt;" in page
    assert b"8.0 h (median)" in page
    assert get("/series", "text/html")[0] == 200
    assert get("/series/unknown")[0] == 404
    with caplog.at_level("INFO", "scenebeam"):
        SeriesHandler(replace(made.handler.launcher, settings=settings), made.standing)._warn_if_stale(made.standing.list()[0])  # fmt: skip
    assert f"stale {series}: no new product for" in caplog.text
    (output / "series.json").write_text("not json")
    assert json.loads(get(f"/series/{series}")[1])["products"] == []


@pytest.mark.parametrize("where", ["link", "redirect"])
def test_a_catalog_cannot_send_a_function_elsewhere(where: str) -> None:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if where == "redirect":
                self.send_response(302)
                self.send_header("Location", f"http://localhost:{port}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            links = [{"rel": "search", "href": f"http://localhost:{port}/elsewhere"}]
            body = json.dumps({"links": links}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    request = validate_request({**REQUEST, "catalog": f"http://127.0.0.1:{port}/api"})
    with pytest.raises(CatalogError, match="another host"):
        list(find_items(StandingRequest.of("x", "y", request), 9000))
    server.shutdown()
    assert asked == ["/api"]
