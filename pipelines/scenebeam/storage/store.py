"""Store: the few things that a run asks of the place its products land in."""

from __future__ import annotations

import hashlib
import io
import json
import re
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

from scenebeam.csvtable import File
from scenebeam.errors import StorageError
from scenebeam.multihash import multihash
from scenebeam.storage.arrival import PartialDownload

SUPERSEDED = "superseded.json"
"""Record of the files that a later plan replaces."""
_NAME = re.compile(r"^(?!.*(?:^|/)\.{1,2}(?:/|$))[A-Za-z0-9._+-][A-Za-z0-9._+/-]*$")


class AtomicFile(io.RawIOBase):
    """A file on its way out, written front to back; its size and SHA-256 are known at the end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.size, self._hash = file, 0, hashlib.sha256()

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: Any) -> int:
        """The next bytes."""
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)
        return len(data)

    @property
    def checksum(self) -> str:
        """SHA-256 as `file:checksum` wants it: multihash in hex."""
        return multihash(self._hash.hexdigest())


class Store(ABC):
    """Files under one folder, by relative name (`mosaics/20230202T092109Z/red.tif`).

    Files that a later plan replaces stand until it has written them anew. Until then they are
    *superseded*: they can be read, but `list` leaves them out, so that what is not listed is what
    is still to be made. The record of them names the version of each, and one that has another
    version by now has been written anew.
    """

    uri: str
    _record: _Superseded | None = None

    def list(self, prefix: str = "") -> set[str]:
        """Names of all published files that start with `prefix`, but for superseded ones."""
        return self._names(prefix) - self.superseded(prefix)

    def superseded(self, prefix: str = "") -> set[str]:
        """Names of superseded files that start with `prefix`."""
        record = self._superseded()
        old = record.names(prefix)
        if not old:
            return set()
        versions = self._versions(prefix, old)
        still = {name for name in old if versions.get(name) == record.versions[name]}
        record.forget(old - still)
        return still

    def supersede(self, names: Iterable[str]) -> None:
        """Let files stand that are to be made anew, beside those that are superseded already."""
        old = {*names, *self.superseded()}
        versions = self._versions("", old)
        self._record = _Superseded({name: versions[name] for name in old if name in versions})
        if self._record.versions or self.size(SUPERSEDED) is not None:
            self.write(SUPERSEDED, self._record.to_bytes(self.uri))

    def release_superseded(self) -> set[str]:
        """Let superseded files count as any other from now on; the names of them and of their record.

        Whoever asks removes them, once all that was planned is made and no table names them any more.
        """
        if self.size(SUPERSEDED) is None:
            return set()
        left = self.superseded()
        self._record = _Superseded({})
        return {*left, SUPERSEDED}

    def _superseded(self) -> _Superseded:
        if self._record is None:
            content = self.read(SUPERSEDED)
            self._record = (
                _Superseded({}) if content is None else self._recorded(json.loads(content))
            )
        return self._record

    def _recorded(self, document: dict[str, Any]) -> _Superseded:
        names = set(document["files"])
        # Moved or copied, files have other versions: what was written anew before is written anew once more.
        same = document["uri"] == self.uri
        return _Superseded(document["files"] if same else self._versions("", names))

    @abstractmethod
    def _names(self, prefix: str) -> set[str]:
        """Names of all published files that start with `prefix`."""

    @abstractmethod
    def _versions(self, prefix: str, names: set[str]) -> dict[str, str]:
        """What tells each file of `names` (all start with `prefix`) from any later one; without those that are gone."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """A file's content; None where there is no such file."""

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is no such file."""

    @abstractmethod
    def modified(self, name: str) -> float | None:
        """When a file was last written, in seconds since 1970 by the store's own clock; None where there is none.

        Times of one store can be compared with each other, and with no other clock.
        """

    @abstractmethod
    def create(self, name: str, content: bytes) -> bool:
        """Publish a small file unless there is one of the name already; whether it was."""

    @abstractmethod
    def read_version(self, name: str) -> tuple[bytes, str] | None:
        """A file's content and what tells it from any later one; None where there is no such file."""

    @abstractmethod
    def replace(self, name: str, content: bytes, version: str) -> bool:
        """Publish a small file in place of that version of it; False where it is another by now.

        An answer that is lost on its way may make it False too: what is changed is to bear being changed twice.
        """

    @abstractmethod
    def open_write(self, name: str) -> AbstractContextManager[AtomicFile]:
        """A file to write front to back: it appears under its name when the block ends well, else never."""

    @abstractmethod
    def open_download(
        self, name: str, source: str, algorithms: Iterable[str] = ()
    ) -> AbstractContextManager[PartialDownload]:
        """A file that comes from `source` and appears when it is published; `algorithms` are digests wanted of it.

        What has come when the block ends without that is kept where it can be: the same source goes on from there.
        """

    @abstractmethod
    def upload(self, name: str, path: Path) -> None:
        """Publish a file of this machine."""

    @abstractmethod
    def copy(self, name: str, target: str) -> None:
        """Publish a file under another name too, without reading it where that can be."""

    @abstractmethod
    def free_space(self) -> int | None:
        """Bytes that still fit; None where there is no end to them."""

    @abstractmethod
    def checksum(self, name: str) -> tuple[int, str]:
        """Size in bytes and `file:checksum` (multihash in hex) of a file."""

    @abstractmethod
    def matches(self, name: str, path: Path) -> bool:
        """Whether a file is there whose size and checksum are those of a file of this machine."""

    @abstractmethod
    def local_copy(self, name: str) -> AbstractContextManager[Path]:
        """The file on a local disk, for as long as the block lasts."""

    @abstractmethod
    def delete(self, names: Iterable[str]) -> None:
        """Remove files; one that is not there is no fault."""

    @abstractmethod
    def lock(self) -> AbstractContextManager[None]:
        """Hold the store for one run. Raises StorageError where another run of this machine holds it."""

    @abstractmethod
    def is_held(self) -> bool | None:
        """Whether a run of this machine holds the store; None where that cannot be known."""

    def write(self, name: str, content: bytes) -> None:
        """Publish a small file."""
        with self.open_write(name) as file:
            file.write(content)

    def write_all(self, files: Mapping[str, File]) -> None:
        """Publish small files, several at once."""
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda name: self.write(name, files[name].to_bytes()), files))

    def path(self, name: str) -> str:
        """Where a file lies, for people and for hrefs."""
        return f"{self.uri.rstrip('/')}/{name}"

    def remove_partial_files(self) -> None:
        """Remove what a killed run left half-written."""
        return


class _Superseded:
    """Superseded files: their versions by name."""

    def __init__(self, versions: dict[str, str]) -> None:
        self.versions = versions
        self._sorted = sorted(versions)

    def names(self, prefix: str) -> set[str]:
        """Those that start with a prefix."""
        start = bisect_left(self._sorted, prefix)
        stop = bisect_left(self._sorted, f"{prefix}\U0010ffff") if prefix else len(self._sorted)
        return {name for name in self._sorted[start:stop] if name in self.versions}

    def forget(self, names: Iterable[str]) -> None:
        """Those that have been written anew, or are gone."""
        for name in names:
            self.versions.pop(name, None)

    def to_bytes(self, uri: str) -> bytes:
        """As it is stored."""
        return (
            json.dumps({"uri": uri, "files": self.versions}, indent=1, sort_keys=True) + "\n"
        ).encode()


def checked_name(name: str) -> str:
    """The name, if it stays inside the store's folder; StorageError otherwise."""
    if not _NAME.match(name):
        raise StorageError(f"{name!r} is not a name inside the output folder")
    return name
