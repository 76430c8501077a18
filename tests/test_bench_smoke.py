"""The regression guard of the benchmarks: it compares counts, and never times."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from smoke import RECORDED, exceeded

COUNTS = {"requests": 30, "bytes / least": 1.004}
FAST = {"CPU / floor": 1.1, "wall of rasterio.merge / wall": 3.0}
SLOW = {"CPU / floor": 9.0, "wall of rasterio.merge / wall": 0.1}


def test_more_requests_or_bytes_are_an_error() -> None:
    (message,) = exceeded({**COUNTS, "requests": 31, **FAST}, {**COUNTS, **FAST})
    assert message == "requests: 31, recorded are 30"
    (message,) = exceeded({**COUNTS, "bytes / least": 1.005, **FAST}, {**COUNTS, **FAST})
    assert message.startswith("bytes / least")


def test_neither_slower_times_nor_fewer_requests_are_an_error() -> None:
    assert exceeded({**COUNTS, "requests": 29, **SLOW}, {**COUNTS, **FAST}) == []


def test_the_recorded_file_has_every_measure() -> None:
    assert json.loads(RECORDED.read_text()).keys() == (COUNTS | FAST).keys()
