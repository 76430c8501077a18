"""Read request documents: JSON, or YAML by the core schema of YAML 1.2, with bounds on both.

JSON is tried first, because not all JSON is YAML as parsers read it: keys over 1,024 characters and
escaped surrogate pairs are not. YAML is built from the parser's events, so that no tag is ever
constructed, no alias is expanded, and a document is refused at the event that goes too far.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import yaml

from scenebeam.errors import RequestError
from scenebeam.request.values import (
    MAX_DEPTH,
    MAX_TEXT,
    MAX_VALUES,
    NOT_BINARY,
    check_values,
    dotted_name,
    quoted,
    too_long,
)

MAX_BYTES = 10_000_000
_LONGEST_NUMBER = 300
"""Digits. Longer numbers are beyond 1e300 or more exact than any field."""
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the compiled one is ten times as fast

_NULL = re.compile(r"(?:null|Null|NULL|~|)")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)")
_NAN = re.compile(r"\.(?:nan|NaN|NAN)")
_TAG = "tag:yaml.org,2002:"


def parse_text(text: str, name: str) -> Any:
    """Parse a JSON or YAML document.

    Args:
        text: One document. A byte order mark before it is skipped.
        name: What messages call the document.

    Returns:
        Mappings (with text as keys), lists, text, numbers, booleans and None.

    Raises:
        RequestError: The text is neither, breaks one of the bounds of this module, repeats a key,
            or holds anchors, tags or values that no request has. The message names the field.
    """
    text = text.removeprefix("\ufeff")
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        raise RequestError(f"{name} contains invalid Unicode (unpaired surrogates)") from None
    if size > MAX_BYTES:
        raise RequestError(
            f"{name} is larger than {MAX_BYTES:,} bytes: put the area into a file of its own"
        )
    try:
        found = _parse_json(text)
    except _RefusedError as error:
        raise RequestError(f"{name}: {error}") from None
    except ValueError as error:
        found = _parse_yaml(text, name, f"{error}" if text.lstrip()[:1] in ("{", "[") else "")
    try:
        check_values(found)
    except RequestError as error:
        raise RequestError(f"{name}: {error}") from None
    return found


def parse_geojson(text: str) -> dict[str, Any]:
    """Parse a GeoJSON file, which may be larger than a request.

    Raises ValueError where it is not JSON, is nested too deep, or does not hold an object.
    """
    try:
        found = json.loads(text.removeprefix("\ufeff"), parse_int=_whole_number)
    except RecursionError:
        raise ValueError(f"it is nested more than {MAX_DEPTH} times") from None
    if not isinstance(found, dict):
        raise ValueError("it does not hold a GeoJSON object")
    return found


class _RefusedError(Exception):
    """A document that is well formed and not accepted."""


def _parse_json(text: str) -> Any:
    """Parse JSON.

    Raises:
        ValueError: It is not JSON.
        _RefusedError: It is JSON, but exceeds a bound.
    """
    if text.count(",") + text.count("[") + text.count("{") > MAX_VALUES:
        # An upper bound that costs nothing; YAML counts its values as they come.
        if text.lstrip()[:1] in ("{", "["):
            raise _RefusedError(f"it holds more than {MAX_VALUES:,} values")
        raise ValueError("it is not JSON")
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_int=_whole_number)
    except RecursionError:
        raise _RefusedError(f"it is nested more than {MAX_DEPTH} times") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RefusedError(f"the key {quoted(key)} is given twice")
            seen.add(key)
    return found


def _whole_number(text: str) -> int | float:
    """Parse an integer; infinity if it has too many digits, which `check_values` reports."""
    if len(text) > _LONGEST_NUMBER:
        return math.inf
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


def _real_number(text: str) -> float:
    return math.inf if len(text) > _LONGEST_NUMBER else float(text)


# ---------------------------------------------------------------------------------------------
# YAML


def _parse_yaml(text: str, name: str, json_fault: str) -> Any:
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=_Loader):
            builder.take(event)
    except _RefusedError as error:
        raise RequestError(f"{name}: {error}") from None
    except (yaml.YAMLError, ValueError) as error:
        also = f"; as JSON: {json_fault}" if json_fault else ""
        raise RequestError(f"{name} is neither YAML nor JSON: {error}{also}") from None
    return builder.document


class _Collection:
    """A list or mapping whose end has not come yet."""

    def __init__(self, content: list[Any] | dict[str, Any], keys: tuple[str | int, ...]) -> None:
        self.content = content
        self.keys = keys
        """Where it is in the document."""
        self.key: str | None = None
        """Of a mapping: the key whose value comes next."""

    @property
    def place(self) -> tuple[str | int, ...]:
        """Where in the document the next value goes."""
        if isinstance(self.content, list):
            return (*self.keys, len(self.content))
        return self.keys if self.key is None else (*self.keys, self.key)


class _Builder:
    """Plain values from the events of a YAML parser."""

    def __init__(self) -> None:
        self.document: Any = None
        self._open: list[_Collection] = []
        self._values = 0
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        """Take the next event. Raises _RefusedError where the document is not accepted."""
        if isinstance(event, yaml.ScalarEvent):
            self._take_scalar(event)
        elif isinstance(event, yaml.AliasEvent):
            raise self._refusal(event, "anchors and aliases are not allowed in a request")
        elif isinstance(event, yaml.MappingStartEvent):
            self._begin(event, {}, "map")
        elif isinstance(event, yaml.SequenceStartEvent):
            self._begin(event, [], "seq")
        elif isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise self._refusal(event, "a request is one document; several begin here")

    def _begin(self, event: Any, content: list[Any] | dict[str, Any], kind: str) -> None:
        if event.tag not in (None, "!", _TAG + kind):
            raise self._refusal(event, f"the tag {quoted(event.tag)} is not allowed in a request")
        if self._awaits_key():
            raise self._refusal(event, "a key must be text, not a list or a mapping")
        if len(self._open) >= MAX_DEPTH:
            raise self._refusal(event, f"it is nested more than {MAX_DEPTH} times")
        place = self._place
        self._add(event, content)
        self._open.append(_Collection(content, place))

    def _take_scalar(self, event: yaml.ScalarEvent) -> None:
        if len(event.value) > MAX_TEXT:
            raise self._refusal(event, too_long(len(event.value)))
        if not self._awaits_key():
            self._add(event, self._resolve(event))
            return
        if event.tag not in (None, "!", f"{_TAG}str"):
            raise self._refusal(event, f"a key is text; it cannot have the tag {quoted(event.tag)}")
        holder = self._open[-1]
        if event.value in holder.content:
            raise self._refusal(event, f"the key {quoted(event.value)} is given twice")
        holder.key = event.value

    @property
    def _place(self) -> tuple[str | int, ...]:
        return self._open[-1].place if self._open else ()

    def _awaits_key(self) -> bool:
        return (
            bool(self._open)
            and isinstance(self._open[-1].content, dict)
            and self._open[-1].key is None
        )

    def _add(self, event: yaml.Event, value: Any) -> None:
        self._values += 1
        if self._values > MAX_VALUES:
            raise self._refusal(event, f"it holds more than {MAX_VALUES:,} values")
        if not self._open:
            self.document = value
            return
        holder = self._open[-1]
        if isinstance(holder.content, list):
            holder.content.append(value)
        else:
            assert holder.key is not None, "a value follows its key"
            holder.content[holder.key] = value
            holder.key = None

    def _resolve(self, event: yaml.ScalarEvent) -> Any:
        """The value of a scalar by the core schema (YAML 1.2.2 section 10.3.2)."""
        if event.tag is None and event.implicit[0]:
            return next(
                (read(event.value) for pattern, read in _CORE if pattern.fullmatch(event.value)),
                event.value,
            )
        if event.tag in (None, "!", f"{_TAG}str"):
            return event.value
        kind = event.tag.removeprefix(_TAG)
        if kind == event.tag or kind not in _BY_TAG:
            binary = event.tag == f"{_TAG}binary"
            refusal = f"the tag {quoted(event.tag)} is not allowed in a request"
            raise self._refusal(event, NOT_BINARY if binary else refusal)
        for pattern, read in _BY_TAG[kind]:
            if pattern.fullmatch(event.value):
                return read(event.value)
        raise self._refusal(event, f"{quoted(event.value)} is not a value of the tag !!{kind}")

    def _refusal(self, event: Any, why: str) -> _RefusedError:
        field = f"{dotted_name(self._place)}: " if self._place else ""
        mark = event.start_mark
        return _RefusedError(f"{field}{why} (line {mark.line + 1}, column {mark.column + 1})")


_Reader = tuple[re.Pattern[str], Callable[[str], Any]]
_BY_TAG: dict[str, Sequence[_Reader]] = {
    "null": [(_NULL, lambda _: None)],
    "bool": [(_TRUE, lambda _: True), (_FALSE, lambda _: False)],
    "int": [(_INT, _whole_number)],
    "float": [
        (_FLOAT, _real_number),
        (_INFINITE, lambda text: -math.inf if text.startswith("-") else math.inf),
        (_NAN, lambda _: math.nan),
    ],
}
_CORE: Sequence[_Reader] = [reader for readers in _BY_TAG.values() for reader in readers]
