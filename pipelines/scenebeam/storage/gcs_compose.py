"""Compose objects of Google Cloud Storage inside the bucket.

One call of `compose` joins at most 32 objects, so many pieces are joined in a tree of calls:

    pieces        1 ... 32   33 ... 64   65 ... 96   97
                      |          |           |        |
    temporary         a          b           c        |
                      +----------+-----+-----+--------+
    file                               file

Temporary objects are named by the pieces that they consist of. Whoever repeats a call makes the
same bytes under the same name, so a killed worker leaves what the next one needs.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from google.api_core.exceptions import PreconditionFailed
from google.cloud.storage.retry import DEFAULT_RETRY
from google_crc32c import Checksum

from scenebeam.errors import StorageError
from scenebeam.storage.composer import Composer, Piece, join
from scenebeam.storage.crc32c import decode_crc32c
from scenebeam.storage.gcs_errors import storage_errors
from scenebeam.storage.store import checked_key

_MAX_SOURCES = 32
"""Objects that one call joins (https://cloud.google.com/storage/docs/composite-objects)."""
_CONCURRENT_CALLS = 16
_IN_MEMORY = 8 * 2**20
"""Bytes of a piece that are held in memory until it is uploaded; a larger one is on disk."""


class GcsComposer(Composer):
    """Composes objects of a bucket under a prefix."""

    def __init__(self, bucket: Any, prefix: str) -> None:
        """Compose objects.

        Args:
            bucket: The bucket, of Google's client.
            prefix: Start of the names of all objects: empty, or a folder that ends with a slash.
        """
        self._bucket, self._prefix = bucket, prefix

    def write_piece(self, stem: str, chunks: Iterable[bytes]) -> Piece:
        checksum = Checksum()
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
            for chunk in chunks:
                file.write(chunk)
                checksum.update(chunk)
            crc32c = int.from_bytes(checksum.digest(), "big")
            piece = Piece(f"{stem}-{crc32c:08x}", file.tell(), crc32c)
            file.seek(0)
            with storage_errors(f"cannot write {self._uri(piece.key)}"):
                # No precondition: objects of this name have the same content.
                self._blob(piece.key).upload_from_file(
                    file, size=piece.size, checksum="crc32c", retry=DEFAULT_RETRY
                )
        return piece

    def find_damaged(self, prefix: str, pieces: Iterable[Piece]) -> set[Piece]:
        found: set[Piece] = set()
        with storage_errors(f"cannot list {self._uri(prefix)}"):
            # A listing has a thousand objects in an answer, with their checksums.
            for blob in self._bucket.list_blobs(
                prefix=self._prefix + prefix, fields="items(name,size,crc32c),nextPageToken"
            ):
                found.add(self._describe(blob))
        return set(pieces) - found

    def compose(self, pieces: Sequence[Piece], key: str, temporary: str) -> Piece:
        nodes = list(pieces)
        with ThreadPoolExecutor(_CONCURRENT_CALLS) as threads:
            while len(nodes) > _MAX_SOURCES:
                groups = []
                for first in range(0, len(nodes), _MAX_SOURCES):
                    groups.append(nodes[first : first + _MAX_SOURCES])
                nodes = list(threads.map(lambda group: self._join(group, temporary), groups))
        whole = join(pieces, key)
        self._compose(nodes, whole, self._get_blob(key))
        return whole

    def _join(self, group: Sequence[Piece], temporary: str) -> Piece:
        """Join the pieces of one call into a temporary object, unless it exists."""
        if len(group) == 1:
            return group[0]
        name = hashlib.sha256(repr(group).encode()).hexdigest()[:16]
        joined = join(group, f"{temporary}{name}")
        current = self._get_blob(joined.key)
        if current is None or self._describe(current) != joined:
            self._compose(group, joined, current)
        return joined

    def _compose(self, sources: Sequence[Piece], target: Piece, current: Any) -> None:
        """Create an object from others, or replace the current one."""
        uri = self._uri(target.key)
        blob = self._blob(target.key)
        # As uploads have it: without a type, the result has none.
        blob.content_type = "application/octet-stream"
        with storage_errors(f"cannot compose {uri}"):
            try:
                # Generation 0 stands for an object that does not exist.
                blob.compose(
                    [self._blob(source.key) for source in sources],
                    if_generation_match=0 if current is None else current.generation,
                    retry=DEFAULT_RETRY,
                )
            except PreconditionFailed:
                # Another worker was faster, or the answer to a first attempt was lost.
                blob = self._get_blob(target.key)
                if blob is None:
                    raise
            if self._describe(blob) == target:
                return
            blob.delete(if_generation_match=blob.generation)
        raise StorageError(
            f"{uri}: the composed object differs from its pieces, and is removed; run again"
        )

    def _describe(self, blob: Any) -> Piece:
        crc32c = decode_crc32c(blob.crc32c)
        return Piece(blob.name.removeprefix(self._prefix), int(blob.size), crc32c)

    def _uri(self, key: str) -> str:
        return f"gs://{self._bucket.name}/{self._prefix}{key}"

    def _blob(self, key: str) -> Any:
        return self._bucket.blob(self._prefix + checked_key(key))

    def _get_blob(self, key: str) -> Any:
        """Return an object with its properties; None if it does not exist."""
        with storage_errors(f"cannot read {self._uri(key)}"):
            return self._bucket.get_blob(self._blob(key).name)
