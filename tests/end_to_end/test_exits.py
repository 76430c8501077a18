"""How the command ends: with the documented exit code, and with words that say what became of it."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scenebeam.execution.driver import run
from scenebeam.execution.live import live_status
from scenebeam.request import RunRequest
from scenebeam.sandbox.server import Fault, SandboxServer

Make = Callable[..., RunRequest]
SCENEBEAM = str(Path(sys.executable).parent / "scenebeam")


def scenebeam(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [SCENEBEAM, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def script(body: str) -> subprocess.Popen[str]:
    """Start a process whose command line is `body`, a function `main`, in place of scenebeam's own."""
    text = "import signal, sys, threading, time\nfrom scenebeam.cli import process\n"
    text += f"{body}\nprocess.main = main\nprocess._GRACE = 1.0\nprocess.run_command()\n"
    command = [sys.executable, "-c", text]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def written(request: RunRequest, path: Path) -> str:
    path.write_text(request.model_dump_json())
    return str(path)


def wait_for(reached: Callable[[], bool]) -> None:
    for _ in range(600):
        if reached():
            return
        time.sleep(0.05)
    raise AssertionError("nothing happened for half a minute")


@pytest.fixture
def slow_run(
    make_request: Make, served_items: Path, server: SandboxServer, tmp_path: Path
) -> RunRequest:
    """A request whose files come slowly."""
    server.latency = 0.5
    return make_request(catalog=str(served_items))


# The process


def test_a_refusal_ends_with_2_every_time(make_request: Make, tmp_path: Path) -> None:
    """Arrow's threads aborted some of a hundred such processes with exit code 134."""
    request = make_request()
    run(request)
    file = written(request, tmp_path / "request.json")
    for _ in range(8):
        refused = scenebeam("run", file, "--set", "product.method=last")
        assert refused.returncode == 2
        assert "belongs to another request" in refused.stderr
        assert "terminate called" not in refused.stderr


def test_a_thread_that_lives_on_does_not_hold_the_process() -> None:
    process = script(
        "def main():\n    threading.Thread(target=time.sleep, args=(600,)).start()\n    print('said')\n    sys.exit(2)"
    )
    assert process.communicate(timeout=30)[0] == "said\n"
    assert process.returncode == 2


@pytest.mark.parametrize(
    ("ending", "code"), [("sys.exit()", 0), ("sys.exit('why')", 1), ("pass", 1)]
)
def test_every_way_out_has_a_code(ending: str, code: int) -> None:
    process = script(f"def main():\n    {ending}")
    process.communicate(timeout=30)
    assert process.returncode == code


STUCK = "def main():\n    print('ready', flush=True)\n    while True:\n"
STUCK += (
    "        try:\n            time.sleep(600)\n        except KeyboardInterrupt:\n            pass"
)


def test_a_run_that_cannot_stop_ends_after_its_grace() -> None:
    process = script(STUCK)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143


def test_a_second_ctrl_c_ends_at_once() -> None:
    process = script(STUCK.replace("def main", "process._GRACE = 600\ndef main"))
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_run_that_is_terminated_says_so_and_resumes(
    slow_run: RunRequest, server: SandboxServer, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    file = written(slow_run, tmp_path / "request.json")
    # Under nohup, processes inherit that a hangup is ignored.
    process = subprocess.Popen(
        [SCENEBEAM, "run", file],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    status = Path(slow_run.output) / "status.json"
    wait_for(status.exists)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, "run the same command again" in told) == (code, True)
    assert json.loads(status.read_text())["state"] == "cancelled"
    assert not list(Path(slow_run.output).rglob("*.partial"))
    server.latency = 0.0
    assert scenebeam("run", file).returncode == 0


# The status of a run that goes on, and of one that was killed


def test_the_status_of_a_run_is_live(
    slow_run: RunRequest, server: SandboxServer, tmp_path: Path
) -> None:
    file = written(slow_run, tmp_path / "request.json")
    process = subprocess.Popen(
        [SCENEBEAM, "run", file], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    output = Path(slow_run.output)
    wait_for(lambda: len(list(output.glob("mosaics/*/*.json"))) == 1)
    during = live_status(str(output))
    process.kill()
    process.wait()
    after = live_status(str(output))
    assert json.loads((output / "status.json").read_text())["done"] == 0, (
        "the file is of the beginning"
    )
    assert (during.state, during.done, during.tasks) == ("running", 1, 2)
    assert (after.state, after.done) == ("cancelled", 1)
    assert "run it again" in after.message
    server.latency = 0.0
    assert scenebeam("run", file).returncode == 0
    assert live_status(str(output)).state == "succeeded"


def test_status_has_the_exit_code_of_the_run(make_request: Make, tmp_path: Path) -> None:
    catalog = json.loads(Path(str(make_request().catalog)).read_text())
    for feature in catalog["features"]:
        feature["assets"]["red"]["href"] = str(tmp_path / "gone.tif")
    (tmp_path / "catalog.json").write_text(json.dumps(catalog))
    request = make_request(catalog=str(tmp_path / "catalog.json"), **{"product.bands": ["red"]})
    assert run(request).state == "failed"
    assert scenebeam("status", request.output).returncode == 1


# Outputs that cannot be


@pytest.mark.parametrize("output", ["s3://bucket/x", "az://container/x", "https://example.com/x"])
def test_an_output_that_cannot_be_written_is_refused(
    make_request: Make, tmp_path: Path, output: str
) -> None:
    file = written(make_request(), tmp_path / "request.json")
    refused = subprocess.run(
        [SCENEBEAM, "run", file, "-o", output],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert refused.returncode == 2
    assert "gs://" in refused.stderr
    assert not (tmp_path / output.partition("//")[0]).exists()
    assert scenebeam("status", output).returncode == 2


def test_a_bucket_without_credentials_is_one_line_that_names_the_fix(
    make_request: Make, tmp_path: Path
) -> None:
    file = written(make_request(), tmp_path / "request.json")
    nobody = {"HOME": str(tmp_path), "NO_GCE_CHECK": "true", "STORAGE_EMULATOR_HOST": ""}
    failed = scenebeam(
        "run", file, "-o", "gs://bucket/x", GOOGLE_APPLICATION_CREDENTIALS="", **nobody
    )
    assert failed.returncode == 1
    (line,) = failed.stderr.splitlines()
    assert "gcloud auth application-default login" in line


def test_a_link_that_leads_nowhere_is_no_output(make_request: Make, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "gone" / "away")
    failed = scenebeam("run", written(make_request(), tmp_path / "request.json"))
    assert failed.returncode == 1
    assert "a dangling symbolic link" in failed.stderr


@pytest.mark.parametrize("runner", ["serial", "direct"])
def test_an_output_that_vanishes_is_told_in_words(
    slow_run: RunRequest, tmp_path: Path, runner: str
) -> None:
    file = written(
        slow_run.model_copy(update={"output": str(tmp_path / "gone")}), tmp_path / "request.json"
    )
    process = subprocess.Popen(
        [SCENEBEAM, "run", file, "--runner", runner], stderr=subprocess.PIPE, text=True
    )
    wait_for((tmp_path / "gone" / "status.json").exists)
    shutil.rmtree(tmp_path / "gone")
    _, told = process.communicate(timeout=100)
    assert process.returncode == 1
    *_, last = told.splitlines()  # Beam's workers print their own traceback before it
    assert last.startswith("scenebeam: ")
    assert last.endswith("was removed during the run: run again")


# Nothing made is no success


def failures(request: RunRequest) -> list[dict[str, str]]:
    with (Path(request.output) / "failures.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_field_chips_without_a_scene_are_no_success(fields_request: Make) -> None:
    request = fields_request(**{"product.cloud_cover_scene": 0.0, "product.buffer_expansions": 0})
    status = run(request)
    assert status.state == "failed"
    assert status.message.startswith("nothing was made: ")
    page = (Path(request.output) / "report" / "index.html").read_text()
    assert "nothing was made" in page


def test_a_band_that_no_item_has_is_no_success(make_request: Make, tmp_path: Path) -> None:
    catalog = json.loads(Path(str(make_request().catalog)).read_text())
    for feature in catalog["features"]:
        del feature["assets"]["nir"]
    (tmp_path / "catalog.json").write_text(json.dumps(catalog))
    product = {"kind": "assets", "bands": ["red", "nir"]}
    request = make_request(catalog=str(tmp_path / "catalog.json"), product=product)
    status = run(request)
    assert (status.state, status.failed, status.retriable) == ("failed", 0, 0)
    assert "the item has no file of nir" in status.message
    assert {row["state"] for row in failures(request)} == {"skipped"}
    assert {row["retry"] for row in failures(request)} == {""}
    shown = scenebeam("run", written(request, tmp_path / "request.json"))
    assert (shown.returncode, "run it again" in shown.stdout) == (1, False)


def test_land_cover_without_a_chip_is_no_success(landcover_request: Make) -> None:
    request = landcover_request(**{"product.sample_size": 960})
    status = run(request)
    assert (status.state, status.message[:16]) == ("failed", "nothing was made")


def test_retry_is_advised_only_where_it_helps(
    make_request: Make, served_items: Path, server: SandboxServer, tmp_path: Path
) -> None:
    request = make_request(
        catalog=str(served_items), **{"product.bands": ["red"], "limits.retry_seconds": 1}
    )
    file = written(request, tmp_path / "request.json")
    catalog = json.loads(served_items.read_text())
    for feature in catalog["features"]:
        feature["assets"]["red"]["href"] = feature["assets"]["red"]["href"].replace(
            "red.tif", "none.tif"
        )
    served_items.write_text(json.dumps(catalog))
    shown = scenebeam("run", file)
    assert shown.returncode == 1
    assert "run it again" not in shown.stdout


def test_a_server_that_is_unwell_is_to_be_tried_again(
    make_request: Make, served_items: Path, server: SandboxServer, tmp_path: Path
) -> None:
    server.faults = [Fault(pattern="red", status=503, times=10**6)]
    limits = {"limits.retry_wait": 0.01, "limits.max_attempts": 2}
    request = make_request(catalog=str(served_items), **{"product.bands": ["red"], **limits})
    file = written(request, tmp_path / "request.json")
    shown = scenebeam("run", file)
    assert (shown.returncode, "run it again" in shown.stdout) == (1, True)
    server.faults = []
    (retry,) = {row["retry"] for row in failures(request)}
    assert (
        subprocess.run(
            retry, shell=True, env={**os.environ, "PATH": f"{Path(SCENEBEAM).parent}:/bin"}
        ).returncode
        == 0
    )
