"""Explain in words why a request is not valid: each field at fault, and how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from scenebeam.request.markers import models_in
from scenebeam.request.product import PRODUCTS, request_model
from scenebeam.request.run import RunRequest
from scenebeam.request.values import dotted_name

_SUCCESSORS = {
    "upload_to_gcs": "product.raw_storage_mode: url_to_gcs_keep_local",
    "delete_local_after_upload": "product.raw_storage_mode: url_to_gcs_drop_local",
    "gcs_bucket": "product.gcs: gs://bucket/prefix",
    "gcs_prefix": "product.gcs: gs://bucket/prefix",
    "cloud_cover": "select.max_cloud_cover",
    "bbox": "area.bbox",
}
"""Keys of other tools → how a request says the same."""
_MAX_ERRORS = 20
"""Errors that a message lists."""
_MAX_MESSAGE = 500
"""Characters of one error."""
_MAX_COMPARED_KEY = 60
"""Characters of an unknown key that are compared with the known ones."""


def explain_errors(error: ValidationError, document: Any) -> list[str]:
    """Describe the errors of a validation, one indented line each.

    Args:
        error: What pydantic has raised.
        document: The document that was validated.
    """
    details = []
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
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
    message = detail["msg"].removeprefix("Value error, ")
    ellipsis = "…" if len(message) > _MAX_MESSAGE else ""
    return f"  {field}: {message[:_MAX_MESSAGE]}{ellipsis}"


def _hint(key: str, known: list[str]) -> str:
    if key in _SUCCESSORS:
        return f"use {_SUCCESSORS[key]}"
    near = difflib.get_close_matches(key[:_MAX_COMPARED_KEY], known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"


def known_keys(loc: tuple[int | str, ...], document: Any) -> list[str]:
    """Names of the fields of the model at a location of a request document."""
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
    return sorted(model.model_fields)
