"""The command of land-cover chips, without a request file."""

from __future__ import annotations

from typing import Any

import click

from scenebeam.cli.common import main, overrides_of, retry_option, run_and_show, run_options


@main.command()
@click.argument("aois")
@click.option("--include", help="Indices of the areas to look at: 0,3,7.  [default: all]")
@click.option("--exclude", help="Indices of areas to leave out.")
@click.option("--dataset-version", help="[default: v0.50.1]")
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
@click.option(
    "--chips-per-class", type=int, help="Of each class and area, at most.  [default: 400]"
)
@click.option(
    "--sampling-factor",
    type=float,
    help="Largest class over smallest, at most; 1: equal.  [default: all]",
)
@click.option("--seed", type=int, help="Which chips are drawn.  [default: 0]")
@click.option(
    "--zip/--no-zip",
    "archive",
    default=None,
    help="The release as one archive too.  [default: zip]",
)
@click.option("--run", "run_name", default="landcover", show_default=True, help="Name of the run.")
@run_options
@retry_option
def landcover(
    aois: str, refresh: bool, retry_failed: bool, overwrite: bool, as_json: bool, **given: Any
) -> None:
    """Land-cover chips of the areas in a GeoJSON file: five modalities, four dates, a balanced release."""
    from scenebeam.request import LandcoverRequest
    from scenebeam.requestfile import load_request

    modalities = LandcoverRequest(kind="landcover", aois=aois).modalities
    product = {
        "kind": "landcover",
        "aois": aois,
        "include": _indices(given["include"]),
        "exclude": _indices(given["exclude"]),
        "version": given["dataset_version"],
        "chips_per_class": given["chips_per_class"],
        "sampling_factor": given["sampling_factor"],
        "seed": given["seed"],
        "zip": given["archive"],
    }
    overrides = {
        "run": given["run_name"],
        "catalog": given["catalog"],
        "collections": [
            one.collection for name, one in modalities.items() if name not in given["without"]
        ],
        "product": {name: value for name, value in product.items() if value is not None}
        | dict.fromkeys(given["without"]),
        **overrides_of(given["output"], given["runner"], given["settings"]),
    }
    request, _ = load_request(overrides=overrides)
    run_and_show(
        request, refresh=refresh, retry_failed=retry_failed, overwrite=overwrite, as_json=as_json
    )


def _indices(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",")]
