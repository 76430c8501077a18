"""Damaged and forged TIFFs: see `fuzz_tiffs`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from fuzz_tiffs import fuzz, make_seeds, mutate, read_header


def test_some_mutants_are_refused_in_words_or_read_as_gdal_reads_them(tmp_path: Path) -> None:
    summary = fuzz(60, seed=1, keep=tmp_path / "found")
    assert not summary.findings, str(summary)
    assert summary.count == 60
    assert summary.compared > 10


@pytest.mark.slow
def test_a_minute_of_mutants(tmp_path: Path) -> None:
    summary = fuzz(100_000, seed=7, keep=tmp_path / "found", seconds=60)
    assert not summary.findings, str(summary)


def test_the_same_seed_makes_the_same_mutants(tmp_path: Path) -> None:
    seeds = make_seeds(tmp_path)
    assert all(len(content) < 2**18 for content in seeds.values())
    assert all(
        read_header(content) is not None for name, content in seeds.items() if name.endswith(".tif")
    )
    for name, content in seeds.items():
        once, again = (mutate(content, random.Random(name)) for _ in range(2))
        assert once == again
