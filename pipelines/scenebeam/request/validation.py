"""Explain in words why a request is not valid: each field at fault, and how to fix it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from scenebeam.request.markers import models_in
from scenebeam.request.product import PRODUCTS, request_model
from scenebeam.request.run import RunRequest
from scenebeam.request.values import dotted_name, first_sentence, quoted
from scenebeam.suggestions import suggest

_SUCCESSORS = {
    "upload_to_gcs": "product.raw_storage_mode: url_to_gcs_keep_local",
    "delete_local_after_upload": "product.raw_storage_mode: url_to_gcs_drop_local",
    "gcs_bucket": "product.gcs: gs://bucket/prefix",
    "gcs_prefix": "product.gcs: gs://bucket/prefix",
    "cloud_cover": "select.max_cloud_cover",
    "bbox": "area.bbox",
}
"""Keys of other tools → how a request says the same."""
_WANTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping of fields",
    "model_attributes_type": "a mapping of fields",
    "tuple_type": "a list",
}
"""Type of pydantic's error → what the value must be."""
_BOUNDED = ("greater_than", "less_than")
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
_MAX_ERRORS = 20
"""Errors that a message lists."""
_MAX_MESSAGE = 500
"""Characters of one error."""


def explain_errors(error: ValidationError, document: Any) -> list[str]:
    """Describe the errors of a validation, one indented line each.

    Args:
        error: What pydantic has raised.
        document: The document that was validated.
    """
    details = []
    for detail in error.errors(include_url=False):
        # Of a union "name or record", the record's errors say what is wrong.
        if detail["type"] != "string_type" or detail["loc"][-1] != "str":
            details.append(detail)
    lines = [_explain(detail, document) for detail in details[:_MAX_ERRORS]]
    if len(details) > _MAX_ERRORS:
        lines.append(f"  and {len(details) - _MAX_ERRORS:,} more errors")
    return lines


def _explain(detail: ErrorDetails, document: Any) -> str:
    loc = detail["loc"]
    field = dotted_name(part for part in loc if "[" not in str(part)) or "request"
    if detail["type"] == "extra_forbidden":
        return f"  {field}: unknown key; {_hint(str(loc[-1]), known_keys(loc[:-1], document))}"
    message = _in_words(detail, document)
    # A check of several fields names the one at fault itself.
    if message.startswith(f"{field}."):
        field, _, message = message.partition(": ")
    ellipsis = "…" if len(message) > _MAX_MESSAGE else ""
    return f"  {field}: {message[:_MAX_MESSAGE]}{ellipsis}"


def _in_words(detail: ErrorDetails, document: Any) -> str:
    """Say what is wrong with a value, without the vocabulary of pydantic."""
    kind, value = detail["type"], detail.get("input")
    given = f"{value:g}" if isinstance(value, float) else quoted(value)
    context = detail.get("ctx") or {}
    if kind == "missing":
        return "is required"
    if kind in ("literal_error", "enum"):
        known = re.findall("'([^']*)'", str(context.get("expected", "")))
        return f"{given} is not known; {suggest(str(detail['input']), known)}"
    if kind == "string_pattern_mismatch":
        described = _description(detail["loc"], document)
        return f"{given} does not fit: {described}" if described else f"{given} does not fit"
    if kind in _WANTED:
        return f"must be {_WANTED[kind]}, not {given}"
    for name, words in _BOUNDS.items():
        if name in context and kind.startswith(_BOUNDED):
            return f"must be {words} {context[name]:.10g}, not {given}"
    return detail["msg"].removeprefix("Value error, ")


def _description(loc: tuple[int | str, ...], document: Any) -> str:
    """Return the first sentence of a field's description."""
    model = model_at(loc[:-1], document)
    field = model.model_fields.get(str(loc[-1]))
    text = (field.description if field else None) or ""
    return first_sentence(text.replace("`", "")).rstrip(".")


def _hint(key: str, known: list[str]) -> str:
    if key in _SUCCESSORS:
        return f"use {_SUCCESSORS[key]}"
    return suggest(key, known)


def known_keys(loc: tuple[int | str, ...], document: Any) -> list[str]:
    """Names of the fields of the model at a location of a request document."""
    return sorted(model_at(loc, document).model_fields)


def model_at(loc: tuple[int | str, ...], document: Any) -> type[BaseModel]:
    """Return the model at a location of a request document."""
    model: type[BaseModel] = RunRequest
    product = document.get("product") if isinstance(document, Mapping) else None
    kind = product.get("kind") if isinstance(product, Mapping) else None
    for part in loc:
        if part == "product" and model is RunRequest and kind in PRODUCTS:
            model = request_model(str(kind))
        elif isinstance(part, str) and part in model.model_fields:
            model = next(iter(models_in(model.model_fields[part].annotation)), model)
        elif isinstance(part, str):
            # A location names the member of a union by its class.
            nested = [m for f in model.model_fields.values() for m in models_in(f.annotation)]
            model = next((m for m in nested if m.__name__ == part), model)
    return model
