"""Decide which outputs of an earlier plan of field chips are valid for the plan that replaces it.

A plan is replaced if thresholds or scenes change, or if the run is to go further (from masks to
scenes to imagery).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from scenebeam.products.fields.request import FieldsRequest
from scenebeam.products.fields.task import ChipRef, FieldsTask
from scenebeam.request.markers import Marker, marked_fields


def reusable_outputs(before: Sequence[FieldsTask], after: Sequence[FieldsTask]) -> set[str]:
    """Return the keys of outputs of one plan that the plan replacing it does not make again.

    A task that only goes further keeps all it has made. Otherwise other scenes may be chosen, chips
    may be in other splits, and the cells may be different, as they follow the tiles of the scenes.
    Then each chip keeps its masks or images, if they would be made in the same way: whether an
    image is of the right scene is checked when it is made.

    Args:
        before: The tasks of the earlier plan.
        after: The tasks of the plan that replaces it.
    """
    after_by_id = {task.id: task for task in after}
    after_by_chip: dict[tuple[str, ChipRef], FieldsTask] = {}
    for task in after:
        for chip in task.chips:
            after_by_chip[task.step, chip._replace(split="")] = task
    keys: set[str] = set()
    for task in before:
        successor = after_by_id.get(task.id)
        if successor is not None and _only_goes_further(task, successor):
            keys.update(_outputs_to_keep(task, successor))
            continue
        for chip in task.chips:
            successor = after_by_chip.get((task.step, chip._replace(split="")))
            if successor is not None and _makes_same_files(task, successor):
                keys.update(successor.chip_keys(chip))
    return keys


def _only_goes_further(before: FieldsTask, after: FieldsTask) -> bool:
    """Whether two tasks differ only in how far the run goes."""
    # Up to the selection of scenes, the options of images have no effect, so they may change.
    if before.product.images == "select":
        product, checks = after.product, after.checks
    else:
        product = before.product.model_copy(update={"images": after.product.images})
        checks = before.checks
    further = before.model_copy(
        update={
            "product": product,
            "checks": checks,
            "outputs": after.outputs,
            "estimate": after.estimate,
            "steps": after.steps,
        }
    )
    return further == after


def _outputs_to_keep(before: FieldsTask, after: FieldsTask) -> Iterable[str]:
    """Return all outputs of a task; without its table of items if the cell now goes further."""
    if before.product.images == after.product.images:
        return before.possible_outputs
    return [key for key in before.possible_outputs if key != before.item_path]


def _makes_same_files(before: FieldsTask, after: FieldsTask) -> bool:
    """Whether two tasks make masks and images in the same way, from whichever scene."""
    for name in ("crs", "pixel", "shape", "catalog", "checks"):
        if getattr(before, name) != getattr(after, name):
            return False
    # Adjustable fields decide which scene is chosen, not how its image is made.
    ignored = {"images", *marked_fields(FieldsRequest, Marker.ADJUSTABLE)}
    values = {name: getattr(before.product, name) for name in ignored}
    values["grid"] = after.product.grid.model_copy(update={"split": before.product.grid.split})
    return after.product.model_copy(update=values) == before.product
