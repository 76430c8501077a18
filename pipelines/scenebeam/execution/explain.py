"""Explain: what a plan will take, in figures for machines and words for people."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pydantic import ByteSize

from scenebeam.execution.cost import advice, dataflow_cost, local_seconds
from scenebeam.execution.runners import choose_runner
from scenebeam.imaging.estimate import PROCESS
from scenebeam.planning.plan import Plan
from scenebeam.products import product_of


def explain(plan: Plan) -> dict[str, Any]:
    """Scenes, tasks, requests, bytes, memory, time and cost of a plan, by name.

    What cannot be told within a third is a pair of numbers, from least to most. Bytes are bytes, and times seconds.
    """
    size = plan.estimate
    minutes, usd = dataflow_cost(size)
    faults = [{"task": task.id, "reason": task.fault} for task in plan.tasks if task.fault]
    scenes = {scene for task in plan.tasks for scene in task.sources}
    lacking = Counter(band for task in plan.tasks for band in task.lacking)
    return {
        "run": plan.request.run,
        "selection": plan.selection,
        "scenes": len(scenes),
        "tasks": len(plan.tasks),
        "faults": faults,
        "lacking_bands": dict(sorted(lacking.items())),
        "blocks": size.blocks,
        "requests": [size.requests, size.most_requests],
        "read_bytes": [size.read_bytes, size.most_read_bytes],
        "write_bytes": [size.write_bytes, size.most_write_bytes],
        # Tasks that just wait are made many at once, and share what the process holds.
        "memory_bytes": size.memory
        + (PROCESS if product_of(plan.request.product.kind).io_bound else 0),
        "runner": choose_runner(plan),
        "seconds": round(local_seconds(size), 1),
        "dataflow": {"minutes": round(minutes, 1), "usd": round(usd, 2)},
        "advice": advice(size),
        "output": plan.request.output,
    }


def describe(facts: dict[str, Any]) -> dict[str, Any]:
    """The same in words, by what people call it; empty where there is nothing to say."""
    faults, lacking = facts["faults"], facts["lacking_bands"]
    told = f"{len(faults)}; the first, {faults[0]['task']}: {faults[0]['reason']}" if faults else ""
    dataflow = facts["dataflow"]
    return {
        "run": facts["run"],
        "selection": facts["selection"],
        "scenes": facts["scenes"],
        "tasks": facts["tasks"],
        "cannot be made": told,
        "bands that are missing": ", ".join(
            f"{band} in {count} tasks" for band, count in lacking.items()
        ),
        "blocks": facts["blocks"],
        "requests": _span([f"{number:,}" for number in facts["requests"]]),
        "bytes to read": _span([_bytes(number) for number in facts["read_bytes"]]),
        "bytes to write": _span([_bytes(number) for number in facts["write_bytes"]]),
        "memory per task": _bytes(facts["memory_bytes"]),
        "runner": facts["runner"],
        "time here": f"about {max(facts['seconds'] / 60, 0.1):.1f} min",
        "on Dataflow": f"about {dataflow['minutes']:.0f} min and {dataflow['usd']:.2f} USD",
        "advice": facts["advice"],
        "output": facts["output"],
    }


def _span(ends: list[str]) -> str:
    least, most = ends
    return least if least == most else f"{least} to {most}"


def _bytes(count: int) -> str:
    return ByteSize(count).human_readable(decimal=True)
