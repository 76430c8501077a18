"""Give way to another plan: outputs stay readable until new ones replace them."""

from __future__ import annotations

from collections.abc import Container, Set

from scenebeam.imaging.shards import PARTS_PREFIX
from scenebeam.planning.plan import Plan
from scenebeam.products import product_of
from scenebeam.storage import Store


def supersede_outputs(
    plan: Plan, store: Store, *, successor: Plan | None = None, kept: Set[str] = frozenset()
) -> None:
    """Mark the outputs of a plan as superseded.

    Outputs that the successor would make again in the same way are kept as they are. All others
    stay until new ones replace them; those without a replacement are removed when the successor is
    finished.

    Args:
        plan: The frozen plan.
        store: Where its outputs are.
        successor: The plan that follows; None: keep nothing.
        kept: Keys of files that stay as they are.
    """
    files = replaced_outputs(plan, store, successor) - kept
    store.supersede(files)
    # Files that cannot be superseded are incomplete.
    store.delete(sorted(files - store.superseded()))
    # Parts of a version are those of its successor too: a sharded product goes on where it was.
    following = successor.tasks if successor is not None else ()
    prefixes = tuple({task.version_parts for task in following if task.version})
    parts = store.list(PARTS_PREFIX) - _kept_outputs(plan, successor)
    store.delete(sorted(key for key in parts if not (prefixes and key.startswith(prefixes))))


def replaced_outputs(plan: Plan, store: Store, successor: Plan | None = None) -> set[str]:
    """Keys of what the tasks of a plan may have written, without what its successor keeps.

    Args:
        plan: The frozen plan.
        store: Where its outputs are.
        successor: The plan that follows; None: keep nothing.
    """
    following = {task.id: task for task in successor.tasks} if successor is not None else {}
    unchanged = {task.id for task in plan.tasks if following.get(task.id) == task}
    files = possible_outputs(plan, store, without_folders_of=unchanged)
    return files - _kept_outputs(plan, successor)


def _kept_outputs(plan: Plan, successor: Plan | None) -> set[str]:
    following = successor.tasks if successor is not None else ()
    return product_of(plan.request.product.kind).reusable_outputs(plan.tasks, following)


def possible_outputs(plan: Plan, store: Store, without_folders_of: Container[str] = ()) -> set[str]:
    """Keys of everything that the tasks of a plan may have written.

    Args:
        plan: The plan.
        store: Where its outputs are.
        without_folders_of: Ids of tasks whose own folders are left out.
    """
    files: set[str] = set()
    for task in plan.tasks:
        files.update(task.possible_outputs)
    folders = {task.output_prefix for task in plan.tasks if task.id not in without_folders_of}
    folders.discard("")
    if folders:
        files.update(name for name in store.list() if name.rpartition("/")[0] in folders)
    return files
