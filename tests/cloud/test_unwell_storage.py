"""Cloud Storage that answers 412, 429 and 503, and answers that are lost on their way: no run twice, no update lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from test_launch import Desk, message, stored

from scenebeam.cloud.launch import LaunchHandler, RetryableError
from scenebeam.cloud.runs import Runs
from scenebeam.cloud.settings import CloudSettings
from scenebeam.status import RunStatus
from scenebeam.storage import open_store
from storage_proxy import Answer, Request, Upstream, proxied, refusal

pytestmark = pytest.mark.cloud


@dataclass
class Weather:
    """What befalls the next requests that write: `503` and the like, or `lost`: done, and the answer never comes."""

    coming: list[Any] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, method: str) -> Any:
        with self.lock:
            self.seen.append(method)
            return self.coming.pop(0) if self.coming and method == "POST" else None


@pytest.fixture
def weather(emulator: str) -> Iterator[Weather]:
    """The emulator behind a proxy that may be unwell."""
    now = Weather()

    def answer(request: Request, upstream: Upstream) -> Answer | None:
        fault = now.next(request.method)
        if isinstance(fault, int):
            return refusal(fault, "not now")
        answered = upstream.answer(request)
        return None if fault == "lost" else answered

    with proxied(emulator, answer):
        yield now


@pytest.mark.parametrize("faults", [[503], [429, 429], ["lost"], [503, "lost", 429]])
def test_a_message_starts_one_run_whatever_the_weather(
    weather: Weather, prefix: str, faults: list[Any]
) -> None:
    settings = CloudSettings(state=f"{prefix}/state", outputs=("gs://products",), claim_seconds=0.2)
    launcher = Desk()
    for at in range(
        4
    ):  # of what a launch writes each in turn: the claim, the request, the job, the status
        launch = LaunchHandler(
            settings, Runs(open_store(settings.state)), launcher, lambda *words: None
        )
        asked = message(str(at), dates=f"2023-0{at + 1}")
        weather.coming = [None] * at + list(faults)
        for _ in range(20):
            try:
                status = launch.handle(asked)
                break
            except RetryableError:
                time.sleep(0.1)  # Pub/Sub brings it again
        assert status.state == "queued"
        assert len(launcher.started) == at + 1


def test_ten_writers_lose_no_update_in_bad_weather(weather: Weather, prefix: str) -> None:
    runs = Runs(open_store(prefix))
    runs.update("x", lambda before: RunStatus(run="x", id="x", state="running"))
    weather.coming = [503, None, 429, None, None, 412, 503] * 4

    def note(number: int) -> None:
        # Each leaves a mark of its own: made twice it is the same.
        def marked(status: RunStatus | None) -> RunStatus:
            text = mark(stored(status).message, number)
            return stored(status).model_copy(update={"message": text})

        runs.update("x", marked)

    with ThreadPoolExecutor(10) as threads:
        list(threads.map(note, range(10)))
    assert stored(runs.status("x")).message == "0 1 2 3 4 5 6 7 8 9"


def mark(text: str, number: int) -> str:
    return " ".join(sorted({*text.split(), str(number)}))
