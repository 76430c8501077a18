"""Where products land: a local folder or Google Cloud Storage. Published whole or not at all."""

from __future__ import annotations

from scenebeam.storage.store import Publication, Store, checked_name

__all__ = ["Publication", "Store", "checked_name", "open_store"]


def open_store(uri: str) -> Store:
    """The store of a folder or of `gs://bucket/prefix`. Nothing is created yet."""
    if uri.startswith("gs://"):
        from scenebeam.storage.gcs import GcsStore

        return GcsStore(uri)
    from scenebeam.storage.local import LocalStore

    return LocalStore(uri)
