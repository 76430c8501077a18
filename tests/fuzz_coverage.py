"""Fuzz requests, messages, URLs, items and vector files by what code they reach (atheris).

    python tests/fuzz_coverage.py --seconds 60 --corpus fuzz/corpus

The first byte of an input chooses the door that the rest comes in by. Anything raised but a SceneBeamError, more than
1 GiB of memory and an input of more than 10 s end the run with exit code 1, or with that of libFuzzer.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["scenebeam"], enable_loader_override=True):
    from scenebeam.catalog.search import scenes_from_items, search_items
    from scenebeam.catalog.select import select
    from scenebeam.errors import SceneBeamError
    from scenebeam.request import RunRequest
    from scenebeam.requestfile import validate_request
    from scenebeam.vectors import read_area

from contextlib import suppress

from fuzz_requests import SEEDS, Targets
from resident import reset_peak, resident_bytes
from scenebeam.sandbox.scenes import SCENES

LARGEST_GROWTH = 2**30
"""Bytes of memory that one input may take."""


class Doors:
    """Everything that takes texts from others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        targets = Targets(folder)
        self._doors = [
            targets.file,
            targets.guard,
            targets.message,
            targets.url,
            targets.page,
            self.items,
            self.polygons,
        ]

    def ask(self, content: bytes) -> None:
        """Hand one input to one door; raise what must not be."""
        if not content:
            return
        door = self._doors[content[0] % len(self._doors)]
        reset_peak()
        before = resident_bytes("VmRSS")
        with suppress(SceneBeamError):
            door(content[1:].decode("utf-8", "surrogateescape"))
        if resident_bytes("VmHWM") - before > LARGEST_GROWTH:
            raise MemoryError(f"more than {LARGEST_GROWTH:,} bytes for one input")

    def seeds(self) -> list[bytes]:
        """An input that each door lets in."""
        items = {
            "type": "FeatureCollection",
            "features": [scene.item("https://example.com") for scene in SCENES[:1]],
        }
        area = {
            "type": "Polygon",
            "coordinates": [[[23.9, 40.5], [24.0, 40.5], [24.0, 40.6], [23.9, 40.5]]],
        }
        requests = [json.dumps(seed) for seed in SEEDS]
        texts = [
            requests,
            requests,
            requests,
            ["gs://products/a"],
            ["x"],
            [json.dumps(items)],
            [json.dumps(area)],
        ]
        return [
            bytes([number]) + text.encode()
            for number, several in enumerate(texts)
            for text in several
        ]

    def items(self, text: str) -> None:
        """A file of items, to scenes and a choice of them."""
        path = self.folder / "items.json"
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        request = _request_on(path)
        select(scenes_from_items(search_items(request, []), request), request, None, "acquisition")

    def polygons(self, text: str) -> None:
        """A file of polygons."""
        path = self.folder / "area.geojson"
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        read_area(str(path))


def _request_on(path: Path) -> RunRequest:
    return validate_request(
        {
            "catalog": str(path), "collections": ["sentinel-2-l2a"], "dates": "2021", "output": "out",
            "product": {"kind": "assets", "bands": ["red", "scl"]}, "area": {"bbox": [23.9, 40.5, 24.0, 40.6]},
        }
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument(
        "--corpus",
        type=Path,
        default=None,
        help="inputs to begin with, and where new ones are kept",
    )
    words = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as name:
        doors = Doors(Path(name))
        corpus = words.corpus or Path(name, "corpus")
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(doors.seeds()):
            (corpus / f"seed-{number}").write_bytes(seed)
        limits = [
            f"-max_total_time={words.seconds}",
            "-rss_limit_mb=0",
            "-timeout=10",
            "-max_len=20000",
            "-seed=1",
        ]
        atheris.Setup(
            [sys.argv[0], *limits, f"-artifact_prefix={corpus.parent}{os.sep}", str(corpus)],
            doors.ask,
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
