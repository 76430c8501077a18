"""Commands of field chips: make them, choose their scenes, look at their clouds, fetch their imagery."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scenebeam.cli.common import (
    json_option,
    main,
    options,
    overrides_of,
    progress_bar,
    runner_option,
    set_option,
    show_status,
)
from scenebeam.errors import RequestError

if TYPE_CHECKING:
    from scenebeam.request import RunRequest
    from scenebeam.status import RunStatus

_SELECTION = (
    *(
        "year",
        "crop_calendar",
        "bands",
        "cloud_cover_scene",
        "pixel_check",
        "cloud_cover_pixel",
        "nodata_max",
    ),
    *(
        "buffer_days",
        "buffer_expansions",
        "buffer_expansion_size",
        "include_alternatives",
        "on_missing",
    ),
    "keep_remote_refs",
)


_selection_options = options(
    click.option("--crop-calendar", help="Folder or URL with the two files of the crop calendar."),
    click.option(
        "--catalog", help="A known name, a URL or a file of scenes.  [default: earth-search]"
    ),
    click.option("--collection", help="[default: sentinel-2-c1-l2a]"),
    click.option("--bands", help="[default: red,green,blue,nir]"),
    click.option(
        "--cloud-cover-scene", type=float, help="Percent of the scene, at most.  [default: 10]"
    ),
    click.option(
        "--pixel-check/--no-pixel-check", default=None, help="Look at the chip's own pixels."
    ),
    click.option(
        "--cloud-cover-pixel",
        type=float,
        help="Percent of the chip, with --pixel-check.  [default: 0]",
    ),
    click.option(
        "--nodata-max", type=float, help="Percent of the chip without data, at most.  [default: 0]"
    ),
    click.option("--buffer-days", type=int, help="Around planting and harvest.  [default: 14]"),
    click.option(
        "--buffer-expansions",
        type=int,
        help="How often to widen that where no scene will do.  [default: 3]",
    ),
    click.option("--buffer-expansion-size", type=int, help="By how many days.  [default: 14]"),
    click.option(
        "--include-alternatives",
        is_flag=True,
        default=None,
        help="List the other scenes that would do.",
    ),
    click.option(
        "--on-missing",
        type=click.Choice(["skip", "fail", "best-available"]),
        help="[default: skip]",
    ),
)
_run_options = options(
    click.option("--num-workers", type=click.IntRange(1), help="Tasks made at once."),
    click.option(
        "--resume/--no-resume",
        default=True,
        help="Go on with what stands (default), or begin anew.",
    ),
    click.option(
        "--force", "--overwrite", is_flag=True, help="Replace what other parameters have made."
    ),
    click.option(
        "--preview", is_flag=True, default=None, help="A small picture beside each image."
    ),
    click.option(
        "--keep-remote-refs/--no-keep-remote-refs",
        default=None,
        help="Name the scene's own files too.",
    ),
    click.option(
        "--output-report", type=click.Path(dir_okay=False), help="Write the report here too."
    ),
    click.option(
        "--show-stats", is_flag=True, help="Show cloud, and how wide the windows had to be."
    ),
    runner_option,
    set_option,
    json_option,
)


@main.group()
def fields() -> None:
    """Field chips: masks, and imagery at planting and at harvest."""


@fields.command()
@click.argument("catalogue")
@click.option("--year", type=int, help="Of planting.")
@click.option("-o", "--output", help="Default: the catalogue's own folder.")
@click.option(
    "--clear-selections",
    is_flag=True,
    help="Forget what was chosen, with its imagery, and ask again.",
)
@_selection_options
@_run_options
def select(catalogue: str, clear_selections: bool, **given: Any) -> None:
    """Choose the scenes of all chips of a catalogue; items with links to them are written beside the chips."""
    request = _request_on(catalogue, "select", given)
    _run(request, given, refresh=clear_selections, overwrite=clear_selections)


@fields.command()
@click.argument("catalogue")
@click.option("--bands", help="[default: those of the selection]")
@_run_options
def download(catalogue: str, **given: Any) -> None:
    """Fetch the imagery of the scenes that were chosen."""
    if _frozen(catalogue) is None:
        raise RequestError(
            f"{catalogue}: nothing was chosen there yet; begin with `scenebeam fields select`"
        )
    _run(_request_on(catalogue, "download", given), given)


@fields.command()
@click.argument("boundaries")
@click.argument("folder")
@click.option("--name", required=True, help="Of the dataset; its folder is FOLDER/NAME-chips.")
@click.option("--year", type=int, required=True, help="Of planting.")
@click.option(
    "--images",
    type=click.Choice(["none", "select", "download"]),
    default="download",
    show_default=True,
)
@click.option("--chip-size", type=int, help="Pixels to a side.  [default: 256]")
@click.option("--resolution", type=float, help="Metres to a pixel.  [default: 10]")
@click.option(
    "--min-coverage", type=float, help="Percent of a chip under fields, at least.  [default: 0.01]"
)
@click.option(
    "--presence-only",
    is_flag=True,
    default=None,
    help="What is not drawn is unknown, not background.",
)
@_selection_options
@_run_options
def create(boundaries: str, folder: str, name: str, images: str, **given: Any) -> None:
    """Make chips and masks of field boundaries (any vector file), choose their scenes and fetch their imagery."""
    from scenebeam.requestfile import load_request

    overrides = {
        **_defaults(),
        "run": name,
        "output": f"{folder.rstrip('/')}/{name}-chips",
        "product.boundaries": boundaries,
        "product.grid.size": given["chip_size"],
        "product.grid.resolution": given["resolution"],
        "product.grid.min_coverage": given["min_coverage"],
        "product.grid.presence_only": given["presence_only"],
        **_overrides(given, images),
    }
    request, _ = load_request(overrides=overrides)
    _run(request, given)


@fields.command()
@click.argument("catalogue")
@click.option(
    "--cloud-cover-pixel",
    type=float,
    default=0.0,
    show_default=True,
    help="Percent of the chip, at most.",
)
@click.option(
    "--update-items",
    is_flag=True,
    help="Choose again what is above, and note the cloud of the rest.",
)
@click.option("--output-report", type=click.Path(dir_okay=False), help="Write the report here too.")
@json_option
def refine(
    catalogue: str,
    cloud_cover_pixel: float,
    update_items: bool,
    output_report: str | None,
    as_json: bool,
) -> None:
    """How cloudy the chosen scenes are over the chips themselves, by their pixels."""
    from scenebeam.planning.plan import read_plan
    from scenebeam.products.fields.cloud_report import CLOUD_REPORT, measure_clouds
    from scenebeam.storage import open_store

    frozen = _frozen(catalogue)
    if frozen is None:
        raise RequestError(
            f"{catalogue}: nothing was chosen there yet; begin with `scenebeam fields select`"
        )
    store = open_store(_folder(catalogue))
    plan = read_plan(store)
    assert plan is not None, "its run.json has just been read"
    document = measure_clouds(plan.tasks, store, cloud_cover_pixel)
    _show_report(document, f"{_folder(catalogue)}/{CLOUD_REPORT}", output_report, as_json)
    if update_items:
        given = {"pixel_check": True, "cloud_cover_pixel": cloud_cover_pixel}
        request = _request_on(catalogue, frozen["product"]["images"], given)
        _run(request, {"as_json": as_json})


def _folder(catalogue: str) -> str:
    from scenebeam.products.fields.chips import catalogue_folder

    return catalogue_folder(catalogue)


def _frozen(catalogue: str) -> dict[str, Any] | None:
    """The request of the run in a folder; None where there is none of field chips."""
    from scenebeam.requestfile import frozen_request
    from scenebeam.storage import open_store

    store = open_store(_folder(catalogue))
    content = store.read("run.json")
    if content is None:
        return None
    request = frozen_request(json.loads(content), store.uri, store.path("run.json"))
    return request if request["product"]["kind"] == "fields" else None


def _request_on(catalogue: str, images: str, given: dict[str, Any]) -> RunRequest:
    """The request of the run that stands in a catalogue's folder, or a new one, with what was typed laid over it."""
    from scenebeam.requestfile import load_request

    frozen = _frozen(catalogue) if given.get("output") is None else None
    if frozen is not None:
        return load_request(overrides={**frozen, **_overrides(given, images)})[0]
    base = {**_defaults(), "run": "fields", "output": given.get("output") or _folder(catalogue)}
    return load_request(
        overrides={**base, "product.chips": catalogue, **_overrides(given, images)}
    )[0]


def _defaults() -> dict[str, Any]:
    return {
        "catalog": "earth-search",
        "collections": ["sentinel-2-c1-l2a"],
        "product": {"kind": "fields"},
    }


def _overrides(given: dict[str, Any], images: str) -> dict[str, Any]:
    """What was typed, by dotted name."""
    typed = {f"product.{name}": given[name] for name in _SELECTION if given.get(name) is not None}
    if isinstance(typed.get("product.bands"), str):
        typed["product.bands"] = [name.strip() for name in typed["product.bands"].split(",")]
    found = {
        **typed,
        "product.images": images,
        "catalog": given.get("catalog"),
        "collections": [given["collection"]] if given.get("collection") else None,
        "checks.screenshot": given.get("preview"),
        "runner.workers": given.get("num_workers"),
        **overrides_of(None, given.get("runner"), given.get("settings", ())),
    }
    return {name: value for name, value in found.items() if value is not None}


def _run(
    request: RunRequest, given: dict[str, Any], *, refresh: bool = False, overwrite: bool = False
) -> None:
    """Run, show the report beside the status, and exit accordingly."""
    from scenebeam.products.fields.report import REPORT_FILE
    from scenebeam.run.driver import run
    from scenebeam.storage import open_store

    overwrite = overwrite or bool(given.get("force")) or not given.get("resume", True)
    with progress_bar(quiet=given["as_json"]) as progress:
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
        told = f"{report['successful']} of {report['total_processed']} chips have all that was asked for"
        click.echo(
            f"{told}, {len(report['skipped'])} skipped, {len(report['failed'])} failed: see {REPORT_FILE}"
        )
        if given.get("show_stats"):
            click.echo(json.dumps(report["statistics"], indent=2))
    sys.exit(status.exit_code)


def _show_report(document: dict[str, Any], where: str, copy: str | None, as_json: bool) -> None:
    text = json.dumps(document, indent=2)
    if copy:
        Path(copy).write_text(text + "\n")
    if as_json:
        click.echo(text)
        return
    click.echo(
        f"{document['total_processed']} images looked at, {len(document['above_threshold'])} of them above "
        f"{document['cloud_cover_pixel']:g} %, {len(document['unchecked'])} could not be looked at: see {where}"
    )
