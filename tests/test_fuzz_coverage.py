"""Inputs that coverage leads to: see `fuzz_coverage`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_half_a_minute_of_inputs_that_reach_new_code(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris has no wheel for this platform")
    command = [
        sys.executable,
        "fuzz_coverage.py",
        "--seconds",
        "30",
        "--corpus",
        str(tmp_path / "corpus"),
    ]
    done = subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done" in done.stderr
