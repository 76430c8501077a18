"""A cloud on loopback: Google's Pub/Sub emulator, a stand-in for Dataflow's API, and the functions on functions-framework."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import functions_framework
import pytest
from werkzeug.serving import make_server

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
        return 200, {"job": self.jobs[number]}


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
                if match := re.search(r"/jobs/([^/?]+)", self.path):
                    job = told.jobs.get(match[1])
                    missing = {"error": {"code": 404, "message": "no such job"}}
                    self.reply(200 if job else 404, job or missing)
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
