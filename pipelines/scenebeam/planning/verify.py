"""Verify: hold what stands in an output against the checksums that its own items tell."""

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
_AT_ONCE = 8


def find_damaged(plan: Plan, store: Store) -> set[str]:
    """Find files of finished tasks that are not what their items say, by size and checksum.

    Returns:
        Names of the damaged files, and of the documents without which their tasks count as not
        done: what is superseded of them is made, or fetched, anew.
    """
    existing = store.list()
    finished = [task for task in plan.tasks if task.is_done(existing)]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        found = threads.map(lambda task: _damaged(task, store, existing), finished)
        damaged = {name for names in found for name in names}
        list(threads.map(lambda name: _check_release(name, store), _releases(existing)))
    for name in sorted(damaged):
        if not name.endswith(_DOCUMENTS):
            log.warning("%s is not what its item says, and is made anew", store.uri_for(name))
    return damaged


_DOCUMENTS = (".json", ".parquet")


def _releases(existing: set[str]) -> list[str]:
    """Manifests of releases, which tell the checksums of all their files."""
    return sorted(name for name in existing if name.endswith("/manifest.json"))


def _check_release(manifest: str, store: Store) -> None:
    """Remove the manifest of a release that has damaged files: without it they are put together anew."""
    folder, told = (
        posixpath.dirname(manifest),
        json.loads(store.read(manifest) or b"{}").get("files", {}),
    )
    for name, file in told.items():
        path = f"{folder}/{name}"
        if store.size(path) != file["size"] or store.checksum(path)[1] != multihash(file["sha256"]):
            log.warning("%s is not what its manifest says, and is made anew", store.uri_for(path))
            store.delete([manifest])
            return


def _damaged(task: Task, store: Store, existing: set[str]) -> set[str]:
    found: set[str] = set()
    for name, size, checksum in _stated(task, store, existing):
        if name not in existing or store.checksum(name) != (size, checksum):
            found.add(name)
    if found:
        found |= {name for name in task.outputs if name.endswith(_DOCUMENTS)}
    return found & existing


def _stated(task: Task, store: Store, existing: set[str]) -> Iterator[tuple[str, int, str]]:
    """Name, size and checksum of each file that the documents of a task describe."""
    for name in dict.fromkeys([*task.outputs, *task.possible_outputs]):
        if name in existing and name.endswith(".json"):
            document = json.loads(store.read(name) or b"{}")
            if isinstance(document, dict):
                yield from _described(document, posixpath.dirname(name))


def _described(document: dict[str, Any], folder: str) -> Iterator[tuple[str, int, str]]:
    for asset in (document.get("assets") or {}).values():
        href, size, checksum = (asset.get(key) for key in ("href", "file:size", "file:checksum"))
        if (
            href
            and not is_url(href)
            and not posixpath.isabs(href)
            and size is not None
            and checksum
        ):
            yield posixpath.normpath(posixpath.join(folder, href)), size, checksum
    for chip in document.get("chips") or () if isinstance(document.get("chips"), list) else ():
        for name, made in (chip.get("files") or {}).items():  # the record of an area of interest
            yield f"{folder}/{name}", made["size"], made["checksum"]
