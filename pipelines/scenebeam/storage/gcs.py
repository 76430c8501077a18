"""A store in Google Cloud Storage (GCS).

Each object is created by one upload with a generation precondition and a CRC32C checksum, so it
appears complete and verified, and concurrent writers never overwrite each other.
"""

from __future__ import annotations

import base64
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

from google.api_core.exceptions import NotFound, PreconditionFailed
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY
from google_crc32c import Checksum

from scenebeam.errors import StorageError
from scenebeam.multihash import MD5_PREFIX, file_multihash
from scenebeam.storage.composer import Composer
from scenebeam.storage.crc32c import decode_crc32c, file_crc32c
from scenebeam.storage.gcs_compose import GcsComposer
from scenebeam.storage.gcs_errors import storage_errors
from scenebeam.storage.gcs_reader import ObjectReader
from scenebeam.storage.partial_download import PartialDownload
from scenebeam.storage.store import AtomicFile, Store, checked_key

_CHECKSUM = "scenebeam-checksum"
"""Custom metadata of an object: its SHA-256 as a multihash, which GCS itself does not keep."""
_DOWNLOADING = ".arriving/"
"""Folder of objects that have not been verified yet. A killed process may leave some there; the
next download of the same file replaces them.
"""
_CONCURRENT_REQUESTS = 16
_CHUNK = 8 * 2**20
"""Bytes of an upload that are held in memory."""
_READ_CHUNK = 2**20
"""Bytes that one request for a part of an object asks for at least."""
_FEW_KEYS = 1000
"""Objects that are looked up one by one; for more of them, all are listed."""


@cache
def _client() -> Any:
    return storage.Client()


class GcsStore(Store):
    """Objects under `gs://bucket/prefix`. The version of an object is its generation."""

    def __init__(self, uri: str) -> None:
        bucket, _, prefix = uri.removeprefix("gs://").partition("/")
        self.uri = uri.rstrip("/")
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        with storage_errors(f"cannot use {self.uri}"):
            self._bucket = _client().bucket(bucket)

    def _list_keys(self, prefix: str) -> set[str]:
        return set(self._list_generations(prefix))

    def _versions(self, prefix: str, keys: set[str]) -> dict[str, str]:
        if len(keys) <= _FEW_KEYS:
            return self._get_generations(sorted(keys))
        # One listing is faster than one request per key.
        generations = self._list_generations(prefix)
        return {key: generations[key] for key in keys & generations.keys()}

    def _get_generations(self, keys: Sequence[str]) -> dict[str, str]:
        generations = {}
        with ThreadPoolExecutor(_CONCURRENT_REQUESTS) as threads:
            for key, blob in zip(keys, threads.map(self._get_blob, keys), strict=True):
                if blob is not None:
                    generations[key] = str(blob.generation)
        return generations

    def _list_generations(self, prefix: str) -> dict[str, str]:
        generations = {}
        for blob in self._list_blobs(prefix, "generation"):
            generations[blob.name.removeprefix(self._prefix)] = str(blob.generation)
        return generations

    def _list_blobs(self, prefix: str, field: str) -> Iterator[Any]:
        """Yield published objects with their name and one more field."""
        fields = f"items(name,{field}),nextPageToken"
        with storage_errors(f"cannot list {self.uri}"):
            for blob in _client().list_blobs(
                self._bucket, prefix=self._prefix + prefix, fields=fields
            ):
                if not blob.name.startswith(self._prefix + _DOWNLOADING):
                    yield blob

    def read(self, key: str) -> bytes | None:
        """Read an object as it is stored; None if it does not exist.

        An object with `Content-Encoding: gzip` is not decompressed, because it may expand to a
        thousand times its size.
        """
        with storage_errors(f"cannot read {self.uri_for(key)}"):
            try:
                return bytes(
                    self._blob(key).download_as_bytes(raw_download=True, checksum="crc32c")
                )
            except NotFound:
                return None

    def open_read(self, key: str) -> IO[bytes]:
        blob = self._get_blob(key)
        if blob is None:
            raise StorageError(f"cannot read {self.uri_for(key)}: no such object")
        return io.BufferedReader(ObjectReader(blob, self.uri_for(key)), _READ_CHUNK)

    def size(self, key: str) -> int | None:
        blob = self._get_blob(key)
        return None if blob is None else int(blob.size)

    def modified(self, key: str) -> float | None:
        """Return when the object's generation was created; None if there is no object."""
        blob = self._get_blob(key)
        return None if blob is None else float(blob.time_created.timestamp())

    def list_modified(self, prefix: str) -> dict[str, float]:
        times = {}
        for blob in self._list_blobs(prefix, "timeCreated"):
            times[blob.name.removeprefix(self._prefix)] = float(blob.time_created.timestamp())
        return times

    def create(self, key: str, content: bytes) -> bool:
        # Generation 0 stands for an object that does not exist.
        return self.replace(key, content, "0")

    def read_version(self, key: str) -> tuple[bytes, str] | None:
        """Read an object and its generation; None if it does not exist."""
        with storage_errors(f"cannot read {self.uri_for(key)}"):
            blob = self._blob(key)
            try:
                content = bytes(blob.download_as_bytes(checksum="crc32c"))
            except NotFound:
                return None
            return content, str(blob.generation)

    def replace(self, key: str, content: bytes, version: str) -> bool:
        with storage_errors(f"cannot write {self.uri_for(key)}"):
            try:
                self._blob(key).upload_from_string(
                    content,
                    checksum="crc32c",
                    if_generation_match=int(version),
                    retry=DEFAULT_RETRY,
                )
            except PreconditionFailed:
                return False
            return True

    @contextmanager
    def open_write(self, key: str) -> Iterator[AtomicFile]:
        """Open a file to write it front to back; it is uploaded when the block ends."""
        with tempfile.TemporaryFile() as file:
            atomic_file = AtomicFile(file)
            yield atomic_file
            file.seek(0)
            self._publish(
                key,
                atomic_file.checksum,
                lambda blob, **options: blob.upload_from_file(file, **options),
            )

    def upload(self, key: str, path: Path) -> None:
        self._publish(
            key,
            file_multihash(path),
            lambda blob, **options: blob.upload_from_filename(path, **options),
        )

    def _publish(self, key: str, checksum: str, send: Callable[..., Any]) -> None:
        blob = self._blob(key)
        blob.metadata = {_CHECKSUM: checksum}
        with (
            storage_errors(f"cannot write {self.uri_for(key)}"),
            self._accept_lost_race(blob.name),
        ):
            send(
                blob,
                checksum="crc32c",
                if_generation_match=self._generation(blob.name),
                retry=DEFAULT_RETRY,
            )

    @contextmanager
    def _accept_lost_race(self, name: str) -> Iterator[None]:
        """Accept the object of another worker that has made the same task in the meantime.

        The same plan gives the same bytes, so it makes no difference whose object it is.
        """
        try:
            yield
        except PreconditionFailed:
            if self._bucket.get_blob(name) is None:
                raise

    def _generation(self, name: str) -> int:
        current = self._bucket.get_blob(name)
        return current.generation if current is not None else 0

    @contextmanager
    def open_download(
        self, key: str, source: str, algorithms: Iterable[str] = ()
    ) -> Iterator[PartialDownload]:
        """Open a file to download it: it streams through memory into a temporary object.

        Nothing is kept when the block ends without `publish`.
        """
        partial_download = _GcsDownload(self, key, algorithms)
        try:
            yield partial_download
        finally:
            partial_download.close()

    def copy(self, key: str, target: str) -> None:
        """Publish an object under a second key too; its bytes are copied inside the bucket."""
        source = self._get_blob(key)
        if source is None:
            raise StorageError(f"{self.uri_for(key)} does not exist")
        self.rewrite(source, target, (source.metadata or {}).get(_CHECKSUM))

    def rewrite(self, source: Any, target: str, checksum: str | None) -> None:
        """Publish a copy of an object of the bucket.

        Args:
            source: The blob to copy.
            target: Key of the copy.
            checksum: Its SHA-256 as a multihash, if known.
        """
        blob = self._blob(target)
        if checksum:
            blob.metadata = {_CHECKSUM: checksum}
        with (
            storage_errors(f"cannot write {self.uri_for(target)}"),
            self._accept_lost_race(blob.name),
        ):
            generation, token = self._generation(blob.name), None
            # A large object is copied in several calls, each of which returns a token for the next.
            while True:
                token, _, _ = blob.rewrite(
                    source, token=token, if_generation_match=generation, retry=DEFAULT_RETRY
                )
                if token is None:
                    return

    def free_space(self) -> int | None:
        return None

    def checksum(self, key: str) -> tuple[int, str]:
        """Return the size of an object in bytes, and its checksum as a multihash in hex.

        The checksum is the SHA-256 that the object was published with, else the MD5 of GCS.
        """
        blob = self._get_blob(key)
        if blob is None:
            raise StorageError(f"{self.uri_for(key)} does not exist")
        sha256 = (blob.metadata or {}).get(_CHECKSUM)
        return blob.size, sha256 or MD5_PREFIX + base64.b64decode(blob.md5_hash or "").hex()

    def crc32c(self, key: str) -> int:
        """Return the CRC32C of an object, which GCS keeps."""
        blob = self._get_blob(key)
        if blob is None:
            raise StorageError(f"{self.uri_for(key)} does not exist")
        return decode_crc32c(blob.crc32c)

    @property
    def composer(self) -> Composer:
        return GcsComposer(self._bucket, self._prefix)

    def matches(self, key: str, path: Path) -> bool:
        """Return whether an object exists with the size and the CRC32C of a local file."""
        blob = self._get_blob(key)
        if blob is None or blob.size != path.stat().st_size:
            return False
        return decode_crc32c(blob.crc32c) == file_crc32c(path)

    @contextmanager
    def local_copy(self, key: str) -> Iterator[Path]:
        """Provide the object's content in a temporary file until the block ends."""
        # The file is closed: an image has thousands of parts, more than a process may have open.
        descriptor, name = tempfile.mkstemp(suffix=Path(key).suffix)
        path = Path(name)
        try:
            with (
                os.fdopen(descriptor, "wb") as file,
                storage_errors(f"cannot read {self.uri_for(key)}"),
            ):
                self._blob(key).download_to_file(file, checksum="crc32c")
            yield path
        finally:
            path.unlink()

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects, several at a time; those that do not exist are ignored."""
        with (
            storage_errors(f"cannot delete in {self.uri}"),
            ThreadPoolExecutor(_CONCURRENT_REQUESTS) as threads,
        ):
            list(threads.map(self._delete, keys))

    def _delete(self, key: str) -> None:
        with suppress(NotFound):
            self._blob(key).delete()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock nothing: two runs of one plan publish the same objects."""
        yield

    def is_held(self) -> bool | None:
        return None

    def _blob(self, key: str) -> Any:
        return self._bucket.blob(self._prefix + checked_key(key))

    def _get_blob(self, key: str) -> Any:
        """Return an object with its properties; None if it does not exist."""
        with storage_errors(f"cannot read {self.uri_for(key)}"):
            return self._bucket.get_blob(self._blob(key).name)


class _GcsDownload(PartialDownload):
    """A download that streams into a temporary object, which is then copied to its key."""

    def __init__(self, store: GcsStore, key: str, algorithms: Iterable[str]) -> None:
        super().__init__(algorithms)
        self._store, self._key = store, key
        self._temporary_key = f"{_DOWNLOADING}{key}"
        self._writer: Any = None
        self._crc32c = Checksum()

    def check_free_space(self) -> None:
        return

    def _append(self, data: bytes) -> None:
        with storage_errors(f"cannot write {self._store.uri_for(self._key)}"):
            if self._writer is None:
                self._writer = self._store._blob(self._temporary_key).open(
                    "wb", chunk_size=_CHUNK, retry=DEFAULT_RETRY
                )
            self._writer.write(data)
            self._crc32c.update(data)

    def _discard(self) -> None:
        self._crc32c = Checksum()
        writer, self._writer = self._writer, None
        if writer is None:
            return
        if writer.closed:
            self._store.delete([self._temporary_key])
        else:
            # Closing the writer would create the object from what has been sent so far.
            writer.terminate()

    def finish(self) -> str:
        uri = self._store.uri_for(self._key)
        with storage_errors(f"cannot write {uri}"):
            self._writer.close()
            blob = self._store._bucket.get_blob(self._store._blob(self._temporary_key).name)
        if blob is None or blob.crc32c != base64.b64encode(self._crc32c.digest()).decode():
            raise StorageError(
                f"{uri}: the uploaded object differs from the bytes that were sent; run again"
            )
        return self._store.uri_for(self._temporary_key)

    def publish(self) -> None:
        self._store.rewrite(self._store._blob(self._temporary_key), self._key, self.checksum)
        self._discard()

    def close(self) -> None:
        """Remove the temporary object: no other process could resume the upload."""
        self._discard()
