"""Icechunk: the Zarr store of a run as one commit of a repository.

Tasks stage their shards as files, like those of a plain store. When the run ends, all that is
staged and the metadata become one commit of the branch `main`: readers see all of it or nothing. A
run that is killed leaves staged files, which the next run goes on from, and no trace in the branch.
The root of the repository lists the version of each image, so a run knows which of them it has.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Container, Iterable, Mapping
from typing import Any

from scenebeam.errors import StorageError
from scenebeam.extras import import_extra
from scenebeam.imaging.cube_layout import REPOSITORY, STAGED_ROOT
from scenebeam.imaging.writers.zarr_format import METADATA
from scenebeam.imaging.writers.zarr_store import IMAGES, CubeStore, StoredImage
from scenebeam.metadata.item_tables import read_required
from scenebeam.storage import Store
from scenebeam.tasks import CubeBand

BRANCH = "main"
_AT_ONCE = 8
"""Shards that are copied at the same time."""


def commit(store: Store, cube: CubeStore, message: str) -> set[str]:
    """Commit the images of a run that are staged, and its metadata.

    An image that the repository has in the same version needs no shards. Of one in another
    version, what is not staged is removed. Shards of images that are not finished stay staged.

    Args:
        store: The output.
        cube: The images, and the metadata of the store.
        message: The commit's message.

    Returns:
        Ids of finished images that are neither in the repository nor staged: then nothing is
        committed. Otherwise none.

    Raises:
        StorageError: The repository cannot be written.
        MissingExtraError: icechunk is not installed.
    """
    icechunk = import_extra("icechunk", "icechunk", "product.format: icechunk")
    sync = import_extra("zarr.core.sync", "icechunk", "product.format: icechunk").sync
    staged = store.list(STAGED_ROOT)
    try:
        repository = icechunk.Repository.open_or_create(open_storage(store.uri))
        session = repository.writable_session(BRANCH)
        known = sync(_versions(session.store))
        shards: dict[str, str] = {}
        outdated: set[str] = set()
        lost = set()
        for image in cube.images:
            if not image.version:
                continue
            found = _staged_shards(cube, image, staged)
            is_known = known.get(str(image.index)) == image.version
            if not found and not is_known:
                lost.add(image.id)
            shards |= found
            if not is_known:
                outdated |= _places(cube, image.index, cube.bands)
        if lost:
            return lost
        contents = {path: file.to_bytes() for path, file in cube.files().items()}
        contents |= {path: file.to_bytes() for path, file in cube.groups().items()}
        sync(_remove_other_arrays(session.store, contents, len(cube.layout.levels)))
        sync(_remove_chunks(session.store, outdated - shards.keys()))
        changed = sync(write_documents(session.store, contents))
        sync(_copy(session.store, shards, store))
        if changed or shards:
            session.commit(message)
    except icechunk.IcechunkError as error:
        raise StorageError(f"{store.uri_for(REPOSITORY)} cannot be written: {error}") from error
    is_finished = all(image.version for image in cube.images)
    store.delete(sorted(staged if is_finished else shards.values()))
    return set()


def _places(cube: CubeStore, index: int, bands: Iterable[CubeBand]) -> set[str]:
    """Return the paths of all shards that bands of an image may have."""
    levels = range(len(cube.layout.levels))
    return set(cube.layout.paths(index, [band.name for band in bands], levels))


def _staged_shards(cube: CubeStore, image: StoredImage, staged: Container[str]) -> dict[str, str]:
    """Return the staged shards of an image: path in the repository → key."""
    shards = {}
    for path in _places(cube, image.index, image.bands):
        if f"{STAGED_ROOT}{path}" in staged:
            shards[path] = f"{STAGED_ROOT}{path}"
    return shards


async def _versions(target: Any) -> dict[str, str]:
    """Return the versions of the images in a repository, by their place along time."""
    document = await _read_json(target, METADATA)
    versions: dict[str, str] = document.get("attributes", {}).get(IMAGES, {})
    return versions


async def _read_json(target: Any, path: str) -> dict[str, Any]:
    from zarr.core.buffer import default_buffer_prototype

    content = await target.get(path, default_buffer_prototype())
    document: dict[str, Any] = {} if content is None else json.loads(content.to_bytes())
    return document


async def _remove_other_arrays(target: Any, contents: Mapping[str, bytes], levels: int) -> None:
    """Remove arrays that the store no longer has, or has in another form; lengths may differ."""
    known = []
    async for level in target.list_dir(""):
        if level != METADATA:
            known += [f"{level}/{name}" async for name in target.list_dir(level)]
    for path in known:
        if path.endswith(METADATA):
            continue
        planned = contents.get(f"{path}/{METADATA}")
        if planned is None or _form(json.loads(planned)) != _form(
            await _read_json(target, f"{path}/{METADATA}")
        ):
            await target.delete_dir(path)
    for level in [level async for level in target.list_dir("")]:
        if level != METADATA and int(level) >= levels:
            await target.delete_dir(level)


def _form(document: Mapping[str, Any]) -> list[Any]:
    shape = document.get("shape", [])
    names = ("data_type", "chunk_grid", "codecs", "fill_value", "dimension_names")
    return [shape[1:], *(document.get(name) for name in names)]


async def _remove_chunks(target: Any, paths: Iterable[str]) -> None:
    for path in sorted(paths):
        if await target.exists(path):
            await target.delete(path)


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


async def _copy(target: Any, shards: Mapping[str, str], store: Store) -> None:
    """Copy staged shards, by their path in the repository."""
    from zarr.core.buffer import default_buffer_prototype

    prototype = default_buffer_prototype()
    slots = asyncio.Semaphore(_AT_ONCE)

    async def copy(path: str, key: str) -> None:
        async with slots:
            content = await asyncio.to_thread(read_required, store, key)
            await target.set(path, prototype.buffer.from_bytes(content))

    await asyncio.gather(*(copy(path, key) for path, key in shards.items()))


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
