"""Make: choose the scenes of a cell's chips, make their images or masks, and put the cell's items together."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence

from scenebeam.metadata import stac_items
from scenebeam.metadata.item_tables import read_back
from scenebeam.products.fields.cells import put_together
from scenebeam.products.fields.choose import Choice, choose
from scenebeam.products.fields.images import NoImages, make_images
from scenebeam.products.fields.items import image_item
from scenebeam.products.fields.masks import make_masks
from scenebeam.products.fields.task import CELLS, ChipRef, FieldsTask
from scenebeam.storage import Store
from scenebeam.tasks import Outcome
from scenebeam.transfer.pools import io_threads
from scenebeam.transfer.retry import Budget

log = logging.getLogger(__name__)


def make_step(task: FieldsTask, store: Store, budget: Budget) -> Outcome:
    """Make one step of a cell. What stands already is not made again.

    A chip that fails is named in the outcome, and loses none of the others: the next run makes it alone.
    Raises ReadError where a file may be read later.
    """
    existing = store.list(f"{CELLS}{task.cell}/")
    if task.step == "masks":
        if task.record not in existing:
            store.write(task.record, stac_items.to_bytes(make_masks(task, store)))
        return put_together(task, store)
    resumed = task.record in existing
    choices = (
        read_choices(task, store) if resumed else choose(task, budget, _chosen_before(task, store))
    )
    with_scene = sum(choice.scene is not None for choice in choices)
    log.info("%s: a scene for %d of %d chips", task.id, with_scene, len(choices))
    if not resumed:
        refused = _refused(task, choices)
        if refused is not None:
            return refused
        _publish_choices(task, choices, store)
    if task.downloads:
        while True:
            failed, unfit = _download(task, choices, store, budget)
            if not unfit:
                break
            # The next best of each; the record says so, and a run that is resumed goes on with it.
            choices = _choose_others(task, choices, unfit, budget)
            _publish_choices(task, choices, store)
        if failed:
            return _failed(task, failed, "failed_chips")
        refused = _refused(task, choices)
        if refused is not None:
            return refused
    _remove_images(task, {choice.chip for choice in choices if choice.scene is None}, store)
    if task.downloads:
        store.write(
            task.images_record,
            stac_items.to_bytes({"images": sum(choice.scene is not None for choice in choices)}),
        )
    return put_together(task, store)


def _refused(task: FieldsTask, choices: Sequence[Choice]) -> Outcome | None:
    """Why nothing is made, where a chip without a scene is a failure."""
    without = {choice.chip: choice.reason for choice in choices if choice.scene is None}
    if without and task.product.on_missing == "fail":
        return _failed(task, without, "failed_no_scene")
    return None


def _choose_others(
    task: FieldsTask, choices: Sequence[Choice], unfit: Mapping[str, str], budget: Budget
) -> list[Choice]:
    """Choices without the scenes that turned out not to be fit for some chips."""
    rejected = {
        one.chip: {**one.rejected, str(one.scene): unfit[one.chip]}
        for one in choices
        if one.chip in unfit
    }
    some = task.model_copy(
        update={"chips": tuple(chip for chip in task.chips if chip.name in unfit)}
    )
    others = {one.chip: one for one in choose(some, budget, rejected=rejected)}
    return [others.get(one.chip, one) for one in choices]


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

        def publish(choice: Choice) -> None:
            chip = chips[choice.chip]
            if not _stands(task, chip, choice, store):
                store.write(
                    task.item_name(chip),
                    stac_items.to_bytes(image_item(task, chip, choice, None, None)),
                )

        list(io_threads().map(publish, (choice for choice in choices if choice.scene is not None)))
    document = {
        "cell": task.cell,
        "season": task.step,
        "choices": [one.model_dump(mode="json") for one in choices],
    }
    store.write(task.record, stac_items.to_bytes(document))


def _remove_images(task: FieldsTask, chips: set[str], store: Store) -> None:
    """Remove what stands of chips that no scene will do for by these thresholds, and one did by others."""
    for chip in task.chips:
        if chip.name in chips:
            names = {task.item_name(chip), task.image_name(chip), task.picture_name(chip)}
            store.delete(sorted(names & store.list(f"{chip.name}/")))


def _chosen_before(task: FieldsTask, store: Store) -> dict[str, str]:
    """Scenes that were chosen by other thresholds, by chip: those whose items still count."""

    def scene(chip: ChipRef) -> str | None:
        name = task.item_name(chip)
        content = store.read(name) if name in store.list(f"{chip.name}/") else None
        found: str | None = (
            None if content is None else json.loads(content)["properties"].get("ftw:scene")
        )
        return found

    scenes = io_threads().map(scene, task.chips)
    return {chip.name: one for chip, one in zip(task.chips, scenes, strict=True) if one is not None}


def _download(
    task: FieldsTask, choices: Sequence[Choice], store: Store, budget: Budget
) -> NoImages:
    """Make the images that do not stand yet; tells why some chips have none."""
    chips = {chip.name: chip for chip in task.chips}
    wanted = [choice for choice in choices if choice.scene is not None]
    here = io_threads().map(lambda one: _stands(task, chips[one.chip], one, store), wanted)
    lacking = [choice for choice, whole in zip(wanted, here, strict=True) if not whole]
    return make_images(task, lacking, store, budget)


def _stands(task: FieldsTask, chip: ChipRef, choice: Choice, store: Store) -> bool:
    """Whether a chip's image of the scene stands, and beside it its item, which is brought up to date.

    An item comes before its image: only the checksum tells whether it is of this one or of one that was to come.
    """
    name, image = task.item_name(chip), task.image_name(chip)
    if not {name, image} <= store.list(f"{chip.name}/"):
        return False
    content = read_back(store, name)
    item = json.loads(content)
    asset = item["assets"].get("clipped")
    if asset is None or item["properties"].get("ftw:scene") != choice.scene:
        return False
    if store.checksum(image) != (asset["file:size"], asset["file:checksum"]):
        return False
    current = stac_items.to_bytes(
        image_item(task, chip, choice, asset, item["assets"].get("thumbnail"))
    )
    if current != content:
        store.write(name, current)
    return True
