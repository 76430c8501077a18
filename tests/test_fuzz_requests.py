"""Damaged requests and odd messages: see `fuzz_requests`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FUZZER = Path(__file__).with_name("fuzz_requests.py")


def run_fuzzer(seconds: int, seed: int, keep: Path) -> None:
    command: list[str | Path] = [
        sys.executable,
        FUZZER,
        "--seconds",
        str(seconds),
        "--seed",
        str(seed),
        "--keep",
        keep,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 findings" in done.stdout


def test_some_odd_requests_end_in_a_result_or_in_words(tmp_path: Path) -> None:
    run_fuzzer(4, 1, tmp_path / "found")


@pytest.mark.slow
def test_half_a_minute_of_odd_requests(tmp_path: Path) -> None:
    run_fuzzer(30, 7, tmp_path / "found")
