"""A cloud on loopback: Google's Pub/Sub emulator, a stand-in for Dataflow's API, and the functions on functions-framework."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import functions_framework
import pytest
from google.cloud import pubsub_v1
from werkzeug.serving import make_server

from scenebeam.cloud import topics

EMULATOR = Path("/usr/lib/google-cloud-sdk/platform/pubsub-emulator/bin/cloud-pubsub-emulator")
FUNCTIONS = Path(__file__).parents[1] / "functions" / "main.py"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def pubsub() -> Iterator[str]:
    """The emulator's address. On a machine without it tests say so and are skipped; with CI set they fail."""
    if not EMULATOR.exists():
        told = f"the Pub/Sub emulator is not at {EMULATOR}: apt-get install google-cloud-cli-pubsub-emulator"
        pytest.fail(told) if os.environ.get("CI") else pytest.skip(told)
    port = free_port()
    process = subprocess.Popen(
        [EMULATOR, "--host=127.0.0.1", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait()


@dataclass
class Dataflow:
    """What the stand-in has been asked, and how it answers."""

    url: str = ""
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By id."""
    launches: list[dict[str, Any]] = field(default_factory=list)
    faults: list[int] = field(default_factory=list)
    """Statuses that the next answers have."""
    said: str = ""
    """What the last job wrote to its log."""
    start: bool = False
    """Whether a job is started: its pipeline runs in a process of this machine."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def launch(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = body["launchParameter"]["jobName"]
        self.launches.append(body)
        if any(job["name"] == name and job["currentState"] == "JOB_STATE_RUNNING" for job in self.jobs.values()):
            return 409, {
                "error": {"code": 409, "status": "ALREADY_EXISTS", "message": f"there is an active job {name}"}
            }
        number = f"2026-{len(self.jobs)}"
        self.jobs[number] = {"id": number, "name": name, "currentState": "JOB_STATE_RUNNING"}
        if self.start:
            threading.Thread(
                target=self._run, args=(number, body["launchParameter"]["parameters"]), daemon=True
            ).start()
        return 200, {"job": self.jobs[number]}

    def _run(self, number: str, parameters: dict[str, str]) -> None:
        """What Dataflow does, as far as it goes here: the launcher, and its pipeline on Beam's own runner."""
        options = [f"--{name}={value}" for name, value in parameters.items()]
        runner = ["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"]
        command = [sys.executable, "-m", "scenebeam.cloud.template", *options, *runner]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SCENEBEAM_")}
        ended = subprocess.run([*command, "--direct_running_mode=multi_threading"], env=environ, capture_output=True)
        self.said = ended.stderr.decode()
        self.jobs[number]["currentState"] = "JOB_STATE_FAILED" if ended.returncode else "JOB_STATE_DONE"


def metric(name: str, count: int) -> dict[str, Any]:
    """A counter as Dataflow tells it."""
    return {
        "name": {"origin": "user", "name": name, "context": {"namespace": "scenebeam", "step": "s"}},
        "scalar": count,
    }


@pytest.fixture
def dataflow() -> Iterator[Dataflow]:
    """Dataflow's REST API, as far as it is asked here."""
    told = Dataflow()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            return

        def reply(self, status: int, document: dict[str, Any]) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with told.lock:
                if told.faults:
                    status = told.faults.pop(0)
                    self.reply(status, {"error": {"code": status, "message": "not now"}})
                    return
                self.reply(*told.launch(body))

        def do_GET(self) -> None:
            with told.lock:
                if match := re.search(r"/jobs/([^/?]+)/metrics", self.path):
                    counts = told.jobs[match[1]].get("counts", {})
                    self.reply(200, {"metrics": [metric(name, count) for name, count in counts.items()]})
                elif match := re.search(r"/jobs/([^/?]+)", self.path):
                    job = told.jobs.get(match[1])
                    missing = {"error": {"code": 404, "message": "no such job"}}
                    facts = {key: value for key, value in (job or missing).items() if key != "counts"}
                    self.reply(200 if job else 404, facts)
                else:
                    active = [job for job in told.jobs.values() if job["currentState"] == "JOB_STATE_RUNNING"]
                    self.reply(200, {"jobs": active})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield told
    server.shutdown()
    server.server_close()


Serve = Callable[[str], str]


@pytest.fixture
def serve_function() -> Iterator[Serve]:
    """Start one of the functions on functions-framework; gives its URL. The environment is read when it is first used."""
    with ExitStack() as stack:

        @contextmanager
        def served(target: str) -> Iterator[str]:
            server = make_server("127.0.0.1", 0, functions_framework.create_app(target, str(FUNCTIONS)), threaded=True)
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()
            thread.join()

        yield lambda target: stack.enter_context(served(target))


@dataclass
class Cloud:
    prefix: str
    project: str
    publisher: Any
    subscriber: Any
    status_url: str
    environment: pytest.MonkeyPatch

    def allow(self, catalog: str) -> None:
        """Runs may ask this catalogue, too; to be said before the first message."""
        self.environment.setenv("SCENEBEAM_CATALOGS", f"earth-search,{catalog}")

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


def wait_for(reached: Callable[[], Any], seconds: float = 40) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = reached()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("nothing came of it")


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
    yield Cloud(prefix, project, publisher, subscriber, serve_function("status"), monkeypatch)
    topics._publisher.cache_clear()
