"""Commands that inspect collections and images."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scenebeam.cli.common import json_option, main
from scenebeam.errors import CheckError, RequestError

if TYPE_CHECKING:
    from scenebeam.raster.validate import ImageReport


@main.command()
@click.argument("files", nargs=-1)
@click.option("--collection", help="Show one collection's bands.")
@click.option(
    "--bands",
    "sensor",
    metavar="SENSOR",
    help="Show the bands of a sensor's collections: sentinel-2.",
)
@json_option
def info(files: tuple[str, ...], collection: str | None, sensor: str | None, as_json: bool) -> None:
    """Show how FILES are read: size, bands, dtype, CRS, nodata, masks and blocks.

    Without files, list the known collections and their bands.
    """
    from scenebeam.collections import known_records

    if files:
        _show_files(files, as_json)
        return

    def matches(name: str) -> bool:
        prefix = (sensor or "").lower().replace("-", "")
        is_of_sensor = name.replace("-", "").startswith(prefix)
        return is_of_sensor and (collection is None or name == collection)

    records = [record for record in known_records() if matches(record.id)]
    if not records:
        known = ", ".join(sorted({record.id for record in known_records()}))
        raise RequestError(f"no record of {collection or sensor!r}; known: {known}")
    if as_json:
        click.echo(json.dumps([record.model_dump(mode="json") for record in records], indent=2))
        return
    for record in records:
        click.echo(f"{record.provider}  {record.id}  {record.title}")
        for name in record.canonical(record.bands) if collection or sensor else ():
            band = record.bands[name]
            aliases = ", ".join(dict.fromkeys([band.asset, *band.alias]))
            spectrum = "classes" if band.categorical else ""
            if band.wavelength:
                spectrum = f"{band.wavelength:g} µm"
            use = "default" if name in record.default_bands else "optional"
            if name in record.required:
                use = "required"
            click.echo(f"  {name:14} {aliases:18} {band.resolution:>4g} m  {spectrum:10} {use}")


def _show_files(files: tuple[str, ...], as_json: bool) -> None:
    from scenebeam.raster.describe import describe_file

    found = [describe_file(file) for file in files]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for facts in found:
        click.echo(facts.pop("file"))
        for name, value in facts.items():
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            click.echo(f"  {name:10} {shown}")


@main.command()
@click.argument("files", nargs=-1, required=True)
@click.option(
    "--collection", help="Their collection: an id that `info` lists, or a YAML file with a record."
)
@click.option("--bands", help="Bands that each of them must have: blue,green,red,nir.")
@click.option(
    "--screenshot",
    type=click.Path(file_okay=False),
    help="Write a small PNG of each into this folder.",
)
@click.option("--deep", is_flag=True, help="Decode every block, and list damaged ones.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="A threshold: max_nodata_percent=80.",
)
@json_option
def validate(
    files: tuple[str, ...],
    collection: str | None,
    bands: str | None,
    screenshot: str | None,
    deep: bool,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check whether images are usable: bands, blank bands, nodata, plausible values, VRT sources.

    The exit code is 1 if one of them is not.
    """
    from scenebeam.cli.common import overrides_of
    from scenebeam.raster.validate import validate as validate_file
    from scenebeam.requestfile import read_checks, read_record

    checks = read_checks(overrides_of(settings=settings))
    record = None if collection is None else read_record(collection)
    expected = [name.strip() for name in bands.split(",")] if bands else []
    reports = []
    for file in files:
        draw = screenshot is not None
        reports.append(validate_file(file, checks, record, expected, deep=deep, pictures=draw))
    for report in reports:
        if not as_json:
            click.echo(report.explain())
        if screenshot is not None:
            _write_picture(report, Path(screenshot))
    if as_json:
        click.echo(json.dumps([report.document() for report in reports], indent=2))
    sys.exit(0 if all(report.valid for report in reports) else 1)


def _write_picture(report: ImageReport, folder: Path) -> None:
    """Write the PNG of a report, or say why there is none: the report never depends on it."""
    from scenebeam.raster.preview import render_preview

    target = folder / f"{Path(report.file).stem}.png"
    try:
        if not report.pictures:
            raise CheckError(
                "; ".join(report.undrawn.values()) or "none of its bands could be read"
            )
        image = render_preview(report.pictures)
        folder.mkdir(parents=True, exist_ok=True)
        target.write_bytes(image)
    except (CheckError, OSError) as error:
        click.echo(f"no picture of {report.file}: {error}", err=True)
