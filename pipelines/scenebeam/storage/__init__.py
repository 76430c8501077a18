"""Storage of products: a local folder or Google Cloud Storage. Files are published atomically."""

from __future__ import annotations

from scenebeam.errors import RequestError
from scenebeam.request import is_url
from scenebeam.storage.composer import Composer, Piece
from scenebeam.storage.store import AtomicFile, Store, checked_key

__all__ = ["AtomicFile", "Composer", "Piece", "Store", "checked_key", "open_store"]


def open_store(uri: str) -> Store:
    """Open the store of an output. Nothing is created yet.

    Args:
        uri: A local folder, or `gs://bucket/prefix`.

    Raises:
        RequestError: The URI has another scheme.
    """
    if uri.startswith("gs://"):
        from scenebeam.storage.gcs import GcsStore

        return GcsStore(uri)
    if is_url(uri) and not uri.startswith("file://"):
        raise RequestError(f"{uri}: an output must be a local folder or a gs:// URL")
    from scenebeam.storage.local import LocalStore

    return LocalStore(uri)
