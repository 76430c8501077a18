"""Messages: read the request, or the reference to a request file, from a CloudEvent."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scenebeam.errors import RequestError

PUBLISHED = "google.cloud.pubsub.topic.v1.messagePublished"
"""Event type of a Pub/Sub message."""
FINALIZED = "google.cloud.storage.object.v1.finalized"
"""Event type of a new object in Cloud Storage."""
MAX_REQUEST_BYTES = 10_000_000
_MAX_REFERENCE_BYTES = 10_000
"""Larger messages are not parsed to find out whether they are a reference."""


@dataclass(frozen=True)
class Message:
    """A request message: either the request itself, or a reference to a request file."""

    id: str
    """Stable id: redeliveries of a message have the same one."""
    content: bytes = b""
    """Text of the request; empty if there is a reference."""
    reference: str = ""
    """`gs://bucket/key` of a request file."""
    sweep: bool = False
    """Whether it asks for a sweep of all series."""


def read_message(kind: str, event_id: str, data: Any) -> Message:
    """Read the message of a Pub/Sub or Cloud Storage event.

    Args:
        kind: Type of the CloudEvent, `PUBLISHED` or `FINALIZED`.
        event_id: Id of the CloudEvent, used if the message has no id.
        data: Data of the CloudEvent.

    Raises:
        RequestError: The event is of another type, malformed, empty, or larger than 10 MB. A
            redelivery would fail in the same way.
    """
    if not isinstance(data, Mapping):
        raise RequestError("the event has no data")
    if kind == FINALIZED:
        bucket, name = data.get("bucket"), data.get("name")
        if not isinstance(bucket, str) or not isinstance(name, str):
            raise RequestError("the Cloud Storage event does not name a bucket and an object")
        # The generation distinguishes versions of a request file that is uploaded again.
        return Message(
            f"{_id_text(event_id)}-{_id_text(data.get('generation'))}",
            reference=f"gs://{bucket}/{name}",
        )
    if kind != PUBLISHED:
        raise RequestError(f"events of type {kind[:100]!r} cannot start a run")
    message = data.get("message")
    if not isinstance(message, Mapping):
        raise RequestError("the event contains no message")
    message_id = (
        _id_text(message.get("messageId"))
        or _id_text(message.get("message_id"))
        or _id_text(event_id)
    )
    attributes = message.get("attributes")
    if isinstance(attributes, Mapping) and attributes.get("sweep") == "series":
        return Message(message_id, sweep=True)
    reference = attributes.get("request") if isinstance(attributes, Mapping) else None
    if isinstance(reference, str) and reference:
        return Message(message_id, reference=reference)
    content = _decode(message.get("data"))
    reference = _parse_reference(content)
    if reference is not None:
        return Message(message_id, reference=reference)
    return Message(message_id, content)


def _id_text(value: Any) -> str:
    """Convert an id to text that can be stored; empty if it is neither text nor a number."""
    if not isinstance(value, str | int):
        return ""
    return str(value)[:200].encode("utf-8", "replace").decode()


def _decode(data: Any) -> bytes:
    """Decode the base64 data of a Pub/Sub message."""
    if not isinstance(data, str) or not data:
        raise RequestError("the message is empty")
    # Base64 encodes 3 bytes as 4 characters.
    if len(data) > MAX_REQUEST_BYTES * 4 // 3:
        raise RequestError(
            f"the message is larger than {MAX_REQUEST_BYTES:,} bytes: put the request into a file "
            "in the request bucket and publish its gs:// URI instead"
        )
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"the message is not valid base64: {error}") from None


def _parse_reference(content: bytes) -> str | None:
    """Return the URI in `{"request": "gs://…"}`; None if the content is anything else."""
    if len(content) > _MAX_REFERENCE_BYTES:
        return None
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or len(document) != 1:
        return None
    reference = document.get("request")
    return reference if isinstance(reference, str) else None
