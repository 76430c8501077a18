"""Finish a cell: write the items of its chips, and all its items as one table.

The steps of a cell run independently, on any worker and in any order. Whichever finishes last finds
the records of all others and finishes the cell. If two finish at the same time, both do so, and
publish the same bytes.
"""

from __future__ import annotations

import json
import os.path
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scenebeam.metadata import stac_items
from scenebeam.metadata.item_tables import (
    ITEMS_FILE,
    BytesFile,
    read_required,
)
from scenebeam.products.fields.chips import catalog_folder
from scenebeam.products.fields.choose import Choice
from scenebeam.products.fields.items import UP, chip_item, with_seasons
from scenebeam.products.fields.request import SEASONS
from scenebeam.products.fields.task import CELLS, ChipRef, FieldsTask, is_outside_output
from scenebeam.request import is_url
from scenebeam.stac_geoparquet import read_items, write_items
from scenebeam.storage import Store, open_store
from scenebeam.tasks import Outcome
from scenebeam.transfer.pools import io_threads


def finish_cell(task: FieldsTask, store: Store) -> Outcome:
    """Write the items of the chips and the table of the cell, if all its steps are finished.

    Args:
        task: The step that has just been made.
        store: Where the items are written.

    Returns:
        The outcome of the step: done, whether or not other steps are still to be made.
    """
    siblings = [task.model_copy(update={"step": step}) for step in task.steps]
    if not store.list(f"{CELLS}{task.cell}/").issuperset(_all_records(siblings)):
        return Outcome(task=task.id, state="done", detail={"part": True})
    records = {sibling.step: _read(store, sibling.record_key) for sibling in siblings}
    choices: dict[str, dict[str, Choice]] = {chip.name: {} for chip in task.chips}
    for season in SEASONS:
        for document in records.get(season, {}).get("choices", []):
            choices[document["chip"]][season] = Choice.model_validate(document)
    originals = _original_items(task, store, records.get("masks", {}))

    def make_items(chip: ChipRef) -> list[stac_items.Item]:
        """Make the item of one chip, followed by those of its imagery."""
        seasons = choices[chip.name]
        images: dict[str, stac_items.Item] = {}
        for sibling in siblings:
            if sibling.step in seasons and seasons[sibling.step].scene is not None:
                images[sibling.step] = _read(store, sibling.item_key(chip))
        item = originals[chip.name]
        if seasons:
            item = with_seasons(task, chip, item, seasons, images)
        return [item, *images.values()]

    files: dict[str, BytesFile] = {}
    rows: list[stac_items.Item] = []
    chip_items = io_threads().map(make_items, task.chips)
    for chip, (item, *images) in zip(task.chips, chip_items, strict=True):
        parent_key = task.parent_key(chip)
        files[parent_key] = BytesFile(stac_items.to_bytes(item))
        # Hrefs in the table are relative to the output, not to the folders of the chips.
        rows.append(stac_items.rebase_item(item, posixpath.dirname(parent_key)))
        rows += [stac_items.rebase_item(image, chip.name) for image in images]
    store.write_all(files)
    store.write(task.item_path, write_items(rows))
    return Outcome(task=task.id, state="done")


def _all_records(siblings: Iterable[FieldsTask]) -> set[str]:
    """Return the keys of the records of all steps of a cell."""
    keys: set[str] = set()
    for sibling in siblings:
        keys.add(sibling.record_key)
        if sibling.downloads:
            keys.add(sibling.images_record_key)
    return keys


def _read(store: Store, key: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(read_required(store, key))
    return document


def _original_items(
    task: FieldsTask, store: Store, masks_record: Mapping[str, Any]
) -> dict[str, stac_items.Item]:
    """Return the items of the chips before any selection: from the catalog, or newly made.

    They are written for the folder of `task.parent_key`: hrefs are relative to it or absolute.
    """
    items: dict[str, stac_items.Item] = {}
    if not task.catalog:
        for chip in task.chips:
            masks = masks_record["chips"][chip.name]["assets"]
            items[chip.name] = chip_item(task, chip, masks)
        return items

    source = store
    if is_outside_output(task.catalog):
        source = open_store(catalog_folder(task.catalog))
    in_place = source.uri == store.uri
    in_files = [chip for chip in task.chips if chip.item]
    in_table = [chip.name for chip in task.chips if not chip.item]
    documents = io_threads().map(lambda chip: _read(source, chip.item), in_files)
    for chip, document in zip(in_files, documents, strict=True):
        items[chip.name] = document
    for name, item in _table_items(task, source, in_table).items():
        # The item is written into a folder of its own, one below the table.
        items[name] = stac_items.rebase_item(item, "..") if in_place else item
    if not in_place:
        for chip in task.chips:
            if chip.name in items:
                folder = source.uri_for(chip.item or ITEMS_FILE).rpartition("/")[0]
                items[chip.name] = _with_absolute_hrefs(items[chip.name], folder)
    return items


def _table_items(
    task: FieldsTask, source: Store, names: Sequence[str]
) -> dict[str, stac_items.Item]:
    """Read the items of chips that have no file of their own, from the table of the catalog."""
    if not names:
        return {}
    table = task.catalog.rpartition("/")[2] if task.catalog.endswith(".parquet") else ITEMS_FILE
    with source.local_copy(table) as path:
        items = list(read_items(path))
    wanted = set(names)
    return {item["id"]: item for item in items if item["id"] in wanted}


def _with_absolute_hrefs(item: stac_items.Item, folder: str) -> stac_items.Item:
    """Make an item readable from any folder, and link it to the collection of the output.

    Args:
        item: An item of another catalog.
        folder: URI of the folder to which its hrefs are relative.
    """
    assets: dict[str, dict[str, Any]] = {}
    for key, asset in item["assets"].items():
        href = str(asset["href"])
        if not is_url(href) and not os.path.isabs(href):
            asset = {**asset, "href": f"{folder}/{href.removeprefix('./')}"}
        assets[key] = asset
    links = [*UP]
    replaced = {"self", *(link["rel"] for link in UP)}
    for link in item.get("links") or []:
        if link.get("rel") not in replaced:
            links.append(link)
    return {**item, "assets": assets, "links": links}
