"""Commands of field chips: make them, select scenes, measure clouds, read imagery."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scenebeam.cli.common import (
    is_quiet,
    json_option,
    main,
    options,
    overrides_of,
    runner_option,
    set_option,
    show_status,
)
from scenebeam.cli.options import dotted_options, field_options, parse_option
from scenebeam.errors import RequestError
from scenebeam.request.product import request_model

if TYPE_CHECKING:
    from scenebeam.request import RunRequest
    from scenebeam.status import RunStatus

_REQUEST = request_model("fields")
_SELECTION = (
    "crop_calendar",
    "bands",
    "cloud_cover_scene",
    "pixel_check",
    "cloud_cover_pixel",
    "nodata_max",
    "buffer_days",
    "buffer_expansions",
    "buffer_expansion_size",
    "include_alternatives",
    "on_missing",
)
"""Fields that every command which selects scenes has as options."""
_TYPED = ("year", *_SELECTION, "keep_remote_refs")
"""Fields that some command has as an option."""
_GRID = {
    "chip_size": "grid.size",
    "resolution": "grid.resolution",
    "min_coverage": "grid.min_coverage",
    "presence_only": "grid.presence_only",
}

_DAYS = ("planting", "harvest")
"""Options for `product.days`."""

_selection_options = options(
    click.option("--planting", help="Planting, month and day: 04-06. Instead of a calendar."),
    click.option("--harvest", help="Harvest, month and day: 10-25. Instead of a calendar."),
    *field_options(_REQUEST, _SELECTION),
    click.option(
        "--catalog", help="A known name, a URL or a file of scenes.  [default: earth-search]"
    ),
    click.option("--collection", help="Collection id.  [default: sentinel-2-c1-l2a]"),
)
_run_options = options(
    click.option("--num-workers", type=click.IntRange(1), help="Tasks to run at once."),
    click.option(
        "--resume/--no-resume",
        default=True,
        help="Resume an earlier run (default), or start from scratch.",
    ),
    click.option(
        "--force", "--overwrite", is_flag=True, help="Replace the output of another request."
    ),
    click.option("--preview", is_flag=True, default=None, help="Write a PNG beside each image."),
    *field_options(_REQUEST, ("keep_remote_refs",)),
    click.option(
        "--output-report",
        type=click.Path(dir_okay=False),
        help="Write the report to this file too.",
    ),
    click.option(
        "--show-stats", is_flag=True, help="Print cloud cover and the width of search windows."
    ),
    runner_option,
    set_option,
    json_option,
)


@main.group()
def fields() -> None:
    """Field chips: masks, and imagery at planting and at harvest.

    CHIPS is a catalog of chips: its folder, collection.json or items.parquet.
    """


@fields.command()
@click.argument("chips")
@options(*field_options(_REQUEST, ("year",)))
@click.option("-o", "--output", help="Output folder.  [default: the folder of the chips]")
@click.option(
    "--clear-selections",
    is_flag=True,
    help="Delete the selected scenes with their imagery, and search again.",
)
@_selection_options
@_run_options
def select(chips: str, clear_selections: bool, **given: Any) -> None:
    """Select a scene for each chip and season, and write STAC items that link to it."""
    request = _request_on(chips, "select", given)
    _run(request, given, refresh=clear_selections, overwrite=clear_selections)


@fields.command()
@click.argument("chips")
@click.option("--bands", help="Bands to read.  [default: those of the selection]")
@_run_options
def download(chips: str, **given: Any) -> None:
    """Read the imagery of the selected scenes."""
    _require_selection(chips)
    _run(_request_on(chips, "download", given), given)


@fields.command()
@click.argument("boundaries")
@click.argument("folder")
@click.option("--name", required=True, help="Name of the dataset, in FOLDER/NAME-chips.")
@click.option("--year", type=int, required=True, help="Year of planting.")
@click.option(
    "--images",
    type=click.Choice(["none", "select", "download"]),
    default="download",
    show_default=True,
    help="How far to go: chips and masks, scenes for them, or their imagery.",
)
@options(*dotted_options(_REQUEST, _GRID))
@_selection_options
@_run_options
def create(boundaries: str, folder: str, name: str, images: str, **given: Any) -> None:
    """Make chips and masks from field boundaries, select their scenes and read their imagery.

    BOUNDARIES is any vector file that GDAL opens.
    """
    from scenebeam.requestfile import load_request

    overrides: dict[str, Any] = {
        **_defaults(),
        "run": name,
        "output": f"{folder.rstrip('/')}/{name}-chips",
        "product.boundaries": boundaries,
    }
    for option, dotted in _GRID.items():
        if given[option] is not None:
            overrides[f"product.{dotted}"] = given[option]
    request, _ = load_request(overrides=overrides | _overrides(given, images))
    _run(request, given)


@fields.command()
@click.argument("chips")
@click.option(
    "--cloud-cover-pixel",
    type=float,
    default=0.0,
    show_default=True,
    help="Largest cloud cover of a chip in percent.",
)
@click.option(
    "--update-items",
    is_flag=True,
    help="Select other scenes for cloudier chips, and write the measured cover to all items.",
)
@click.option(
    "--output-report", type=click.Path(dir_okay=False), help="Write the report to this file too."
)
@json_option
def refine(
    chips: str,
    cloud_cover_pixel: float,
    update_items: bool,
    output_report: str | None,
    as_json: bool,
) -> None:
    """Measure the cloud cover of the selected scenes over the chips themselves."""
    from scenebeam.planning.plan import read_plan
    from scenebeam.products.fields.cloud_report import CLOUD_REPORT, measure_clouds
    from scenebeam.storage import open_store

    frozen = _require_selection(chips)
    store = open_store(_folder(chips))
    plan = read_plan(store)
    assert plan is not None, "its run.json has just been read"
    document = measure_clouds(plan.tasks, store, cloud_cover_pixel)
    _show_report(document, store.uri_for(CLOUD_REPORT), output_report, as_json)
    if update_items:
        given = {"pixel_check": True, "cloud_cover_pixel": cloud_cover_pixel}
        request = _request_on(chips, frozen["product"]["images"], given)
        _run(request, {"as_json": as_json})


def _folder(chips: str) -> str:
    from scenebeam.products.fields.chips import catalog_folder

    return catalog_folder(chips)


def _require_selection(chips: str) -> dict[str, Any]:
    frozen = _frozen(chips)
    if frozen is None:
        raise RequestError(
            f"{chips}: no scenes have been selected; begin with `scenebeam fields select`"
        )
    return frozen


def _frozen(chips: str) -> dict[str, Any] | None:
    """The request of the field-chip run in a folder; None if there is no such run."""
    from scenebeam.requestfile import frozen_request
    from scenebeam.storage import open_store

    store = open_store(_folder(chips))
    content = store.read("run.json")
    if content is None:
        return None
    request = frozen_request(json.loads(content), store.uri, store.uri_for("run.json"))
    return request if request["product"]["kind"] == "fields" else None


def _request_on(chips: str, images: str, given: dict[str, Any]) -> RunRequest:
    """The request of the run in the folder of the chips, or a new one, with the typed options."""
    from scenebeam.requestfile import load_request

    overrides = _frozen(chips) if given.get("output") is None else None
    if overrides is None:
        output = given.get("output") or _folder(chips)
        overrides = {**_defaults(), "run": "fields", "output": output, "product.chips": chips}
    return load_request(overrides={**overrides, **_overrides(given, images)})[0]


def _defaults() -> dict[str, Any]:
    return {
        "catalog": "earth-search",
        "collections": ["sentinel-2-c1-l2a"],
        "product": {"kind": "fields"},
    }


def _overrides(given: dict[str, Any], images: str) -> dict[str, Any]:
    """The typed options, by dotted name."""
    overrides: dict[str, Any] = {"product.images": images}
    for name in _TYPED:
        if given.get(name) is not None:
            field = _REQUEST.model_fields[name]
            overrides[f"product.{name}"] = parse_option(field, given[name])
    for option, dotted in (
        ("catalog", "catalog"),
        ("preview", "checks.screenshot"),
        ("num_workers", "runner.workers"),
    ):
        if given.get(option) is not None:
            overrides[dotted] = given[option]
    if given.get("collection"):
        overrides["collections"] = [given["collection"]]
    for name in _DAYS:
        if given.get(name) is not None:
            day = given[name]
            overrides[f"product.days.{name}"] = int(day) if day.isdigit() else day
    return overrides | overrides_of(None, given.get("runner"), given.get("settings", ()))


def _run(
    request: RunRequest, given: dict[str, Any], *, refresh: bool = False, overwrite: bool = False
) -> None:
    """Run a request, show its report beside the status, and exit accordingly."""
    from scenebeam.execution.driver import run
    from scenebeam.products.fields.report import REPORT_FILE
    from scenebeam.progress import show_progress
    from scenebeam.storage import open_store

    overwrite = overwrite or bool(given.get("force")) or not given.get("resume", True)
    with show_progress(quiet=given["as_json"] or is_quiet()) as progress:
        status: RunStatus = run(request, refresh=refresh, overwrite=overwrite, progress=progress)
    content = open_store(request.output).read(REPORT_FILE)
    assert content is not None, "the run has just written it"
    report = json.loads(content)
    if given.get("output_report"):
        Path(given["output_report"]).write_bytes(content)
    if given["as_json"]:
        click.echo(content.decode())
    else:
        show_status(status, False)
        click.echo(
            f"{report['successful']} of {report['total_processed']} chips are complete, "
            f"{len(report['skipped'])} skipped, {len(report['failed'])} failed: see {REPORT_FILE}"
        )
        if given.get("show_stats"):
            click.echo(json.dumps(report["statistics"], indent=2))
    sys.exit(status.exit_code)


def _show_report(document: dict[str, Any], uri: str, copy: str | None, as_json: bool) -> None:
    text = json.dumps(document, indent=2)
    if copy:
        Path(copy).write_text(text + "\n")
    if as_json:
        click.echo(text)
        return
    click.echo(
        f"{document['total_processed']} images measured: {len(document['above_threshold'])} have "
        f"more than {document['cloud_cover_pixel']:g} % cloud, {len(document['unchecked'])} could "
        f"not be read; see {uri}"
    )
