"""The simulator of scale: exact where a run has no noise."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from scale import MEASURED, costs_of, ndvi
from scale_events import Process, RateLimit, Simulation
from scale_inputs import NEW, OLD, Costs, Environment, Sample, Workload
from scale_model import Run

FREE = Costs(**dict.fromkeys(Costs.__dataclass_fields__, 0.0))
SECONDS = Sample(seconds=10.0, cpu=1.0, read_bytes=100.0, requests=5.0, written=7.0)
WHOLE = Workload(
    images=10, shards=1, pixels=1.0, outputs=1, found=0, scenes=0, sources=0, shared_levels=1,
    pieces=1, item_bytes=2, samples=[SECONDS],
)  # fmt: skip
SHARDED = replace(WHOLE, images=2, shards=40, outputs=2)
QUIET = Environment(cores=1, slots=1)
NOISY = Environment(
    cores=2, slots=3, launch=60.0, launch_spread=0.3, preemptions=2.0, stragglers=0.1, latency=0.05,
    stream=1e6, download=1e6, compose=1.0, rates={"bucket writes": (10.0, 1200.0)},
)  # fmt: skip


@pytest.mark.parametrize("machines", [1, 3, 4, 10, 25])
def test_equal_tasks_take_whole_rounds(machines: int) -> None:
    assert Run(WHOLE, FREE, QUIET, machines).simulate().seconds == 10 * math.ceil(10 / machines)


def test_tasks_that_share_a_machine_share_its_cores_and_its_network() -> None:
    hard = replace(WHOLE, samples=[replace(SECONDS, cpu=10.0)])
    assert Run(hard, FREE, replace(QUIET, slots=2), 1).simulate().seconds == 100
    assert Run(hard, FREE, replace(QUIET, slots=2, cores=2), 1).simulate().seconds == 50
    slow = replace(QUIET, slots=2, download=5.0)
    assert Run(WHOLE, FREE, slow, 1).simulate().seconds == 10 * 100 / 5


def test_a_rate_that_is_exceeded_decides_alone() -> None:
    around = replace(QUIET, rates={"source requests": (0.5, math.inf)})
    run = Run(WHOLE, FREE, around, 10).simulate()
    assert run.seconds == 10 * 5 / 0.5
    assert run.limits["source requests"].busy == run.seconds
    assert run.limits["source requests"].waited == 10 * sum(range(10))


def test_a_resource_doubles_its_rate_from_the_first_wait() -> None:
    limit = RateLimit(1.0, doubling=10.0)
    assert limit.reserve(0.0, 5.0) == 5
    # 5 units at 1 per second until 10, then 10 units at 2 per second.
    assert limit.reserve(0.0, 15.0) == 15
    assert limit.units == 20


def test_processes_resume_in_order_and_by_signals() -> None:
    simulation, seen = Simulation(), []

    def process(name: str, seconds: float) -> Process:
        yield seconds
        seen.append((simulation.now, name))

    for name, seconds in (("late", 2.0), ("early", 1.0), ("also late", 2.0)):
        simulation.start(process(name, seconds))
    simulation.run()
    assert seen == [(1.0, "early"), (2.0, "late"), (2.0, "also late")]


def test_every_shard_is_made_and_every_image_assembled() -> None:
    around = replace(QUIET, compose=1.0)
    run = Run(SHARDED, FREE, around, 5).simulate()
    assert run.counts["part bytes"] == 80 * 7
    assert run.counts["assemblies"] >= 2
    # 42 objects need two calls at once, and their two results one more; both bands, one by one.
    assert run.phases["assembly"] == 2 * (1 + 1)


def test_shards_that_end_at_once_assemble_twice_unless_one_claims() -> None:
    one, slow = replace(SHARDED, images=1), replace(QUIET, latency=0.1)
    assert Run(one, FREE, slow, 40).simulate().counts["assemblies"] == 40
    assert Run(one, FREE, slow, 40, replace(NEW, claim=True)).simulate().counts["assemblies"] == 1
    assert Run(one, FREE, QUIET, 1).simulate().counts["assemblies"] == 1


def test_a_preempted_task_is_made_again() -> None:
    calm = Run(SHARDED, FREE, replace(NOISY, preemptions=0.0), 2).simulate()
    run = Run(SHARDED, FREE, replace(NOISY, preemptions=20.0), 2).simulate()
    assert calm.counts["retried"] == 0
    assert run.counts["retried"] > 0
    assert run.counts["part bytes"] == calm.counts["part bytes"]
    assert run.seconds > calm.seconds


def test_each_worker_reads_the_whole_plan_without_ranges() -> None:
    costs = replace(FREE, read_task=1.0)
    assert Run(WHOLE, costs, QUIET, 5, NEW).simulate().phases["tasks"] == 2 * (10 + 1)
    assert Run(WHOLE, costs, QUIET, 5, OLD).simulate().phases["tasks"] == 10 + 2 * 10


def test_the_same_seed_gives_the_same_run() -> None:
    runs = [Run(SHARDED, FREE, NOISY, 3, NEW, seed).simulate() for seed in (1, 1, 2)]
    assert runs[0].phases == runs[1].phases
    assert runs[0].counts == runs[1].counts
    assert runs[0].phases != runs[2].phases


def test_more_workers_are_not_slower_on_average() -> None:
    means = []
    for machines in (1, 2, 4, 8, 16):
        runs = [Run(SHARDED, FREE, NOISY, machines, NEW, seed).simulate() for seed in range(10)]
        means.append(mean(run.seconds for run in runs))
    assert means == sorted(means, reverse=True)


def test_the_recorded_file_has_every_measure() -> None:
    found = json.loads(MEASURED.read_text())
    costs, workload = costs_of(found), ndvi(found)
    assert all(value >= 0 for value in vars(costs).values())
    run = Run(workload, costs, QUIET, 100).simulate()
    cpu = mean(sample.cpu for sample in workload.samples) * workload.pixels * workload.tasks
    assert run.cpu == pytest.approx(cpu, rel=0.05)
