"""A worker process that has only what the image has makes the mosaics."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import tree
from local_cloud import free_port
from scenebeam.execution.driver import run
from scenebeam.request import RunRequest
from scenebeam.requestfile import validate_request
from scenebeam.status import PAGE_FILE

pytestmark = pytest.mark.cloud


ROOT = Path(__file__).parents[2]
Make = Callable[..., RunRequest]
WORKER_PYTHON = os.environ.get("SCENEBEAM_WORKER_PYTHON", sys.executable)
"""Of the environment that the worker image is made of (`make test-cloud` names it); by default this one."""


@pytest.mark.skipif(
    sys.executable == WORKER_PYTHON,
    reason="SCENEBEAM_WORKER_PYTHON names no environment of its own",
)
def test_the_environment_has_what_the_image_has() -> None:
    code = "import importlib.metadata as m; print('\\n'.join(sorted(d.name.lower() for d in m.distributions())))"
    told = subprocess.run(
        [WORKER_PYTHON, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    installed = {name.replace("_", "-") for name in told.split()} - {"pip", "setuptools", "wheel"}
    locked = re.findall(
        r"^([A-Za-z0-9._-]+)==", (ROOT / "docker" / "worker.lock").read_text(), re.MULTILINE
    )
    assert installed - {name.lower().replace("_", "-") for name in locked} == {"scenebeam"}


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    words = ["-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={port}"]
    # Nothing of this process's environment reaches the worker. It starts its processes as `python`.
    environ = {"PATH": f"{Path(WORKER_PYTHON).parent}:/usr/bin:/bin", "HOME": str(tmp_path)}
    process = subprocess.Popen(
        [WORKER_PYTHON, *words],
        env=environ,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield f"localhost:{port}"
    process.terminate()
    process.wait()


def test_mosaics_on_a_worker_pool(make_request: Make, pool: str, tmp_path: Path) -> None:
    calm = make_request(output=str(tmp_path / "calm"))
    assert run(calm).state == "succeeded"
    options = {"job_endpoint": "embed", "environment_type": "EXTERNAL", "environment_config": pool}
    asked = {**calm.model_dump(mode="json"), "output": str(tmp_path / "pool")}
    asked["runner"] = {"kind": "PortableRunner", "options": options}
    assert run(validate_request(asked)).state == "succeeded"
    assert tree(tmp_path / "pool") == tree(tmp_path / "calm")
    assert (tmp_path / "pool" / PAGE_FILE).is_file(), "its template came with the package"
