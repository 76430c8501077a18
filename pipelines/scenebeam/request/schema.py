"""JSON Schema of requests, for editors and for programs that write requests."""

from __future__ import annotations

from typing import Any

from scenebeam.request.product import PRODUCTS, request_model
from scenebeam.request.run import RunRequest

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def request_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a request, with the fields of all products."""
    schema: dict[str, Any] = RunRequest.model_json_schema()
    choices = []
    for kind in sorted(PRODUCTS):
        product = request_model(kind).model_json_schema(ref_template="#/$defs/{model}")
        schema["$defs"] |= product.pop("$defs", {})
        schema["$defs"][f"{kind}_product"] = product
        choices.append({"$ref": f"#/$defs/{kind}_product"})
    described = schema["properties"]["product"].get("description", "")
    schema["properties"]["product"] = {"description": described, "oneOf": choices}
    # The forms that validation accepts beside the ones of the models.
    schema["properties"]["checks"] = {
        "anyOf": [{"$ref": "#/$defs/Checks"}, {"enum": ["off", "on", False, True]}]
    }
    return {"$schema": _DIALECT, "title": "scenebeam request", **schema}
