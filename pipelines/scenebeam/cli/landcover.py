"""The command of land-cover chips, without a request file."""

from __future__ import annotations

from typing import Any

import click

from scenebeam.cli.common import (
    main,
    options,
    overrides_of,
    retry_option,
    run_and_show,
    run_options,
)
from scenebeam.cli.options import field_options, parse_option
from scenebeam.request.product import request_model

_REQUEST = request_model("landcover")
_FIELDS = ("include", "exclude", "chips_per_class", "sampling_factor", "seed", "zip")


@main.command()
@click.argument("aois")
@options(*field_options(_REQUEST, _FIELDS))
@click.option("--dataset-version", help="Version of the dataset.  [default: v0.50.1]")
@click.option(
    "--catalog",
    default="planetary-computer",
    show_default=True,
    help="A known name, a URL or a file.",
)
@click.option(
    "--without",
    multiple=True,
    type=click.Choice(["s1rtc", "lc2l2", "dem"]),
    help="Leave a modality out.",
)
@click.option("--run", "run_name", default="landcover", show_default=True, help="Name of the run.")
@run_options
@retry_option
def landcover(
    aois: str, refresh: bool, retry_failed: bool, overwrite: bool, as_json: bool, **given: Any
) -> None:
    """Land-cover chips of areas of interest: five modalities, four dates, a balanced release.

    AOIS is a vector file with the areas.
    """
    from scenebeam.products.landcover.request import LandcoverRequest
    from scenebeam.requestfile import load_request

    product: dict[str, Any] = {"kind": "landcover", "aois": aois}
    for name in _FIELDS:
        if given[name] is not None:
            product[name] = parse_option(_REQUEST.model_fields[name], given[name])
    if given["dataset_version"] is not None:
        product["version"] = given["dataset_version"]
    for name in given["without"]:
        product[name] = None
    collections = []
    for name, modality in LandcoverRequest(kind="landcover", aois=aois).modalities.items():
        if name not in given["without"]:
            collections.append(modality.collection)
    overrides = {
        "run": given["run_name"],
        "catalog": given["catalog"],
        "collections": collections,
        "product": product,
        **overrides_of(given["output"], given["runner"], given["settings"]),
    }
    request, _ = load_request(overrides=overrides)
    run_and_show(
        request, refresh=refresh, retry_failed=retry_failed, overwrite=overwrite, as_json=as_json
    )
