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
@_overwrite
@_json
def run(request_file: str, overwrite: bool, as_json: bool, **given: Any) -> None:
    """Run a request file (YAML or JSON), or resume it."""
    from scenebeam.requestfile import load_request

    request, _ = load_request(request_file, overrides=_overrides(**given))
    _run(request, overwrite=overwrite, as_json=as_json)


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

    facts = explain(make_plan(request)[0])
    click.echo(json.dumps(facts, indent=2) if as_json else _aligned(facts))


@main.command()
@click.option("--bbox", help="west,south,east,north in degrees.")
@click.option("--mgrs", help="Sentinel-2 tiles: 34TFK,34TGK.")
@click.option("--geojson", type=click.Path(exists=True, dir_okay=False), help="A file with the area.")
@click.option("--dates", required=True, help="2023-06 or 2023-06-01/2023-06-30.")
@click.option("--bands", required=True, help="red,nir,scl")
@click.option("--catalog", default="earth-search", show_default=True, help="Catalogue: a known name, a URL or a file.")
@click.option("--collection", default="sentinel-2-l2a", show_default=True)
@click.option("--max-cloud-cover", type=float, help="Percent.")
@click.option("--crs", help="CRS of the mosaics; default: the UTM zone of the area.")
@click.option("--resolution", type=float, help="Pixel size; default: the finest band's.")
@click.option("--group-by", type=click.Choice(["acquisition", "day"]))
@click.option("--method", type=click.Choice(["first", "last", "min", "max", "mean", "median"]))
@click.option("--resampling", help="nearest, bilinear, cubic, ...")
@click.option("--on-missing", type=click.Choice(["best-available", "fail", "skip"]))
@click.option("--run", "run_name", default="mosaic", show_default=True, help="Name of the run.")
@_output
@_runner
@_set
@_overwrite
@_json
def mosaic(
    overwrite: bool,
    as_json: bool,
    run_name: str,
    bbox: str | None,
    mgrs: str | None,
    collection: str,
    **given: Any,
) -> None:
    """One mosaic per acquisition and band, without a request file."""
    from scenebeam.requestfile import load_request, scalar

    product = ("bands", "group_by", "method", "resampling", "on_missing")
    overrides = {
        "run": run_name,
        "catalog": given["catalog"],
        "collections": [collection],
        "area.bbox": [scalar(part, "bbox") for part in bbox.split(",")] if bbox else None,
        "area.mgrs": mgrs.split(",") if mgrs else None,
        "area.geojson": given["geojson"],
        "dates": given["dates"],
        "select.max_cloud_cover": given["max_cloud_cover"],
        "grid.crs": given["crs"],
        "grid.resolution": given["resolution"],
        "product.kind": "mosaic",
        **{f"product.{name}": scalar(given[name], f"product.{name}") if given[name] else None for name in product},
        **_overrides(given["output"], given["runner"], given["settings"]),
    }
    request, _ = load_request(overrides=overrides)
    _run(request, overwrite=overwrite, as_json=as_json)


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
@click.option("--product", type=click.Choice(["mosaic"]), default="mosaic", show_default=True)
@click.option("-o", "--output", default="demo", show_default=True, help="Folder for the scenes and the products.")
def demo(product: str, output: str) -> None:
    """Mosaics of a small synthetic Earth: no network, no account."""
    from scenebeam.sandbox.demo import run_demo

    with _progress() as progress:
        summary = run_demo(Path(output), progress)
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


def _run(request: RunRequest, *, overwrite: bool, as_json: bool) -> None:
    from scenebeam.run.driver import run as run_request

    with _progress(quiet=as_json) as progress:
        status = run_request(request, overwrite=overwrite, progress=progress)
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
