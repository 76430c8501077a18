"""The shards of gridded products in the tables of a run, and why a product was not made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from scenebeam.imaging.gridded import NO_SCENES
from scenebeam.imaging.gridded_task import GriddedTask
from scenebeam.tasks import Outcome

GriddedTaskT = TypeVar("GriddedTaskT", bound=GriddedTask)


def shards_by_name(tasks: Iterable[GriddedTaskT]) -> dict[str, list[GriddedTaskT]]:
    """Group tasks by the product that they are shards of, in the order of the plan."""
    shards: dict[str, list[GriddedTaskT]] = {}
    for task in tasks:
        shards.setdefault(task.name, []).append(task)
    return shards


def failed_outcomes(
    shards: Sequence[GriddedTask], outcomes: Mapping[str, Outcome]
) -> list[Outcome]:
    """Return the outcomes of shards that were not made.

    Args:
        shards: The shards of one product.
        outcomes: Outcomes of this run, by task id.
    """
    failures = []
    for shard in shards:
        outcome = outcomes.get(shard.id)
        if outcome is not None and outcome.state != "done":
            failures.append(outcome)
    return failures


def describe_failure(failures: Sequence[Outcome]) -> tuple[str, str]:
    """Return the status and the message of a product that was not made.

    Args:
        failures: Outcomes of its shards, as `failed_outcomes` returns them.

    Returns:
        (status, message): the status that a product gives a failure, or `exception`.
    """
    kinds = [one.kind for one in failures if one.kind.startswith(("failed_", NO_SCENES))]
    message = failures[0].reason if failures else "not made yet"
    return kinds[0] if kinds else "exception", message
