"""Chips that are encoded while others are read, and published by the batch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from scenebeam.csvtable import File
from scenebeam.errors import CheckError, ReadError, StorageError
from scenebeam.imaging.publish_queue import EncodedChip, PublishQueue
from scenebeam.storage.local import LocalStore


class Watched(LocalStore):
    """A folder that notes its batches, and whose disk fails when `fails` is among the keys."""

    def __init__(self, uri: str, fails: str = "") -> None:
        super().__init__(uri)
        self.batches: list[list[str]] = []
        self.fails = fails

    def write_all(self, files: Mapping[str, File]) -> None:
        if self.fails in files:
            raise StorageError("the disk is full")
        super().write_all(files)
        self.batches.append(list(files))


def encode(number: int, size: int = 1) -> EncodedChip:
    if number % 10 == 7:
        raise CheckError(f"chip {number} is blank")
    return EncodedChip({f"{number}/x.tif": b"1" * size}, {f"{number}/x.json": b"{}"})


def test_the_items_of_a_batch_follow_its_files(tmp_path: Path) -> None:
    store = Watched(str(tmp_path))
    with PublishQueue[int](store) as pending:
        for number in range(200):
            pending.add(number, encode, number)
    assert pending.failed == {n: f"chip {n} is blank" for n in range(7, 200, 10)}
    assert store.list() == {
        f"{n}/x.{k}" for n in range(200) if n % 10 != 7 for k in ("tif", "json")
    }
    assert len(store.batches) == 6, "three batches, each as files and as items"
    for files, items in zip(store.batches[::2], store.batches[1::2], strict=True):
        assert items == [name.replace(".tif", ".json") for name in files]


def test_a_batch_is_bounded_by_bytes_too(tmp_path: Path) -> None:
    store = Watched(str(tmp_path))
    with PublishQueue[int](store) as pending:
        for number in range(6):
            pending.add(number, encode, number, 9 * 2**20)
    assert [len(batch) for batch in store.batches] == [2, 2, 2, 2, 2, 2]


def test_chips_read_before_an_error_are_published(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    with pytest.raises(ReadError, match="503"), PublishQueue[int](store) as pending:
        for number in range(3):
            pending.add(number, encode, number)
        raise ReadError("503")
    assert len(store.list()) == 6


def test_an_item_does_not_stand_without_its_files(tmp_path: Path) -> None:
    store = Watched(str(tmp_path), fails="100/x.tif")
    with pytest.raises(StorageError, match="full"), PublishQueue[int](store) as pending:
        for number in range(200):
            pending.add(number, encode, number)
    published = store.list()
    assert published
    assert {key.removesuffix(".json") for key in published if key.endswith(".json")} == {
        key.removesuffix(".tif") for key in published if key.endswith(".tif")
    }
