"""Cells: the last step of a cell to be done brings its chips' items up to date, and writes all its items as a table."""

from __future__ import annotations

import json
import os.path
import posixpath
from collections.abc import Mapping
from typing import Any

import rustac

from scenebeam.metadata import stac_items
from scenebeam.metadata.item_tables import ITEMS_FILE, dump_items, read_back
from scenebeam.products.fields.chips import catalogue_folder
from scenebeam.products.fields.choose import Choice
from scenebeam.products.fields.items import UP, chip_item, with_seasons
from scenebeam.products.fields.request import SEASONS
from scenebeam.products.fields.task import CELLS, ChipRef, FieldsTask, is_elsewhere
from scenebeam.request import is_url
from scenebeam.storage import Store, open_store
from scenebeam.tasks import Outcome
from scenebeam.transfer.pools import io_threads


def put_together(task: FieldsTask, store: Store) -> Outcome:
    """Publish the chips' items and the cell's table, if this step was the last; two at once publish the same bytes."""
    siblings = [task.model_copy(update={"step": step}) for step in task.steps]
    needed = {one.record for one in siblings} | {
        one.images_record for one in siblings if one.downloads
    }
    if not needed <= store.list(f"{CELLS}{task.cell}/"):
        return Outcome(task=task.id, state="done", detail={"part": True})
    records = {one.step: _read(store, one.record) for one in siblings}
    chosen: dict[str, dict[str, Choice]] = {chip.name: {} for chip in task.chips}
    for season in SEASONS:
        for told in records.get(season, {}).get("choices", []):
            chosen[told["chip"]][season] = Choice.model_validate(told)
    bases = _bases(task, store, records.get("masks", {}))

    def settle(chip: ChipRef) -> list[stac_items.Item]:
        images: dict[str, stac_items.Item] = {
            one.step: _read(store, one.item_name(chip))
            for one in siblings
            if (choice := chosen[chip.name].get(one.step)) is not None and choice.scene is not None
        }
        item = (
            with_seasons(task, chip, bases[chip.name], chosen[chip.name], images)
            if chosen[chip.name]
            else None
        )
        item = item or bases[chip.name]
        store.write(task.parent_name(chip), stac_items.to_bytes(item))
        where = posixpath.dirname(task.parent_name(chip))
        return [
            stac_items.rebased(item, where),
            *(stac_items.rebased(image, chip.name) for image in images.values()),
        ]

    items = [item for found in io_threads().map(settle, task.chips) for item in found]
    store.write(task.item_path, dump_items(items))
    return Outcome(task=task.id, state="done")


def _read(store: Store, name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(read_back(store, name))
    return document


def _bases(task: FieldsTask, store: Store, masks: Mapping[str, Any]) -> dict[str, stac_items.Item]:
    """The chips' items as they were: of the catalogue, or of the masks that the run has made."""
    if not task.catalogue:
        return {
            chip.name: chip_item(task, chip, masks["chips"][chip.name]["assets"])
            for chip in task.chips
        }
    source = open_store(catalogue_folder(task.catalogue)) if is_elsewhere(task.catalogue) else store
    listed = [chip for chip in task.chips if chip.item]
    found = dict(
        zip(
            (c.name for c in listed),
            io_threads().map(lambda c: _read(source, c.item), listed),
            strict=True,
        )
    )
    rows = _rows(task, source, {chip.name for chip in task.chips if not chip.item})
    found |= (
        {name: stac_items.rebased(item, "..") for name, item in rows.items()}
        if source.uri == store.uri
        else rows
    )
    if source.uri != store.uri:
        where = {
            chip.name: source.path(chip.item or ITEMS_FILE).rpartition("/")[0]
            for chip in task.chips
        }
        found = {name: _elsewhere(item, where[name]) for name, item in found.items()}
    return found


def _rows(task: FieldsTask, source: Store, names: set[str]) -> dict[str, stac_items.Item]:
    """Items that stand in a table alone."""
    if not names:
        return {}
    table = task.catalogue.rpartition("/")[2] if task.catalogue.endswith(".parquet") else ITEMS_FILE
    with source.local_copy(table) as path:
        items = rustac.read_sync(str(path))["features"]
    return {item["id"]: item for item in items if item["id"] in names}


def _elsewhere(item: stac_items.Item, folder: str) -> stac_items.Item:
    """An item that can be read from another folder: its files by their full names."""

    def full(asset: dict[str, Any]) -> dict[str, Any]:
        href = str(asset["href"])
        return (
            asset
            if is_url(href) or os.path.isabs(href)
            else {**asset, "href": f"{folder}/{href.removeprefix('./')}"}
        )

    links = [
        link
        for link in item.get("links") or []
        if link.get("rel") not in {"self", *(up["rel"] for up in UP)}
    ]
    return {
        **item,
        "assets": {key: full(asset) for key, asset in item["assets"].items()},
        "links": [*UP, *links],
    }
