"""Topics: publish messages to Pub/Sub."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.cloud import pubsub_v1

log = logging.getLogger(__name__)

_TIMEOUT = 30.0
"""Seconds to wait for an acknowledgment."""


@cache
def _publisher() -> Any:
    return pubsub_v1.PublisherClient()


def publish(topic: str, data: bytes, attributes: dict[str, str]) -> None:
    """Publish a message and wait until Pub/Sub has acknowledged it.

    Args:
        topic: `projects/<project>/topics/<topic>`.
        data: Body of the message.
        attributes: Attributes of the message.

    Raises:
        google.api_core.exceptions.GoogleAPICallError: Pub/Sub refuses the message.
        TimeoutError: There is no acknowledgment within 30 seconds.
    """
    _publisher().publish(topic, data, **attributes).result(timeout=_TIMEOUT)


@dataclass(frozen=True)
class PubSubProgress:
    """Announces on a topic that a run has made progress.

    The message contains only the id of the run: its subscriber, the `report` function, looks up
    the status. Picklable, because workers receive it with the Beam graph.
    """

    topic: str
    run: str

    def __call__(self) -> None:
        """Publish the announcement. Failures are logged: they must not fail the run."""
        try:
            publish(self.topic, b"", {"run": self.run})
        except Exception as error:
            log.warning("cannot publish progress to %s: %s", self.topic, error)
