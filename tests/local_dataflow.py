"""A stand-in for Dataflow's REST API, as far as it is asked here: it starts the pipeline of a job as a process of its own.

`python tests/local_dataflow.py --port 8080 --report http://report:8080` is the same for a cloud of containers.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

RUNNING = "JOB_STATE_RUNNING"
CHANGED = "google.cloud.dataflow.job.v1beta3.statusChanged"
Answer = tuple[int, dict[str, Any]]


@dataclass
class Dataflow:
    """What the stand-in has been asked, and how it answers."""

    url: str = ""
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By id."""
    launches: list[dict[str, Any]] = field(default_factory=list)
    faults: list[int] = field(default_factory=list)
    """Statuses that the next launches are answered with."""
    start: bool = False
    """Whether a job is started: its pipeline runs in a process of this machine."""
    report: str = ""
    """URL of the function that is told of jobs that change their state, as Eventarc does it."""
    processes: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    threads: list[threading.Thread] = field(default_factory=list)
    said: str = ""
    """What the last job that ended wrote to its log."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def launch(self, body: dict[str, Any]) -> Answer:
        """Start a job, unless one of the name goes already."""
        asked = body["launchParameter"]
        self.launches.append(body)
        if self.faults:
            status = self.faults.pop(0)
            return status, {"error": {"code": status, "message": "not now"}}
        name = asked["jobName"]
        if any(
            job["name"] == name and job["currentState"] == RUNNING for job in self.jobs.values()
        ):
            told = f"there is an active job {name}"
            return 409, {"error": {"code": 409, "status": "ALREADY_EXISTS", "message": told}}
        number = f"2026-{len(self.jobs)}"
        labels = asked["environment"].get("additionalUserLabels", {})
        self.jobs[number] = {"id": number, "name": name, "currentState": RUNNING, "labels": labels}
        if self.start:
            self.threads.append(
                threading.Thread(target=self._run, args=(number, asked["parameters"]), daemon=True)
            )
            self.threads[-1].start()
        return 200, {"job": self.jobs[number]}

    def _run(self, number: str, parameters: dict[str, str]) -> None:
        """What Dataflow does, as far as it goes here: the launcher, and its pipeline on Beam's own runner."""
        options = [f"--{name}={value}" for name, value in parameters.items()]
        runner = ["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"]
        command = [sys.executable, "-m", "scenebeam.cloud.template", *options, *runner]
        environ = {
            name: value for name, value in os.environ.items() if not name.startswith("SCENEBEAM_")
        }
        process = subprocess.Popen(
            [*command, "--direct_running_mode=multi_threading"], env=environ, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self.processes[number] = process
        self.said = process.communicate()[1]
        self.end(number, "JOB_STATE_FAILED" if process.returncode else "JOB_STATE_DONE")

    def kill(self, number: str) -> None:
        """As a machine dies: at once, and without a word."""
        os.killpg(self.processes[number].pid, signal.SIGKILL)

    def end(self, number: str, state: str) -> None:
        """A job ends, and who listens is told."""
        self.jobs[number]["currentState"] = state
        if self.report:
            job = {name: value for name, value in self.jobs[number].items() if name != "counts"}
            send_event(self.report, CHANGED, {"payload": job})

    def stop(self) -> None:
        """End what still goes, and wait until all that listen have been told."""
        for process in self.processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        for thread in self.threads:
            thread.join()

    def told(self, path: str) -> Answer:
        """A job, its counters, or the active ones."""
        found = re.search(r"/jobs/([^/?]+)(/metrics)?", path)
        if found is None:
            return 200, {
                "jobs": [job for job in self.jobs.values() if job["currentState"] == RUNNING]
            }
        job = self.jobs.get(found[1])
        if job is None:
            return 404, {"error": {"code": 404, "message": "no such job"}}
        if found[2]:
            return 200, {
                "metrics": [_metric(name, count) for name, count in job.get("counts", {}).items()]
            }
        return 200, {name: value for name, value in job.items() if name != "counts"}


def _metric(name: str, count: int) -> dict[str, Any]:
    context = {"namespace": "scenebeam", "step": "s"}
    return {"name": {"origin": "user", "name": name, "context": context}, "scalar": count}


def send_event(url: str, kind: str, data: dict[str, Any]) -> None:
    """A CloudEvent by HTTP, as Eventarc posts it."""
    headers = {
        "Content-Type": "application/json", "ce-specversion": "1.0", "ce-id": uuid.uuid4().hex, "ce-type": kind,
        "ce-source": "//scenebeam.test",
    }  # fmt: skip
    request = urllib.request.Request(url, json.dumps(data).encode(), headers, method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()


@contextmanager
def serve_dataflow(now: Dataflow, host: str = "127.0.0.1", port: int = 0) -> Iterator[Dataflow]:
    """The API on an address of its own, which `now` then tells."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 2**16  # headers and body in one packet: a second one would wait 40 ms

        def log_message(self, format: str, *args: object) -> None:
            return

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with now.lock:
                self.reply(*now.launch(body))

        def do_GET(self) -> None:
            with now.lock:
                self.reply(*now.told(self.path))

        def reply(self, status: int, document: dict[str, Any]) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer((host, port), Handler)
    now.url = f"http://{host}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield now
    finally:
        now.stop()
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--report", required=True)
    given = parser.parse_args()
    with serve_dataflow(Dataflow(start=True, report=given.report), "0.0.0.0", given.port):
        threading.Event().wait()
