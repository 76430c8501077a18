"""Verify the files of an output by the sizes and checksums in its own items."""

from __future__ import annotations

import json
import logging
import posixpath
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from scenebeam.multihash import multihash
from scenebeam.planning.plan import Plan
from scenebeam.request import is_url
from scenebeam.storage import Store
from scenebeam.tasks import Task

log = logging.getLogger(__name__)
_CONCURRENT_TASKS = 8
_CRC32C = "crc32c:"
"""Prefix of checksums that are no multihash."""
_DOCUMENTS = (".json", ".parquet")
"""Suffixes of files without which a task counts as not done."""


def find_damaged(plan: Plan, store: Store) -> set[str]:
    """Find files of finished tasks that differ from their items, by size and checksum.

    The manifest of a release with a damaged file is removed, so that the release is made again.

    Args:
        plan: The frozen plan.
        store: The output.

    Returns:
        Keys of the damaged files, and of the documents of their tasks. Once these are superseded,
        the tasks are made again.
    """
    existing = store.list()
    finished = [task for task in plan.tasks if task.is_done(existing)]
    damaged: set[str] = set()
    with ThreadPoolExecutor(_CONCURRENT_TASKS) as threads:
        for keys in threads.map(lambda task: _damaged_files(task, store, existing), finished):
            damaged |= keys
        manifests = sorted(key for key in existing if key.endswith("/manifest.json"))
        list(threads.map(lambda key: _check_release(key, store), manifests))
    for key in sorted(damaged):
        if not key.endswith(_DOCUMENTS):
            log.warning("%s differs from its item and is made again", store.uri_for(key))
    return damaged


def _check_release(manifest: str, store: Store) -> None:
    """Remove the manifest of a release if one of its files is damaged."""
    folder = posixpath.dirname(manifest)
    files = json.loads(store.read(manifest) or b"{}").get("files", {})
    for name, file in files.items():
        key = f"{folder}/{name}"
        if store.size(key) != file["size"] or store.checksum(key)[1] != multihash(file["sha256"]):
            log.warning("%s differs from its manifest and is made again", store.uri_for(key))
            store.delete([manifest])
            return


def _damaged_files(task: Task, store: Store, existing: set[str]) -> set[str]:
    damaged: set[str] = set()
    for key, size, checksum in _described_files(task, store, existing):
        if key not in existing or not _is_intact(store, key, size, checksum):
            damaged.add(key)
    if damaged:
        damaged.update(key for key in task.outputs if key.endswith(_DOCUMENTS))
    return damaged & existing


def _is_intact(store: Store, key: str, size: int, checksum: str) -> bool:
    crc32c = checksum.removeprefix(_CRC32C)
    if crc32c == checksum:
        return store.checksum(key) == (size, checksum)
    return store.size(key) == size and store.crc32c(key) == int(crc32c, 16)


def _described_files(
    task: Task, store: Store, existing: set[str]
) -> Iterator[tuple[str, int, str]]:
    """Yield (key, size, checksum) of the files that the documents of a task describe."""
    for key in dict.fromkeys([*task.outputs, *task.possible_outputs]):
        if key in existing and key.endswith(".json"):
            document = json.loads(store.read(key) or b"{}")
            if isinstance(document, dict):
                yield from _files_in(document, posixpath.dirname(key))


def _files_in(document: dict[str, Any], folder: str) -> Iterator[tuple[str, int, str]]:
    for asset in (document.get("assets") or {}).values():
        href, size = asset.get("href"), asset.get("file:size")
        checksum = asset.get("file:checksum")
        # The SHA-256 of a composed file is not known: see `imaging.pieces`.
        if "scenebeam:crc32c" in asset:
            checksum = f"{_CRC32C}{asset['scenebeam:crc32c']}"
        is_relative = href and not is_url(href) and not posixpath.isabs(href)
        if is_relative and size is not None and checksum:
            yield posixpath.normpath(posixpath.join(folder, href)), size, checksum
        # An image in a Zarr store has several files, by their keys.
        for file in asset.get("scenebeam:files") or ():
            yield file["key"], file["file:size"], file["file:checksum"]
    # The record of an area of interest lists the files of its chips.
    chips = document.get("chips")
    for chip in chips if isinstance(chips, list) else ():
        for name, file in (chip.get("files") or {}).items():
            yield f"{folder}/{name}", file["size"], file["checksum"]
