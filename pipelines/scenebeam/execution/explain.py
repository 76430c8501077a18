"""Explain a plan: what it will read, write and cost, as numbers and as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import ByteSize

from scenebeam.execution.runners import check_runner, choose_runner
from scenebeam.imaging.estimate import PROCESS_MEMORY
from scenebeam.planning.cost import advice, dataflow_cost, local_seconds
from scenebeam.planning.plan import Plan
from scenebeam.planning.work import Work
from scenebeam.products import product_of


def explain(plan: Plan, work: Work | None = None) -> dict[str, Any]:
    """Describe what a plan takes: scenes, tasks, requests, bytes, memory, time and cost.

    Args:
        plan: A plan, as `plan` returns it.
        work: What is left to do in the output; default: everything. Requests, bytes, time and cost
            are those of what is left.

    Returns:
        Numbers by name. Sizes are bytes and times seconds. Where an estimate may be off by more
        than a third, it is a pair of the smallest and the largest value.
    """
    check_runner(plan.request)
    rest = plan if work is None else replace(plan, tasks=work.undone)
    estimate, runner = rest.estimate, plan.request.runner
    minutes, usd = dataflow_cost(estimate, runner)
    faults = [{"task": task.id, "reason": task.fault} for task in plan.tasks if task.fault]
    scenes: set[str] = set()
    lacking: Counter[str] = Counter()
    for task in plan.tasks:
        scenes.update(task.sources)
        lacking.update(task.lacking)
    memory = estimate.memory
    if product_of(plan.request.product.kind).io_bound:
        # Many such tasks run at once, and share the memory of the process.
        memory += PROCESS_MEMORY
    return {
        "run": plan.request.run,
        "selection": plan.selection,
        "scenes": len(scenes),
        "products": plan.products,
        "tasks": len(plan.tasks),
        "existing": work.describe() if work is not None and (work.kept or work.replaced) else "",
        "faults": faults,
        "lacking_bands": dict(sorted(lacking.items())),
        "blocks": estimate.blocks,
        "requests": [estimate.requests, estimate.most_requests],
        "read_bytes": [estimate.read_bytes, estimate.most_read_bytes],
        "write_bytes": [estimate.write_bytes, estimate.most_write_bytes],
        "memory_bytes": memory,
        "runner": choose_runner(rest),
        "seconds": round(local_seconds(estimate), 1),
        "dataflow": {"minutes": round(minutes, 1), "usd": round(usd, 2)},
        "advice": advice(estimate, runner),
        "output": plan.request.output,
    }


def describe(facts: dict[str, Any]) -> dict[str, Any]:
    """The result of `explain` as text, by label; empty where there is nothing to say."""
    faults, dataflow = facts["faults"], facts["dataflow"]
    impossible = ""
    if faults:
        impossible = f"{len(faults)}; the first, {faults[0]['task']}: {faults[0]['reason']}"
    lacking = [f"{band} in {count} tasks" for band, count in facts["lacking_bands"].items()]
    return {
        "run": facts["run"],
        "selection": facts["selection"],
        "scenes": facts["scenes"],
        "products": facts["products"],
        "tasks": facts["tasks"] if facts["tasks"] != facts["products"] else "",
        "in the output": facts["existing"],
        "cannot be made": impossible,
        "missing bands": ", ".join(lacking),
        "blocks": facts["blocks"],
        "requests": _range([f"{number:,}" for number in facts["requests"]]),
        "bytes to read": _range([_size(number) for number in facts["read_bytes"]]),
        "bytes to write": _range([_size(number) for number in facts["write_bytes"]]),
        "memory per task": _size(facts["memory_bytes"]),
        "runner": facts["runner"],
        "time here": f"about {max(facts['seconds'] / 60, 0.1):.1f} min",
        "on Dataflow": f"about {dataflow['minutes']:.0f} min and {dataflow['usd']:.2f} USD",
        "advice": facts["advice"],
        "output": facts["output"],
    }


def _range(ends: Sequence[str]) -> str:
    smallest, largest = ends
    return smallest if smallest == largest else f"{smallest} to {largest}"


def _size(count: int) -> str:
    return ByteSize(count).human_readable(decimal=True)
