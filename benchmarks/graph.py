"""The cost of the graph: runs of 1,000 to 1,000,000 tasks that do nothing.

    python graph.py                  # print the table
    python graph.py 1000 100000      # of these numbers of tasks

Each step runs in a process of its own, whose peak memory is measured: the driver plans and freezes,
one worker makes all tasks and merges their outcomes, and reports. A whole run on Beam's direct
runner does all of it in one process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

COUNTS = (1_000, 10_000, 100_000, 1_000_000)
STEPS = ("plan", "make", "report", "direct")


def request_of(folder: Path, count: int, runner: str = "direct") -> Any:
    """A request for tasks that do nothing."""
    from scenebeam.request.product import PRODUCTS
    from scenebeam.requestfile import validate_request
    from scenebeam.sandbox.scenes import AREA, COLLECTION, DATES, SCENES

    PRODUCTS["nothing"] = "nothing"
    items = folder / "items.json"
    if not items.exists():
        features = [SCENES[0].item("http://127.0.0.1:9")]
        items.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return validate_request(
        {
            "run": "nothing",
            "catalog": str(items),
            "collections": [COLLECTION],
            "area": {"bbox": list(AREA)},
            "dates": DATES,
            "product": {"kind": "nothing", "tasks": count},
            "output": str(folder / "out"),
            "runner": {"kind": runner, "workers": 2},
        }
    )


def run_step(step: str, folder: Path, count: int) -> None:
    """Run one step in this process."""
    from scenebeam.execution.driver import run, start_status
    from scenebeam.execution.engine import MakeOptions, MakeRange, merge_outcomes, report
    from scenebeam.execution.row_ranges import split_ranges, undone_ranges
    from scenebeam.planning.plan import read_plan
    from scenebeam.planning.reuse import load_or_create_plan
    from scenebeam.report.outcomes import outcomes_folder
    from scenebeam.status import STATUS_FILE, RunStatus
    from scenebeam.storage import open_store

    request = request_of(folder, count)
    store = open_store(request.output)
    if step == "direct":
        status = run(request, overwrite=True)
        assert status.skipped == count, status
    elif step == "plan":
        plan = load_or_create_plan(request, store)
        start_status(plan, store, "direct")
        assert len(list(split_ranges(undone_ranges(plan, store)))) == min(count, 10_000)
    else:
        status = RunStatus.model_validate_json(store.read(STATUS_FILE) or b"")
        frozen = read_plan(store)
        assert frozen is not None
        ranges = list(split_ranges(undone_ranges(frozen, store)))
        make = MakeRange(MakeOptions(outcomes_folder(status)))
        make.setup()
        groups: dict[Any, list[str]] = {}
        if step == "make":
            for rows in ranges:
                for group, key in make.process(rows):
                    groups.setdefault(group, []).append(key)
            for group, keys in groups.items():
                merge_outcomes((group, keys))
            return
        merged = sorted(store.list(f"{outcomes_folder(status)}merged/"))
        final = report((store.uri, merged), status.model_dump_json())
        assert RunStatus.model_validate_json(final).skipped == count


def measure(step: str, folder: Path, count: int) -> tuple[float, float]:
    """Run a step in a process of its own; return its seconds and its peak memory in MB."""
    start = time.perf_counter()
    command = [sys.executable, __file__, step, str(folder), str(count)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return time.perf_counter() - start, float(done.stdout.split()[-1])


def main() -> None:
    """Print the table."""
    counts = [int(word) for word in sys.argv[1:]] or COUNTS
    print("| tasks | step | seconds | µs per task | peak MB |\n|---|---|---|---|---|")
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            for step in STEPS:
                seconds, peak = measure(step, Path(folder), count)
                each = seconds / count * 1e6
                print(f"| {count:,} | {step} | {seconds:.1f} | {each:,.0f} | {peak:.0f} |")
                sys.stdout.flush()


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in STEPS:
        from common import peak_megabytes

        run_step(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
        print(peak_megabytes())
    else:
        main()
