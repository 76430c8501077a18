"""Commands for cubes."""

from __future__ import annotations

import dataclasses
import json

import click

from scenebeam.cli.common import json_option, main


@main.command()
@click.argument("output")
@json_option
def virtual(output: str, as_json: bool) -> None:
    """Write references to the COGs of OUTPUT as one Zarr store, in Icechunk.

    No pixel is copied. Needs the extra `icechunk`. The store is read by
    `xarray.open_zarr(scenebeam.open_virtual(OUTPUT), group="0", consolidated=False)`.
    """
    from scenebeam.lazy import import_cubes

    written = import_cubes("virtual", "scenebeam virtual").write_virtual(output)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(written)))
        return
    click.echo(
        f"{written.repository}: {written.times} times of {', '.join(written.bands)}, "
        f"{written.references:,} blocks by reference, snapshot {written.snapshot}"
    )
