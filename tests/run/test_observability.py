"""What a run tells while it goes, and what it has taken: lines at -v, tracebacks with --debug, spending.csv."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scenebeam.execution.driver import run
from scenebeam.progress import Meter
from scenebeam.request import RunRequest
from scenebeam.sandbox.server import Fault, SandboxServer

Make = Callable[..., RunRequest]
SCENEBEAM = str(Path(sys.executable).parent / "scenebeam")


def told(
    request: RunRequest, tmp_path: Path, *options: str, code: int = 0, **environment: str
) -> list[str]:
    """The lines that a run writes to stderr."""
    (tmp_path / "request.json").write_text(request.model_dump_json())
    command = [SCENEBEAM, *options, "run", str(tmp_path / "request.json")]
    import os

    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120
    )
    assert done.returncode == code, done.stderr
    return done.stderr.splitlines()


def spending(output: str) -> list[dict[str, str]]:
    with (Path(output) / "spending.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_without_options_little_is_said(make_request: Make, tmp_path: Path) -> None:
    lines = told(make_request(), tmp_path)
    assert all("tasks done" in line for line in lines)


@pytest.mark.parametrize("runner", ["serial", "direct"])
def test_a_line_for_each_timestamp_and_band(
    make_request: Make, served_items: Path, server: SandboxServer, tmp_path: Path, runner: str
) -> None:
    server.faults = [Fault(pattern=r"20220615.*red", times=2, status=503)]
    request = make_request(catalog=str(served_items), runner=runner, **{"limits.retry_wait": 0.01})
    lines = told(request, tmp_path, "-v")
    others = [
        line for line in lines if re.match(r"(DEBUG|INFO|WARNING|ERROR) (?!scenebeam\.)", line)
    ]
    assert others == []
    said = "\n".join(lines)
    assert "7 scenes found" in said
    assert "left out 1" in said
    for timestamp in ("20210610T092031Z", "20220615T092029Z"):
        assert f"{timestamp}: started" in said
        (end,) = [line for line in lines if f"{timestamp}: done in" in line]
        assert "MB read" in end
        assert "requests" in end
        for band in ("red", "scl"):
            (line,) = [
                line for line in lines if f"{timestamp}: {band}: " in line and "read in" in line
            ]
            assert line.endswith(
                "2 retries" if band == "red" and "2022" in timestamp else "0 retries"
            )
    assert [line for line in lines if "20220615T092029Z: red: retry" in line]


def test_other_libraries_speak_at_vvv_alone(make_request: Make, tmp_path: Path) -> None:
    lines = {}
    for verbose in ("-v", "-vv", "-vvv"):
        lines[verbose] = told(make_request(output=str(tmp_path / verbose)), tmp_path, verbose)
    for verbose in ("-v", "-vv"):
        assert not [
            line for line in lines[verbose] if re.match(r"(DEBUG|INFO) (?!scenebeam)", line)
        ]
    assert [line for line in lines["-vvv"] if line.startswith("DEBUG rasterio")]


def test_v_tells_what_is_found_left_out_and_made(make_request: Make, tmp_path: Path) -> None:
    said = "\n".join(told(make_request(), tmp_path, "-v"))
    assert "7 scenes found; older processing of the same acquisition left out 1" in said
    assert "2 mosaic tasks, grid: EPSG:32635, 1216 x 929 pixels of 10; runner: serial" in said
    assert said.splitlines()[-1] == "2 of 2 tasks done", "a log ends with the final count"


def test_q_says_nothing(make_request: Make, tmp_path: Path) -> None:
    assert told(make_request(), tmp_path, "-q") == []
    assert "contradict each other" in told(make_request(), tmp_path, "-q", "-v", code=2)[0]


def test_a_rate_is_that_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("scenebeam.progress.time.monotonic", lambda: now)
    meter = Meter()
    assert meter.describe(40, 100) == "40 of 100 tasks done", "tasks of an earlier run do not count"
    now = 160.0
    assert meter.describe(50, 100) == "50 of 100 tasks done, 10 tasks/min, about 5 min left"
    now = 220.0
    assert meter.describe(100, 100) == "100 of 100 tasks done"
    assert Meter().describe(0, 0) == "0 of 0 tasks done"


def test_the_environment_may_ask_for_more(make_request: Make, tmp_path: Path) -> None:
    assert ": started" in "\n".join(told(make_request(), tmp_path, SCENEBEAM_VERBOSE="1"))


def test_debug_shows_tracebacks_one_task_after_another(
    make_request: Make, served_items: Path, server: SandboxServer, tmp_path: Path
) -> None:
    server.faults = [Fault(pattern="red", status=404)]
    request = make_request(
        catalog=str(served_items),
        runner="direct",
        **{"product.on_missing": "fail", "product.bands": ["red"]},
    )
    lines = told(request, tmp_path, "--debug", code=1)
    assert '"runner": "serial"' in (Path(request.output) / "status.json").read_text()
    assert not [line for line in lines if line.startswith("DEBUG rasterio")]
    server.faults = [Fault(pattern="red", status=503)]
    limits = {"limits.retry_wait": 0.01, "limits.max_attempts": 2}
    request = make_request(catalog=str(served_items), output=str(tmp_path / "other"), **limits)
    said = "\n".join(told(request, tmp_path, "--debug", code=1))
    assert "Traceback (most recent call last)" in said
    assert "scenebeam.errors.ReadError" in said
    assert "Traceback" not in "\n".join(told(request, tmp_path, code=1))


def test_a_refusal_with_debug_has_its_traceback(make_request: Make, tmp_path: Path) -> None:
    run(make_request())
    lines = told(make_request(**{"product.method": "last"}), tmp_path, "--debug", code=2)
    assert "Traceback (most recent call last):" in lines


@pytest.mark.parametrize(
    ("product", "bands"),
    [
        ({"kind": "mosaic", "bands": ["red", "scl"]}, {"red", "scl"}),
        ({"kind": "stack", "bands": ["red", "nir"], "format": "geotiff"}, {"red", "nir"}),
        ({"kind": "assets", "bands": ["red", "SCL"]}, {"red", "scl"}),
    ],
    ids=lambda one: one["kind"] if isinstance(one, dict) else "",
)
def test_what_a_run_has_taken_is_told_band_by_band(
    make_request: Make, served_items: Path, product: dict[str, Any], bands: set[str]
) -> None:
    request = make_request(catalog=str(served_items), product=product)
    status = run(request)
    rows = spending(request.output)
    whole = [row for row in rows if not row["band"]]
    assert len(whole) == status.tasks
    assert sum(int(row["bytes"]) for row in whole) == status.read_bytes
    assert sum(int(row["requests"]) for row in whole) == status.requests
    assert {row["band"] for row in rows} - {""} == bands
    for row in rows:
        assert float(row["seconds"]) > 0
        assert int(row["bytes"]) > 0
        assert row["retries"] == "0"
    for task in {row["task"] for row in whole}:
        parts = [int(row["bytes"]) for row in rows if row["task"] == task and row["band"]]
        (all_of_it,) = [int(row["bytes"]) for row in whole if row["task"] == task]
        assert sum(parts) == pytest.approx(all_of_it, rel=0.05)


def test_areas_and_chips_are_told_of(
    landcover_request: Make, fields_request: Make, tmp_path: Path
) -> None:
    said = "\n".join(told(landcover_request(**{"product.include": [0]}), tmp_path, "-v"))
    assert "area 00000: " in said
    assert " windows, " in said
    said = "\n".join(
        told(
            fields_request(output=str(tmp_path / "f"), **{"product.images": "select"}),
            tmp_path,
            "-v",
        )
    )
    assert "/planting: a scene for " in said
