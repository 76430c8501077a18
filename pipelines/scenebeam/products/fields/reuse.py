"""Kept: what stands of field chips when a plan with other thresholds or scenes, or one that goes further, follows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from scenebeam.products.fields.request import FieldsRequest
from scenebeam.products.fields.task import MASKS, ChipRef, FieldsTask
from scenebeam.request.markers import Marker, marked_fields


def reusable_outputs(before: Sequence[FieldsTask], after: Sequence[FieldsTask]) -> set[str]:
    """Names of what the tasks of a plan have made and its successor's would make again.

    Chips may be in other cells now, which follow the scenes: masks stay, and images whose scenes may be chosen again.
    """
    following = {task.id: task for task in after}
    cells = {(task.step, chip): task for task in after for chip in task.chips}
    names: set[str] = set()
    for task in before:
        successor = following.get(task.id)
        if successor is not None and _goes_further(task, successor):
            names.update(_all_but_table(task, successor))
            continue
        for chip in task.chips:
            successor = cells.get((task.step, chip))
            if successor is not None and _has_recipe_of(task, successor):
                names.update(_files(successor, chip))
    return names


def _goes_further(before: FieldsTask, after: FieldsTask) -> bool:
    """Whether only how far the run goes has changed."""
    early = before.product.images == "select"  # how images are made was of no account yet
    product = (
        after.product
        if early
        else before.product.model_copy(update={"images": after.product.images})
    )
    further = before.model_copy(
        update={
            "product": product,
            "checks": after.checks if early else before.checks,
            "outputs": after.outputs,
            "estimate": after.estimate,
            "steps": after.steps,
        }
    )
    return further == after


def _all_but_table(before: FieldsTask, after: FieldsTask) -> Iterable[str]:
    """All that a task has made; not the table of the cell's items where it goes further now."""
    same = before.product.images == after.product.images
    return (
        before.possible_outputs
        if same
        else [name for name in before.possible_outputs if name != before.item_path]
    )


def _has_recipe_of(before: FieldsTask, after: FieldsTask) -> bool:
    """Whether masks and images are made in the same way, of whichever scene."""
    adjustable = marked_fields(FieldsRequest, Marker.ADJUSTABLE)
    other = {name: getattr(before.product, name) for name in {"images", *adjustable}}
    parts = ("crs", "pixel", "shape", "catalogue", "checks")
    same = all(getattr(before, name) == getattr(after, name) for name in parts)
    return same and after.product.model_copy(update=other) == before.product


def _files(task: FieldsTask, chip: ChipRef) -> Iterator[str]:
    if task.step == "masks":
        yield from (task.mask_name(chip, mask) for mask in MASKS)
    else:
        yield from (task.item_name(chip), task.image_name(chip), task.picture_name(chip))
