"""The `scenebeam` command: parse, call, show. No logic."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scenebeam.errors import RequestError, SceneBeamError

if TYPE_CHECKING:
    from scenebeam.request import RunRequest
    from scenebeam.run.status import RunStatus


class _Group(click.Group):
    """Errors in plain words on stderr, and the exit codes of the manual."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except SceneBeamError as error:
            click.echo(f"scenebeam: {error}", err=True)
            context.exit(2 if isinstance(error, RequestError) else 1)
        except KeyboardInterrupt:
            click.echo("scenebeam: interrupted; run the same command again to go on", err=True)
            context.exit(130)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="scenebeam")
@click.option("-v", "--verbose", count=True, help="Say more; twice for everything.")
def main(verbose: int) -> None:
    """Satellite scenes to mosaics, stacks and chips, from one request.

    Exit codes: 0 succeeded, 1 failed or partial, 2 bad request, 130 interrupted.
    """
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG)
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("apache_beam").setLevel(max(level, logging.WARNING) if verbose < 2 else level)


_refresh = click.option("--refresh", is_flag=True, help="Ask the catalogue again; else its last answer is used.")
_overwrite = click.option("--overwrite", is_flag=True, help="Replace what another request left in the output.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
_runner = click.option("--runner", help="auto, serial, direct, dataflow, or any Beam runner.")
_output = click.option("-o", "--output", help="Folder or gs:// prefix for the products.")
_set = click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Set any field: select.max_cloud_cover=20."
)


@main.command()
@click.argument("request_file", type=click.Path(dir_okay=False))
@_output
@_runner
@_set
@_refresh
@_overwrite
@_json
def run(request_file: str, refresh: bool, overwrite: bool, as_json: bool, **given: Any) -> None:
    """Run a request file (YAML or JSON), or resume it."""
    from scenebeam.requestfile import load_request

    request, _ = load_request(request_file, overrides=_overrides(**given))
    _run(request, refresh=refresh, overwrite=overwrite, as_json=as_json)


@main.command()
@click.argument("request_file", type=click.Path(dir_okay=False))
@_output
@_set
@_refresh
@_json
def scenes(request_file: str, refresh: bool, as_json: bool, **given: Any) -> None:
    """Search and select, and write the scene catalogue: the first step of a run, alone."""
    from scenebeam.requestfile import load_request
    from scenebeam.run.driver import write_scenes

    request, _ = load_request(request_file, overrides=_overrides(**given))
    found, store = write_scenes(request, refresh=refresh)
    tables = found.tables(request)
    if as_json:
        rows = {name.removesuffix(".csv"): table.rows for name, table in tables.items()}
        click.echo(json.dumps(rows, indent=2, default=str))
        return
    click.echo(found.selection.explain())
    for name, table in tables.items():
        click.echo(f"{len(table.rows):>6}  {store.path(name)}")


@main.command()
@click.argument("request_file", type=click.Path(dir_okay=False))
@click.option("--show-request", is_flag=True, help="Print the resolved request and where each value came from.")
@_output
@_runner
@_set
@_json
def plan(request_file: str, show_request: bool, as_json: bool, **given: Any) -> None:
    """Search, select and estimate; read no pixel and write nothing."""
    from scenebeam.requestfile import load_request

    request, came_from = load_request(request_file, overrides=_overrides(**given))
    if show_request:
        _show_request(request, came_from, as_json)
        return
    from scenebeam.run.driver import make_plan
    from scenebeam.run.explain import explain
    from scenebeam.storage import open_store

    facts = explain(make_plan(request, open_store(request.output)))
    click.echo(json.dumps(facts, indent=2) if as_json else _aligned(facts))


def _area_and_dates(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every product's own command."""
    for option in reversed(
        (
            click.option("--bbox", help="west,south,east,north in degrees."),
            click.option("--mgrs", help="Sentinel-2 tiles: 34TFK,34TGK."),
            click.option("--geojson", type=click.Path(exists=True, dir_okay=False), help="A file with the area."),
            click.option("--dates", help="2023-06 or 2023-06-01/2023-06-30."),
            click.option("--catalog", default="earth-search", show_default=True, help="A known name, a URL or a file."),
            click.option("--collection", default="sentinel-2-l2a", show_default=True),
            click.option("--max-cloud-cover", type=float, help="Percent."),
            click.option("--run", "run_name", help="Name of the run."),
            _output,
            _runner,
            _set,
            _refresh,
            _overwrite,
            _json,
        )
    ):
        command = option(command)
    return command


@main.command()
@click.option("--bands", required=True, help="red,nir,scl")
@click.option("--crs", help="CRS of the mosaics; default: the UTM zone of the area.")
@click.option("--resolution", type=float, help="Pixel size; default: the finest band's.")
@click.option("--group-by", type=click.Choice(["acquisition", "day"]))
@click.option("--method", type=click.Choice(["first", "last", "min", "max", "mean", "median"]))
@click.option("--resampling", help="nearest, bilinear, cubic, ...")
@click.option("--on-missing", type=click.Choice(["best-available", "fail", "skip"]))
@_area_and_dates
def mosaic(**given: Any) -> None:
    """One mosaic per acquisition and band, without a request file."""
    grid = {"grid.crs": given["crs"], "grid.resolution": given["resolution"]}
    _run_product("mosaic", ("bands", "group_by", "method", "resampling", "on_missing"), grid, **given)


@main.command()
@click.option("--bands", help="Default: B04,B08,SCL.")
@click.option("--scenes", type=click.Path(exists=True, dir_okay=False), help="A scenes_selected.csv: just its scenes.")
@click.option("--max-scenes", type=int, help="Most rows of the manifest.")
@click.option("--date-start", help="Scenes of this day and later.")
@click.option("--sort-mode", type=click.Choice(["cloud_then_time", "time"]))
@click.option("--download-n", type=int, help="Scenes to download, from the top of the manifest.")
@click.option("--band-resolution", type=click.Choice(["10", "20", "60"]), help="Of a band that is kept at several.")
@click.option(
    "--raw-storage-mode",
    type=click.Choice(["url_to_local", "url_to_gcs_keep_local", "url_to_gcs_drop_local", "gcs_to_local"]),
)
@click.option("--gcs", help="gs://bucket/prefix of the modes with gcs in their name.")
@click.option("--max-download-workers", type=int, help="Files fetched at once; default: 8.")
@_area_and_dates
def assets(scenes: str | None, max_download_workers: int | None, **given: Any) -> None:
    """The scenes' own files, and a manifest of them, without a request file."""
    names = ("bands", "max_scenes", "date_start", "sort_mode", "download_n", "band_resolution", "raw_storage_mode")
    others = {"select.table": scenes, "limits.max_download_workers": max_download_workers}
    _run_product("assets", (*names, "gcs"), others, **given)


def _run_product(kind: str, fields: tuple[str, ...], others: dict[str, Any], **given: Any) -> None:
    """Run the request that a product's own command spells."""
    from scenebeam.requestfile import load_request, scalar

    typed = {name: given[name] for name in fields if given[name] is not None}
    bbox, mgrs = given["bbox"], given["mgrs"]
    overrides = {
        "run": given["run_name"] or kind,
        "catalog": given["catalog"],
        "collections": [given["collection"]],
        "area.bbox": [scalar(part, "bbox") for part in bbox.split(",")] if bbox else None,
        "area.mgrs": mgrs.split(",") if mgrs else None,
        "area.geojson": given["geojson"],
        "dates": given["dates"],
        "select.max_cloud_cover": given["max_cloud_cover"],
        "product.kind": kind,
        **{f"product.{name}": scalar(str(value), f"product.{name}") for name, value in typed.items()},
        **others,
        **_overrides(given["output"], given["runner"], given["settings"]),
    }
    request, _ = load_request(overrides=overrides)
    _run(request, refresh=given["refresh"], overwrite=given["overwrite"], as_json=given["as_json"])


@main.command()
@click.argument("output")
@_json
def status(output: str, as_json: bool) -> None:
    """How the run in an output folder or gs:// prefix goes."""
    from scenebeam.run.status import STATUS_FILE, RunStatus
    from scenebeam.storage import open_store

    content = open_store(output).read(STATUS_FILE)
    if content is None:
        raise RequestError(f"{output} holds no run: there is no {STATUS_FILE}")
    _show_status(RunStatus.model_validate_json(content), as_json)


@main.command()
@click.option("--product", type=click.Choice(["mosaic", "assets"]), default="mosaic", show_default=True)
@click.option("-o", "--output", default="demo", show_default=True, help="Folder for the scenes and the products.")
def demo(product: str, output: str) -> None:
    """Products of a small synthetic Earth: no network, no account."""
    from scenebeam.sandbox.demo import run_demo

    with _progress() as progress:
        summary = run_demo(Path(output), product, progress)
    click.echo(summary)


@main.command()
@click.option("--collection", help="Show one collection's bands.")
@_json
def info(collection: str | None, as_json: bool) -> None:
    """The collections that scenebeam knows, and their bands."""
    from scenebeam.collections import known_records

    records = [r for r in known_records() if collection is None or r.id == collection]
    if not records:
        raise RequestError(f"no record of {collection!r}; known: {', '.join(sorted({r.id for r in known_records()}))}")
    if as_json:
        click.echo(json.dumps([record.model_dump(mode="json") for record in records], indent=2))
        return
    for record in records:
        click.echo(f"{record.provider}  {record.id}  {record.title}")
        for name, band in record.bands.items() if collection else ():
            also = ", ".join([band.asset, *band.alias])
            wave = f"{band.wavelength:g} µm" if band.wavelength else ("classes" if band.categorical else "")
            click.echo(f"  {name:14} {also:18} {band.resolution:>4g} m  {wave}")


def _overrides(output: str | None = None, runner: str | None = None, settings: tuple[str, ...] = ()) -> dict[str, Any]:
    from scenebeam.requestfile import scalar

    found: dict[str, Any] = {"output": output, "runner": runner}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise RequestError(f"--set {setting}: write NAME=VALUE")
        found[name] = scalar(value, name)
    return found


def _run(request: RunRequest, *, refresh: bool, overwrite: bool, as_json: bool) -> None:
    from scenebeam.run.driver import run as run_request

    with _progress(quiet=as_json) as progress:
        status = run_request(request, refresh=refresh, overwrite=overwrite, progress=progress)
    _show_status(status, as_json)
    sys.exit(status.exit_code)


@contextmanager
def _progress(*, quiet: bool = False) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on a terminal, one line a minute elsewhere."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("making"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("making", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
    else:
        yield _LinePerMinute()


class _LinePerMinute:
    def __init__(self) -> None:
        self._told = 0.0

    def __call__(self, done: int, total: int) -> None:
        import time

        if time.monotonic() - self._told >= 60:
            self._told = time.monotonic()
            click.echo(f"{done} of {total} tasks done", err=True)


def _show_status(status: RunStatus, as_json: bool) -> None:
    if as_json:
        click.echo(status.model_dump_json(indent=2))
        return
    click.echo(f"{status.run}: {status.state}, {status.done} of {status.tasks} tasks done")
    if status.incomplete:
        click.echo(f"{status.incomplete} made without some of their tiles: see timestamps_aggregation_band_report.csv")
    if status.failed or status.skipped:
        click.echo(f"{status.failed} failed, {status.skipped} skipped: see failures.csv; run it again to retry them")
    if status.message:
        click.echo(status.message)
    click.echo(status.output)


def _show_request(request: RunRequest, came_from: dict[str, str], as_json: bool) -> None:
    document = request.model_dump(mode="json")
    if as_json:
        click.echo(json.dumps({"request": document, "from": came_from}, indent=2))
        return
    from scenebeam.requestfile import leaves

    for name, value in leaves(document):
        source = came_from.get(name) or next((came_from[n] for n in came_from if name.startswith(f"{n}.")), "default")
        click.echo(f"{name} = {json.dumps(value)}  ({source})")


def _aligned(facts: dict[str, Any]) -> str:
    width = max(len(name) for name in facts)
    return "\n".join(f"{name:{width}}  {value}" for name, value in facts.items() if value not in ("", None))
