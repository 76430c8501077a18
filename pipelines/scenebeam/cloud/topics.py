"""Topics: messages to Pub/Sub."""

from __future__ import annotations

from functools import cache
from typing import Any

from google.cloud import pubsub_v1

_SECONDS = 30.0


@cache
def _publisher() -> Any:
    return pubsub_v1.PublisherClient()


def publish(topic: str, data: bytes, attributes: dict[str, str]) -> None:
    """Publish one message and wait until it is taken. Raises google.api_core's errors where it is not."""
    _publisher().publish(topic, data, **attributes).result(timeout=_SECONDS)
