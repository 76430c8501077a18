"""Compare and swap: update an object that several functions may write at the same time."""

from __future__ import annotations

from collections.abc import Callable

import tenacity

from scenebeam.errors import StorageError
from scenebeam.storage import Store


def update_object(store: Store, key: str, change: Callable[[bytes | None], bytes]) -> None:
    """Replace the content of an object by what is computed from it.

    Args:
        store: Where it is.
        key: Its key.
        change: Computes the new content from the stored one, or from None if there is none. Called
            again if another writer was faster.

    Raises:
        StorageError: Other writers were faster at every attempt, or storage failed.
    """
    retry = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(_ConflictError),
        stop=tenacity.stop_after_attempt(50),
        wait=tenacity.wait_random_exponential(multiplier=0.02, max=1),
        reraise=True,
    )
    retry(_update_once, store, key, change)


def _update_once(store: Store, key: str, change: Callable[[bytes | None], bytes]) -> None:
    stored = store.read_version(key)
    before = None if stored is None else stored[0]
    content = change(before)
    if content == before:
        return
    if stored is None:
        written = store.create(key, content)
    else:
        written = store.replace(key, content, stored[1])
    if not written:
        raise _ConflictError(
            f"cannot update {store.uri_for(key)}: too many concurrent writers; try again later"
        )


class _ConflictError(StorageError):
    """Another writer updated the object first."""
