"""A folder of this machine: write to a temporary name, fsync, rename in the same folder."""

from __future__ import annotations

import errno
import fcntl
import filecmp
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from scenebeam.errors import StorageError
from scenebeam.multihash import file_multihash
from scenebeam.storage.arrival import PartialDownload
from scenebeam.storage.store import AtomicFile, Store, checked_name

_PARTIAL = ".partial"
_ARRIVING = ".arriving"
_LOCK = ".scenebeam.lock"


class LocalStore(Store):
    """Files under a local folder."""

    def __init__(self, uri: str) -> None:
        self._root = Path(uri.removeprefix("file://")).expanduser().absolute()
        self.uri = str(self._root)

    def _names(self, prefix: str) -> set[str]:
        found = set()
        for folder, _, files in os.walk(self._root / prefix.rpartition("/")[0]):
            inside = os.path.relpath(folder, self._root)
            for file in files:
                name = file if inside == "." else f"{inside}/{file}".replace(os.sep, "/")
                if not file.startswith(".") and name.startswith(prefix):
                    found.add(name)
        return found

    def _versions(self, prefix: str, names: set[str]) -> dict[str, str]:
        found = {}
        for name in names:
            try:
                told = self._path(name).stat()
            except FileNotFoundError:
                continue
            found[name] = f"{told.st_ino}-{told.st_mtime_ns}-{told.st_size}"
        return found

    def read(self, name: str) -> bytes | None:
        """A file's content; None where there is no such file."""
        with _blame(f"cannot read {self.path(name)}"):
            try:
                return self._path(name).read_bytes()
            except FileNotFoundError:
                return None

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is no such file."""
        path = self._path(name)
        return path.stat().st_size if path.is_file() else None

    def modified(self, name: str) -> float | None:
        """A file's modification time; None where there is no such file."""
        with _blame(f"cannot read {self.path(name)}"):
            try:
                return self._path(name).stat().st_mtime
            except FileNotFoundError:
                return None

    def create(self, name: str, content: bytes) -> bool:
        """Publish a small file unless there is one of the name already; whether it was."""
        with self._alone(name) as path:
            if path.exists():
                return False
            self.write(name, content)
            return True

    def read_version(self, name: str) -> tuple[bytes, str] | None:
        """A file's content, and a hash of it."""
        content = self.read(name)
        return None if content is None else (content, _hashed(content))

    def replace(self, name: str, content: bytes, version: str) -> bool:
        """Publish a small file in place of that version of it; False where it is another by now."""
        with self._alone(name):
            there = self.read(name)
            if there is None or _hashed(there) != version:
                return False
            self.write(name, content)
            return True

    @contextmanager
    def _alone(self, name: str) -> Iterator[Path]:
        """The path of a file, while nobody else creates or replaces one in its folder."""
        path = self._path(name)
        with _blame(f"cannot write {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            folder = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield path
        finally:
            os.close(folder)

    @contextmanager
    def open_write(self, name: str) -> Iterator[AtomicFile]:
        """A file to write front to back: it appears under its name when the block ends well, else never."""
        target = self._path(name)
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}{_PARTIAL}")
        try:
            with _blame(f"cannot write {self.path(name)}"):
                target.parent.mkdir(parents=True, exist_ok=True)
                with partial.open("wb") as file:
                    yield AtomicFile(file)
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    @contextmanager
    def open_download(
        self, name: str, source: str, algorithms: Iterable[str] = ()
    ) -> Iterator[PartialDownload]:
        """A file that comes from `source`; what has come is kept beside its place until it is whole."""
        arrival = _LocalArrival(self._path(name), source, algorithms)
        try:
            yield arrival
        finally:
            arrival.close()

    def upload(self, name: str, path: Path) -> None:
        """Publish a copy of a file."""
        with path.open("rb") as content, self.open_write(name) as file:
            shutil.copyfileobj(content, file, 2**20)

    def copy(self, name: str, target: str) -> None:
        """By a hard link, which takes no room; as bytes where the file system has none."""
        source, path = self._path(name), self._path(target)
        if not source.exists():
            raise StorageError(f"{source} is not there")
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{_PARTIAL}")
        try:
            with _blame(f"cannot write {path}"):
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    partial.hardlink_to(source)
                except OSError:
                    self.upload(target, source)
                else:
                    partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def free_space(self) -> int | None:
        """Free bytes of the disk."""
        with _blame(f"cannot use {self._root} as an output folder"):
            return shutil.disk_usage(self._root).free

    def checksum(self, name: str) -> tuple[int, str]:
        """Size in bytes and SHA-256 as a multihash."""
        path = self._path(name)
        with _blame(f"cannot read {path}"):
            return path.stat().st_size, file_multihash(path)

    def matches(self, name: str, path: Path) -> bool:
        """Whether a file is there with the same content."""
        return self._path(name).exists() and filecmp.cmp(self._path(name), path, shallow=False)

    @contextmanager
    def local_copy(self, name: str) -> Iterator[Path]:
        """The file itself."""
        path = self._path(name)
        if not path.exists():
            raise StorageError(f"{path} is not there")
        yield path

    def delete(self, names: Iterable[str]) -> None:
        """Remove files, whole or half-arrived, and folders that this leaves empty; what is not there is no fault."""
        for name in names:
            path = self._path(name)
            for file in (path, *_arriving(path)):
                file.unlink(missing_ok=True)
            for folder in path.parents:
                if folder == self._root:
                    break
                try:
                    folder.rmdir()
                except OSError:  # it holds something, or somebody else has just removed it
                    break

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one run; the lock goes with the process, however it ends."""
        with _blame(f"cannot use {self._root} as an output folder"):
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
        """Whether a process holds the folder's lock."""
        try:
            with (self._root / _LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # no run has been here
            return False
        return False

    def remove_partial_files(self) -> None:
        """Remove what a killed run left half-written."""
        for leftover in self._root.rglob(f".*{_PARTIAL}"):
            leftover.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._root / checked_name(name)


def _hashed(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _arriving(target: Path) -> tuple[Path, Path]:
    """Where a file is kept while it comes, and the note of what it is of."""
    name = f".{target.name}{_ARRIVING}"
    return target.with_name(name), target.with_name(f"{name}.json")


class _LocalArrival(PartialDownload):
    """A hidden file beside the place of the one that comes, with a note of what it is of."""

    def __init__(self, target: Path, source: str, algorithms: Iterable[str]) -> None:
        super().__init__(algorithms)
        self._target, self._source = target, source
        self._partial, self._note = _arriving(target)
        with _blame(f"cannot write {target}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._partial.open("ab+", buffering=0)
            self._recall()

    def _recall(self) -> None:
        """Go on with what an earlier try left, if it is of the same source."""
        try:
            note = json.loads(self._note.read_text())
            known = note["source"] == self._source
            self.validator, self.total = (note["validator"], note["total"]) if known else ("", None)
        except (OSError, ValueError, KeyError):
            known = False
        if not known or not self.validator:
            self.restart("", None)
            return
        self._file.seek(0)
        while data := self._file.read(2**20):
            self.update_digest(data)

    def check_free_space(self) -> None:
        needed, free = (self.total or 0) - self.offset, shutil.disk_usage(self._target.parent).free
        if needed > free:
            raise StorageError(
                f"cannot write {self._target}: {needed / 1e6:,.0f} MB are still to come, and the disk has "
                f"{free / 1e6:,.0f} MB free; free some space and run again, what is finished is kept"
            )

    def _append(self, data: bytes) -> None:
        with _blame(f"cannot write {self._target}"):
            self._file.write(data)

    def _empty(self) -> None:
        note = {"source": self._source, "validator": self.validator, "total": self.total}
        with _blame(f"cannot write {self._target}"):
            self._file.truncate(0)
            self._note.write_text(json.dumps(note))

    def finish(self) -> str:
        return str(self._partial)

    def publish(self) -> None:
        with _blame(f"cannot write {self._target}"):
            os.fsync(self._file.fileno())
            self._partial.replace(self._target)
            self._note.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file; one without any bytes is not kept."""
        self._file.close()
        if self.offset == 0:
            self._partial.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)


_HINTS = {
    errno.ENOSPC: "the disk is full: free some space and run again, what is finished is kept",
    errno.EDQUOT: "the quota is used up: free some space and run again, what is finished is kept",
    errno.EACCES: "permission denied: choose another output, or mend its permissions",
    errno.EROFS: "the file system is read-only: choose another output",
    errno.EEXIST: "it is a file, or a link that leads nowhere: choose another output",
    errno.ENOTDIR: "a part of the path is a file",
}


@contextmanager
def _blame(what: str) -> Iterator[None]:
    """Faults of the disk as StorageErrors that say what was being done, and what to try."""
    try:
        yield
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, error.strerror or str(error))
        raise StorageError(f"{what}: {hint}") from error
