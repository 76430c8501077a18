"""Damaged items and answers of catalogs: see `fuzz_catalogs`."""

from __future__ import annotations

import random

import pytest

from fuzz_catalogs import fuzz, mutated


def test_some_seconds_of_odd_items_and_answers() -> None:
    found = fuzz(4, seed=1)
    assert not found, "\n".join(found)


@pytest.mark.slow
def test_half_a_minute_of_odd_items_and_answers() -> None:
    found = fuzz(30, seed=2)
    assert not found, "\n".join(found)


def test_the_same_seed_makes_the_same_documents() -> None:
    document = {"a": [1, {"b": 2}], "c": {"d": None}}
    once, again = (mutated(random.Random(7), document, 3) for _ in range(2))
    assert str(once) == str(again)
    assert document == {"a": [1, {"b": 2}], "c": {"d": None}}
