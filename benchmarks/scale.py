"""Scale benchmark: how long runs take on up to 10,000 workers, by simulation on measured times.

    python benchmarks/scale.py measure     (real runs: writes scale.json)
    python benchmarks/scale.py validate    (real runs of one request beside simulated ones)
    python benchmarks/scale.py             (simulate: reads scale.json)

`scale_model.py` simulates a run on `scale_events.py`. Times, bytes and requests of tasks, and the
times of all other steps, are from `scale.json`, which `scale_measure.py` measures with this code.
What surrounds a run is assumed, and is in `ASSUMED`, with its reason.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common import machine, print_header, print_row
from scale_inputs import NEW, OLD, Costs, Design, Environment, Sample, Workload
from scale_measure import BANDS, DATES, fit, measure
from scale_model import ASSEMBLY, RESOURCES, Run
from scale_validate import real, validate

from scenebeam.imaging.pieces import COMPOSED_PIXELS
from scenebeam.imaging.shards import Window, cut_windows, shared_levels
from scenebeam.raster.pyramid import BLOCK_SIZE

MEASURED = Path(__file__).parent / "scale.json"
WORKERS = (10, 100, 1_000, 10_000)
SEEDS = range(3)


@dataclass(frozen=True)
class Assumption:
    """A number that is not measured here."""

    value: float
    unit: str
    reason: str


ASSUMED = {
    "page interval": Assumption(0.1, "s", "what the client of catalogs waits between requests"),
    "page latency": Assumption(1.0, "s", "a guess, for a page of 100 items of Earth Search"),
    "cores": Assumption(2, "", "of a worker: n2-standard-2, the default on Dataflow"),
    "tasks at once": Assumption(3, "", "on a worker: one more than cores, as the direct runner has"),
    "launch": Assumption(240, "s", "median until a worker is ready, as `planning/cost.py` assumes"),
    "launch spread": Assumption(0.25, "", "a guess: deviation of the logarithm of that time"),
    "preemptions": Assumption(0.05, "per worker and hour", "a guess: Google publishes no rate in advance"),
    "stragglers": Assumption(0.01, "of tasks", "a guess: at least twice the time, Pareto with exponent 1.5, at most 20 times"),
    "download": Assumption(30e6, "bytes/s", "of a worker from the source, as `planning/cost.py` assumes"),
    "source requests": Assumption(5_500, "1/s", "S3: at least this per partition of a bucket (https://docs.aws.amazon.com/athena/latest/ug/performance-tuning-s3-throttling-reduce-throttling-at-the-service-level.html); all scenes are assumed in one"),
    "source bytes": Assumption(12.5e9, "bytes/s", "a guess: 100 Gbit/s from the source to all workers"),
    "bucket latency": Assumption(0.05, "s", "a guess, for a request in one region"),
    "bucket stream": Assumption(100e6, "bytes/s", "a guess, for one upload or download"),
    "bucket reads": Assumption(5_000, "1/s", "initial rate of a bucket (https://cloud.google.com/storage/docs/request-rate); all keys are assumed in one range"),
    "bucket writes": Assumption(1_000, "1/s", "the same page"),
    "bucket doubling": Assumption(1_200, "s", "the same page: no faster than doubling in 20 minutes"),
    "bucket bytes": Assumption(25e9, "bytes/s", "a guess: 200 Gbit/s from and to the bucket"),
    "compose": Assumption(1.0, "s", "a guess, for a call that composes 32 objects"),
    "CPU hour": Assumption(0.056, "USD", "Dataflow batch, https://cloud.google.com/dataflow/pricing"),
    "GB hour": Assumption(0.003557, "USD", "the same page"),
    "memory": Assumption(8, "GB", "of n2-standard-2"),
    "class A": Assumption(0.005, "USD per 1,000", "writes, listings, composing: https://cloud.google.com/storage/pricing-examples"),
    "class B": Assumption(0.0004, "USD per 1,000", "reads, the same page"),
}  # fmt: skip


def cloud() -> Environment:
    """Return the assumed environment of a run on Google Cloud."""
    value = {name: assumption.value for name, assumption in ASSUMED.items()}
    rates = {}
    for name in RESOURCES:
        grows = name in ("bucket reads", "bucket writes")
        rates[name] = (value[name], value["bucket doubling"] if grows else math.inf)
    return Environment(
        cores=int(value["cores"]),
        slots=int(value["tasks at once"]),
        launch=value["launch"],
        launch_spread=value["launch spread"],
        preemptions=value["preemptions"],
        stragglers=value["stragglers"],
        page_interval=value["page interval"],
        page_latency=value["page latency"],
        latency=value["bucket latency"],
        stream=value["bucket stream"],
        download=value["download"],
        compose=value["compose"],
        rates=rates,
    )


def costs_of(found: Mapping[str, Any]) -> Costs:
    """Return what the steps besides tasks cost, from what was measured."""
    plans, reports = found["plans"], found["reports"]
    scene, task, source = fit(plans, ("scenes", "tasks", "sources"), "seconds")
    read_task, read_source = fit(plans, ("tasks", "sources"), "read")
    (stored,) = fit(plans, ("sources",), "bytes")
    small, large = reports
    assembly = found["index"]["assembly"]
    return Costs(
        search_page=found["search"]["seconds"] / found["search"]["pages"],
        plan_scene=scene,
        plan_task=task,
        plan_source=source,
        read_task=read_task,
        read_source=read_source,
        source_bytes=stored,
        list_key=found["list_key"],
        assemble_byte=(assembly["seconds"] - assembly["coarse_seconds"]) / assembly["bytes"],
        coarse_pixel=assembly["coarse_seconds"] / assembly["coarse_pixels"],
        merge_outcome=large["merge"] / large["tasks"],
        report_outcome=max(0.0, large["report"] - small["report"])
        / (large["tasks"] - small["tasks"]),
        report_fixed=found["index"]["report"],
    )


def samples_of(found: Mapping[str, Any]) -> list[Sample]:
    """Return the measured tasks of a product."""
    return [Sample(*values) for values in found["tasks"]]


def ndvi(found: Mapping[str, Any]) -> Workload:
    """NDVI of 100,000 km2 at 10 m from 1,000 scenes: 62 acquisitions of 16 tiles, an image each."""
    side = 31_623
    window = found["index"]["window"]
    windows, cell = cut_windows((side, side), window[3] - window[2])
    return Workload(
        images=62,
        shards=len(windows),
        pixels=side * side / len(windows) / 1e6,
        outputs=1,
        found=1_000,
        scenes=992,
        sources=16 * len(BANDS),
        shared_levels=shared_levels((side, side), cell),
        pieces=pieces_of(windows[0], side, shared_levels((side, side), cell)),
        item_bytes=4,
        samples=samples_of(found["index"]),
    )


def pieces_of(window: Window, width: int, levels: int) -> int:
    """Return how many objects the blocks of a shard are stored as: see `imaging.pieces`."""
    top, bottom, left, right = window
    if right - left == width:
        return levels
    return sum(-(-(bottom - top) // (BLOCK_SIZE << level)) for level in range(levels))


TILES_OF_CONTINENT = 1_024
REVISITS = 6
"""In a month, by two satellites."""
KEPT = 0.6
"""Share of scenes that the filter on clouds keeps: close to DATES of the revisits."""
SWATHS = 11
"""Overpasses side by side, each of 290 km."""


def continent(found: Mapping[str, Any], *, local: bool) -> Workload:
    """A composite of a month, of red and nir, for 10 million km2 at 10 m on one grid.

    Args:
        found: What was measured.
        local: Whether a task lists the scenes of its window only. In this code, it lists all.
    """
    side, planner = 316_227, found["planner"]
    scenes = round(TILES_OF_CONTINENT * REVISITS * KEPT)
    # An overpass of a day reads each band anew, wherever its scenes are.
    dates = 2 * DATES if local else SWATHS * REVISITS
    column = planner["column"] + (dates - DATES) * planner["column_per_date"]
    widest = max(128, int((2**30 - planner["fixed"]) // column))
    windows, cell = cut_windows((side, side), widest)
    return Workload(
        images=1,
        shards=len(windows),
        pixels=side * side / len(windows) / 1e6,
        outputs=2,
        found=TILES_OF_CONTINENT * REVISITS,
        scenes=scenes,
        sources=len(BANDS) * (2 * DATES if local else scenes),
        shared_levels=shared_levels((side, side), cell),
        pieces=pieces_of(windows[0], side, shared_levels((side, side), cell)),
        item_bytes=2,
        samples=samples_of(found["composite" if local else "narrow"]),
    )


def save() -> None:
    """Measure, and write `scale.json`."""
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder))
    MEASURED.write_text(json.dumps({"machine": machine(), **found}, indent=1) + "\n")


def usd(run: Run) -> float:
    """Return what a simulated run costs: workers until its end, and requests to the bucket."""
    value = {name: assumption.value for name, assumption in ASSUMED.items()}
    hour = value["cores"] * value["CPU hour"] + value["memory"] * value["GB hour"]
    requests = run.counts["class A"] * value["class A"] + run.counts["class B"] * value["class B"]
    return run.paid / 3600 * hour + requests / 1000


def used(run: Run) -> dict[str, float]:
    """Return the share of the capacity of each resource that was used while tasks were made."""
    seconds = run.phases["tasks"]
    around = run.environment
    shares = {"CPU": run.cpu / (run.machines * around.cores * seconds)}
    read_bytes = run.limits["source bytes"].units
    shares["download"] = read_bytes / (run.machines * around.download * seconds)
    for name, limit in run.limits.items():
        shares[name] = limit.busy / seconds
    return shares


def limited_by(run: Run) -> str:
    """Name the longest phase; of the tasks, the resource that is used most."""
    phase, seconds = max(run.phases.items(), key=lambda item: item[1])
    name = phase
    if phase == "tasks":
        resource, share = max(used(run).items(), key=lambda item: item[1])
        name = f"tasks: {resource} ({100 * share:.0f} %)"
        if share < 0.5 and run.machines * run.environment.slots > run.workload.tasks / 2:
            name = "tasks: late workers and stragglers"
    return f"{name}, {100 * seconds / run.seconds:.0f} % of the time"


def minutes(seconds: float) -> str:
    """Format seconds as minutes."""
    return f"{seconds / 60:,.1f}"


def middle(workload: Workload, costs: Costs, machines: int, design: Design) -> Run:
    """Simulate with several seeds, and return the run of the median duration."""
    runs = []
    for seed in SEEDS:
        runs.append(Run(workload, costs, cloud(), machines, design, seed).simulate())
    return sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]


PHASES = ("search", "plan", "launch", "read plan", "tasks", "assembly", "outcomes", "report")


def use_cells(run: Run) -> list[str]:
    """Return the cells of what a run used: shares, with the hours that tasks waited in all."""
    cells = []
    for name, share in used(run).items():
        waited = run.limits[name].waited / 3600 if name in run.limits else 0.0
        cells.append(f"{100 * share:.0f} %" + (f", {waited:,.1f} h" if waited >= 0.05 else ""))
    span = run.phases["tasks"] + run.phases["assembly"]
    slots = run.machines * run.environment.slots
    cells.append(f"{sum(run.spent.values()) / span:,.0f} of {slots:,}")
    return [*cells, f"{run.counts['retried']:,}", f"{run.counts['assemblies']:,}"]


def print_workload(name: str, workload: Workload, costs: Costs) -> None:
    """Print the tables of a workload: time and cost, what is used, and the designs."""
    print(
        f"\n{name}: {workload.tasks:,} tasks of {workload.pixels:.1f} million pixels, "
        f"{workload.images} x {workload.outputs} COGs of {workload.shards:,} parts, "
        f"{workload.tasks * workload.sources:,} files in the plan\n"
    )
    # The product decides by the pixels of the grid.
    code = replace(NEW, compose=workload.pixels * workload.shards * 1e6 >= COMPOSED_PIXELS)
    runs = {workers: middle(workload, costs, workers, code) for workers in WORKERS}
    print_header("workers", "minutes", "USD", *PHASES, "most time is for")
    for workers, run in runs.items():
        phases = [minutes(run.phases[phase]) for phase in PHASES]
        cost = f"{usd(run):,.2f}"
        print_row(f"{workers:,}", minutes(run.seconds), cost, *phases, limited_by(run))
    print()
    others = ("tasks at once", "made again", "assembled")
    print_header("workers", "CPU", "download", *RESOURCES, *others)
    for workers, run in runs.items():
        print_row(f"{workers:,}", *use_cells(run))
    print()
    columns = [f"{workers:,} workers: minutes, USD" for workers in WORKERS]
    print_header("design", *columns, *(f"{step}, s" for step in ASSEMBLY))
    designs = {
        f"as this code does: {'composed' if code.compose else 'downloaded'}": code,
        "the same, composed in the bucket": replace(code, compose=True),
        "the same, one worker downloads all parts": replace(code, compose=False),
        "the same, ids of tasks and the whole plan on each worker": replace(code, ranges=0),
        "the same, one worker collects all outcomes": replace(code, tree=False),
        "ids of tasks, downloads, and all outcomes on one worker": OLD,
        "the same, a claim before an image is assembled": replace(code, claim=True),
        "the same, ranges of 10 rows": replace(code, ranges=10),
        "the same, ranges of 100 rows": replace(code, ranges=100),
    }
    for label, design in designs.items():
        if design == code and not label.startswith("as"):
            continue
        cells = []
        for workers in WORKERS:
            run = middle(workload, costs, workers, design)
            cells.append(f"{minutes(run.seconds)}, {usd(run):,.2f}")
        steps = [f"{run.assembly[step]:,.0f}" for step in ASSEMBLY]
        print_row(label, *cells, *steps)


def simulate() -> None:
    """Print the tables of all workloads, and the assumptions."""
    found = json.loads(MEASURED.read_text())
    costs = costs_of(found)
    print_workload("NDVI", ndvi(found), costs)
    print_workload("Continent, as planned today", continent(found, local=False), costs)
    print_workload(
        "Continent, each task with the scenes of its window", continent(found, local=True), costs
    )
    print()
    print_header("assumption", "value", "unit", "reason")
    for name, assumption in ASSUMED.items():
        print_row(name, f"{assumption.value:,g}", assumption.unit, assumption.reason)
    print()
    print_header("measured", "seconds, or bytes")
    for name, value in vars(costs).items():
        print_row(name.replace("_", " "), f"{value:.3g}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "command", nargs="?", default="simulate", choices=("simulate", "measure", "validate")
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.0, help="bytes/s per connection")
    parser.add_argument("--one")
    args = parser.parse_args(arguments)
    if args.one:
        print(json.dumps(real(json.loads(args.one))))
    elif args.command == "measure":
        save()
    elif args.command == "validate":
        validate(__file__, costs_of(json.loads(MEASURED.read_text())), args.rounds, args.rate)
    else:
        simulate()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
