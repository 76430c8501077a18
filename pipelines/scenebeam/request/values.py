"""The values of a request document: what no field can hold is refused before any model sees it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from scenebeam.errors import RequestError

MAX_VALUES = 1_000_000
"""Values of a document: each item of a list and each entry of a mapping is one."""
MAX_SETTINGS = 200_000
"""Values outside `area`, each of which is validated on its own."""
MAX_LIST = 100_000
MAX_KEYS = 10_000
MAX_TEXT = 100_000
MAX_DEPTH = 60
NOT_BINARY = "give text, not binary data"
_LONGEST_PART, _MOST_PARTS = 60, 12
"""Characters and keys of a field's name in messages."""


class _Value(NamedTuple):
    """A value, and where it is in its document."""

    content: Any
    key: Any = None
    parent: _Value | None = None
    depth: int = 0
    in_area: bool = False
    """Whether it is `area` or inside it, where lists of coordinates may be long."""


def check_values(document: Any, most_values: int = MAX_VALUES) -> None:
    """Refuse values that no request can hold, wherever they are.

    That is text with unpaired surrogates, NUL or more than MAX_TEXT characters; numbers that are not
    finite (`nodata` may be NaN) or wider than 64 bits; lists, mappings and nesting beyond their
    bounds. Lists of coordinates in `area` are bounded by `most_values` alone. Takes time that is
    linear in the number of values, and ends on a document that contains itself.

    Args:
        document: A request, or a part of one.
        most_values: Values that it may hold.

    Raises:
        RequestError: There is one. The message names its field.
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
                fault = f"with it the request holds more than {most:,} values"
            else:
                pending.extend(_inside(value))
        if fault:
            field = _field(value)
            raise RequestError(f"{field}: {fault}" if field else fault)


def dotted_name(keys: Iterable[Any]) -> str:
    """Name a field by its keys: `select.scenes.3.id`. What cannot be printed is escaped."""
    parts: list[str] = []
    for key in keys:
        if len(parts) == _MOST_PARTS:
            parts.append("…")
            break
        text = str(key)[:_LONGEST_PART]
        parts.append(text if text.isprintable() else ascii(text)[1:-1])
    return ".".join(parts)


def quoted(value: object) -> str:
    """A value as messages quote it: escaped where it cannot be printed, and of bounded length."""
    text = value[:_LONGEST_PART] if isinstance(value, str) else str(value)[:_LONGEST_PART]
    return repr(text) if text.isprintable() else ascii(text)


def too_long(length: int) -> str:
    """What is wrong with a text of so many characters."""
    return f"a text of {length:,} characters; at most {MAX_TEXT:,} are read"


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
    """What is wrong with a value, whatever its field; empty where nothing is."""
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
    # Other objects come from a caller in Python: the models know which they take.
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
        return f"a list of {len(content):,} values; at most {MAX_LIST:,} are read"
    if len(content) > MAX_KEYS:
        return f"a mapping of {len(content):,} keys; at most {MAX_KEYS:,} are read"
    for key in content:
        fault = _text_fault(key) if isinstance(key, str) else _key_fault(key)
        if fault:
            return f"its key {quoted(key)}: {fault}"
    return ""


def _key_fault(key: Any) -> str:
    numeric = isinstance(key, int | float) and math.isfinite(key)
    return "" if numeric else "a key must be text"
