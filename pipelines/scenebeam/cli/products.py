"""One command per product: the common requests, without a request file.

The commands are built from the registry of products and their request models.
"""

from __future__ import annotations

from typing import Any

import click

from scenebeam.cli.common import options, overrides_of, run_and_show, run_options
from scenebeam.cli.options import dotted_options, field_at, field_options, parse_option
from scenebeam.request.product import ProductRequest, request_model
from scenebeam.request.run import RunRequest

_SCENE_OPTIONS = options(
    click.option("--bbox", help="West, south, east, north in degrees, separated by commas."),
    click.option("--mgrs", help="Sentinel-2 tiles: 34TFK,34TGK."),
    click.option("--geojson", help="A vector file with the area, or its URL."),
    click.option("--dates", help="2023-06, 2023-06-01/2023-06-30, or several with commas."),
    click.option(
        "--catalog",
        default="earth-search",
        show_default=True,
        help="A known name, a URL or a file.",
    ),
    click.option("--collection", default="sentinel-2-l2a", show_default=True),
    click.option("--max-cloud-cover", type=float, help="Largest cloud cover of a scene, percent."),
    click.option("--run", "run_name", help="Name of the run."),
    run_options,
)


def product_command(kind: str) -> click.Command:
    """Build the command of a product from its request model."""
    model = request_model(kind)

    def command(**given: Any) -> None:
        _run_product(kind, model, given)

    decorators = [
        *field_options(model),
        *dotted_options(RunRequest, model.cli_fields),
        _SCENE_OPTIONS,
    ]
    for decorate in reversed(decorators):
        command = decorate(command)
    summary = (model.__doc__ or "").partition("\n")[0]
    return click.command(kind, help=summary)(command)


def _run_product(kind: str, model: type[ProductRequest], given: dict[str, Any]) -> None:
    """Run the request that the options of a product's command describe."""
    from scenebeam.requestfile import load_request, parse_value

    overrides: dict[str, Any] = {
        "run": given["run_name"] or kind,
        "catalog": given["catalog"],
        "collections": [given["collection"]],
        "product.kind": kind,
    }
    if given["bbox"]:
        overrides["area.bbox"] = [parse_value(part, "bbox") for part in given["bbox"].split(",")]
    if given["mgrs"]:
        overrides["area.mgrs"] = given["mgrs"].split(",")
    if given["geojson"]:
        overrides["area.geojson"] = given["geojson"]
    if given["dates"]:
        overrides["dates"] = given["dates"].split(",")
    if given["max_cloud_cover"] is not None:
        overrides["select.max_cloud_cover"] = given["max_cloud_cover"]
    for name, field in model.model_fields.items():
        if given.get(name) is not None:
            overrides[f"product.{name}"] = parse_option(field, given[name])
    for name, dotted in model.cli_fields.items():
        if given[name] is not None:
            overrides[dotted] = parse_option(field_at(RunRequest, dotted), given[name])
    overrides |= overrides_of(given["output"], given["runner"], given["settings"])
    request, _ = load_request(overrides=overrides)
    run_and_show(
        request, refresh=given["refresh"], overwrite=given["overwrite"], as_json=given["as_json"]
    )
