"""Bounds on the values of a request document, which are checked before any model validates it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from scenebeam.errors import RequestError

MAX_VALUES = 1_000_000
"""Values of a document: items of lists and entries of mappings."""
MAX_SETTINGS = 200_000
"""Values outside `area`, each of which is validated individually."""
MAX_LIST = 100_000
MAX_KEYS = 10_000
MAX_TEXT = 100_000
MAX_DEPTH = 60
NOT_BINARY = "give text, not binary data"
_LONGEST_PART, _MOST_PARTS = 60, 12
"""Characters of a key, and keys, of a field's name in messages."""


class _Value(NamedTuple):
    """A value and its position in the document."""

    content: Any
    key: Any = None
    parent: _Value | None = None
    depth: int = 0
    in_area: bool = False
    """Whether it is inside `area`, where lists of coordinates may be long."""


def check_values(document: Any, most_values: int = MAX_VALUES) -> None:
    """Check that every value of a document is within bounds, whatever its field.

    Not allowed are text with unpaired surrogates, NUL or more than MAX_TEXT characters; numbers
    that are not finite (`nodata` may be NaN) or need more than 64 bits; lists, mappings and nesting
    beyond their bounds. Lists of coordinates in `area` are only bounded by `most_values`. The time
    is linear in the number of values, and a document that contains itself ends the check.

    Args:
        document: A request, or a part of one.
        most_values: Largest number of values.

    Raises:
        RequestError: A value is not allowed; the message names its field.
    """
    values = settings = 0
    pending = [_Value(document)]
    while pending:
        value = pending.pop()
        fault = _fault(value)
        if not fault and isinstance(value.content, Mapping | list | tuple):
            values += len(value.content)
            settings += 0 if value.in_area else len(value.content)
            if values > most_values or settings > MAX_SETTINGS:
                most = most_values if value.in_area else MAX_SETTINGS
                fault = f"the request has more than {most:,} values here"
            else:
                pending.extend(_inside(value))
        if fault:
            field = _field(value)
            raise RequestError(f"{field}: {fault}" if field else fault)


def dotted_name(keys: Iterable[Any]) -> str:
    """Name a field by its keys, such as `select.scenes.3.id`; escape what is not printable."""
    parts: list[str] = []
    for key in keys:
        if len(parts) == _MOST_PARTS:
            parts.append("…")
            break
        text = str(key)[:_LONGEST_PART]
        parts.append(text if text.isprintable() else ascii(text)[1:-1])
    return ".".join(parts)


def first_sentence(text: str) -> str:
    """Return the first sentence of a field's description, on one line.

    It ends at a full stop or a semicolon before a capital letter or a name in backticks.
    """
    return re.split(r"(?<=[.;]) (?=[A-Z`])", re.sub(r"\s+", " ", text))[0]


def quoted(value: object) -> str:
    """Quote a value for a message: escaped if it is not printable, and shortened."""
    text = value[:_LONGEST_PART] if isinstance(value, str) else str(value)[:_LONGEST_PART]
    return repr(text) if text.isprintable() else ascii(text)


def too_long(length: int) -> str:
    """The message for a text that is too long."""
    return f"a text of {length:,} characters; the limit is {MAX_TEXT:,}"


def _inside(value: _Value) -> Iterable[_Value]:
    content, depth = value.content, value.depth + 1
    entries = content.items() if isinstance(content, Mapping) else enumerate(content)
    for key, inner in entries:
        # `area` is a field of the request, or of the request inside a run.json.
        in_area = value.in_area or (key == "area" and depth <= 2)
        yield _Value(inner, key, value, depth, in_area)


def _field(value: _Value) -> str:
    keys = []
    here: _Value | None = value
    while here is not None and here.parent is not None:
        keys.append(here.key)
        here = here.parent
    return dotted_name(reversed(keys))


def _fault(value: _Value) -> str:
    """Why a value is not allowed; empty if it is."""
    content = value.content
    if content is None or isinstance(content, bool):
        return ""
    if isinstance(content, str):
        return _text_fault(content)
    if isinstance(content, float):
        may_be_nan = value.key == "nodata"
        if math.isfinite(content) or (may_be_nan and math.isnan(content)):
            return ""
        return "it must be a finite number, below 1e300"
    if isinstance(content, int):
        return "" if abs(content) < 2**63 else "it must be a whole number that 64 bits can hold"
    if isinstance(content, Mapping | list | tuple):
        return _size_fault(value)
    # Other objects come from Python callers; the models decide whether they accept them.
    return NOT_BINARY if isinstance(content, bytes | bytearray) else ""


def _text_fault(text: str) -> str:
    if len(text) > MAX_TEXT:
        return too_long(len(text))
    if "\0" in text:
        return "it contains a NUL character"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "it contains invalid Unicode (unpaired surrogates)"
    return ""


def _size_fault(value: _Value) -> str:
    content = value.content
    if value.depth >= MAX_DEPTH:
        return f"it is nested more than {MAX_DEPTH} times"
    if not isinstance(content, Mapping):
        if len(content) <= MAX_LIST or value.in_area:
            return ""
        return f"a list of {len(content):,} values; the limit is {MAX_LIST:,}"
    if len(content) > MAX_KEYS:
        return f"a mapping of {len(content):,} keys; the limit is {MAX_KEYS:,}"
    for key in content:
        fault = _text_fault(key) if isinstance(key, str) else _key_fault(key)
        if fault:
            return f"its key {quoted(key)}: {fault}"
    return ""


def _key_fault(key: Any) -> str:
    numeric = isinstance(key, int | float) and math.isfinite(key)
    return "" if numeric else "a key must be text"
