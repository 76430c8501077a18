"""Which fields of a request document name files and folders, before it is validated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from scenebeam.request.markers import Place, places_in
from scenebeam.request.product import PRODUCTS, request_model
from scenebeam.request.run import RunRequest


class PlaceField(NamedTuple):
    """A field of a document that names a place."""

    dotted: str
    """Dotted name of the field."""
    place: Place
    holder: Any
    """The mapping or list that holds the value."""
    key: str | int
    """Its key there."""

    @property
    def value(self) -> Any:
        """What the document names, unvalidated."""
        return self.holder[self.key]


def place_fields(document: dict[str, Any]) -> Iterator[PlaceField]:
    """Yield the fields of a request document that name places and are present.

    The fields come from the request models: those of the product from the model of its kind.
    """
    fields = list(places_in(RunRequest))
    product = document.get("product")
    kind = product.get("kind") if isinstance(product, dict) else None
    if isinstance(kind, str) and kind in PRODUCTS:
        fields += places_in(request_model(kind), "product.")
    for dotted, place in fields:
        *parents, key = dotted.split(".")
        for holder in _holders(document, parents):
            if key not in holder:
                continue
            named = holder[key]
            if isinstance(named, list):
                for index in range(len(named)):
                    yield PlaceField(dotted, place, named, index)
            else:
                yield PlaceField(dotted, place, holder, key)


def _holders(document: Any, parents: Sequence[str]) -> list[dict[str, Any]]:
    """Return the mappings at a dotted name; several if a part of it is a list."""
    found = [document]
    for parent in parents:
        values = [holder.get(parent) for holder in found if isinstance(holder, dict)]
        found = []
        for value in values:
            found += value if isinstance(value, list) else [value]
    return [holder for holder in found if isinstance(holder, dict)]
