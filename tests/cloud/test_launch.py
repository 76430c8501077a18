"""A message starts one run, whatever befalls on the way; what can never start one is put aside."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from scenebeam.cloud.guard import authorize
from scenebeam.cloud.launch import LaunchError, LaunchHandler, RetryableError
from scenebeam.cloud.messages import FINALIZED, PUBLISHED, Message, read_message
from scenebeam.cloud.runs import Runs, run_id
from scenebeam.cloud.settings import CloudSettings
from scenebeam.errors import RequestError
from scenebeam.request import RunRequest
from scenebeam.status import RunStatus
from scenebeam.storage import open_store

REQUEST = {
    "run": "demo",
    "catalog": "earth-search",
    "collections": ["sentinel-2-l2a"],
    "area": {"bbox": [23.9, 40.5, 24.1, 40.7]},
    "dates": "2023-06",
    "product": {"kind": "mosaic", "bands": ["red"]},
    "output": "gs://products/demo",
}


class Desk:
    """A launcher that keeps a list: real enough to count, and to fail as it is told."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.faults: list[BaseException] = []
        self.active: set[str] = set()

    def launch(self, run: str, job_name: str, request_uri: str, request: RunRequest) -> str:
        if self.faults:
            raise self.faults.pop(0)
        if job_name not in self.active:  # Dataflow takes no second active job of a name
            self.started.append(job_name)
            self.active.add(job_name)
        return f"job-of-{job_name}"


@pytest.fixture
def settings(tmp_path: Path) -> CloudSettings:
    return CloudSettings(
        state=str(tmp_path / "state"),
        outputs=("gs://products",),
        requests=(str(tmp_path / "requests"),),
        dead_letter_topic="projects/p/topics/dead",
        status_topic="projects/p/topics/status",
        claim_seconds=0.3,
        project="p",
        region="r",
        template="gs://t/x.json",
        temp_location="gs://t/tmp",
    )


@pytest.fixture
def desk(settings: CloudSettings) -> Callable[[], tuple[LaunchHandler, Desk, list[Any]]]:
    def make() -> tuple[LaunchHandler, Desk, list[Any]]:
        launcher, told = Desk(), []
        runs = Runs(open_store(settings.state))
        return (
            LaunchHandler(settings, runs, launcher, lambda *words: told.append(words)),
            launcher,
            told,
        )

    return make


Make = Callable[[], tuple[LaunchHandler, Desk, list[Any]]]


def message(name: str = "1", **changes: Any) -> Message:
    return Message(name, json.dumps({**REQUEST, **changes}).encode())


def with_state(state: str) -> Callable[[RunStatus | None], RunStatus]:
    """A change of the status that a run has."""
    return lambda status: stored(status).model_copy(update={"state": state})


def stored(status: RunStatus | None) -> RunStatus:
    assert status is not None
    return status


def test_a_message_starts_a_run_and_says_so(desk: Make) -> None:
    launch, launcher, told = desk()
    status = launch.handle(message())
    run = status.id
    assert launcher.started == [f"scenebeam-{run}"]
    assert (status.state, status.job, status.output) == (
        "queued",
        f"job-of-scenebeam-{run}",
        "gs://products/demo",
    )
    assert launch.runs.status(run) == status
    assert [(topic, attributes) for topic, _, attributes in told] == [
        ("projects/p/topics/status", {"run": run, "state": "queued"})
    ]
    kept = json.loads(launch.runs.store.read(f"runs/{run}/request.json") or b"")
    assert kept["runner"]["kind"] == "dataflow"
    assert RunRequest.model_validate(kept).fingerprint() == status.fingerprint


def test_the_same_message_ten_times_starts_one_job(desk: Make) -> None:
    launch, launcher, _ = desk()

    def deliver(_: int) -> str:
        for _ in range(50):
            try:
                return launch.handle(message()).state
            except RetryableError:
                time.sleep(0.05)  # Pub/Sub brings it again
        return "never"

    with ThreadPoolExecutor(10) as threads:
        assert {*threads.map(deliver, range(10))} == {"queued"}
    assert len(launcher.started) == 1


def test_the_same_request_in_another_message_is_the_same_run(desk: Make) -> None:
    launch, launcher, _ = desk()
    first = launch.handle(message("1"))
    second = launch.handle(message("2", limits={"max_failed": 0.5}))
    assert (first.id, len(launcher.started)) == (second.id, 1)
    assert launch.handle(message("3", output="gs://products/other")).id != first.id
    assert launch.handle(message("4", dates="2023-07")).id != first.id


def test_a_run_that_failed_is_launched_again_by_a_new_message_alone(desk: Make) -> None:
    launch, launcher, _ = desk()
    run = launch.handle(message("1")).id
    launch.runs.update(run, with_state("failed"))
    launcher.active.clear()
    assert launch.handle(message("1")).state == "failed", "an old message that comes late"
    assert launch.handle(message("2")).state == "queued"
    assert launcher.started == [f"scenebeam-{run}", f"scenebeam-{run}-1"]
    launch.runs.update(run, with_state("partial"))
    assert launch.handle(message("1")).state == "partial", "messages come in any order"
    launch.handle(message("3"))
    assert len(launcher.started) == 3
    launch.runs.update(run, with_state("succeeded"))
    launch.handle(message("4"))
    assert len(launcher.started) == 3, "what is done is done"


class Crash(BaseException):
    """The instance is gone."""


def test_a_crash_between_claim_and_launch_is_taken_over(
    desk: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch, launcher, _ = desk()
    launcher.faults = [Crash()]
    with monkeypatch.context() as gone:
        gone.setattr(
            LaunchHandler, "_update_claim", lambda *words, **update: None
        )  # nor does it tidy up
        with pytest.raises(Crash):
            launch.handle(message())
    with pytest.raises(RetryableError, match="is being launched"):
        launch.handle(message())
    time.sleep(0.35)
    status = launch.handle(message())
    assert (status.state, len(launcher.started)) == ("queued", 1)


def test_a_crash_after_launch_starts_no_second_job(
    desk: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch, launcher, _ = desk()
    with monkeypatch.context() as gone:
        gone.setattr(
            LaunchHandler, "_update_claim", lambda *words, **update: (_ for _ in ()).throw(Crash())
        )
        with pytest.raises(Crash):
            launch.handle(message())
    time.sleep(0.35)
    status = launch.handle(message())
    assert (status.state, len(launcher.started)) == ("queued", 1)
    assert status.job.startswith("job-of-")


def test_a_crash_before_the_status_is_mended_by_the_next_delivery(
    desk: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch, launcher, _ = desk()
    with monkeypatch.context() as gone:
        gone.setattr(Runs, "update", lambda *words: (_ for _ in ()).throw(Crash()))
        with pytest.raises(Crash):
            launch.handle(message())
    status = launch.handle(message())
    assert (status.state, status.job[:7], len(launcher.started)) == ("queued", "job-of-", 1)


def test_a_passing_fault_has_the_message_again_at_once(desk: Make) -> None:
    launch, launcher, _ = desk()
    launcher.faults = [RetryableError("503")]
    with pytest.raises(RetryableError, match="503"):
        launch.handle(message())
    assert launch.handle(message()).state == "queued"


def test_a_deployment_that_is_broken_fails_the_run_and_says_why(desk: Make) -> None:
    launch, launcher, _ = desk()
    launcher.faults = [LaunchError("Dataflow refused the job: no such template")]
    status = launch.handle(message("1"))
    assert (status.state, status.message) == (
        "failed",
        "Dataflow refused the job: no such template",
    )
    assert launch.handle(message("1")).state == "failed"
    assert launch.handle(message("2")).state == "queued", "mended since"


def test_ten_writers_lose_no_update(desk: Make) -> None:
    launch, _, _ = desk()
    run = launch.handle(message()).id

    def count(_: int) -> None:
        launch.runs.update(
            run, lambda now: stored(now).model_copy(update={"done": stored(now).done + 1})
        )

    with ThreadPoolExecutor(10) as threads:
        list(threads.map(count, range(40)))
    assert stored(launch.runs.status(run)).done == 40


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"output": "gs://elsewhere/x"}, "is not below gs://products"),
        ({"output": "gs://products/../elsewhere"}, "is not below"),
        ({"output": "gs://products-of-others/x"}, "is not below"),
        ({"output": "/etc"}, "cannot read local files"),
        ({"catalog": "https://evil.example"}, "is not one of"),
        ({"catalog": "file:///etc/passwd"}, "cannot read local files"),
        ({"catalog": "/etc/passwd"}, "cannot read local files"),
        ({"catalog": "http://metadata.google.internal/computeMetadata"}, "is not one of"),
        (
            {"catalog": {"time_series": "t.csv", "root": "/etc"}},
            "write its content into the request",
        ),
        ({"area": {"geojson": "/etc/passwd"}}, "write its content into the request"),
        ({"select": {"table": "/etc/passwd"}}, "write its content into the request"),
        ({"product": {"kind": "landcover", "aois": "/etc/passwd"}}, "cannot read local files"),
        ({"product": {"kind": "mosaic"}}, "bands"),
        ({"prduct": {}}, "did you mean 'product'"),
        ({"run": "../../x"}, "run"),
    ],
)
def test_a_request_that_may_not_run_is_rejected(
    desk: Make, changes: dict[str, Any], reason: str
) -> None:
    launch, launcher, told = desk()
    status = launch.handle(message("bad/../1", **changes))
    assert status.state == "rejected"
    assert reason in status.message
    assert launcher.started == []
    assert launch.runs.store.list("rejected/") == {"rejected/bad____1.json"}
    assert [topic for topic, _, _ in told] == ["projects/p/topics/dead"]
    assert list(launch.runs.statuses()) == []


def test_limits_and_runners_are_the_deployments(settings: CloudSettings) -> None:
    asked = {**REQUEST, "limits": {"max_scenes": 10**6, "max_bytes": "900TB", "max_failed": 0.5}}
    asked["runner"] = {
        "kind": "direct",
        "workers": 500,
        "options": {"sdk_container_image": "evil", "setup_file": "/x"},
    }
    found = authorize(json.dumps(asked).encode(), settings)
    assert (found.limits.max_scenes, found.limits.max_bytes, found.limits.max_failed) == (
        10_000,
        10**12,
        0.5,
    )
    assert (found.runner.kind, found.runner.workers, found.runner.options) == ("dataflow", 20, {})
    assert (
        authorize(
            json.dumps({**REQUEST, "runner": {"workers": 3}}).encode(), settings
        ).runner.workers
        == 3
    )


def test_a_request_may_lie_in_a_bucket(settings: CloudSettings, desk: Make, tmp_path: Path) -> None:
    launch, launcher, _ = desk()
    (tmp_path / "requests").mkdir()
    (tmp_path / "requests" / "demo.yaml").write_text(json.dumps(REQUEST))
    inside, outside = f"{tmp_path}/requests/demo.yaml", f"{tmp_path}/secrets/demo.yaml"
    assert launch.handle(Message("1", reference=inside)).state == "queued"
    for number, name in enumerate(
        [outside, f"{tmp_path}/requests/../secrets/x", f"{tmp_path}/requests/none.yaml"]
    ):
        assert launch.handle(Message(f"x{number}", reference=name)).state == "rejected"
    assert len(launcher.started) == 1
    with (tmp_path / "requests" / "huge.yaml").open("wb") as file:
        file.truncate(10**12)  # without a byte on the disk: it is not read to find out
    told = launch.handle(Message("y", reference=f"{tmp_path}/requests/huge.yaml"))
    assert (told.state, "larger than 10,000,000 bytes" in told.message) == ("rejected", True)


def event(content: bytes, **more: Any) -> dict[str, Any]:
    return {
        "message": {"data": base64.b64encode(content).decode(), "messageId": "7", **more},
        "subscription": "s",
    }


def test_events_are_messages() -> None:
    content = json.dumps(REQUEST).encode()
    assert read_message(PUBLISHED, "e", event(content)) == Message("7", content)
    named = read_message(PUBLISHED, "e", event(b'{"request": "gs://b/x.yaml"}'))
    assert named == Message("7", reference="gs://b/x.yaml")
    assert read_message(PUBLISHED, "e", event(b"x", attributes={"request": "gs://b/y"})) == Message(
        "7", reference="gs://b/y"
    )
    made = {"bucket": "b", "name": "in/x.yaml", "generation": "12"}
    assert read_message(FINALIZED, "e", made) == Message("e-12", reference="gs://b/in/x.yaml")


@pytest.mark.parametrize(
    ("kind", "data", "reason"),
    [
        ("google.cloud.audit", {}, "cannot start a run"),
        (PUBLISHED, None, "no data"),
        (PUBLISHED, {"message": "x"}, "contains no message"),
        (PUBLISHED, {"message": {}}, "is empty"),
        (PUBLISHED, {"message": {"data": "%%%"}}, "not valid base64"),
        (PUBLISHED, {"message": {"data": 7}}, "is empty"),
        (PUBLISHED, {"message": {"data": "A" * 14_000_000}}, "larger than 10,000,000 bytes"),
        (FINALIZED, {"bucket": "b"}, "does not name a bucket and an object"),
    ],
)
def test_what_is_no_message_says_why(kind: str, data: Any, reason: str) -> None:
    with pytest.raises(RequestError, match=reason):
        read_message(kind, "e", data)


def test_settings_come_from_the_environment_and_name_what_is_missing() -> None:
    found = CloudSettings.from_environment(
        {
            "SCENEBEAM_STATE": "gs://s",
            "SCENEBEAM_OUTPUTS": "gs://a, gs://b/",
            "SCENEBEAM_MAX_BYTES": "5GB",
        }
    )
    assert (found.outputs, found.max_bytes) == (("gs://a", "gs://b/"), 5 * 10**9)
    with pytest.raises(RequestError, match="SCENEBEAM_STATE: Field required"):
        CloudSettings.from_environment({"SCENEBEAM_OUTPUTS": "gs://a"})


def test_a_run_is_named_by_what_it_makes_and_where() -> None:
    one = RunRequest.model_validate(REQUEST)
    assert run_id(one) == run_id(
        RunRequest.model_validate({**REQUEST, "output": "gs://products/demo/"})
    )
    assert run_id(one).startswith("demo-")
    longest = run_id(RunRequest.model_validate({**REQUEST, "run": "Long_" * 12}))
    assert re.fullmatch(r"[a-z0-9-]{63}", longest), "a label's value has 63 characters at most"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a: !!int ''", "a: '' is not a value of the tag !!int"),
        (b"a: !!bool maybe", "a: 'maybe' is not a value of the tag !!bool"),
        (b"a: " + b"1:" * 300 + b"1.5", "a: unknown key"),
        (b"a: " + b"1:" * 100_000 + b"1", "a text of 200,001 characters"),
        (
            json.dumps({**REQUEST, "dates": "9999-12-31"}).encode(),
            "the year must be from 1800 to 2999",
        ),
        (
            json.dumps({**REQUEST, "output": "gs://products/\ud83d"}).encode(),
            "output: it contains invalid Unicode",
        ),
        (
            json.dumps(
                {**REQUEST, "product": {"kind": "index", "expression": "-" * 1900 + "red"}}
            ).encode(),
            "nested operations",
        ),
        (
            json.dumps(
                {
                    **REQUEST,
                    "product": {"kind": "mosaic", "bands": [f"b{n}" for n in range(20_000)]},
                }
            ).encode(),
            "20,000 bands are named; the limit is 1,000",
        ),
        (
            json.dumps({**REQUEST, "limits": {"max_failed": float("nan")}}).encode(),
            "limits.max_failed",
        ),
        (b"\xef\xbb\xbf", "the request is empty"),
        (b"\xff", "is not UTF-8"),
        (b"", "the request is empty"),
        (b"[" * 1_000_000, "nested more than 60 times"),
    ],
)
def test_a_message_that_can_never_work_is_rejected_and_wanted_no_more(
    desk: Make, content: bytes, reason: str
) -> None:
    launch, launcher, told = desk()
    status = launch.handle(Message("1", content))
    assert (status.state, launcher.started) == ("rejected", [])
    assert reason in status.message
    assert [topic for topic, _, _ in told] == ["projects/p/topics/dead"]


def test_a_folder_of_requests_is_no_request(desk: Make, tmp_path: Path) -> None:
    launch, _, _ = desk()
    assert "is a folder" in launch.handle(Message("1", reference=f"{tmp_path}/requests/x/")).message


def test_dead_letters_fit_what_pubsub_takes(desk: Make) -> None:
    launch, _, told = desk()
    launch.reject(Message("1", b"x" * 9_500_000), "é" * 3000)
    launch.reject(Message("2", b"x" * 1000), "short")
    (_, large, attributes), (_, small, others) = told
    assert (large, attributes["left_out"], small) == (b"", "9500000 bytes", b"x" * 1000)
    assert attributes["reason"] == "é" * 500
    assert (
        max(len(value.encode()) for one in (attributes, others) for value in one.values()) <= 1024
    )


@pytest.mark.parametrize("odd", [None, "", "\ud800", ["x"], {"a": []}, 7, "x" * 5000])
def test_whatever_a_message_is_called_it_can_be_stored(desk: Make, odd: Any) -> None:
    launch, _, _ = desk()
    data = event(json.dumps(REQUEST).encode())
    data["message"]["messageId"] = odd
    found = read_message(PUBLISHED, "e\ud800", data)
    assert 0 < len(found.id.encode()) <= 200
    assert launch.handle(found).state == "queued"
    assert read_message(
        FINALIZED, "e", {"bucket": "b", "name": "x", "generation": odd}
    ).id.startswith("e-")
