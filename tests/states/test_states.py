"""Stores, claims and statuses in random sequences of what may happen to them: see `fuzz_states`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fuzz_states import Machine, run_machine, served


@pytest.fixture(scope="module")
def machines(emulator: str) -> Iterator[dict[str, Machine]]:
    with served(emulator) as found:
        yield {machine.__name__: machine for machine in found}


NAMES = ("StoreMachine", "BucketMachine", "CloudMachine", "BucketCloudMachine")


@pytest.mark.parametrize("name", NAMES)
def test_a_few_sequences_keep_the_invariants(machines: dict[str, Machine], name: str) -> None:
    run_machine(machines[name], examples=4, steps=25)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "examples"), list(zip(NAMES, (80, 8, 50, 8), strict=True)))
def test_many_sequences_keep_the_invariants(
    machines: dict[str, Machine], name: str, examples: int
) -> None:
    run_machine(machines[name], examples)
