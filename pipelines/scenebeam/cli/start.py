"""The commands that help to write a request: a commented file, and a JSON Schema."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scenebeam.cli.common import main
from scenebeam.errors import RequestError
from scenebeam.request.product import PRODUCTS
from scenebeam.request.values import first_sentence

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_BBOX = "22.85,40.55,23.05,40.75"
_SELECT_FIELDS = ("max_cloud_cover", "min_coverage")
_SHOWN = ("boundaries", "aois", "places", "index", "period", "method")
"""Fields that a request usually sets although they have a default."""
_WIDTH = 88
"""Characters of a comment."""
_SCHEMA = "scenebeam.schema.json"


@main.command()
@click.argument("product", type=click.Choice(sorted(PRODUCTS)), default="mosaic")
@click.option("--bbox", default=_BBOX, help="West, south, east, north in degrees.")
@click.option("--dates", default="2023-06", show_default=True, help="A month, or an interval.")
@click.option("--catalog", default="earth-search", show_default=True)
@click.option("--collection", default="sentinel-2-l2a", show_default=True)
@click.option("-o", "--output", help="Folder or gs:// prefix of the products.")
@click.option("--file", default="request.yaml", show_default=True, help="The file to write.")
def init(
    product: str,
    bbox: str,
    dates: str,
    catalog: str,
    collection: str,
    output: str | None,
    file: str,
) -> None:
    """Write a commented request file for an area."""
    from scenebeam.requestfile import load_request

    path = Path(file)
    if path.exists():
        raise RequestError(f"{path} exists: give another name with --file, or remove it")
    if not path.parent.is_dir():
        raise RequestError(f"{path.parent} is not a folder: create it, or give another --file")
    if Path(catalog).exists():
        # Paths in a request are relative to its file.
        catalog = os.path.relpath(catalog, path.parent)
    lines = [
        f"# yaml-language-server: $schema={_SCHEMA}",
        f"# (for editors: scenebeam schema > {_SCHEMA})",
        f"#   scenebeam plan {path}     estimate time and size",
        f"#   scenebeam run {path}      make it, or resume",
        f"run: {path.stem}",
        *_catalog_lines(product, catalog, collection),
        *_search_lines(product, bbox, dates),
        *_product_lines(product),
        f"output: {output or f'out/{path.stem}'}    # a folder, or gs://bucket/prefix",
        "runner: auto                 # or serial, direct, dataflow",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    try:
        load_request(path)
    except RequestError:
        path.unlink()  # an area or dates that are none
        raise
    click.echo(f"{path}: edit it, then run `scenebeam plan {path}`")


@main.command()
def schema() -> None:
    """Print the JSON Schema of requests, for editors and programs."""
    from scenebeam.request.schema import request_schema

    click.echo(json.dumps(request_schema(), indent=2))


def _catalog_lines(kind: str, catalog: str, collection: str) -> list[str]:
    """Name the catalog, and the collections of all modalities if the product has several."""
    from scenebeam.request.product import request_model

    named = []
    for field in request_model(kind).model_fields.values():
        default = field.get_default(call_default_factory=True)
        if getattr(default, "collection", None):
            named.append(default.collection)
    if len(named) > 1:
        catalog, collection = "planetary-computer", ", ".join(named)
    return [
        f"catalog: {catalog}          # a known name, the URL of a STAC API, or a file",
        f"collections: [{collection}]",
    ]


def _search_lines(kind: str, bbox: str, dates: str) -> list[str]:
    from scenebeam.request.product import request_model

    model = request_model(kind)
    lines = []
    if not model.states_where_and_when:
        lines.append(f"area: {{bbox: [{bbox}]}}    # west, south, east, north; or geojson, or mgrs")
    if model.uses_dates:
        lines.append(
            f"dates: {dates}              # a year, month, day or interval, or a list of them"
        )
        lines += _select_lines()
    return lines


def _select_lines() -> list[str]:
    from scenebeam.request import Select

    lines = ["select:"]
    for name in _SELECT_FIELDS:
        field = Select.model_fields[name]
        lines += _comment(field)
        value = 20 if name == "max_cloud_cover" else field.get_default()
        lines.append(f"  {name}: {_yaml(value)}")
    return lines


def _product_lines(kind: str) -> list[str]:
    """Write the fields of a product: what is required, and the others as comments."""
    from scenebeam.products import product_of
    from scenebeam.request.product import request_model

    example = product_of(kind).demo.product
    lines = ["product:", f"  kind: {kind}"]
    for name, field in request_model(kind).model_fields.items():
        if name == "kind":
            continue
        lines += _comment(field)
        if field.is_required() or name in _SHOWN:
            default = None if field.is_required() else field.get_default()
            lines.append(f"  {name}: {_yaml(example.get(name, default))}")
        else:
            default = _yaml(field.get_default(call_default_factory=True))
            # Sections with many fields of their own are described in the documentation.
            lines.append(f"  # {name}: {default if len(default) < _WIDTH else '{}'}")
    return lines


def _comment(field: FieldInfo) -> list[str]:
    """Write the first sentence of a field's description as a comment."""
    import textwrap

    sentence = first_sentence(field.description or "").removesuffix(";")
    return [f"  # {line}" for line in textwrap.wrap(sentence, _WIDTH)]


def _yaml(value: Any) -> str:
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return json.dumps(value, default=str)
