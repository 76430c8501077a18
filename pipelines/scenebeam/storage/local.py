"""A store in a local folder. Files are written under a temporary name, synced and renamed."""

from __future__ import annotations

import errno
import fcntl
import filecmp
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from scenebeam.csvtable import File
from scenebeam.errors import StorageError
from scenebeam.multihash import file_multihash
from scenebeam.storage.partial_download import PartialDownload
from scenebeam.storage.store import AtomicFile, Store, checked_key

_PARTIAL = ".partial"
"""Suffix of files that are being written. A killed run leaves them; the next one removes them."""
_DOWNLOADING = ".arriving"
"""Suffix of files that are being downloaded. They are kept, so that the next run resumes them."""
_LOCK = ".scenebeam.lock"
_CONCURRENT_SYNCS = 8
"""Files synced at the same time: the file system commits those that wait together."""


class LocalStore(Store):
    """Files under a local folder."""

    def __init__(self, uri: str) -> None:
        self._root = Path(uri.removeprefix("file://")).expanduser().absolute()
        self.uri = str(self._root)

    def _list_keys(self, prefix: str) -> set[str]:
        keys = set()
        # Only the folder that of the prefix is walked.
        for folder, _, files in os.walk(self._root / prefix.rpartition("/")[0]):
            parent = os.path.relpath(folder, self._root)
            for file in files:
                key = file if parent == "." else f"{parent}/{file}".replace(os.sep, "/")
                # Hidden files are temporary files and the lock.
                if not file.startswith(".") and key.startswith(prefix):
                    keys.add(key)
        return keys

    def _versions(self, prefix: str, keys: set[str]) -> dict[str, str]:
        versions = {}
        for key in keys:
            try:
                stat = self._path(key).stat()
            except FileNotFoundError:
                continue
            versions[key] = f"{stat.st_ino}-{stat.st_mtime_ns}-{stat.st_size}"
        return versions

    def read(self, key: str) -> bytes | None:
        with _storage_errors(f"cannot read {self.uri_for(key)}"):
            try:
                return self._path(key).read_bytes()
            except FileNotFoundError:
                return None

    def open_read(self, key: str) -> IO[bytes]:
        with _storage_errors(f"cannot read {self.uri_for(key)}"):
            return self._path(key).open("rb")

    def size(self, key: str) -> int | None:
        path = self._path(key)
        return path.stat().st_size if path.is_file() else None

    def modified(self, key: str) -> float | None:
        with _storage_errors(f"cannot read {self.uri_for(key)}"), suppress(FileNotFoundError):
            return self._path(key).stat().st_mtime
        return None

    def list_modified(self, prefix: str) -> dict[str, float]:
        times = ((key, self.modified(key)) for key in self._list_keys(prefix))
        return {key: time for key, time in times if time is not None}

    def create(self, key: str, content: bytes) -> bool:
        with self._locked_folder(key) as path:
            if path.exists():
                return False
            self.write(key, content)
            return True

    def read_version(self, key: str) -> tuple[bytes, str] | None:
        """Read a file and its version: a hash of its content. None if it does not exist."""
        content = self.read(key)
        return None if content is None else (content, _sha256(content))

    def replace(self, key: str, content: bytes, version: str) -> bool:
        with self._locked_folder(key):
            current = self.read(key)
            if current is None or _sha256(current) != version:
                return False
            self.write(key, content)
            return True

    @contextmanager
    def _locked_folder(self, key: str) -> Iterator[Path]:
        """Lock the folder of a file against other calls of `create` and `replace`."""
        path = self._path(key)
        with _storage_errors(f"cannot write {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            folder = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield path
        finally:
            os.close(folder)

    @contextmanager
    def open_write(self, key: str) -> Iterator[AtomicFile]:
        target = self._path(key)
        partial = _temporary_name(target)
        try:
            with _storage_errors(f"cannot write {self.uri_for(key)}"):
                target.parent.mkdir(parents=True, exist_ok=True)
                with _open_synced(partial) as file:
                    yield AtomicFile(file)
                partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def write_all(self, files: Mapping[str, File]) -> None:
        """Publish small files, several at a time. All of them are durable when it returns.

        All files are written and synced under temporary names, then renamed, and then each folder
        is synced once.
        """
        targets = {key: self._path(key) for key in files}
        partials = {key: _temporary_name(target) for key, target in targets.items()}

        def write(key: str) -> None:
            with _storage_errors(f"cannot write {self.uri_for(key)}"):
                targets[key].parent.mkdir(parents=True, exist_ok=True)
                with _open_synced(partials[key]) as file:
                    files[key].write_to(file)

        try:
            with ThreadPoolExecutor(_CONCURRENT_SYNCS) as threads:
                list(threads.map(write, files))
                with _storage_errors(f"cannot write to {self._root}"):
                    for key, target in targets.items():
                        partials[key].replace(target)
                    list(threads.map(_sync_folder, self._folders_of(targets.values())))
        except BaseException:
            # The threads have ended by now, so no partial file is written after this.
            for partial in partials.values():
                partial.unlink(missing_ok=True)
            raise

    def _folders_of(self, paths: Iterable[Path]) -> set[Path]:
        """Return the folders that files are in, up to the root: each may be new in the next."""
        folders = set()
        for path in paths:
            for folder in path.parents:
                folders.add(folder)
                if folder == self._root:
                    break
        return folders

    @contextmanager
    def open_download(
        self, key: str, source: str, algorithms: Iterable[str] = ()
    ) -> Iterator[PartialDownload]:
        """Open a file to download it; what has been received is kept in a hidden file beside it."""
        partial_download = _LocalDownload(self._path(key), source, algorithms)
        try:
            yield partial_download
        finally:
            partial_download.close()

    def upload(self, key: str, path: Path) -> None:
        with path.open("rb") as content, self.open_write(key) as file:
            shutil.copyfileobj(content, file, 2**20)

    def copy(self, key: str, target: str) -> None:
        """Publish a file under a second key too, by a hard link where the file system has them."""
        source, path = self._path(key), self._path(target)
        if not source.exists():
            raise StorageError(f"{source} does not exist")
        # A link cannot replace a file, so it gets a temporary name and is renamed.
        partial = _temporary_name(path)
        try:
            with _storage_errors(f"cannot write {path}"):
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    partial.hardlink_to(source)
                except OSError:
                    self.upload(target, source)
                else:
                    partial.replace(path)
        finally:
            # Renaming a link onto another link to the same file does nothing, and leaves it.
            partial.unlink(missing_ok=True)

    def free_space(self) -> int | None:
        with _storage_errors(f"cannot use {self._root} as an output folder"):
            return shutil.disk_usage(self._root).free

    def checksum(self, key: str) -> tuple[int, str]:
        """Return the size of a file in bytes, and its SHA-256 as a multihash in hex."""
        path = self._path(key)
        with _storage_errors(f"cannot read {path}"):
            return path.stat().st_size, file_multihash(path)

    def matches(self, key: str, path: Path) -> bool:
        return self._path(key).exists() and filecmp.cmp(self._path(key), path, shallow=False)

    @contextmanager
    def local_copy(self, key: str) -> Iterator[Path]:
        """Provide the file itself."""
        path = self._path(key)
        if not path.exists():
            raise StorageError(f"{path} does not exist")
        yield path

    def delete(self, keys: Iterable[str]) -> None:
        """Delete files, their partial downloads, and folders that become empty."""
        for key in keys:
            path = self._path(key)
            for file in (path, *_download_files(path)):
                file.unlink(missing_ok=True)
            for folder in path.parents:
                if folder == self._root:
                    break
                try:
                    folder.rmdir()
                except OSError:  # not empty, or already removed by another process
                    break

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the folder for one run. The lock ends with the process, even if it is killed."""
        with _storage_errors(f"cannot use {self._root} as an output folder"):
            self._root.mkdir(parents=True, exist_ok=True)
            lock = (self._root / _LOCK).open("a")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StorageError(
                    f"another run is writing to {self._root}: wait for it, or stop it"
                ) from None
            yield

    def is_held(self) -> bool | None:
        try:
            with (self._root / _LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # no lock file: no run has used this folder
            return False
        return False

    def remove_partial_files(self) -> None:
        for leftover in self._root.rglob(f".*{_PARTIAL}"):
            leftover.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._root / checked_key(key)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def _open_synced(path: Path) -> Iterator[IO[bytes]]:
    """Create a file, and sync it when the block ends."""
    with path.open("wb") as file:
        yield file
        # Without fsync, a power failure after the rename could leave an empty file.
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the names of the files in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot sync folders
            raise
    finally:
        os.close(descriptor)


def _temporary_name(target: Path) -> Path:
    """Return a unique hidden name beside a file: a rename is atomic only within a file system."""
    return target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}{_PARTIAL}")


def _download_files(target: Path) -> tuple[Path, Path]:
    """Return the paths of a file's partial download and of its description."""
    name = f".{target.name}{_DOWNLOADING}"
    return target.with_name(name), target.with_name(f"{name}.json")


class _LocalDownload(PartialDownload):
    """A download into a hidden file beside its target.

    A JSON file beside it records the source, the validator and the total size, so that another
    process can resume the download.
    """

    def __init__(self, target: Path, source: str, algorithms: Iterable[str]) -> None:
        super().__init__(algorithms)
        self._target, self._source = target, source
        self._partial, self._description = _download_files(target)
        with _storage_errors(f"cannot write {target}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._partial.open("ab+", buffering=0)
            self._resume()

    def _resume(self) -> None:
        """Continue with what an earlier process has received, if it is of the same source."""
        try:
            description = json.loads(self._description.read_text())
            same_source = description["source"] == self._source
            validator, total = description["validator"], description["total"]
        except (OSError, ValueError, KeyError):
            same_source = False
        if same_source:
            self.validator, self.total = validator, total
        # Without a validator, the server cannot confirm that its file is still the same.
        if not same_source or not self.validator:
            self.restart("", None)
            return
        self._file.seek(0)
        while data := self._file.read(2**20):
            self.update_digest(data)

    def check_free_space(self) -> None:
        needed, free = (self.total or 0) - self.offset, shutil.disk_usage(self._target.parent).free
        if needed > free:
            raise StorageError(
                f"cannot write {self._target}: {needed / 1e6:,.0f} MB remain to be downloaded, "
                f"and the disk has {free / 1e6:,.0f} MB free; free some space and run again, "
                "finished files are kept"
            )

    def _append(self, data: bytes) -> None:
        with _storage_errors(f"cannot write {self._target}"):
            self._file.write(data)

    def _discard(self) -> None:
        description = {"source": self._source, "validator": self.validator, "total": self.total}
        with _storage_errors(f"cannot write {self._target}"):
            self._file.truncate(0)
            self._description.write_text(json.dumps(description))

    def finish(self) -> str:
        return str(self._partial)

    def publish(self) -> None:
        with _storage_errors(f"cannot write {self._target}"):
            os.fsync(self._file.fileno())
            self._partial.replace(self._target)
            self._description.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; remove it if it has no bytes."""
        self._file.close()
        if self.offset == 0:
            self._partial.unlink(missing_ok=True)
            self._description.unlink(missing_ok=True)


_HINTS = {
    errno.ENOSPC: "the disk is full: free some space and run again, finished files are kept",
    errno.EDQUOT: "the quota is exceeded: free some space and run again, finished files are kept",
    errno.EACCES: "permission denied: choose another output, or fix its permissions",
    errno.EROFS: "the file system is read-only: choose another output",
    errno.EEXIST: "it is a file, or a dangling symbolic link: choose another output",
    errno.ENOTDIR: "a part of the path is a file",
}


@contextmanager
def _storage_errors(action: str) -> Iterator[None]:
    """Translate each OSError into a StorageError that says what failed, why, and what to try."""
    try:
        yield
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, error.strerror or str(error))
        raise StorageError(f"{action}: {hint}") from error
