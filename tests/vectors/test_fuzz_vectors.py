"""Damaged vector files: see `fuzz_vectors`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from fuzz_vectors import fuzz, make_seeds, mutate, read_all
from vector_files import FORMATS


def test_some_damaged_files_are_refused_in_words_or_read(tmp_path: Path) -> None:
    summary = fuzz(150, seed=1, keep=tmp_path / "found")
    assert not summary.findings, str(summary)
    assert summary.count == 150
    assert summary.read.total() > 5


@pytest.mark.slow
def test_half_a_minute_of_damaged_files(tmp_path: Path) -> None:
    summary = fuzz(100_000, seed=7, keep=tmp_path / "found", seconds=30)
    assert not summary.findings, str(summary)


def test_undamaged_seeds_of_every_format_are_read_in_every_way(tmp_path: Path) -> None:
    (tmp_path / "written").mkdir()
    seeds = make_seeds(tmp_path / "written")
    assert {name.rpartition(".")[2] for name in seeds} == set(FORMATS)
    for name, files in seeds.items():
        for one, content in files.items():
            (tmp_path / one).write_bytes(content)
        assert read_all(str(tmp_path / next(iter(files)))) == ([], 3), name


def test_the_same_seed_makes_the_same_damage(tmp_path: Path) -> None:
    for name, files in make_seeds(tmp_path).items():
        for content in files.values():
            once, again = (mutate(content, random.Random(name)) for _ in range(2))
            assert once == again
