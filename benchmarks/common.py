"""Shared parts of the benchmarks: full-size scenes, a range server process, and timing."""

from __future__ import annotations

import json
import os
import platform
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from scenebeam.sandbox.scenes import SandboxScene

DATA = Path(os.environ.get("SCENEBEAM_BENCH_DATA", tempfile.gettempdir() + "/scenebeam-bench"))
TUNED = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".tif",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    "VSI_CACHE": "TRUE",
}
"""GDAL's options for files in cloud storage, used by every way that reads through GDAL."""
BLOCK = 1024
"""Block size of the full-size tiles in pixels."""
CORES = os.cpu_count() or 1
_TAKEN = datetime(2021, 6, 10, 9, 20, 31)
TILES = tuple(
    SandboxScene(tile, 32634, left, top, _TAKEN, cloud_cover=cloud, size=10980)
    for tile, left, top, cloud in (
        ("34TFL", 600_000, 4_500_000, 1.0),
        ("34TGL", 700_000, 4_500_000, 2.0),
        ("34TFK", 600_000, 4_400_000, 3.0),
        ("34TGK", 700_000, 4_400_000, 4.0),
    )
)
OTHER_ZONE = SandboxScene("35TKF", 32635, 200_000, 4_500_000, _TAKEN, cloud_cover=2.0, size=10980)
"""A tile of the next UTM zone, east of the first one of TILES."""
Measurements = dict[str, Any]
"""What was measured in one run of one way."""
Runs = dict[str, list[Measurements]]
"""Way → measurements of each of its rounds."""


def full_size_tiles(bands: tuple[str, ...], tiles: tuple[SandboxScene, ...] = TILES) -> Path:
    """Write the full-size tiles to DATA with GDAL's COG driver, unless they exist."""
    for tile in tiles:
        missing = [band for band in bands if not (DATA / tile.id / f"{band}.tif").exists()]
        if missing:
            print(f"writing {tile.id}: {', '.join(missing)}", file=sys.stderr)
            tile.write(DATA, missing, block=BLOCK)
    return DATA


class _Handler(BaseHTTPRequestHandler):
    """Serves byte ranges of files with sendfile. `/-/stats` returns and resets the counters."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    latency = 0.0
    rate = 0.0
    counts: dict[str, int] = {"requests": 0, "bytes": 0, "refused": 0}  # noqa: RUF012
    lock = threading.Lock()

    def log_message(self, format: str, *args: Any) -> None:
        return

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        if self.path == "/-/stats":
            with self.lock:
                body = json.dumps(self.counts).encode()
                self.counts.update(requests=0, bytes=0, refused=0)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        time.sleep(self.latency)
        path = DATA / self.path.lstrip("/")
        with self.lock:
            self.counts["requests"] += 1
        if not path.is_file():
            with self.lock:
                self.counts["refused"] += 1
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        size = path.stat().st_size
        start, stop = 0, size
        requested = self.headers.get("Range")
        if requested:
            first, _, last = requested.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1 if last else size, size)
        self.send_response(206 if requested else 200)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Accept-Ranges", "bytes")
        if requested:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.end_headers()
        if body:
            self.wfile.flush()
            with path.open("rb") as file:
                sent, began = start, time.monotonic()
                piece = int(self.rate / 20) if self.rate else stop
                while sent < stop:
                    sent += os.sendfile(
                        self.connection.fileno(), file.fileno(), sent, min(stop - sent, piece)
                    )
                    if self.rate:
                        time.sleep(max(0.0, began + (sent - start) / self.rate - time.monotonic()))
            with self.lock:
                self.counts["bytes"] += stop - start


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        return


@contextmanager
def range_server(latency: float, rate: float = 0.0) -> Iterator[str]:
    """Serve DATA from a separate process.

    Args:
        latency: Seconds until the first byte of each response.
        rate: Maximum bytes per second of one connection; 0 means unlimited.

    Yields:
        The URL of the server.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, __file__, str(port), str(latency), str(rate)])
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"{url}/-/stats").read()
                break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


def stats(url: str) -> dict[str, int]:
    """Return the requests, bytes and refusals since the last call, and reset the counters."""
    counts: dict[str, int] = json.loads(urllib.request.urlopen(f"{url}/-/stats").read())
    return counts


def measured(make: Callable[[], Any]) -> Measurements:
    """Call a function and measure it.

    Args:
        make: The work.

    Returns:
        `wall` and `cpu` seconds; `peak_mb`, the peak memory of the process; `busy`, the share of
        all cores that the process used, and `busy_machine`, that of the whole machine, which
        includes the range server; and `timeline`, the percentage of all cores that the process used
        in each tenth of a second.
    """
    before, idle = resource.getrusage(resource.RUSAGE_SELF), _idle_seconds()
    start = time.perf_counter()
    with _core_use() as timeline:
        make()
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "wall": wall,
        "cpu": cpu,
        "peak_mb": peak_megabytes(),
        "busy": cpu / (wall * CORES),
        "busy_machine": 1 - (_idle_seconds() - idle) / (wall * CORES),
        "timeline": timeline,
    }


def _idle_seconds() -> float:
    """Seconds that the cores of the machine were idle since it started, added up."""
    times = psutil.cpu_times()
    return times.idle + times.iowait


@contextmanager
def _core_use(interval: float = 0.1) -> Iterator[list[int]]:
    """Record what the process uses of all cores while the block runs, in percent per interval."""
    found: list[int] = []
    done = threading.Event()

    def watch() -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        while not done.wait(interval):
            now, used = time.perf_counter(), time.process_time()
            found.append(round(100 * (used - cpu) / ((now - wall) * CORES)))
            wall, cpu = now, used

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()


def peak_megabytes() -> float:
    """Peak memory of this process. `ru_maxrss` is unsuitable: it starts at the parent's value."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def in_fresh_process(script: str, config: dict[str, Any]) -> dict[str, Any]:
    """Run `script --one config` in a new interpreter and return its measurements."""
    out = subprocess.run(
        [sys.executable, script, "--one", json.dumps(config)],
        capture_output=True,
        text=True,
        check=False,
    )
    if out.returncode:
        raise RuntimeError(f"{config['way']} failed:\n{out.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(out.stdout.strip().splitlines()[-1])
    return found


def run_rounds(
    script: str, url: str, rounds: Mapping[str, int], configs: Mapping[str, dict[str, Any]] = {}
) -> Runs:
    """Run ways in fresh processes, interleaved round by round.

    Args:
        script: The benchmark, which runs one way with `--one`.
        url: The range server.
        rounds: Way → number of its rounds.
        configs: Way → further configuration for `script`.

    Returns:
        The measurements, with the counts of the server.
    """
    runs: Runs = {way: [] for way in rounds}
    for number in range(max(rounds.values())):
        for way, count in rounds.items():
            if number < count:
                stats(url)
                config = {"way": way, "url": url, **configs.get(way, {})}
                runs[way].append({**in_fresh_process(script, config), **stats(url)})
    return runs


def spread(values: list[float]) -> str:
    """Format the median, with minimum and maximum in parentheses."""
    if len(values) == 1:
        return f"{values[0]:.2f} (one round)"
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def median_of(runs: Sequence[Mapping[str, Any]], key: str) -> float:
    """Return the median of one measurement over several runs."""
    return median(run[key] for run in runs)


def percent(runs: list[Measurements], key: str) -> str:
    """Format the median of a share, in percent."""
    return f"{100 * median_of(runs, key):.0f} %"


TIME_COLUMNS = ("wall s", "CPU s")
CORE_COLUMNS = ("core use, process", "core use, machine")
READ_COLUMNS = ("peak MB", "requests", "MB read", "bytes / least")


def time_cells(runs: list[Measurements]) -> tuple[str, ...]:
    """Return the cells of TIME_COLUMNS."""
    return spread([run["wall"] for run in runs]), spread([run["cpu"] for run in runs])


def core_cells(runs: list[Measurements]) -> tuple[str, ...]:
    """Return the cells of CORE_COLUMNS."""
    return percent(runs, "busy"), percent(runs, "busy_machine")


def read_cells(runs: list[Measurements], least: float) -> tuple[str, ...]:
    """Return the cells of READ_COLUMNS.

    Args:
        runs: The rounds of one way.
        least: Bytes that must be read at least.
    """
    sent = median_of(runs, "bytes")
    return (
        f"{median_of(runs, 'peak_mb'):.0f}",
        f"{median_of(runs, 'requests'):.0f}",
        f"{sent / 1e6:.1f}",
        f"{sent / least:.3f}",
    )


def print_timelines(way: str, runs: list[Measurements]) -> None:
    """Print how busy the cores were in each run, a line of at most 50 numbers per run."""
    for run in runs:
        tenths = run["timeline"]
        step = -(-len(tenths) // 50) or 1
        means = []
        for start in range(0, len(tenths), step):
            part = tenths[start : start + step]
            means.append(f"{sum(part) / len(part):.0f}")
        print(f"<!-- {way}, % of all cores per {step / 10:.1f} s: {' '.join(means)} -->")


def print_all_ratios(runs: Mapping[str, Runs]) -> None:
    """Print the wall time of each way over that of the first, which is scenebeam's.

    Args:
        runs: Latency → measurements of all ways.
    """
    for latency, found in runs.items():
        (_, first), *others = ((way, median_of(rounds, "wall")) for way, rounds in found.items())
        ratios = ", ".join(f"{wall / first:.2f} x {way}" for way, wall in others)
        print(f"<!-- {latency}: {ratios} -->", flush=True)


def machine() -> str:
    """Describe the machine: its processor and the number of its cores."""
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def print_header(*columns: str) -> None:
    """Print the header of a Markdown table."""
    print_row(*columns)
    print("|" + "---|" * len(columns))


def print_row(*cells: Any) -> None:
    """Print a row of a Markdown table."""
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    _Handler.latency, _Handler.rate = float(sys.argv[2]), float(sys.argv[3])
    _Server(("127.0.0.1", int(sys.argv[1])), _Handler).serve_forever()
