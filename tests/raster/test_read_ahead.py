"""Reading ahead is bounded by bytes, whatever the order of answers, and gives the blocks all the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from scenebeam.errors import ReadError
from scenebeam.raster.compose import compose
from scenebeam.raster.grid import Grid
from scenebeam.raster.layers import BandLayers, Layer, LayerError
from scenebeam.raster.read_ahead import IN_FLIGHT_ROWS
from scenebeam.raster.reader import open_source
from scenebeam.sandbox.server import Fault, SandboxServer, serve
from scenebeam.transfer.retry import Budget

SIDE = 4096
CHUNK_BYTES = 1024 * SIDE * 2  # compressed bytes of the rows that are requested together
MAX_BYTES = IN_FLIGHT_ROWS * SIDE * 2


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of 32 MB that cannot be compressed."""
    path = tmp_path_factory.mktemp("noise") / "noise.tif"
    pixels = np.random.default_rng(20).integers(1, 65535, (SIDE, SIDE)).astype("uint16")
    with rasterio.open(
        path, "w", driver="GTiff", height=SIDE, width=SIDE, count=1, dtype="uint16", nodata=0,
        crs="EPSG:32634", transform=Affine(10, 0, 600_000, 0, -10, 4_500_000),
        tiled=True, blockxsize=512, blockysize=512,
    ) as file:  # fmt: skip
        file.write(pixels, 1)
    return path


@pytest.fixture
def host(noise: Path) -> Iterator[SandboxServer]:
    with serve(noise.parent) as served:
        yield served


def layers(host: SandboxServer, attempts: int = 3) -> BandLayers:
    budget = Budget(private=True, attempts=attempts, first_wait=0.01)
    source = open_source(f"{host.url}/noise.tif", 1, budget)
    return BandLayers("b", [Layer("x", source)], np.dtype("uint16"), 0, "nearest", "first")


def grid_of(path: Path) -> Grid:
    with rasterio.open(path) as file:
        return Grid(file.shape, file.transform, "EPSG:32634")


def composed(host: SandboxServer, path: Path) -> np.ndarray:
    chunks = compose(grid_of(path), [layers(host)])
    return np.concatenate([pixels for _, _, pixels in chunks])


def hold_back(host: SandboxServer, is_held: Callable[[int], bool]) -> threading.Event:
    """Make the server answer requests for some first bytes only after the event is set."""
    released = threading.Event()

    def guard(path: str, headers: Mapping[str, str]) -> None:
        if is_held(int(headers["Range"].removeprefix("bytes=").split("-")[0])):
            released.wait(60)

    host.guard = guard
    return released


def settled(host: SandboxServer) -> int:
    """Bytes that the server has sent, once it sends no more."""
    sent = -1
    while sent != host.bytes_sent:
        sent = host.bytes_sent
        time.sleep(0.5)
    return sent


def test_a_block_that_is_held_back_does_not_fill_memory(host: SandboxServer, noise: Path) -> None:
    """All other blocks may arrive before the first: no more are requested than the bound."""
    with rasterio.open(noise) as file:
        expected = file.read(1)
    first_block = 32 * 1024  # the header ends before; its request begins at byte 0
    released = hold_back(host, lambda start: 0 < start < first_block)
    found: list[np.ndarray] = []
    reader = threading.Thread(target=lambda: found.append(composed(host, noise)))
    reader.start()
    try:
        sent = settled(host)
        assert not found, "the first block is needed for the first row"
        assert 0 < sent < MAX_BYTES + CHUNK_BYTES
        assert sent < noise.stat().st_size / 2
    finally:
        released.set()
        reader.join()
    np.testing.assert_array_equal(found[0], expected)


def test_answers_may_come_in_any_order(host: SandboxServer, noise: Path) -> None:
    with rasterio.open(noise) as file:
        expected = file.read(1)
    host.faults += [
        Fault("noise", times=1, sleep=0.0),
        Fault("noise", times=1, sleep=0.5),
        Fault("noise", times=1, sleep=0.2),
        Fault("noise", times=1, status=503),
        Fault("noise", times=1, cut=1000),
    ]
    np.testing.assert_array_equal(composed(host, noise), expected)
    assert host.statuses[503] == 1


def test_a_failed_read_fails_the_rows_that_need_it(host: SandboxServer, noise: Path) -> None:
    """What was read ahead of it is still composed; nothing is blank."""
    with rasterio.open(noise) as file:
        expected = file.read(1)
    layer = layers(host, attempts=2)
    half = noise.stat().st_size // 2

    def guard(path: str, headers: Mapping[str, str]) -> int | None:
        start = int(headers["Range"].removeprefix("bytes=").split("-")[0])
        return 503 if start > half else None

    host.guard = guard
    arrived = 0
    with pytest.raises((ReadError, LayerError)):
        for _, top, pixels in compose(grid_of(noise), [layer]):
            np.testing.assert_array_equal(pixels, expected[top : top + len(pixels)])
            arrived += len(pixels)
    assert 0 < arrived < SIDE


def test_a_block_is_requested_once(host: SandboxServer, noise: Path) -> None:
    composed(host, noise)
    pixel_requests = [(start, stop) for _, start, stop in host.ranges if start > 0]
    assert len(set(pixel_requests)) == len(pixel_requests)
    overlap = 0
    end = 0
    for start, stop in sorted(pixel_requests):
        overlap += max(0, end - start)
        end = max(end, stop)
    assert overlap == 0
