"""What a run has left to do in its output."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

from scenebeam.planning.plan import Plan
from scenebeam.storage import Store
from scenebeam.tasks import Task


@dataclass(frozen=True)
class Work:
    """The tasks of a plan, by what a run does with them."""

    kept: int
    """Tasks that are done already."""
    undone: Sequence[Task]
    """Tasks that are made."""
    replaced: int
    """Those of them that replace the products of an earlier plan."""

    def describe(self) -> str:
        """Return a line such as `3 kept, 2 new, 1 replaced`; what is zero is left out."""
        new = len(self.undone) - self.replaced
        counts = {"kept": self.kept, "new": new, "replaced": self.replaced}
        return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def count_work(plan: Plan, store: Store, superseded: Set[str] = frozenset()) -> Work:
    """Compare a plan with what its output holds.

    Args:
        plan: The plan.
        store: The output.
        superseded: Keys of files that the plan supersedes, in addition to those that already are.
    """
    existing = store.list()
    stale = store.superseded() | (existing & superseded)
    undone = plan.undone(existing - superseded)
    replaced = 0
    if stale:
        replaced = sum(not stale.isdisjoint(task.possible_outputs) for task in undone)
    return Work(len(plan.tasks) - len(undone), undone, replaced)
