"""Icechunk: the Zarr store of a run as one commit of a repository.

Tasks stage their shards as files, like those of a plain store. When the run ends, all that is
staged and the metadata become one commit of the branch `main`: readers see all of it or nothing. A
run that is killed leaves staged files, which the next run goes on from, and no trace in the branch.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

from scenebeam.csvtable import File
from scenebeam.errors import StorageError
from scenebeam.extras import import_extra
from scenebeam.imaging.cube_layout import REPOSITORY, STAGED_ROOT
from scenebeam.imaging.writers.zarr_format import METADATA
from scenebeam.storage import Store

log = logging.getLogger(__name__)

BRANCH = "main"
_AT_ONCE = 8
"""Shards that are copied at the same time."""


FINGERPRINT = "scenebeam:fingerprint"
"""Attribute of the root: the request that the store is of."""


def commit(store: Store, files: Mapping[str, File], message: str, fingerprint: str) -> str | None:
    """Commit the staged shards and the metadata of a run, and delete what was staged.

    Args:
        store: The output.
        files: Metadata and coordinates, by path in the repository.
        message: The commit's message.
        fingerprint: Of the request. What another request has left is removed.

    Returns:
        Id of the snapshot; None if nothing has changed.

    Raises:
        StorageError: The repository cannot be written.
        MissingExtraError: icechunk is not installed.
    """
    icechunk = import_extra("icechunk", "icechunk", "product.format: icechunk")
    staged = sorted(store.list(STAGED_ROOT))
    try:
        repository = icechunk.Repository.open_or_create(open_storage(store.uri))
        session = repository.writable_session(BRANCH)
        contents = {path: file.to_bytes() for path, file in files.items()}
        root = session.store
        if asyncio.run(_fingerprint(root)) not in (None, fingerprint):
            asyncio.run(root.clear())
        changed = asyncio.run(write_documents(root, contents))
        asyncio.run(_copy_staged(session.store, staged, store))
        snapshot = session.commit(message) if changed or staged else None
    except icechunk.IcechunkError as error:
        raise StorageError(f"{store.uri_for(REPOSITORY)} cannot be written: {error}") from error
    store.delete(staged)
    return None if snapshot is None else str(snapshot)


async def _fingerprint(target: Any) -> str | None:
    """Return the fingerprint of the request that a store is of; None if there is none."""
    from zarr.core.buffer import default_buffer_prototype

    content = await target.get(METADATA, default_buffer_prototype())
    if content is None:
        return None
    attributes = json.loads(content.to_bytes()).get("attributes", {})
    found: str | None = attributes.get(FINGERPRINT)
    return found


async def write_documents(target: Any, contents: Mapping[str, bytes]) -> bool:
    """Write metadata and coordinates that have changed. Returns whether there was any.

    Args:
        target: A Zarr store of a session.
        contents: They, by path in the store.
    """
    from zarr.core.buffer import default_buffer_prototype

    prototype = default_buffer_prototype()
    changed = False
    # Groups come before their members, and arrays before their chunks.
    for path in sorted(contents, key=lambda path: (path.rpartition("/")[2] != METADATA, path)):
        known = await target.get(path, prototype)
        if known is None or known.to_bytes() != contents[path]:
            await target.set(path, prototype.buffer.from_bytes(contents[path]))
            changed = True
    return changed


async def _copy_staged(target: Any, staged: list[str], store: Store) -> None:
    from zarr.core.buffer import default_buffer_prototype

    prototype = default_buffer_prototype()
    slots = asyncio.Semaphore(_AT_ONCE)

    async def copy(key: str) -> None:
        async with slots:
            content = await asyncio.to_thread(store.read, key)
            if content is not None:
                buffer = prototype.buffer.from_bytes(content)
                await target.set(key.removeprefix(STAGED_ROOT), buffer)

    await asyncio.gather(*(copy(key) for key in staged))


def open_storage(output: str) -> Any:
    """Return where the repository of an output is, for icechunk.

    Args:
        output: URI of the output.
    """
    return open_folder(output, REPOSITORY)


def open_folder(output: str, folder: str) -> Any:
    """Return where a repository in a folder of an output is, for icechunk."""
    icechunk = import_extra("icechunk", "icechunk", "an Icechunk repository")
    # It warns of concurrent commits; here, one process commits, which holds the output's lock.
    icechunk.set_logs_filter("error")
    if output.startswith("gs://"):
        bucket, _, prefix = output.removeprefix("gs://").partition("/")
        where = "/".join(part for part in (prefix.strip("/"), folder) if part)
        return icechunk.gcs_storage(bucket=bucket, prefix=where, from_env=True)
    return icechunk.local_filesystem_storage(f"{output.rstrip('/')}/{folder}")
