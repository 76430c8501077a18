"""Google Cloud Storage: each object by one upload with a generation precondition and a checksum."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from google.api_core.exceptions import Forbidden, GoogleAPIError, NotFound, PreconditionFailed
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY

from scenebeam.errors import StorageError
from scenebeam.storage.store import Publication, Store, checked_name


@cache
def _client() -> Any:
    return storage.Client()


class GcsStore(Store):
    """Objects under `gs://bucket/prefix`."""

    def __init__(self, uri: str) -> None:
        bucket, _, prefix = uri.removeprefix("gs://").partition("/")
        self.uri = uri.rstrip("/")
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._bucket = _client().bucket(bucket)

    def list(self, prefix: str = "") -> set[str]:
        """Names of all objects that start with `prefix`."""
        with self._blame(f"cannot list {self.uri}"):
            found = _client().list_blobs(self._bucket, prefix=self._prefix + prefix, fields="items(name),nextPageToken")
            return {blob.name.removeprefix(self._prefix) for blob in found}

    def read(self, name: str) -> bytes | None:
        """An object's content; None where there is no such object."""
        with self._blame(f"cannot read {self.path(name)}"):
            try:
                return bytes(self._blob(name).download_as_bytes(checksum="crc32c"))
            except NotFound:
                return None

    @contextmanager
    def writing(self, name: str) -> Iterator[Publication]:
        """A file to write front to back: it appears under its name when the block ends well, else never."""
        blob = self._blob(name)
        with tempfile.TemporaryFile() as file:
            yield Publication(file)
            with self._blame(f"cannot write {self.path(name)}"):
                current = self._bucket.get_blob(blob.name)
                file.seek(0)
                try:
                    blob.upload_from_file(
                        file,
                        checksum="crc32c",
                        if_generation_match=current.generation if current is not None else 0,
                        retry=DEFAULT_RETRY,
                    )
                except PreconditionFailed:
                    # Another worker made the same task: the same plan gives the same bytes, so its object stands.
                    if self._bucket.get_blob(blob.name) is None:
                        raise

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
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
    def exclusive(self) -> Iterator[None]:
        """Nothing to hold: two runs of one plan publish the same objects."""
        yield

    def _blob(self, name: str) -> Any:
        return self._bucket.blob(self._prefix + checked_name(name))

    @contextmanager
    def _blame(self, what: str) -> Iterator[None]:
        try:
            yield
        except Forbidden as error:
            raise StorageError(f"{what}: permission denied; give the account access to the bucket") from error
        except NotFound as error:
            raise StorageError(f"{what}: no such bucket or object") from error
        except GoogleAPIError as error:
            raise StorageError(f"{what}: {error}") from error
