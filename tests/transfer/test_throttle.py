"""A host that is overloaded gets fewer requests at once, and all of them when it is well again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from scenebeam.errors import ReadError
from scenebeam.request import Limits
from scenebeam.transfer import throttle
from scenebeam.transfer.http import BusyError
from scenebeam.transfer.ranges import read_range
from scenebeam.transfer.retry import Budget
from scenebeam.transfer.throttle import HostThrottle

CAPACITY = 3
CONTENT = bytes(range(256)) * 4


class Busy(ThreadingHTTPServer):
    """Answers 503 to every request beyond three at once."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock, self.active, self.refused, self.served = threading.Lock(), 0, 0, 0


class Handler(BaseHTTPRequestHandler):
    server: Busy
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        with server.lock:
            server.active += 1
            refuse = server.active > CAPACITY
            server.refused += refuse
        time.sleep(0.02)
        with server.lock:
            server.active -= 1
        if refuse:
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start, stop = self.headers["Range"].removeprefix("bytes=").split("-")
        body = CONTENT[int(start) : int(stop) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def busy() -> Iterator[Busy]:
    server = Busy()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def read_all(server: Busy, count: int = 300) -> None:
    url = f"http://127.0.0.1:{server.server_port}/file.tif"
    budget = Budget(private=True, first_wait=0.01, attempts=20, seconds=1e6)

    def read(number: int) -> None:
        start = number % len(CONTENT)
        assert read_range(url, start, start + 1, budget) == CONTENT[start : start + 1]

    with ThreadPoolExecutor(24) as threads:
        list(threads.map(read, range(count)))


def test_a_busy_host_refuses_less_than_without_a_throttle(
    busy: Busy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "_ROUND", 0.05)
    read_all(busy)
    throttled, busy.refused = busy.refused, 0
    monkeypatch.setattr(HostThrottle, "_reduce", lambda self: None)
    throttle.throttle_of.cache_clear()
    read_all(busy)
    assert throttled < busy.refused / 2


def test_the_limit_is_halved_once_a_round_and_grows_back() -> None:
    host = HostThrottle(16)

    def fail() -> None:
        with pytest.raises(BusyError), host.slot():
            raise BusyError("503")

    fail()
    fail()
    assert host.limit == 8, "both were in flight when the host became busy"
    host._reduced -= 10
    fail()
    assert host.limit == 4
    for _ in range(4):
        with host.slot():
            pass
    assert 4.7 < host.limit < 5
    for _ in range(200):
        with host.slot():
            pass
    assert host.limit == 16
    with pytest.raises(ReadError), host.slot():
        raise ReadError("404")
    assert host.limit == 16, "a file that is not there says nothing about its host"


def test_no_more_requests_than_the_limit_are_in_flight() -> None:
    host, lock = HostThrottle(3), threading.Lock()
    active, most = 0, 0

    def work(number: int) -> None:
        nonlocal active, most
        with host.slot():
            with lock:
                active += 1
                most = max(most, active)
            time.sleep(0.005)
            with lock:
                active -= 1

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(work, range(40)))
    assert most == 3


def test_a_task_that_takes_too_long_fails_at_its_next_read(busy: Busy) -> None:
    budget = Budget.of(Limits(task_seconds=0.001, private_addresses=True))
    budget.start()
    time.sleep(0.01)
    with pytest.raises(ReadError, match=r"limits\.task_seconds = 0\.001; run again") as caught:
        read_range(f"http://127.0.0.1:{busy.server_port}/file.tif", 0, 1, budget)
    assert not caught.value.permanent
    assert not busy.served
