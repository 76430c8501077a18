"""Make: choose the scenes of a cell's chips, make their images or masks, and put the cell's items together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from scenebeam.products import stac
from scenebeam.products.fields.cells import put_together
from scenebeam.products.fields.choose import Choice, choose
from scenebeam.products.fields.images import make_images
from scenebeam.products.fields.items import image_item
from scenebeam.products.fields.masks import make_masks
from scenebeam.products.fields.task import CELLS, ChipRef, FieldsTask
from scenebeam.products.task import Outcome
from scenebeam.storage import Store
from scenebeam.transfer.ranges import Budget, io_threads


def make(task: FieldsTask, store: Store, budget: Budget) -> Outcome:
    """Make one step of a cell. What stands already is not made again.

    A chip that fails is named in the outcome, and loses none of the others: the next run makes it alone.
    Raises ReadError where a file may be read later.
    """
    existing = store.list(f"{CELLS}{task.cell}/")
    if task.step == "masks":
        if task.record not in existing:
            store.write(task.record, stac.dump(make_masks(task, store)))
        return put_together(task, store)
    resumed = task.record in existing
    choices = read_choices(task, store) if resumed else choose(task, budget)
    without = [choice for choice in choices if choice.scene is None]
    if without and task.product.on_missing == "fail":
        return _failed(task, {choice.chip: choice.reason for choice in without}, "failed_no_scene")
    if not resumed:
        _publish_choices(task, choices, store)
    if task.downloads:
        failed = _download(task, choices, store, budget, afresh=not resumed)
        if failed:
            return _failed(task, failed, "failed_chips")
        store.write(task.images_record, stac.dump({"images": sum(choice.scene is not None for choice in choices)}))
    return put_together(task, store)


def _failed(task: FieldsTask, chips: dict[str, str], kind: str) -> Outcome:
    first = next(iter(chips.items()))
    more = f", and {len(chips) - 1} others" if len(chips) > 1 else ""
    reason = f"{len(chips)} of {len(task.chips)} chips: {first[0]}: {first[1]}{more}"
    return Outcome(task=task.id, state="failed", kind=kind, reason=reason, detail={"chips": chips})


def read_choices(task: FieldsTask, store: Store) -> list[Choice]:
    """What was chosen before."""
    content = store.read(task.record)
    assert content is not None, "it has just been listed"
    return [Choice.model_validate(one) for one in json.loads(content)["choices"]]


def _publish_choices(task: FieldsTask, choices: Sequence[Choice], store: Store) -> None:
    """The record of what was chosen, last; and before it the items, unless the images bring theirs at once."""
    if not task.downloads:
        chips = {chip.name: chip for chip in task.chips}
        _write_all(
            store,
            (
                (task.item_name(chips[one.chip]), image_item(task, chips[one.chip], one, None, None))
                for one in choices
                if one.scene is not None
            ),
        )
    document = {"cell": task.cell, "season": task.step, "choices": [one.model_dump(mode="json") for one in choices]}
    store.write(task.record, stac.dump(document))


def _write_all(store: Store, documents: Iterable[tuple[str, dict[str, Any]]]) -> None:
    list(io_threads().map(lambda named: store.write(named[0], stac.dump(named[1])), documents))


def _download(
    task: FieldsTask, choices: Sequence[Choice], store: Store, budget: Budget, *, afresh: bool
) -> dict[str, str]:
    """Make the images that do not stand yet; chip → why it has none."""
    chips = {chip.name: chip for chip in task.chips}
    wanted = [choice for choice in choices if choice.scene is not None]
    if not afresh:
        here = io_threads().map(lambda one: _is_whole(task, chips[one.chip], store), wanted)
        wanted = [choice for choice, whole in zip(wanted, here, strict=True) if not whole]
    return make_images(task, wanted, store, budget)


def _is_whole(task: FieldsTask, chip: ChipRef, store: Store) -> bool:
    """Whether a chip's image stands, and beside it its item."""
    return {task.image_name(chip), task.item_name(chip)} <= store.list(f"{chip.name}/")
