"""Kept: what stands of a task when one with other thresholds, or one that goes further, takes its place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from scenebeam.products.fields.task import MASKS, FieldsTask


def kept(before: FieldsTask, after: FieldsTask) -> Iterable[str]:
    """All that a task has made stays where only how far the run goes has changed, but the table of the cell's items."""
    early = before.product.images == "select"  # how images are made was of no account yet
    product = after.product if early else before.product.model_copy(update={"images": after.product.images})
    further = before.model_copy(
        update={
            "product": product,
            "checks": after.checks if early else before.checks,
            "outputs": after.outputs,
            "estimate": after.estimate,
            "steps": after.steps,
        }
    )
    if further != after:
        return _still_good(before, after)
    same = before.product.images == after.product.images
    return before.everything if same else [name for name in before.everything if name != before.item_path]


def _still_good(before: FieldsTask, after: FieldsTask) -> Iterator[str]:
    """Files of a task that one with other thresholds may keep: masks, and images of scenes that are chosen again."""
    other = {name: getattr(before.product, name) for name in {"images", *after.product.adjustable}}
    recipe = after.product.model_copy(update=other)
    grid = ("step", "crs", "pixel", "shape", "squares", "catalogue", "checks")
    if recipe != before.product or any(getattr(before, name) != getattr(after, name) for name in grid):
        return
    if after.step == "masks":
        if before.chips == after.chips:
            yield after.record
            yield from (after.mask_name(chip, mask) for chip in after.chips for mask in MASKS)
        return
    same = set(before.chips) & set(after.chips)
    for chip in same:
        yield from (after.item_name(chip), after.image_name(chip), after.picture_name(chip))
