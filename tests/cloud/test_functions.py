"""The functions on functions-framework, behind Google's Pub/Sub emulator, with Dataflow's real client and a real store."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from google.cloud import pubsub_v1
from test_launch import REQUEST

from local_cloud import Dataflow, Serve
from scenebeam.cloud import topics
from scenebeam.run.status import RunStatus
from scenebeam.storage import open_store


@dataclass
class Cloud:
    prefix: str
    project: str
    publisher: Any
    subscriber: Any
    status_url: str

    def publish(self, topic: str, document: Any, **attributes: str) -> None:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.publisher.publish(f"projects/{self.project}/topics/{topic}", data, **attributes).result(timeout=30)

    def pull(self, topic: str) -> list[Any]:
        name = f"projects/{self.project}/subscriptions/{topic}-pull"
        found = self.subscriber.pull(subscription=name, max_messages=50, timeout=5, return_immediately=True)
        if found.received_messages:
            taken = [one.ack_id for one in found.received_messages]
            self.subscriber.acknowledge(subscription=name, ack_ids=taken)
        return [one.message for one in found.received_messages]

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes, dict[str, str]]:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.status_url + path, method=method, headers=names)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            return error.code, error.read(), dict(error.headers)

    def runs(self) -> list[dict[str, Any]]:
        return json.loads(self.get("/runs")[1])["runs"]


@pytest.fixture
def cloud(
    pubsub: str, prefix: str, dataflow: Dataflow, serve_function: Serve, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cloud]:
    project = f"project-{uuid.uuid4().hex[:8]}"
    environment = {
        "PUBSUB_EMULATOR_HOST": pubsub,
        "SCENEBEAM_STATE": f"{prefix}/state",
        "SCENEBEAM_OUTPUTS": f"{prefix}/products",
        "SCENEBEAM_REQUESTS": f"{prefix}/requests",
        "SCENEBEAM_PROJECT": project,
        "SCENEBEAM_REGION": "europe-west1",
        "SCENEBEAM_TEMPLATE": f"{prefix}/template.json",
        "SCENEBEAM_IMAGE": "europe-docker.pkg.dev/p/scenebeam/worker:1",
        "SCENEBEAM_TEMP_LOCATION": f"{prefix}/tmp",
        "SCENEBEAM_WORKER_SERVICE_ACCOUNT": f"worker@{project}.iam.gserviceaccount.com",
        "SCENEBEAM_MAX_WORKERS": "7",
        "SCENEBEAM_CLAIM_SECONDS": "1",
        "SCENEBEAM_DATAFLOW_ENDPOINT": dataflow.url,
        "SCENEBEAM_STATUS_TOPIC": f"projects/{project}/topics/status",
        "SCENEBEAM_DEAD_LETTER_TOPIC": f"projects/{project}/topics/dead",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    topics._publisher.cache_clear()
    publisher, subscriber = pubsub_v1.PublisherClient(), pubsub_v1.SubscriberClient()
    pushed = {"requests": serve_function("launch"), "status": serve_function("report")}
    for topic in ("requests", "status", "dead"):
        name = f"projects/{project}/topics/{topic}"
        publisher.create_topic(name=name)
        subscription = f"projects/{project}/subscriptions/{topic}"
        subscriber.create_subscription(name=f"{subscription}-pull", topic=name)
        if topic in pushed:
            retry = {"minimum_backoff": {"seconds": 1}, "maximum_backoff": {"seconds": 2}}
            config = {"push_endpoint": f"{pushed[topic]}/projects/{project}/topics/{topic}"}
            subscriber.create_subscription(
                request={
                    "name": subscription, "topic": name, "push_config": config, "ack_deadline_seconds": 10,
                    "retry_policy": retry,
                }
            )  # fmt: skip
    yield Cloud(prefix, project, publisher, subscriber, serve_function("status"))
    topics._publisher.cache_clear()


def wait_for(reached: Callable[[], Any], seconds: float = 40) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = reached()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("nothing came of it")


def test_a_message_becomes_a_job_a_report_and_a_page(cloud: Cloud, dataflow: Dataflow) -> None:
    output = f"{cloud.prefix}/products/demo"
    cloud.publish("requests", {**REQUEST, "output": output})
    run = wait_for(cloud.runs)[0]
    assert (run["output"], run["job"]) == (output, "2026-0")
    assert run["state"] in ("queued", "running")
    [launched] = dataflow.launches
    asked = launched["launchParameter"]
    assert asked["jobName"] == f"scenebeam-{run['id']}"
    assert asked["parameters"] == {"request": f"{cloud.prefix}/state/runs/{run['id']}/request.json"}
    environment = asked["environment"]
    assert (environment["maxWorkers"], environment["machineType"]) == (7, "n2-standard-2")
    assert environment["sdkContainerImage"] == "europe-docker.pkg.dev/p/scenebeam/worker:1"
    assert environment["serviceAccountEmail"] == f"worker@{cloud.project}.iam.gserviceaccount.com"
    assert environment["additionalUserLabels"] == {"scenebeam-run": run["id"]}
    # What the pipeline says of itself in its output is taken up when somebody asks to look.
    said = RunStatus(
        run="demo", state="running", fingerprint=run["fingerprint"], tasks=8, done=3, started=run["started"],
    )  # fmt: skip
    open_store(output).write("status.json", said.dump())
    cloud.publish("status", b"", sweep="true")
    wait_for(lambda: cloud.runs()[0]["state"] == "running")
    dataflow.jobs["2026-0"]["currentState"] = "JOB_STATE_DONE"
    open_store(output).write("status.json", said.model_copy(update={"state": "succeeded", "done": 8}).dump())
    cloud.publish("status", b"", run=run["id"])
    found = wait_for(lambda: (one := cloud.runs()[0])["state"] == "succeeded" and one)
    assert (found["done"], found["tasks"], found["failed"]) == (8, 8, 0)
    told = wait_for(lambda: cloud.pull("status"))
    assert {one.attributes.get("state") for one in told} >= {"queued"}
    code, page, headers = cloud.get(f"/runs/{run['id']}", Accept="text/html")
    assert (code, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b"8 of 8 done" in page
    assert b"succeeded" in page


def test_duplicates_and_a_dataflow_that_is_unwell_make_one_job(cloud: Cloud, dataflow: Dataflow) -> None:
    dataflow.faults = [503, 429, 503]
    for _ in range(10):
        cloud.publish("requests", {**REQUEST, "output": f"{cloud.prefix}/products/demo"})
    wait_for(cloud.runs)
    time.sleep(3)
    assert len(dataflow.jobs) == 1
    assert [run["state"] for run in cloud.runs()] == ["running"]


def test_a_job_that_dies_without_a_word_is_found(cloud: Cloud, dataflow: Dataflow) -> None:
    cloud.publish("requests", {**REQUEST, "output": f"{cloud.prefix}/products/demo"})
    wait_for(cloud.runs)
    dataflow.jobs["2026-0"]["currentState"] = "JOB_STATE_FAILED"
    cloud.publish("status", b"", sweep="true")
    run = wait_for(lambda: (one := cloud.runs()[0])["state"] == "failed" and one)
    assert "its job ended as JOB_STATE_FAILED" in run["message"]


def test_a_bad_message_is_put_aside_once(cloud: Cloud, dataflow: Dataflow) -> None:
    cloud.publish("requests", b"{not yaml: [")
    cloud.publish("requests", {**REQUEST, "output": "gs://elsewhere/x"})
    dead: list[Any] = []
    wait_for(lambda: dead.extend(cloud.pull("dead")) or len(dead) >= 2)
    time.sleep(2)
    dead += cloud.pull("dead")
    assert sorted(one.attributes["reason"][:20] for one in dead) == ["output: gs://elsewhe", "the request is neith"]
    assert dataflow.launches == []
    assert cloud.runs() == []


def test_a_request_file_in_the_bucket_starts_a_run(cloud: Cloud, dataflow: Dataflow) -> None:
    store = open_store(f"{cloud.prefix}/requests")
    store.write("demo.json", json.dumps({**REQUEST, "output": f"{cloud.prefix}/products/x"}).encode())
    cloud.publish("requests", {"request": f"{cloud.prefix}/requests/demo.json"})
    assert wait_for(cloud.runs)[0]["state"] in ("queued", "running")


def test_the_page_is_answered_as_http_wants_it(cloud: Cloud) -> None:
    for number in range(5):
        told = RunStatus(run="x", id=f"run-{number}", state="failed", message="<script>alert(1)</script>")
        open_store(f"{cloud.prefix}/state").write(f"runs/run-{number}/status.json", told.dump())
    code, _, headers = cloud.get("/runs")
    assert code == 200
    assert cloud.get("/runs", If_None_Match=headers["ETag"])[:2] == (304, b"")
    assert cloud.get("/runs", If_None_Match='"other"')[0] == 200
    seen, following = [], "/runs?limit=2"
    while following:
        found = json.loads(cloud.get(following)[1])
        seen += [run["id"] for run in found["runs"]]
        following = found["next"]
    assert seen == [f"run-{number}" for number in range(5)]
    for path in (
        "/runs/none",
        "/runs/..%2F..%2Fsecret",
        "/runs/../status",
        "/elsewhere",
        "/runs/run-0/request",
        "/runs/RUN-0",
    ):
        assert cloud.get(path)[0] == 404, path
    code, _, headers = cloud.get("/runs", method="DELETE")
    assert (code, headers["Allow"]) == (405, "GET, HEAD")
    assert cloud.get("/runs?limit=0")[0] == cloud.get("/runs?limit=x")[0] == 400
    code, page, headers = cloud.get("/runs/run-1", Accept="text/html,*/*")
    assert b"<script>" not in page
    assert b"&lt;script&gt;" in page
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert b"run-4" in cloud.get("/runs", Accept="text/html")[1]
