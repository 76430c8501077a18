"""A local folder: published whole or not at all, and nothing outside it."""

from __future__ import annotations

import errno
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scenebeam.csvtable import File
from scenebeam.errors import StorageError
from scenebeam.storage import Store, open_store


def test_a_file_appears_whole_with_its_size_and_checksum(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "out"))
    with store.open_write("a/b.bin") as file:
        file.write(b"one ")
        assert store.list() == set(), "not there before it is whole"
        file.write(b"two")
    assert store.read("a/b.bin") == b"one two"
    assert file.size == 7
    assert file.checksum == "1220" + hashlib.sha256(b"one two").hexdigest()
    assert store.list("a/") == {"a/b.bin"}


def test_a_file_that_fails_halfway_never_appears(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.write("x", b"before")
    with pytest.raises(RuntimeError, match="halfway"), store.open_write("x") as file:
        file.write(b"af")
        raise RuntimeError("halfway")
    assert store.read("x") == b"before"
    assert os.listdir(tmp_path) == ["x"]


def test_a_copy_takes_no_room_and_outlives_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path))
    store.write("a/x", b"one")
    store.copy("a/x", "b/y")
    store.copy("a/x", "b/y")  # a link onto itself
    assert os.stat(tmp_path / "a/x").st_ino == os.stat(tmp_path / "b/y").st_ino
    store.write("a/x", b"another")
    assert store.read("b/y") == b"one"
    with monkeypatch.context() as plain:
        plain.setattr(
            os,
            "link",
            lambda *names, **how: (_ for _ in ()).throw(OSError(errno.EPERM, "no links here")),
        )
        store.copy("a/x", "b/z")
    assert store.read("b/z") == b"another"
    assert store.list() == {"a/x", "b/y", "b/z"}
    assert not [name for _, _, names in os.walk(tmp_path) for name in names if name.startswith(".")]
    with pytest.raises(StorageError, match="does not exist"):
        store.copy("a/not", "b/not")
    free_space = store.free_space()
    assert free_space is not None
    assert free_space > 0


def test_a_full_disk_is_told_in_plain_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    store = open_store(str(tmp_path))
    with pytest.raises(StorageError, match="the disk is full"):
        store.write("x", b"1")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/etc/x", "", "a//../x", ".", "a/./b", "x\ny", "~/x"]
)
def test_names_stay_inside_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(StorageError, match="not a valid key"):
        open_store(str(tmp_path)).write(name, b"")


def test_leftovers_of_a_killed_run_are_swept_and_never_listed(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / ".red.tif.0123456789ab.partial").write_bytes(b"half")
    store = open_store(str(tmp_path))
    assert store.list() == set()
    store.remove_partial_files()
    assert os.listdir(tmp_path / "m") == []


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with open_store(str(tmp_path)).lock():
        with (
            pytest.raises(StorageError, match="another run"),
            open_store(str(tmp_path)).lock(),
        ):
            pass
    with open_store(str(tmp_path)).lock():
        pass


def test_deleting_removes_empty_folders_too(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.write("a/b/c", b"")
    store.write("a/d", b"")
    store.delete(["a/b/c", "not/there"])
    assert store.list() == {"a/d"}
    assert not (tmp_path / "a" / "b").exists()


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("a file")
    with (
        pytest.raises(StorageError, match="cannot use"),
        open_store(str(tmp_path / "x")).lock(),
    ):
        pass


@pytest.fixture(params=["folder", "bucket"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A local folder, and a bucket."""
    return open_store(
        str(tmp_path / "out") if request.param == "folder" else request.getfixturevalue("prefix")
    )


def test_of_many_who_create_a_file_one_does(any_store: Store) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = list(
            threads.map(lambda number: any_store.create("runs/a.json", b"%d" % number), range(16))
        )
    assert sum(made) == 1
    assert any_store.read("runs/a.json") == b"%d" % made.index(True)


def test_of_many_who_count_none_is_lost(any_store: Store) -> None:
    any_store.create("n", b"0")

    def count(_: int) -> None:
        while True:
            found = any_store.read_version("n")
            assert found is not None
            content, version = found
            if any_store.replace("n", b"%d" % (int(content) + 1), version):
                return

    with ThreadPoolExecutor(10) as threads:
        list(threads.map(count, range(30)))
    assert any_store.read("n") == b"30"
    assert any_store.read_version("not-there") is None
    assert (any_store.size("n"), any_store.size("not-there")) == (2, None)
    assert not any_store.replace("n", b"x", "1")


def test_times_are_the_file_systems(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    assert store.modified("a/x") is None
    store.write("a/x", b"one")
    os.utime(tmp_path / "a/x", (5, 7))
    assert store.modified("a/x") == 7
    version = store.read_version("a/x")
    assert version is not None
    assert store.replace("a/x", b"two", version[1])
    assert (store.modified("a/x") or 0) > 7


class Content(File):
    """A file of a batch; serializing it may fail."""

    def __init__(self, content: bytes | Exception) -> None:
        self.content = content

    def to_bytes(self) -> bytes:
        if isinstance(self.content, Exception):
            raise self.content
        return self.content


def test_a_batch_is_synced_before_it_appears_and_its_folders_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path))
    files = {f"{folder}/{name}": f"{folder}{name}".encode() for folder in "abc" for name in "xyz"}
    synced: list[tuple[str, set[str]]] = []
    sync = os.fsync

    def watched(descriptor: int) -> None:
        synced.append((os.readlink(f"/proc/self/fd/{descriptor}"), store.list()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    store.write_all({key: Content(content) for key, content in files.items()})
    assert {key: store.read(key) for key in store.list()} == files
    contents, folders = synced[: len(files)], synced[len(files) :]
    assert all(name.endswith(".partial") and not listed for name, listed in contents)
    assert sorted(name for name, _ in folders) == sorted(
        [str(tmp_path), *(str(tmp_path / folder) for folder in "abc")]
    ), "each folder once, and the one in which they are new"
    assert all(listed == set(files) for _, listed in folders)


@pytest.mark.parametrize("cause", ["content", "sync"])
def test_a_batch_that_fails_leaves_earlier_files_and_no_partial_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    store = open_store(str(tmp_path))
    store.write("a/x", b"before")
    files = {f"a/{name}": Content(b"after") for name in "xyz"}
    if cause == "content":
        files["a/y"] = Content(RuntimeError("halfway"))
    else:
        monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "bad")))
    with pytest.raises(StorageError if cause == "sync" else RuntimeError, match="bad|halfway"):
        store.write_all(files)
    assert store.read("a/x") == b"before"
    assert os.listdir(tmp_path / "a") == ["x"]


def test_a_batch_killed_between_two_renames_leaves_whole_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path))
    names = [f"{number}/x" for number in range(6)]
    replace, left = Path.replace, iter(range(3))

    def killed(path: Path, target: Path) -> Path:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        store.write_all({name: Content(name.encode() * 999) for name in names})
    assert store.list() == set(names[:3])
    assert all(store.read(name) == name.encode() * 999 for name in names[:3])
