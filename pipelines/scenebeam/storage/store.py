"""Store: the operations that a run needs from the place where its products are stored."""

from __future__ import annotations

import hashlib
import io
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

from scenebeam.csvtable import File
from scenebeam.errors import StorageError
from scenebeam.multihash import multihash
from scenebeam.storage.composer import Composer
from scenebeam.storage.crc32c import file_crc32c
from scenebeam.storage.partial_download import PartialDownload
from scenebeam.storage.superseded import SupersededFiles

SUPERSEDED = "superseded.json"
"""Key of the record of superseded files."""
_WRITE_THREADS = 16
"""Files that are uploaded at the same time."""
_KEY = re.compile(r"^(?!.*(?:^|/)\.{1,2}(?:/|$))[A-Za-z0-9._+-][A-Za-z0-9._+/-]*$")
"""A relative path of plain characters, without `.` and `..` among its parts."""


class AtomicFile(io.RawIOBase):
    """A file that is written front to back, and published only when it is complete."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.size, self._digest = file, 0, hashlib.sha256()

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.size

    def write(self, data: Any) -> int:
        """Append the next bytes.

        Args:
            data: A bytes-like object.

        Returns:
            The number of bytes written: all of them.
        """
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)
        return len(data)

    @property
    def checksum(self) -> str:
        """SHA-256 of what has been written, as a multihash in hex (STAC's `file:checksum`)."""
        return multihash(self._digest.hexdigest())


class Store(ABC):
    """Files under one folder or bucket prefix, by key.

    A *key* is a path relative to the store (`mosaics/20230202T092109Z/red.tif`), a *URI* an
    absolute path or a `gs://` URL. All files are published atomically: readers see a complete file
    or none.

    Files that a new plan will replace are *superseded*: they can still be read, but `list` leaves
    them out, so that the run makes every file that is not listed. The record of superseded files
    holds the version of each. A file whose version has changed has been replaced, and counts as
    published again.
    """

    uri: str
    """URI of the folder or prefix, without a trailing slash."""
    _record: SupersededFiles | None = None

    def list(self, prefix: str = "") -> set[str]:
        """List the published files, without superseded ones.

        Args:
            prefix: Start of the keys.

        Returns:
            Their keys.
        """
        return self._list_keys(prefix) - self.superseded(prefix)

    def find_existing(self, keys: Iterable[str]) -> set[str]:
        """Return those of some files that are published, without superseded ones.

        Unlike `list`, it takes no longer in an output of very many files.

        Args:
            keys: Keys of the files.
        """
        versions = self._versions("", set(keys))
        recorded = self._read_record().versions
        return {key for key, version in versions.items() if recorded.get(key) != version}

    def superseded(self, prefix: str = "") -> set[str]:
        """Return the keys of superseded files that start with `prefix`."""
        record = self._read_record()
        recorded = record.keys(prefix)
        if not recorded:
            return set()
        versions = self._versions(prefix, recorded)
        unchanged = {key for key in recorded if versions.get(key) == record.versions[key]}
        record.forget(recorded - unchanged)
        return unchanged

    def supersede(self, keys: Iterable[str]) -> None:
        """Mark published files as superseded, in addition to those that already are.

        Args:
            keys: Keys of the files; those that do not exist are ignored.
        """
        marked = {*keys, *self.superseded()}
        self._record = SupersededFiles(self._versions("", marked))
        if self._record.versions or self.size(SUPERSEDED) is not None:
            self.write(SUPERSEDED, self._record.to_bytes(self.uri))

    def release_superseded(self) -> set[str]:
        """Treat superseded files like all others from now on.

        Returns:
            The keys of these files and of their record. The caller deletes them when all planned
            files have been made and no table refers to the old ones any more.
        """
        if self.size(SUPERSEDED) is None:
            return set()
        left = self.superseded()
        self._record = SupersededFiles({})
        return {*left, SUPERSEDED}

    def _read_record(self) -> SupersededFiles:
        if self._record is None:
            content = self.read(SUPERSEDED)
            versions = {} if content is None else self._valid_versions(json.loads(content))
            self._record = SupersededFiles(versions)
        return self._record

    def _valid_versions(self, document: dict[str, Any]) -> dict[str, str]:
        # An output that was moved or copied has files of other versions. Its current versions are
        # taken as those recorded, so that files replaced before the move are replaced once more.
        recorded: dict[str, str] = document["files"]
        return recorded if document["uri"] == self.uri else self._versions("", set(recorded))

    @abstractmethod
    def _list_keys(self, prefix: str) -> set[str]:
        """Return the keys of all published files that start with `prefix`."""

    @abstractmethod
    def _versions(self, prefix: str, keys: set[str]) -> dict[str, str]:
        """Return the versions of files, by key, without those that do not exist.

        A version changes whenever the file is replaced. All keys start with `prefix`.
        """

    @abstractmethod
    def read(self, key: str) -> bytes | None:
        """Read a file; None if it does not exist."""

    @abstractmethod
    def open_read(self, key: str) -> IO[bytes]:
        """Open a file to read parts of it: only those parts are transferred.

        Raises:
            StorageError: The file does not exist, or cannot be read.
        """

    @abstractmethod
    def size(self, key: str) -> int | None:
        """Return the size of a file in bytes; None if it does not exist."""

    @abstractmethod
    def modified(self, key: str) -> float | None:
        """Return when a file was last written; None if it does not exist.

        Returns:
            Seconds since 1970, by the store's own clock. Compare them only with times of the same
            store.
        """

    @abstractmethod
    def list_modified(self, prefix: str) -> dict[str, float]:
        """List files with the time when each was last written: see `modified`.

        Args:
            prefix: Start of the keys.
        """

    @abstractmethod
    def create(self, key: str, content: bytes) -> bool:
        """Create a small file atomically if it does not exist.

        Args:
            key: Key of the file.
            content: Its content.

        Returns:
            True if the file was created, False if there was one of this key already.
        """

    @abstractmethod
    def read_version(self, key: str) -> tuple[bytes, str] | None:
        """Read a file and its version, for `replace`; None if it does not exist."""

    @abstractmethod
    def replace(self, key: str, content: bytes, version: str) -> bool:
        """Replace a small file atomically if it still has the given version.

        Args:
            key: Key of the file.
            content: The new content.
            version: The version that `read_version` returned.

        Returns:
            True if the file was replaced, False if it has another version by now. If the response
            is lost, the result may be False although the file was replaced, so changes must be
            idempotent.
        """

    @abstractmethod
    def open_write(self, key: str) -> AbstractContextManager[AtomicFile]:
        """Open a file to write it front to back.

        Args:
            key: Key of the file.

        Returns:
            A context manager that yields the file. The file is published when the block ends, but
            not if the block raises an exception.
        """

    @abstractmethod
    def open_download(
        self, key: str, source: str, algorithms: Iterable[str] = ()
    ) -> AbstractContextManager[PartialDownload]:
        """Open a file to download it piece by piece.

        What has been received when the block ends without `publish` is kept where the store can,
        and the next download from the same source resumes there.

        Args:
            key: Key of the file.
            source: Identifies what is downloaded: its unsigned href.
            algorithms: Names in hashlib of the digests to compute, besides SHA-256.
        """

    @abstractmethod
    def upload(self, key: str, path: Path) -> None:
        """Publish a copy of a local file.

        Args:
            key: Key of the published file.
            path: The local file.
        """

    @abstractmethod
    def copy(self, key: str, target: str) -> None:
        """Publish a file under a second key too, if possible without copying its bytes.

        Args:
            key: Key of the file.
            target: The second key.

        Raises:
            StorageError: The file does not exist.
        """

    @abstractmethod
    def free_space(self) -> int | None:
        """Return the free space in bytes; None if it is unlimited."""

    @abstractmethod
    def checksum(self, key: str) -> tuple[int, str]:
        """Compute the checksum of a file.

        Args:
            key: Key of the file.

        Returns:
            Its size in bytes, and its SHA-256 as a multihash in hex (STAC's `file:checksum`).
        """

    def crc32c(self, key: str) -> int:
        """Return the CRC32C of a file.

        Raises:
            StorageError: The file does not exist, or cannot be read.
        """
        with self.local_copy(key) as path:
            return file_crc32c(path)

    @property
    def composer(self) -> Composer | None:
        """What composes files of pieces inside the store; None if the store cannot."""
        return None

    @abstractmethod
    def matches(self, key: str, path: Path) -> bool:
        """Compare a file with a local one.

        Args:
            key: Key of the file.
            path: The local file.

        Returns:
            Whether the file exists and has the same content.
        """

    @abstractmethod
    def local_copy(self, key: str) -> AbstractContextManager[Path]:
        """Provide a file on a local disk.

        Args:
            key: Key of the file.

        Returns:
            A context manager that yields the path, which is valid until the block ends.
        """

    @abstractmethod
    def delete(self, keys: Iterable[str]) -> None:
        """Delete files; those that do not exist are ignored."""

    @abstractmethod
    def lock(self) -> AbstractContextManager[None]:
        """Lock the store for one run.

        Raises:
            StorageError: Another run on this machine holds the lock.
        """

    @abstractmethod
    def is_held(self) -> bool | None:
        """Return whether a run on this machine holds the lock; None if that cannot be known."""

    def write(self, key: str, content: bytes) -> None:
        """Publish a small file.

        Args:
            key: Key of the file.
            content: Its content.
        """
        with self.open_write(key) as file:
            file.write(content)

    def write_all(self, files: Mapping[str, File]) -> None:
        """Publish small files, several at a time. All of them are durable when it returns.

        Each file is published atomically, but not all of them together: if one fails, others may
        be published.

        Args:
            files: The files by key.
        """

        def write(key: str) -> None:
            with self.open_write(key) as file:
                files[key].write_to(file)

        with ThreadPoolExecutor(_WRITE_THREADS) as threads:
            list(threads.map(write, files))

    def uri_for(self, key: str) -> str:
        """Return the absolute path or URL of a file, for messages and hrefs."""
        return f"{self.uri.rstrip('/')}/{key}"

    def remove_partial_files(self) -> None:
        """Remove incomplete files that a killed run has left. Partial downloads stay."""
        return


def checked_key(key: str) -> str:
    """Return a key unchanged if it is valid and stays inside the store.

    Raises:
        StorageError: The key is absolute, contains `..`, or has characters other than letters,
            digits and `._+/-`.
    """
    if not _KEY.match(key):
        raise StorageError(f"{key!r} is not a valid key: it must stay inside the output folder")
    return key
