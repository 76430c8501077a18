"""What the Flex Template's launcher does: the real job that Dataflow would be sent, written to a file instead."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from scenebeam.execution.runners.dataflow import worker_options
from scenebeam.planning.plan import Plan, read_plan
from scenebeam.planning.search import make_plan
from scenebeam.request import RunRequest
from scenebeam.status import RunStatus
from scenebeam.storage import open_store

pytestmark = pytest.mark.cloud


Make = Callable[..., RunRequest]
IMAGE = "europe-docker.pkg.dev/p/scenebeam/worker:1"


@pytest.fixture
def account(tmp_path: Path) -> Iterator[str]:
    """A service account's file whose tokens come from this machine: Google's libraries ask for one first of all."""

    class Tokens(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            return

        def do_POST(self) -> None:
            body = b'{"access_token": "x", "expires_in": 3600, "token_type": "Bearer"}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = HTTPServer(("127.0.0.1", 0), Tokens)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
    path = tmp_path / "account.json"
    path.write_text(
        json.dumps(
            {
                "type": "service_account",
                "project_id": "my-project",
                "private_key_id": "x",
                "private_key": pem,
                "client_email": "tests@my-project.iam.gserviceaccount.com",
                "client_id": "1",
                "token_uri": f"http://127.0.0.1:{server.server_address[1]}/token",
            }
        )
    )
    yield str(path)
    server.shutdown()
    server.server_close()


def launch(
    request: RunRequest, prefix: str, account: str, *options: str
) -> subprocess.CompletedProcess[str]:
    open_store(prefix).write("request.json", request.model_dump_json().encode())
    command = [
        sys.executable,
        "-m",
        "scenebeam.cloud.template",
        f"--request={prefix}/request.json",
        *options,
    ]
    environ = {**os.environ, "GOOGLE_APPLICATION_CREDENTIALS": account}
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=200)


def test_the_job_that_dataflow_is_sent(
    make_request: Make, prefix: str, account: str, tmp_path: Path
) -> None:
    request = make_request(output=f"{prefix}/products", runner="dataflow")
    told = launch(
        request,
        prefix,
        account,
        "--runner=DataflowRunner",
        "--project=my-project",
        "--region=europe-west1",
        "--job_name=scenebeam-test",
        f"--temp_location={prefix}/tmp",
        f"--staging_location={prefix}/tmp",
        f"--template_location={tmp_path}/job.json",
        f"--sdk_container_image={IMAGE}",
        "--service_account_email=worker@my-project.iam.gserviceaccount.com",
        "--max_num_workers=7",
        "--machine_type=n2-standard-4",
    )
    assert told.returncode == 0, told.stderr
    job = json.loads((tmp_path / "job.json").read_text())
    assert (job["name"], job["labels"]) == ("scenebeam-test", {"scenebeam-run": "test"})
    environment = job["environment"]
    assert environment["serviceAccountEmail"] == "worker@my-project.iam.gserviceaccount.com"
    assert "use_runner_v2" in environment["experiments"]
    [pool] = environment["workerPools"]
    assert (pool["machineType"], pool["autoscalingSettings"]["maxNumWorkers"]) == (
        "n2-standard-4",
        7,
    )
    assert pool["workerHarnessContainerImage"] == IMAGE
    assert {one["containerImage"] for one in pool["sdkHarnessContainerImages"]} == {IMAGE}
    assert pool["ipConfiguration"] == "WORKER_IP_PRIVATE"
    assert pool["diskSizeGb"] == 30
    plan = read_plan(open_store(f"{prefix}/products"))
    assert plan is not None
    assert pool["numThreadsPerWorker"] == int(4 * 2**30 * 0.8 // plan.estimate.memory)
    status = RunStatus.model_validate_json(
        open_store(f"{prefix}/products").read("status.json") or b""
    )
    assert (status.state, status.tasks, status.done) == ("running", len(plan.tasks), 0)


def test_a_request_that_finds_nothing_says_so_in_its_status(
    make_request: Make, prefix: str, account: str
) -> None:
    request = make_request(output=f"{prefix}/products", dates="1999")
    told = launch(request, prefix, account, "--runner=DataflowRunner")
    assert told.returncode == 2
    assert "no scene is left" in told.stderr
    status = RunStatus.model_validate_json(
        open_store(f"{prefix}/products").read("status.json") or b""
    )
    assert status.state == "failed"
    assert "no scene is left" in status.message


@pytest.mark.parametrize(
    ("machine", "gigabytes", "threads"),
    [
        ("n2-standard-2", 1, 3),
        ("n2-standard-8", 1, 3),
        ("n2-highmem-2", 1, 6),
        ("n2-highcpu-4", 1, 1),
        ("n2-standard-2", 100, 1),
        ("n2-standard-2", 0.001, 12),
        ("e2-medium", 0.5, 1),
    ],
)
def test_a_worker_takes_as_many_tasks_as_fit(
    make_request: Make, machine: str, gigabytes: float, threads: int
) -> None:
    plan = make_plan(make_request())
    size = plan.tasks[0].estimate.model_copy(update={"memory": int(gigabytes * 2**30)})
    one = Plan(plan.request, (plan.tasks[0].model_copy(update={"estimate": size}),))
    assert f"--number_of_worker_harness_threads={threads}" in worker_options(machine, one)
