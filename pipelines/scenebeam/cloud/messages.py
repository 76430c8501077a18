"""Messages: what a CloudEvent of Pub/Sub or Cloud Storage asks for."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scenebeam.errors import RequestError

PUBLISHED = "google.cloud.pubsub.topic.v1.messagePublished"
FINALIZED = "google.cloud.storage.object.v1.finalized"
_LARGEST = 10_000_000


@dataclass(frozen=True)
class Message:
    """A request, or where one lies."""

    id: str
    """The same each time that it is delivered."""
    content: bytes = b""
    """Of a request; empty where it lies elsewhere."""
    reference: str = ""
    """`gs://bucket/name` of a request file."""


def read_message(kind: str, event_id: str, data: Any) -> Message:
    """The message of an event by its type, id and data.

    Raises RequestError for what is none, or is larger than 10 MB: it would be the same when it comes again.
    """
    if not isinstance(data, Mapping):
        raise RequestError("the event has no data")
    if kind == FINALIZED:
        bucket, name = data.get("bucket"), data.get("name")
        if not isinstance(bucket, str) or not isinstance(name, str):
            raise RequestError("the event of the object names no bucket and no object")
        return Message(
            f"{_plain(event_id)}-{_plain(data.get('generation'))}",
            reference=f"gs://{bucket}/{name}",
        )
    if kind != PUBLISHED:
        raise RequestError(f"events of the type {kind[:100]!r} start nothing")
    message = data.get("message")
    if not isinstance(message, Mapping):
        raise RequestError("the event holds no message")
    name = _plain(message.get("messageId")) or _plain(message.get("message_id")) or _plain(event_id)
    attributes = message.get("attributes")
    reference = attributes.get("request") if isinstance(attributes, Mapping) else None
    if isinstance(reference, str) and reference:
        return Message(name, reference=reference)
    content = _decoded(message.get("data"))
    document = _reference_in(content)
    return Message(name, reference=document) if document is not None else Message(name, content)


def _plain(value: Any) -> str:
    """An id as text that can be stored; empty where it is none."""
    return (
        str(value)[:200].encode("utf-8", "replace").decode() if isinstance(value, str | int) else ""
    )


def _decoded(data: Any) -> bytes:
    if not isinstance(data, str) or not data:
        raise RequestError("the message is empty")
    if len(data) > _LARGEST * 4 // 3:
        raise RequestError(
            f"the message is larger than {_LARGEST:,} bytes: name a request file in the bucket instead"
        )
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"the message is not base64: {error}") from None


def _reference_in(content: bytes) -> str | None:
    """`{"request": "gs://…"}`, the only other thing that a message may hold."""
    if len(content) > 10_000:
        return None
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    found = document.get("request") if isinstance(document, dict) and len(document) == 1 else None
    return found if isinstance(found, str) else None
