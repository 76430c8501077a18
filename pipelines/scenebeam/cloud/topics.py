"""Topics: messages to Pub/Sub."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.cloud import pubsub_v1

log = logging.getLogger(__name__)

_SECONDS = 30.0


@cache
def _publisher() -> Any:
    return pubsub_v1.PublisherClient()


def publish(topic: str, data: bytes, attributes: dict[str, str]) -> None:
    """Publish one message and wait until it is taken. Raises google.api_core's errors where it is not."""
    _publisher().publish(topic, data, **attributes).result(timeout=_SECONDS)


@dataclass(frozen=True)
class PubSubProgress:
    """That a run has got further: who listens looks up how far. Sent by its workers, with the graph they are given."""

    topic: str
    run: str

    def __call__(self) -> None:
        """Send it. That nobody hears of a run is no reason for it to fail."""
        try:
            publish(self.topic, b"", {"run": self.run})
        except Exception as error:
            log.warning("cannot tell %s how the run goes: %s", self.topic, error)
