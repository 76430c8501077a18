"""Explain: what a plan will take, in figures for machines and words for people."""

from __future__ import annotations

from typing import Any

from scenebeam.run.plan import Plan
from scenebeam.run.runners import advice, choose_runner, dataflow_cost, seconds_here


def explain(plan: Plan) -> dict[str, Any]:
    """Scenes, tasks, requests, bytes, memory, time and cost of a plan, by name."""
    size = plan.estimate
    minutes, usd = dataflow_cost(size)
    faults = [f"{task.id}: {task.fault}" for task in plan.tasks if task.fault]
    scenes = {scene for task in plan.tasks for scene in task.sources}
    return {
        "run": plan.request.run,
        "selection": plan.selection,
        "scenes": len(scenes),
        "tasks": len(plan.tasks),
        **({"cannot be made": f"{len(faults)}; the first, {faults[0]}"} if faults else {}),
        "blocks": size.blocks,
        "requests": size.requests,
        "bytes to read": _bytes(size.read_bytes),
        "bytes to write": _bytes(size.write_bytes),
        "memory per task": _bytes(size.memory),
        "runner": choose_runner(plan),
        "time here": f"about {max(seconds_here(size) / 60, 0.1):.1f} min",
        "on Dataflow": f"about {minutes:.0f} min and {usd:.2f} USD",
        "advice": advice(size),
        "output": plan.request.output,
    }


def _bytes(count: int) -> str:
    from pydantic import ByteSize

    return ByteSize(count).human_readable(decimal=True)
