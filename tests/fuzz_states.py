"""Fuzz the states of stores, claims and statuses: random sequences of what may happen to them.

    python tests/fuzz_states.py --seconds 600 --keep /tmp/found

The state machines are those of tests/states: a store in a folder and in a bucket, and the functions
of a deployment on both. Each finds sequences of its own in every run. A sequence with a finding is
printed, and kept as text. Exit code 1 if anything was found.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).with_name("states")))

from cloud_machine import BucketCloudMachine, CloudMachine
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from store_machine import BucketMachine, StoreMachine

import local_cloud
from local_dataflow import Dataflow, serve_dataflow
from unwell import unwell

Machine = type[StoreMachine] | type[CloudMachine]
_LOCAL: tuple[Machine, ...] = (StoreMachine, CloudMachine)
_BUCKET: tuple[Machine, ...] = (BucketMachine, BucketCloudMachine)
_EXAMPLES = 20
"""Sequences between two looks at the clock."""
_STEPS = 50


@contextmanager
def served(emulator: str) -> Iterator[tuple[Machine, ...]]:
    """The machines, with what they need.

    Args:
        emulator: URL of a storage server; empty if there is none.
    """
    with serve_dataflow(Dataflow()) as dataflow:
        CloudMachine.dataflow = dataflow
        if not emulator:
            yield _LOCAL
            return
        with unwell(emulator) as weather:
            BucketMachine.weather = weather
            yield (*_LOCAL, *_BUCKET)


def run_machine(machine: Machine, examples: int, steps: int = _STEPS) -> None:
    """Run random sequences of a machine. Raises what it finds, with the shortest sequence."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=False,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )


def fuzz(machines: tuple[Machine, ...], seconds: float, keep: Path | None) -> int:
    """Run the machines in turn until the time is over. Returns the number of findings."""
    end, findings = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        for machine in machines:
            try:
                run_machine(machine, _EXAMPLES)
            except Exception:
                findings += 1
                text = traceback.format_exc()
                print(text)
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{machine.__name__}-{findings}.txt").write_text(text)
    for machine in machines:
        print(f"{machine.__name__}: {machine.examples:,} sequences, {machine.steps:,} steps")
    print(f"{findings} findings")
    return findings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--keep", type=Path, help="a folder for sequences with findings")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    try:
        with local_cloud.storage() as emulator, served(emulator) as machines:
            findings = fuzz(machines, options.seconds, options.keep)
    except local_cloud.MissingError as error:
        print(f"folders only: {error}", file=sys.stderr)
        with served("") as machines:
            findings = fuzz(machines, options.seconds, options.keep)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
