"""Make one step of a cell: choose scenes and make images, or draw masks.

A step may be interrupted at any time, and is resumed from what it has published. The order in which
files are written makes that safe:

1. `cells/<cell>/<season>.json` records the choices. Once it exists, scenes are not chosen again.
2. Each image is published before its item. An image alone says nothing, but one whose checksum is
   in its item is complete.
3. `cells/<cell>/<season>_images.json` is written when all images exist.
4. The step that finishes last writes the items of the chips and of the cell.

The pixels of a chosen scene may turn out to be unusable: a hole that its metadata do not mention.
Then the choice is repeated without that scene, and recorded again before the next image is made.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence

from scenebeam.metadata import stac_items
from scenebeam.metadata.item_tables import BytesFile, read_required
from scenebeam.products.fields.cells import finish_cell
from scenebeam.products.fields.choose import Choice, choose
from scenebeam.products.fields.images import make_images
from scenebeam.products.fields.items import image_item
from scenebeam.products.fields.masks import make_masks
from scenebeam.products.fields.task import CELLS, ChipRef, FieldsTask
from scenebeam.storage import Store
from scenebeam.tasks import Outcome
from scenebeam.transfer.pools import io_threads
from scenebeam.transfer.retry import Budget

log = logging.getLogger(__name__)


def make_step(task: FieldsTask, store: Store, budget: Budget) -> Outcome:
    """Make one step of a cell. Existing outputs are kept.

    Args:
        task: The step.
        store: Where its outputs are published.
        budget: The task's budget for retries.

    Returns:
        The outcome. If some chips fail it names them; the other chips are complete, and the next
        run makes only the failed ones.

    Raises:
        ReadError: A file cannot be read at the moment, and a later attempt may succeed.
        StorageError: An output cannot be published.
    """
    existing = store.list(f"{CELLS}{task.cell}/")
    # A recorded step has been interrupted, or only lacks images: it resumes from its record.
    is_recorded = task.record_key in existing
    if task.step == "masks":
        if not is_recorded:
            store.write(task.record_key, stac_items.to_bytes(make_masks(task, store)))
        return finish_cell(task, store)

    if is_recorded:
        choices = read_choices(task, store)
    else:
        choices = choose(task, budget, _previous_scenes(task, store))
    with_scene = _count_with_scene(choices)
    log.info("%s: a scene for %d of %d chips", task.id, with_scene, len(choices))
    if not is_recorded:
        failure = _missing_scenes(task, choices)
        if failure is not None:
            return failure
        _publish_choices(task, choices, store)

    if task.downloads:
        while True:
            missing = make_images(task, _incomplete(task, choices, store), store, budget)
            if not missing.unusable:
                break
            # Record the next best scenes before their images are made, so that a run that is
            # interrupted resumes with them.
            choices = _choose_others(task, choices, missing.unusable, budget)
            _publish_choices(task, choices, store)
        # No record of images is written now, so the next run makes those that are missing.
        if missing.failed:
            return _failed(task, missing.failed, "failed_chips")
        failure = _missing_scenes(task, choices)
        if failure is not None:
            return failure
    _remove_images(task, choices, store)
    # From here on the imagery of this step is complete.
    if task.downloads:
        document = {"images": _count_with_scene(choices)}
        store.write(task.images_record_key, stac_items.to_bytes(document))
    return finish_cell(task, store)


def read_choices(task: FieldsTask, store: Store) -> list[Choice]:
    """Read the recorded choices of a task.

    Raises:
        StorageError: There is no record.
    """
    document = json.loads(read_required(store, task.record_key))
    return [Choice.model_validate(choice) for choice in document["choices"]]


def _count_with_scene(choices: Sequence[Choice]) -> int:
    return sum(choice.scene is not None for choice in choices)


def _missing_scenes(task: FieldsTask, choices: Sequence[Choice]) -> Outcome | None:
    """Return a failure if some chip has no scene, and the request wants that to fail."""
    if task.product.on_missing != "fail":
        return None
    reasons = {choice.chip: choice.reason for choice in choices if choice.scene is None}
    return _failed(task, reasons, "failed_no_scene") if reasons else None


def _failed(task: FieldsTask, reasons: Mapping[str, str], kind: str) -> Outcome:
    """Return the outcome of a step that fails for some chips, by chip."""
    chip, reason = next(iter(reasons.items()))
    others = f", and {len(reasons) - 1} others" if len(reasons) > 1 else ""
    message = f"{len(reasons)} of {len(task.chips)} chips: {chip}: {reason}{others}"
    detail = {"chips": dict(reasons)}
    return Outcome(task=task.id, state="failed", kind=kind, reason=message, detail=detail)


def _choose_others(
    task: FieldsTask, choices: Sequence[Choice], unusable: Mapping[str, str], budget: Budget
) -> list[Choice]:
    """Choose again for the chips whose scene is unusable, without that scene.

    Args:
        task: The task of all chips.
        choices: The choices so far, one per chip.
        unusable: Chip → why its scene cannot be used.
        budget: The task's budget for retries.

    Returns:
        The choices of all chips, in the same order.
    """
    rejected: dict[str, dict[str, str]] = {}
    for choice in choices:
        if choice.chip in unusable:
            reason = unusable[choice.chip]
            rejected[choice.chip] = {**choice.rejected, str(choice.scene): reason}
    chips = tuple(chip for chip in task.chips if chip.name in unusable)
    others: dict[str, Choice] = {}
    for choice in choose(task.model_copy(update={"chips": chips}), budget, rejected=rejected):
        others[choice.chip] = choice
    return [others.get(choice.chip, choice) for choice in choices]


def _publish_choices(task: FieldsTask, choices: Sequence[Choice], store: Store) -> None:
    """Record the choices. If the run makes no images, publish the items of the scenes first."""
    if not task.downloads:
        chips = {chip.name: chip for chip in task.chips}
        items: dict[str, BytesFile] = {}
        # An image of an earlier run that went further keeps its item.
        for choice in _incomplete(task, choices, store):
            chip = chips[choice.chip]
            item = image_item(task, chip, choice, None, None)
            items[task.item_key(chip)] = BytesFile(stac_items.to_bytes(item))
        store.write_all(items)
    document = {
        "cell": task.cell,
        "season": task.step,
        "choices": [choice.model_dump(mode="json") for choice in choices],
    }
    store.write(task.record_key, stac_items.to_bytes(document))


def _remove_images(task: FieldsTask, choices: Sequence[Choice], store: Store) -> None:
    """Remove the imagery of chips that have no suitable scene any more under new thresholds."""
    without_scene = {choice.chip for choice in choices if choice.scene is None}
    for chip in task.chips:
        if chip.name in without_scene:
            existing = store.list(f"{chip.name}/")
            store.delete(sorted(existing.intersection(task.chip_keys(chip))))


def _previous_scenes(task: FieldsTask, store: Store) -> dict[str, str]:
    """Return the scenes that were chosen under other thresholds, by chip, from their items."""

    def previous_scene(chip: ChipRef) -> str | None:
        key = task.item_key(chip)
        # Superseded items can still be read, but they are not listed and do not count.
        content = store.read(key) if key in store.list(f"{chip.name}/") else None
        if content is None:
            return None
        scene: str | None = json.loads(content)["properties"].get("ftw:scene")
        return scene

    previous: dict[str, str] = {}
    scenes = io_threads().map(previous_scene, task.chips)
    for chip, scene in zip(task.chips, scenes, strict=True):
        if scene is not None:
            previous[chip.name] = scene
    return previous


def _incomplete(task: FieldsTask, choices: Sequence[Choice], store: Store) -> list[Choice]:
    """Return the choices that have a scene, but no complete image of it yet."""
    chips = {chip.name: chip for chip in task.chips}

    def is_complete(choice: Choice) -> bool:
        return _is_complete(task, chips[choice.chip], choice, store)

    with_scene = [choice for choice in choices if choice.scene is not None]
    incomplete: list[Choice] = []
    for choice, complete in zip(with_scene, io_threads().map(is_complete, with_scene), strict=True):
        if not complete:
            incomplete.append(choice)
    return incomplete


def _is_complete(task: FieldsTask, chip: ChipRef, choice: Choice, store: Store) -> bool:
    """Whether a chip's image of the chosen scene exists with its item, which is then updated.

    The image is published before its item, so after an interruption there may be an image of one
    scene beside the older item of another. Only the checksum tells them apart.
    """
    item_key, image_key = task.item_key(chip), task.image_key(chip)
    if not {item_key, image_key} <= store.list(f"{chip.name}/"):
        return False
    content = read_required(store, item_key)
    item = json.loads(content)
    asset = item["assets"].get("clipped")
    if asset is None or item["properties"].get("ftw:scene") != choice.scene:
        return False
    if store.checksum(image_key) != (asset["file:size"], asset["file:checksum"]):
        return False
    # The choice may have changed in other respects, such as its measured cloud or alternatives.
    updated = image_item(task, chip, choice, asset, item["assets"].get("thumbnail"))
    updated_content = stac_items.to_bytes(updated)
    if updated_content != content:
        store.write(item_key, updated_content)
    return True
