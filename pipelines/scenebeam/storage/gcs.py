"""Google Cloud Storage: each object by one upload with a generation precondition and a checksum."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from google.api_core.exceptions import Forbidden, GoogleAPIError, NotFound, PreconditionFailed
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY
from google_crc32c import Checksum

from scenebeam.errors import StorageError
from scenebeam.multihash import file_multihash
from scenebeam.storage.arrival import PartialDownload
from scenebeam.storage.store import AtomicFile, Store, checked_name

_CHECKSUM = "scenebeam-checksum"
"""Custom metadata of an object: its SHA-256 as a multihash, which GCS itself does not keep."""
_ARRIVING = ".arriving/"
"""Folder of objects that are not looked at yet. One that a killed process left there is replaced by the next try."""
_CHUNK = 8 * 2**20
"""Bytes of an upload that are held in memory."""
_SIGN_IN = (
    "sign in with `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to the key file "
    "of a service account"
)


@cache
def _client() -> Any:
    return storage.Client()


class GcsStore(Store):
    """Objects under `gs://bucket/prefix`."""

    def __init__(self, uri: str) -> None:
        bucket, _, prefix = uri.removeprefix("gs://").partition("/")
        self.uri = uri.rstrip("/")
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        with self._blame(f"cannot use {self.uri}"):
            self._bucket = _client().bucket(bucket)

    def _names(self, prefix: str) -> set[str]:
        return set(self._listed(prefix))

    def _versions(self, prefix: str, names: set[str]) -> dict[str, str]:
        return {name: version for name, version in self._listed(prefix).items() if name in names}

    def _listed(self, prefix: str) -> dict[str, str]:
        """Generations of all objects that start with `prefix`, by name."""
        fields = "items(name,generation),nextPageToken"
        with self._blame(f"cannot list {self.uri}"):
            found = _client().list_blobs(self._bucket, prefix=self._prefix + prefix, fields=fields)
            return {blob.name.removeprefix(self._prefix): str(blob.generation) for blob in found}

    def read(self, name: str) -> bytes | None:
        """An object's content as it is stored; None where there is no such object.

        One with `Content-Encoding: gzip` is not unpacked: it may be a thousand times its size.
        """
        with self._blame(f"cannot read {self.path(name)}"):
            try:
                return bytes(
                    self._blob(name).download_as_bytes(raw_download=True, checksum="crc32c")
                )
            except NotFound:
                return None

    def size(self, name: str) -> int | None:
        """Bytes of an object; None where there is no such object."""
        with self._blame(f"cannot read {self.path(name)}"):
            blob = self._bucket.get_blob(self._blob(name).name)
        return None if blob is None else int(blob.size)

    def modified(self, name: str) -> float | None:
        """When the object's generation was created, by the bucket's clock; None where there is no such object."""
        with self._blame(f"cannot read {self.path(name)}"):
            blob = self._bucket.get_blob(self._blob(name).name)
        return None if blob is None else float(blob.time_created.timestamp())

    def create(self, name: str, content: bytes) -> bool:
        """Publish a small object unless there is one of the name already; whether it was."""
        return self.replace(name, content, "0")

    def read_version(self, name: str) -> tuple[bytes, str] | None:
        """An object's content and its generation."""
        with self._blame(f"cannot read {self.path(name)}"):
            blob = self._blob(name)
            try:
                content = bytes(blob.download_as_bytes(checksum="crc32c"))
            except NotFound:
                return None
            return content, str(blob.generation)

    def replace(self, name: str, content: bytes, version: str) -> bool:
        """Publish a small object in place of that generation of it; False where it is another by now."""
        with self._blame(f"cannot write {self.path(name)}"):
            try:
                self._blob(name).upload_from_string(
                    content,
                    checksum="crc32c",
                    if_generation_match=int(version),
                    retry=DEFAULT_RETRY,
                )
            except PreconditionFailed:
                return False
            return True

    @contextmanager
    def open_write(self, name: str) -> Iterator[AtomicFile]:
        """A file to write front to back: it appears under its name when the block ends well, else never."""
        with tempfile.TemporaryFile() as file:
            publication = AtomicFile(file)
            yield publication
            file.seek(0)
            self._publish(
                name, publication.checksum, lambda blob, **how: blob.upload_from_file(file, **how)
            )

    def upload(self, name: str, path: Path) -> None:
        """Publish a file of this machine."""
        self._publish(
            name, file_multihash(path), lambda blob, **how: blob.upload_from_filename(path, **how)
        )

    def _publish(self, name: str, checksum: str, send: Callable[..., Any]) -> None:
        blob = self._blob(name)
        blob.metadata = {_CHECKSUM: checksum}
        with self._blame(f"cannot write {self.path(name)}"), self._first_stands(blob.name):
            send(
                blob,
                checksum="crc32c",
                if_generation_match=self._generation(blob.name),
                retry=DEFAULT_RETRY,
            )

    @contextmanager
    def _first_stands(self, name: str) -> Iterator[None]:
        """Where another worker has made the same task, its object stands: the same plan gives the same bytes."""
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
        self, name: str, source: str, algorithms: Iterable[str] = ()
    ) -> Iterator[PartialDownload]:
        """A file that streams from `source` into an object of another name, through memory alone."""
        arrival = _GcsArrival(self, name, algorithms)
        try:
            yield arrival
        finally:
            arrival.close()

    def copy(self, name: str, target: str) -> None:
        """Inside the bucket: its bytes do not travel."""
        with self._blame(f"cannot read {self.path(name)}"):
            source = self._bucket.get_blob(self._blob(name).name)
        if source is None:
            raise StorageError(f"{self.path(name)} is not there")
        self.rewrite(source, target, (source.metadata or {}).get(_CHECKSUM))

    def rewrite(self, source: Any, target: str, checksum: str | None) -> None:
        """Publish an object of the bucket under another name."""
        blob = self._blob(target)
        if checksum:
            blob.metadata = {_CHECKSUM: checksum}
        with self._blame(f"cannot write {self.path(target)}"), self._first_stands(blob.name):
            match, token = self._generation(blob.name), None
            while True:
                token, _, _ = blob.rewrite(
                    source, token=token, if_generation_match=match, retry=DEFAULT_RETRY
                )
                if token is None:
                    return

    def free_space(self) -> int | None:
        """A bucket has no end."""
        return None

    def checksum(self, name: str) -> tuple[int, str]:
        """Size in bytes, and the SHA-256 that it was published with, else its MD5, as a multihash."""
        with self._blame(f"cannot read {self.path(name)}"):
            blob = self._bucket.get_blob(self._blob(name).name)
        if blob is None:
            raise StorageError(f"{self.path(name)} is not there")
        told = (blob.metadata or {}).get(_CHECKSUM)
        return blob.size, told or f"d50110{base64.b64decode(blob.md5_hash or '').hex()}"

    def matches(self, name: str, path: Path) -> bool:
        """Whether an object is there with the size and the CRC32C of a file."""
        with self._blame(f"cannot read {self.path(name)}"):
            blob = self._bucket.get_blob(self._blob(name).name)
        if blob is None or blob.size != path.stat().st_size:
            return False
        with path.open("rb") as file:
            found = Checksum()
            for _ in found.consume(file, 2**20):
                pass
        return bool(blob.crc32c == base64.b64encode(found.digest()).decode())

    @contextmanager
    def local_copy(self, name: str) -> Iterator[Path]:
        """The object's content in a temporary file."""
        with tempfile.NamedTemporaryFile(suffix=Path(name).suffix) as file:
            with self._blame(f"cannot read {self.path(name)}"):
                self._blob(name).download_to_file(file, checksum="crc32c")
            file.flush()
            yield Path(file.name)

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects; one that is not there is no fault."""
        with self._blame(f"cannot delete in {self.uri}"):
            for name in names:
                try:
                    self._blob(name).delete()
                except NotFound:
                    continue

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Nothing to hold: two runs of one plan publish the same objects."""
        yield

    def is_held(self) -> bool | None:
        """Nobody holds a bucket."""
        return None

    def _blob(self, name: str) -> Any:
        return self._bucket.blob(self._prefix + checked_name(name))

    @contextmanager
    def _blame(self, what: str) -> Iterator[None]:
        try:
            yield
        except Forbidden as error:
            raise StorageError(
                f"{what}: permission denied; give the account access to the bucket"
            ) from error
        except NotFound as error:
            raise StorageError(f"{what}: no such bucket or object") from error
        except GoogleAuthError as error:
            raise StorageError(f"{what}: no valid Google credentials; {_SIGN_IN}") from error
        except GoogleAPIError as error:
            raise StorageError(f"{what}: {error}") from error


class _GcsArrival(PartialDownload):
    """An object under a name of its own, streamed; then copied to its place inside the bucket."""

    def __init__(self, store: GcsStore, name: str, algorithms: Iterable[str]) -> None:
        super().__init__(algorithms)
        self._store, self._name = store, name
        self._arriving = f"{_ARRIVING}{name}"
        self._writer: Any = None
        self._crc = Checksum()

    def check_free_space(self) -> None:
        return

    def _append(self, data: bytes) -> None:
        with self._store._blame(f"cannot write {self._store.path(self._name)}"):
            if self._writer is None:
                self._writer = self._store._blob(self._arriving).open(
                    "wb", chunk_size=_CHUNK, retry=DEFAULT_RETRY
                )
            self._writer.write(data)
            self._crc.update(data)

    def _empty(self) -> None:
        self._crc = Checksum()
        writer, self._writer = self._writer, None
        if writer is None:
            return
        if writer.closed:
            self._store.delete([self._arriving])
        else:
            writer.terminate()

    def finish(self) -> str:
        with self._store._blame(f"cannot write {self._store.path(self._name)}"):
            self._writer.close()
            blob = self._store._bucket.get_blob(self._store._blob(self._arriving).name)
        if blob is None or blob.crc32c != base64.b64encode(self._crc.digest()).decode():
            raise StorageError(
                f"{self._store.path(self._name)}: the bucket holds other bytes than were sent; run again"
            )
        return self._store.path(self._arriving)

    def publish(self) -> None:
        self._store.rewrite(self._store._blob(self._arriving), self._name, self.checksum)
        self._empty()

    def close(self) -> None:
        """Leave nothing behind: an upload that was not finished cannot be gone on with by another process."""
        self._empty()
