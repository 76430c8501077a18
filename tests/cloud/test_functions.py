"""The functions on functions-framework, behind Google's Pub/Sub emulator, with Dataflow's real client and a real store."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from test_launch import REQUEST

from local_cloud import FUNCTIONS, Cloud, free_port, listens, wait_for
from local_dataflow import Dataflow, send_event
from scenebeam.cloud.messages import PUBLISHED
from scenebeam.report.script import script_hash
from scenebeam.status import RunStatus
from scenebeam.storage import open_store

pytestmark = pytest.mark.cloud


def test_a_message_becomes_a_job_a_report_and_a_page(cloud: Cloud, dataflow: Dataflow) -> None:
    output = f"{cloud.prefix}/products/demo"
    cloud.publish("requests", {**REQUEST, "output": output})
    run = wait_for(cloud.runs)[0]
    assert (run["output"], run["job"]) == (output, "2026-0")
    assert run["state"] in ("queued", "running")
    [launched] = dataflow.launches
    asked = launched["launchParameter"]
    assert asked["jobName"] == f"scenebeam-{run['id']}"
    assert asked["parameters"] == {
        "request": f"{cloud.prefix}/state/runs/{run['id']}/request.json",
        "run": run["id"],
        "progress_topic": f"projects/{cloud.project}/topics/progress",
    }
    environment = asked["environment"]
    assert (environment["maxWorkers"], environment["machineType"]) == (7, "n2-standard-2")
    assert environment["sdkContainerImage"] == "europe-docker.pkg.dev/p/scenebeam/worker:1"
    assert environment["serviceAccountEmail"] == f"worker@{cloud.project}.iam.gserviceaccount.com"
    assert environment["additionalUserLabels"] == {"scenebeam-run": run["id"]}
    # What the pipeline says of itself in its output is taken up when somebody asks to look.
    said = RunStatus(
        run="demo", state="running", fingerprint=run["fingerprint"], tasks=8, done=3, started=run["started"],
    )  # fmt: skip
    open_store(output).write("status.json", said.to_bytes())
    cloud.publish("progress", b"", sweep="true")
    wait_for(lambda: cloud.runs()[0]["state"] == "running")
    # Between its beginning and its end the counters of its workers tell how it goes.
    dataflow.jobs["2026-0"]["counts"] = {
        "tasks_done": 2,
        "tasks_failed": 1,
        "read_bytes": 5_000_000,
    }
    cloud.publish("progress", b"", run=run["id"])
    going = wait_for(lambda: (one := cloud.runs()[0])["read_bytes"] == 5_000_000 and one)
    assert (going["done"], going["failed"]) == (5, 1)
    dataflow.jobs["2026-0"]["currentState"] = "JOB_STATE_DONE"
    open_store(output).write(
        "status.json", said.model_copy(update={"state": "succeeded", "done": 8}).to_bytes()
    )
    cloud.publish("progress", b"", run=run["id"])
    found = wait_for(lambda: (one := cloud.runs()[0])["state"] == "succeeded" and one)
    assert (found["done"], found["tasks"], found["failed"]) == (8, 8, 0)
    told = wait_for(lambda: cloud.pull("status"))
    assert {one.attributes.get("state") for one in told} >= {"queued"}
    code, page, headers = cloud.get(f"/runs/{run['id']}", Accept="text/html")
    assert (code, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b"8 of 8 done" in page
    assert b"succeeded" in page


def test_duplicates_and_a_dataflow_that_is_unwell_make_one_job(
    cloud: Cloud, dataflow: Dataflow
) -> None:
    dataflow.faults = [503, 429, 503]
    for _ in range(10):
        cloud.publish("requests", {**REQUEST, "output": f"{cloud.prefix}/products/demo"})
    wait_for(cloud.runs)
    time.sleep(3)
    assert len(dataflow.jobs) == 1
    assert [run["state"] for run in cloud.runs()] == ["queued"]


def test_a_job_that_dies_without_a_word_is_found(cloud: Cloud, dataflow: Dataflow) -> None:
    cloud.publish("requests", {**REQUEST, "output": f"{cloud.prefix}/products/demo"})
    wait_for(cloud.runs)
    dataflow.jobs["2026-0"]["currentState"] = "JOB_STATE_FAILED"
    cloud.publish("progress", b"", sweep="true")
    run = wait_for(lambda: (one := cloud.runs()[0])["state"] == "failed" and one)
    assert "the job ended as JOB_STATE_FAILED" in run["message"]


def test_a_job_that_is_cancelled_leaves_a_run_that_can_go_on(
    cloud: Cloud, dataflow: Dataflow
) -> None:
    request = {**REQUEST, "output": f"{cloud.prefix}/products/demo"}
    cloud.publish("requests", request)
    run = wait_for(cloud.runs)[0]
    begun = RunStatus(
        run="demo", state="running", fingerprint=run["fingerprint"], tasks=8, started=run["started"]
    )
    open_store(run["output"]).write("status.json", begun.to_bytes())
    dataflow.end("2026-0", "JOB_STATE_CANCELLED")
    found = cloud.runs()[0]
    assert found["state"] == "cancelled"
    assert (found["tasks"], found["message"]) == (
        8,
        "the job was cancelled: publish the request again to resume",
    )
    cloud.publish("requests", request)
    wait_for(lambda: cloud.runs()[0]["job"] == "2026-1")
    assert dataflow.launches[1]["launchParameter"]["jobName"] == f"scenebeam-{run['id']}-1"


def test_a_bad_message_is_put_aside_once(cloud: Cloud, dataflow: Dataflow) -> None:
    cloud.publish("requests", b"{not yaml: [")
    cloud.publish("requests", {**REQUEST, "output": "gs://elsewhere/x"})
    dead: list[Any] = []

    def has_two_dead() -> bool:
        dead.extend(cloud.pull("dead"))
        return len(dead) >= 2

    wait_for(has_two_dead)
    time.sleep(2)
    dead += cloud.pull("dead")
    assert sorted(one.attributes["reason"][:20] for one in dead) == [
        "output: gs://elsewhe",
        "the request is neith",
    ]
    assert dataflow.launches == []
    assert [run["state"] for run in cloud.runs()] == ["rejected", "rejected"]


def test_a_function_logs_one_line_for_each_change(tmp_path: Path) -> None:
    """As a process of its own, as Cloud Run starts it: the alert on failed runs counts these lines."""
    port = free_port()
    command: list[str | Path] = [
        Path(sys.executable).parent / "functions-framework",
        "--source",
        FUNCTIONS,
        "--target",
        "launch",
    ]
    settings = {"STATE": str(tmp_path), "OUTPUTS": "gs://products", "LAUNCHER": "local"}
    environ = {
        **os.environ,
        **{f"SCENEBEAM_{name}": value for name, value in settings.items()},
        "PORT": str(port),
    }
    process = subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        wait_for(lambda: listens(port))
        data = base64.b64encode(b"{not yaml: [").decode()
        send_event(
            f"http://127.0.0.1:{port}", PUBLISHED, {"message": {"data": data, "messageId": "17"}}
        )
    finally:
        process.terminate()
    said = process.communicate()[0].splitlines()
    assert [line[:50] for line in said if line.startswith("rejected")] == [
        "rejected 17: the request is neither YAML nor JSON:"
    ]


def test_a_request_file_in_the_bucket_starts_a_run(cloud: Cloud, dataflow: Dataflow) -> None:
    store = open_store(f"{cloud.prefix}/requests")
    store.write(
        "demo.json", json.dumps({**REQUEST, "output": f"{cloud.prefix}/products/x"}).encode()
    )
    cloud.publish("requests", {"request": f"{cloud.prefix}/requests/demo.json"})
    assert wait_for(cloud.runs)[0]["state"] in ("queued", "running")


def test_a_picture_is_shown_and_nothing_else_of_the_output(cloud: Cloud) -> None:
    outputs, state = open_store(f"{cloud.prefix}/products/x"), open_store(f"{cloud.prefix}/state")
    image = b"\x89PNG\r\n\x1a\n and so on"
    outputs.write("mosaics/a/thumbnail.png", image)
    outputs.write("run.png", b"a secret")
    named = ("mosaics/a/thumbnail.png", "run.png", "../y/z.png", "missing.png")
    for run, output in (
        ("inside", f"{cloud.prefix}/products/x"),
        ("outside", f"{cloud.prefix}/elsewhere"),
    ):
        told = RunStatus(run="x", id=run, state="succeeded", output=output, pictures=named)
        state.write(f"runs/{run}/status.json", told.to_bytes())
    open_store(f"{cloud.prefix}/elsewhere").write("mosaics/a/thumbnail.png", image)
    code, body, headers = cloud.get("/runs/inside/pictures/0")
    assert (code, body, headers["Content-Type"]) == (200, image, "image/png")
    assert cloud.get("/runs/inside/pictures/0", If_None_Match=headers["ETag"])[0] == 304
    for path in ("/runs/inside/pictures/1", "/runs/inside/pictures/2", "/runs/inside/pictures/3",
                 "/runs/inside/pictures/4", "/runs/inside/pictures/x", "/runs/outside/pictures/0"):  # fmt: skip
        assert cloud.get(path)[0] == 404, path
    page = cloud.get("/runs/inside", Accept="text/html")[1]
    assert b'src="/runs/inside/pictures/0"' in page
    assert b"http-equiv" not in page, "a run that has ended is not asked for again"


def test_the_report_is_served_with_what_it_shows(cloud: Cloud) -> None:
    outputs, state = open_store(f"{cloud.prefix}/products/x"), open_store(f"{cloud.prefix}/state")
    page = b"<!doctype html><title>x</title>"
    files = {
        "report/index.html": page,
        "report/pictures/a.webp": b"RIFF and so on",
        "report/pictures/b.webp": b"<svg onload=alert(1)>",
        "mosaics/a/thumbnail.png": b"\x89PNG\r\n\x1a\n",
        "mosaics/a/a.json": b"{}",
        "mosaics/a/red.tif": b"II*\0",
        "items.parquet": b"PAR1",
        "failures.csv": b"task\n",
        "run.json": b"{}",
        "evil.html": page,
        "report/other.html": page,
    }
    for name, content in files.items():
        outputs.write(name, content)
    for run, output in (("inside", "products/x"), ("outside", "elsewhere")):
        told = RunStatus(
            run="x", id=run, state="succeeded", output=f"{cloud.prefix}/{output}", tasks=1
        )
        state.write(f"runs/{run}/status.json", told.to_bytes())
    open_store(f"{cloud.prefix}/elsewhere").write("report/index.html", page)
    found = json.loads(cloud.get("/runs/inside")[1])
    assert found["links"]["report"] == "/runs/inside/output/report/index.html"
    assert json.loads(cloud.get("/runs/outside")[1])["links"]["report"] is None
    served = {}
    for name in files:
        code, body, headers = cloud.get(f"/runs/inside/output/{name}")
        if code == 200:
            assert body == files[name]
            served[name] = headers
    assert served.keys() == {
        "report/index.html", "report/pictures/a.webp", "mosaics/a/thumbnail.png", "mosaics/a/a.json", "items.parquet",
        "failures.csv",
    }  # fmt: skip
    policy = served["report/index.html"]["Content-Security-Policy"]
    assert f"script-src '{script_hash()}'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2]
    assert "script-src" not in served["mosaics/a/a.json"]["Content-Security-Policy"]
    for path in ("outside/output/report/index.html", "inside/output/../../y/a/b.png", "inside/output/report/", "inside/output/.hidden/x.png"):  # fmt: skip
        assert cloud.get(f"/runs/{path}")[0] == 404, path


def test_rejected_messages_are_listed_and_runs_are_filtered(cloud: Cloud) -> None:
    state = open_store(f"{cloud.prefix}/state")
    began = datetime(2026, 1, 1, tzinfo=UTC)
    for number, kind in enumerate(("failed", "succeeded", "failed")):
        told = RunStatus(
            run="x", id=f"run-{number}", state=kind, started=began, finished=began + timedelta(minutes=75), cost=1.5
        )  # fmt: skip
        state.write(f"runs/run-{number}/status.json", told.to_bytes())
    told = RunStatus(run="rejected", id="17_x", state="rejected", message="no <b>bands</b>")
    state.write("rejected/17_x.json", told.to_bytes())

    def ids(query: str) -> list[str]:
        return [run["id"] for run in json.loads(cloud.get(f"/runs{query}")[1])["runs"]]

    assert ids("") == ["17_x", "run-2", "run-1", "run-0"]
    assert ids("?state=failed") == ["run-2", "run-0"]
    assert ids("?state=rejected") == ["17_x"]
    assert ids("?q=RUN-1") == ["run-1"]
    assert ids("?q=17") == ["17_x"]
    assert ids("?state=succeeded&q=run-2") == []
    first = json.loads(cloud.get("/runs?state=failed&limit=1")[1])
    assert [run["id"] for run in first["runs"]] == ["run-2"]
    assert first["next"] == "/runs?limit=1&after=run-2&state=failed"
    assert ids("?limit=1&after=run-2&state=failed") == ["run-0"]
    assert ids("?limit=1&after=rejected/17_x") == ["run-2"]
    for query in ("?state=x", "?q=%3Cb%3E", "?q=..", "?after=rejected/../x"):
        assert cloud.get(f"/runs{query}")[0] == 400, query
    page = cloud.get("/runs", Accept="text/html")[1].decode()
    assert "no &lt;b&gt;bands&lt;/b&gt;" in page
    assert "1 h 15 min" in page
    assert "1.50 USD" in page
    assert (
        "<option selected>failed" in cloud.get("/runs?state=failed", Accept="text/html")[1].decode()
    )


def test_the_page_is_answered_as_http_wants_it(cloud: Cloud) -> None:
    for number in range(5):
        told = RunStatus(
            run="x", id=f"run-{number}", state="failed", message="<script>alert(1)</script>"
        )
        open_store(f"{cloud.prefix}/state").write(f"runs/run-{number}/status.json", told.to_bytes())
    code, _, headers = cloud.get("/runs")
    assert code == 200
    assert cloud.get("/runs", If_None_Match=headers["ETag"])[:2] == (304, b"")
    assert cloud.get("/runs", If_None_Match='"other"')[0] == 200
    seen, following = [], "/runs?limit=2"
    while following:
        found = json.loads(cloud.get(following)[1])
        seen += [run["id"] for run in found["runs"]]
        following = found["next"]
    assert seen == [f"run-{number}" for number in (4, 3, 2, 1, 0)], "newest first"
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
