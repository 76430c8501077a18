"""Where products land: a local folder or Google Cloud Storage. Published whole or not at all."""

from __future__ import annotations

from scenebeam.errors import RequestError
from scenebeam.request import is_url
from scenebeam.storage.store import AtomicFile, Store, checked_name

__all__ = ["AtomicFile", "Store", "checked_name", "open_store"]


def open_store(uri: str) -> Store:
    """The store of a folder or of `gs://bucket/prefix`. Nothing is created yet.

    Raises RequestError for any other scheme.
    """
    if uri.startswith("gs://"):
        from scenebeam.storage.gcs import GcsStore

        return GcsStore(uri)
    if is_url(uri) and not uri.startswith("file://"):
        raise RequestError(f"{uri}: only folders and gs:// can hold a run")
    from scenebeam.storage.local import LocalStore

    return LocalStore(uri)
