"""What a field of a request says beyond its type: markers for `Annotated`.

Everything else that scenebeam knows about the fields of a request is derived from these: which
fields are paths, what a deployment checks, what the search cache and the fingerprint depend on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel


class Marker(Enum):
    """What a field decides."""

    SEARCH = "search"
    """Where or when scenes are searched: part of the key of the search cache."""
    ADJUSTABLE = "adjustable"
    """Which products are made, or of which scenes, but nothing about a product that stays."""
    NOT_FINGERPRINTED = "not fingerprinted"
    """Where products are stored, how far a run goes, or how products are released: nothing about
    their content."""


@dataclass(frozen=True)
class Place:
    """The field names a file, a folder or a URL. In a request file it is relative to that file."""

    access: Literal["read", "read-on-load", "write"]
    """`read-on-load`: the file is read when the request is validated, so a message must hold its
    content instead."""


def marked_fields(model: type[BaseModel], marker: Marker) -> set[str]:
    """Names of a model's own fields that carry a marker."""
    return {name for name, field in model.model_fields.items() if marker in field.metadata}


def places_in(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Place]]:
    """Yield every field that names a place, as (dotted name, place), nested models included."""
    for name, field in model.model_fields.items():
        dotted = f"{prefix}{name}"
        for item in field.metadata:
            if isinstance(item, Place):
                yield dotted, item
        for nested in models_in(field.annotation):
            yield from places_in(nested, f"{dotted}.")


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models in a type: itself, or the members of a union, a list or an `Annotated`."""
    if get_origin(annotation) is Annotated:
        return models_in(get_args(annotation)[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    models = []
    for inner in get_args(annotation):
        models += models_in(inner)
    return models
