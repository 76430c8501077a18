"""A store and a model of it: writers that interleave, fail and are killed, in a folder and in a bucket.

Two processes use the store: the run, which supersedes files, and a worker. Others begin at any time.
"""

from __future__ import annotations

import hashlib
import itertools
import shutil
import tempfile
import uuid
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
from google.cloud.storage.retry import DEFAULT_RETRY
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from scenebeam import csvtable
from scenebeam.errors import StorageError
from scenebeam.multihash import multihash
from scenebeam.storage import AtomicFile, Store, open_store
from scenebeam.storage.partial_download import PartialDownload
from scenebeam.storage.store import SUPERSEDED
from unwell import Weather

KEYS = st.sampled_from(["a", "m/x", "m/x.json", "m/y", "mm/x", "n/deep/z"])
PREFIXES = st.sampled_from(["", "m", "m/", "m/x", "n/deep/", "none/"])
CONTENTS = st.binary(max_size=12)
SOURCES = {"https://one": b"the bytes of one", "https://two": b"and those of two, another file"}
FAULTS = st.sampled_from([None, None, 429, 503, "lost"])
"""What befalls the next upload to a bucket; a folder has none."""


class File(NamedTuple):
    """A published file."""

    content: bytes
    id: int
    """Tells versions of the same content apart; links to one file share it."""


@dataclass
class Writer:
    """A file that is being written."""

    key: str
    context: AbstractContextManager[AtomicFile]
    file: AtomicFile
    content: bytes = b""


@dataclass
class Download:
    """A file that is being downloaded."""

    context: AbstractContextManager[PartialDownload]
    partial: PartialDownload
    source: str


class StoreMachine(RuleBasedStateMachine):
    """Rules, and the model: what was published, and what is superseded."""

    is_local = True
    weather: Weather | None = None
    examples = steps = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).examples += 1
        self.stack = ExitStack()
        self.scratch = Path(tempfile.mkdtemp())
        self.stack.callback(shutil.rmtree, self.scratch)
        # The client would wait for seconds before it repeats a call.
        self.stack.enter_context(patch.object(DEFAULT_RETRY, "_initial", 0.001))
        self.stack.enter_context(patch.object(DEFAULT_RETRY, "_maximum", 0.01))
        self.uri = self.new_uri()
        self.run, self.worker = open_store(self.uri), open_store(self.uri)
        self.ids = itertools.count()
        self.files: dict[str, File] = {}
        self.recorded: dict[str, int] = {}
        """The record of superseded files."""
        self.has_record = False
        self.versions: list[tuple[str, str, File]] = []
        self.writers: list[Writer] = []
        self.downloads: dict[str, Download] = {}
        self.kept: dict[str, tuple[str, int]] = {}
        """Partial downloads: key → source and bytes."""

    def new_uri(self) -> str:
        return str(self.scratch / "out")

    def publish(self, key: str, content: bytes) -> None:
        self.files[key] = File(content, next(self.ids))

    def superseded(self) -> set[str]:
        found = set()
        for key, id in self.recorded.items():
            if key in self.files and self.files[key].id == id:
                found.add(key)
        return found

    def view(self, data: st.DataObject) -> Store:
        """The store as one of the processes has it, or one that has just begun."""
        name = data.draw(st.sampled_from(["run", "worker", "new"]))
        return {"run": self.run, "worker": self.worker}.get(name) or open_store(self.uri)

    def spoil(self, fault: Any) -> None:
        if self.weather is not None:
            self.weather.coming = [fault]

    # Small files ---------------------------------------------------------------------------------

    @rule(data=st.data(), key=KEYS, content=CONTENTS, fault=FAULTS)
    def write(self, data: st.DataObject, key: str, content: bytes, fault: Any) -> None:
        self.spoil(fault)
        self.view(data).write(key, content)
        self.publish(key, content)

    @rule(data=st.data(), files=st.dictionaries(KEYS, CONTENTS, max_size=4))
    def write_all(self, data: st.DataObject, files: dict[str, bytes]) -> None:
        self.view(data).write_all({key: _Content(content) for key, content in files.items()})
        for key, content in files.items():
            self.publish(key, content)

    @rule(data=st.data(), key=KEYS, content=CONTENTS, fault=FAULTS)
    def upload(self, data: st.DataObject, key: str, content: bytes, fault: Any) -> None:
        (self.scratch / "upload").write_bytes(content)
        self.spoil(fault)
        self.view(data).upload(key, self.scratch / "upload")
        self.publish(key, content)

    @rule(data=st.data(), key=KEYS, content=CONTENTS, fault=FAULTS)
    def create(self, data: st.DataObject, key: str, content: bytes, fault: Any) -> None:
        self.spoil(fault)
        created = self.view(data).create(key, content)
        assert not (created and key in self.files)
        if key not in self.files:
            # A client whose answer is lost asks again, and then there is a file.
            assert created or (fault == "lost" and not self.is_local)
            self.publish(key, content)

    @rule(data=st.data(), key=KEYS)
    def read_version(self, data: st.DataObject, key: str) -> None:
        found = self.view(data).read_version(key)
        assert (found is None) == (key not in self.files)
        if found is not None:
            assert found[0] == self.files[key].content
            self.versions.append((key, found[1], self.files[key]))

    @rule(data=st.data(), content=CONTENTS, fault=FAULTS)
    @precondition(lambda self: self.versions)
    def replace(self, data: st.DataObject, content: bytes, fault: Any) -> None:
        key, version, file = data.draw(st.sampled_from(self.versions))
        self.spoil(fault)
        replaced = self.view(data).replace(key, content, version)
        now = self.files.get(key)
        # A version is the generation of an object, and the content of a local file.
        same = now is not None and (now.content == file.content if self.is_local else now == file)
        assert not (replaced and not same)
        if same:
            assert replaced or (fault == "lost" and not self.is_local)
            self.publish(key, content)

    @rule(data=st.data(), key=KEYS, second=KEYS, fault=FAULTS)
    def copy(self, data: st.DataObject, key: str, second: str, fault: Any) -> None:
        assume(key != second)
        store, source = self.view(data), self.files.get(key)
        if source is None:
            with pytest.raises(StorageError, match="does not exist"):
                store.copy(key, second)
            return
        # A link to the very file that is superseded replaces nothing.
        assume(not self.is_local or self.recorded.get(second) != source.id)
        self.spoil(fault)
        store.copy(key, second)
        if self.is_local:
            self.files[second] = source
        else:
            self.publish(second, source.content)

    @rule(data=st.data(), keys=st.sets(KEYS, max_size=2))
    def delete(self, data: st.DataObject, keys: set[str]) -> None:
        assume(not keys & self.downloads.keys())
        self.view(data).delete(sorted(keys))
        for key in keys:
            self.files.pop(key, None)
            self.kept.pop(key, None)

    @rule(data=st.data(), key=KEYS)
    def read(self, data: st.DataObject, key: str) -> None:
        store, file = self.view(data), self.files.get(key)
        (self.scratch / "same").write_bytes(file.content if file else b"none")
        (self.scratch / "other").write_bytes(b"of no file here")
        assert not store.matches(key, self.scratch / "other")
        assert store.matches(key, self.scratch / "same") == (file is not None)
        if file is None:
            assert (store.read(key), store.size(key), store.modified(key)) == (None, None, None)
            return
        assert (store.read(key), store.size(key)) == (file.content, len(file.content))
        size, checksum = store.checksum(key)
        assert size == len(file.content)
        if self.is_local:
            assert checksum == multihash(hashlib.sha256(file.content).hexdigest())
        with store.local_copy(key) as path:
            assert path.read_bytes() == file.content

    @rule(key=KEYS, ours=CONTENTS, theirs=CONTENTS)
    @precondition(lambda self: not self.is_local)
    def race(self, key: str, ours: bytes, theirs: bytes) -> None:
        """Another process publishes an object between our look at it and our upload."""
        store: Any = open_store(self.uri)
        look, looks = store._bucket.get_blob, []

        def look_and_lose(name: str) -> object:
            found = look(name)
            looks.append(name)
            if len(looks) == 1:
                self.worker.write(key, theirs)
            return found

        store._bucket.get_blob = look_and_lose
        # Of one request: the emulator does not check the preconditions of resumable uploads.
        (self.scratch / "upload").write_bytes(ours)
        store.upload(key, self.scratch / "upload")
        assert looks
        self.publish(key, theirs)

    # Writers -------------------------------------------------------------------------------------

    @rule(data=st.data(), key=KEYS)
    def start_writing(self, data: st.DataObject, key: str) -> None:
        context = self.view(data).open_write(key)
        self.writers.append(Writer(key, context, context.__enter__()))

    @rule(data=st.data(), content=CONTENTS)
    @precondition(lambda self: self.writers)
    def append(self, data: st.DataObject, content: bytes) -> None:
        writer = data.draw(st.sampled_from(self.writers))
        writer.file.write(content)
        writer.content += content

    @rule(
        data=st.data(), how=st.sampled_from(["publish", "publish", "abort", "kill"]), fault=FAULTS
    )
    @precondition(lambda self: self.writers)
    def end_writing(self, data: st.DataObject, how: str, fault: Any) -> None:
        writer = self.writers.pop(data.draw(st.integers(0, len(self.writers) - 1)))
        if how == "kill":
            # What it has written so far stays, as its process can no longer remove it.
            self.stack.callback(_abort, writer.context)
            return
        if how == "abort":
            _abort(writer.context)
            return
        self.spoil(fault)
        writer.context.__exit__(None, None, None)
        assert writer.file.checksum == multihash(hashlib.sha256(writer.content).hexdigest())
        self.publish(writer.key, writer.content)

    @rule()
    @precondition(lambda self: not self.writers)
    def remove_partial_files(self) -> None:
        """A run begins, and no other process writes."""
        self.run.remove_partial_files()
        assert not list(self.scratch.rglob("*.partial"))

    # Downloads -----------------------------------------------------------------------------------

    @rule(data=st.data(), key=KEYS, source=st.sampled_from(sorted(SOURCES)))
    def start_download(self, data: st.DataObject, key: str, source: str) -> None:
        assume(key not in self.downloads)
        context = self.view(data).open_download(key, source, ["md5"])
        partial = context.__enter__()
        self.downloads[key] = Download(context, partial, source)
        kept, count = self.kept.get(key, (source, 0))
        received = SOURCES[source][: count if kept == source else 0]
        assert partial.offset == len(received)
        assert partial.digest("md5") == hashlib.md5(received).hexdigest()
        if received:
            assert (partial.validator, partial.total) == (source[8:], len(SOURCES[source]))
        else:
            partial.restart(source[8:], len(SOURCES[source]))
        self.keep(key)

    def keep(self, key: str) -> None:
        if self.is_local:
            self.kept[key] = (self.downloads[key].source, self.downloads[key].partial.offset)

    @rule(data=st.data(), count=st.integers(1, 9))
    @precondition(lambda self: self.downloads)
    def receive(self, data: st.DataObject, count: int) -> None:
        key = data.draw(st.sampled_from(sorted(self.downloads)))
        self.receive_some(key, count)

    def receive_some(self, key: str, count: int | None = None) -> None:
        download = self.downloads[key]
        rest = SOURCES[download.source][download.partial.offset :]
        download.partial.write(rest[:count])
        self.keep(key)

    @rule(data=st.data(), how=st.sampled_from(["publish", "publish", "reject", "break", "kill"]))
    @precondition(lambda self: self.downloads)
    def end_download(self, data: st.DataObject, how: str) -> None:
        key = data.draw(st.sampled_from(sorted(self.downloads)))
        download = self.downloads[key]
        if how in ("publish", "reject"):
            self.complete(key, publish=how == "publish")
        del self.downloads[key]
        if how == "kill":
            self.stack.callback(download.context.__exit__, None, None, None)
        else:
            download.context.__exit__(None, None, None)

    def complete(self, key: str, publish: bool) -> None:
        download, body = self.downloads[key], SOURCES[self.downloads[key].source]
        self.receive_some(key)
        arrived = download.partial.finish().removeprefix(self.uri).lstrip("/")
        if self.is_local:
            assert (Path(self.uri) / arrived).read_bytes() == body
        else:
            assert self.worker.read(arrived) == body
        self.lists_are_those_of_the_model()
        assert download.partial.checksum == multihash(hashlib.sha256(body).hexdigest())
        if publish:
            download.partial.publish()
            self.publish(key, body)
            self.kept.pop(key, None)

    # Superseded files ----------------------------------------------------------------------------

    @rule(keys=st.sets(KEYS, max_size=4), fault=FAULTS)
    def supersede(self, keys: set[str], fault: Any) -> None:
        self.spoil(fault)
        self.run.supersede(keys)
        marked = (keys | self.superseded()) & self.files.keys()
        self.recorded = {key: self.files[key].id for key in marked}
        self.has_record |= bool(marked)

    @rule(dies=st.booleans())
    def release_superseded(self, dies: bool) -> None:
        """A run ends: it deletes what it has replaced, unless it is killed before."""
        left = self.run.release_superseded()
        assert left == ({*self.superseded(), SUPERSEDED} if self.has_record else set())
        if dies:
            self.run = open_store(self.uri)
            return
        assume(not left & self.downloads.keys())
        assert self.run.superseded() == set()
        self.run.delete(sorted(left))
        for key in left - {SUPERSEDED}:
            del self.files[key]
            self.kept.pop(key, None)
        self.recorded, self.has_record = {}, False

    @rule()
    def restart_run(self) -> None:
        self.run = open_store(self.uri)

    # Invariants ----------------------------------------------------------------------------------

    @invariant()
    def lists_are_those_of_the_model(self) -> None:
        type(self).steps += 1
        self.spoil(None)
        record = {SUPERSEDED} if self.has_record else set()
        superseded = self.superseded()
        for store in (self.run, open_store(self.uri)):
            assert store.list() == (self.files.keys() - superseded) | record
            assert store.superseded() == superseded

    @rule(data=st.data(), prefix=PREFIXES)
    def list_prefix(self, data: st.DataObject, prefix: str) -> None:
        store = data.draw(st.sampled_from([self.run, open_store(self.uri)]))
        record = {SUPERSEDED} if self.has_record else set()
        files = {key for key in self.files.keys() | record if key.startswith(prefix)}
        superseded = self.superseded() & files
        assert store.list(prefix) == files - superseded
        assert store.superseded(prefix) == superseded
        assert store.list_modified(prefix).keys() == files

    def teardown(self) -> None:
        self.spoil(None)
        for writer in self.writers:
            _abort(writer.context)
        for download in self.downloads.values():
            download.context.__exit__(None, None, None)
        self.stack.close()


class BucketMachine(StoreMachine):
    """The same in a bucket of the emulator."""

    is_local = False

    def new_uri(self) -> str:
        uri = f"gs://bucket/{uuid.uuid4().hex}"
        # The emulator keeps objects in memory.
        self.stack.callback(lambda: self.worker.delete(self.worker.list_modified("")))
        return uri


class _Content(csvtable.File):
    def __init__(self, content: bytes) -> None:
        self.content = content

    def to_bytes(self) -> bytes:
        return self.content


def _abort(context: AbstractContextManager[AtomicFile]) -> None:
    with pytest.raises(RuntimeError, match="aborted"):
        context.__exit__(RuntimeError, RuntimeError("aborted"), None)
        raise RuntimeError("aborted")  # a context manager that is closed lets it pass
