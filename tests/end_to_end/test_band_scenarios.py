"""What happens to a stack when the network or the data misbehave, band by band. What concerns grids and missing bands is
in `tests/products/test_stacks.py`, what concerns VRTs in `tests/raster/test_validate.py`.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import urllib3

from scenebeam.execution.driver import run
from scenebeam.request import RunRequest
from scenebeam.sandbox import earth
from scenebeam.sandbox.scenes import SCENES
from scenebeam.sandbox.server import Fault, SandboxServer, serve
from scenebeam.status import RunStatus
from scenebeam.transfer import http

SCENE = SCENES[0]
Stack = Callable[..., tuple[RunStatus, Path]]

pytestmark = pytest.mark.parametrize("form", ["geotiff", "vrt"])


@pytest.fixture
def server(sandbox: Path, tmp_path: Path) -> Iterator[SandboxServer]:
    """One scene over HTTP, whose files may be spoilt."""
    shutil.copytree(sandbox / SCENE.id, tmp_path / "scenes" / SCENE.id)
    with serve(tmp_path / "scenes") as served:
        yield served


@pytest.fixture
def stack(make_request: Callable[..., RunRequest], server: SandboxServer, tmp_path: Path) -> Stack:
    """Run a stack of the scene; gives the status and where its product is or would be."""
    catalog = tmp_path / "items.json"
    catalog.write_text(
        json.dumps({"type": "FeatureCollection", "features": [SCENE.item(server.url)]})
    )

    def make(form: str, **changes: Any) -> tuple[RunStatus, Path]:
        request = make_request(
            catalog=str(catalog),
            area=None,
            **{"product": {"kind": "stack", "format": form}, **changes},
        )
        ending = "vrt" if form == "vrt" else "tif"
        return run(request), Path(request.output) / "stacks" / SCENE.id / f"{SCENE.id}.{ending}"

    return make


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A client that gives up on an answer after a fifth of a second."""
    monkeypatch.setattr(http, "_TIMEOUT", urllib3.Timeout(connect=1, read=0.2))
    http._pool.cache_clear()
    yield
    http._pool.cache_clear()


def whole(path: Path) -> bool:
    x, y = SCENE.pixel_centers(10)
    with rasterio.open(path) as file:
        expected = earth.pixel("nir", x, y, earth.day_number(SCENE.acquired))
        return file.count == 6 and bool(np.array_equal(file.read(4), expected))


@pytest.mark.usefixtures("impatient")
def test_band_download_timeout(stack: Stack, server: SandboxServer, form: str) -> None:
    server.faults.append(Fault("nir.tif", times=2, sleep=0.5))
    status, path = stack(form)
    assert status.state == "succeeded"
    assert whole(path)


@pytest.mark.usefixtures("impatient")
def test_all_bands_timeout(stack: Stack, server: SandboxServer, form: str) -> None:
    server.faults.append(Fault("tif", sleep=0.5))
    status, path = stack(form, **{"limits.max_attempts": 2})
    assert (status.state, status.exit_code) == ("failed", 1)
    assert "0/6 bands complete, 6 failed" in status.message
    assert "after 2 tries" in status.message
    assert not path.exists()
    server.faults.clear()
    assert stack(form)[0].state == "succeeded", "the next run makes it"


def test_partial_download_recovery(stack: Stack, server: SandboxServer, form: str) -> None:
    server.faults.append(Fault("nir.tif", times=1, cut=20_000))
    status, path = stack(form)
    assert status.state == "succeeded"
    assert whole(path)


def test_rate_limit_handling(stack: Stack, server: SandboxServer, form: str) -> None:
    server.faults.append(Fault("red.tif", times=1, status=429, retry_after="1"))
    began = time.monotonic()
    status, path = stack(form)
    assert status.state == "succeeded"
    assert time.monotonic() - began >= 1, "Retry-After is honoured"
    assert whole(path)


def test_empty_band_file(stack: Stack, server: SandboxServer, form: str) -> None:
    (server.folder / SCENE.id / "red.tif").write_bytes(b"")
    status, path = stack(form)
    assert status.state == "failed"
    assert "5/6 bands complete, 1 failed: red:" in status.message
    assert "empty" in status.message
    assert not path.exists()
    assert not list(path.parent.glob("red*"))


@pytest.mark.parametrize(
    "content",
    [b"NOT A VALID GEOTIFF", b"<html>Please log in</html>"],
    ids=["nonsense", "a login page"],
)
def test_corrupt_band_file(stack: Stack, server: SandboxServer, form: str, content: bytes) -> None:
    (server.folder / SCENE.id / "red.tif").write_bytes(content)
    status, path = stack(form)
    assert status.state == "failed"
    assert "1 failed: red:" in status.message
    assert "image" in status.message
    assert not path.exists()


def test_band_that_breaks_off_in_its_pixels(stack: Stack, server: SandboxServer, form: str) -> None:
    file = server.folder / SCENE.id / "red.tif"
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    status, _ = stack(form)
    assert status.state == "failed"
    assert "1 failed: red:" in status.message
