"""Commands on request files and runs."""

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
    output_option,
    overrides_of,
    overwrite_option,
    refresh_option,
    retry_option,
    run_and_show,
    run_options,
    runner_option,
    set_option,
    show_status,
    verify_option,
)
from scenebeam.errors import RequestError
from scenebeam.request.product import PRODUCTS

if TYPE_CHECKING:
    from scenebeam.request import RunRequest


def read_request_file(name: str, overrides: dict[str, Any]) -> tuple[RunRequest, dict[str, str]]:
    """Read a request file on this machine or in a bucket.

    Raises:
        RequestError: It does not exist, or is not valid.
    """
    from scenebeam.requestfile import load_request

    if not name.startswith("gs://"):
        return load_request(name, overrides=overrides)
    from scenebeam.requestfile import frozen_request, is_frozen, parse_document
    from scenebeam.storage import open_store

    folder, _, key = name.rpartition("/")
    content = open_store(folder).read(key) if key else None
    if content is None:
        raise RequestError(f"cannot read the request file {name}: it does not exist")
    document = parse_document(content.decode("utf-8", "replace"), name)
    if is_frozen(document):
        document = frozen_request(document, folder, name)
    return load_request(name, content=document, overrides=overrides)


@main.command()
@click.argument("request_file", type=click.Path(dir_okay=False))
@run_options
@retry_option
@verify_option
def run(
    request_file: str,
    refresh: bool,
    retry_failed: bool,
    verify: bool,
    overwrite: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Run a request file (YAML or JSON), or resume it.

    The file may be the run.json of a run, also at gs://.
    """
    request, _ = read_request_file(request_file, overrides_of(**given))
    run_and_show(
        request,
        refresh=refresh,
        retry_failed=retry_failed,
        verify=verify,
        overwrite=overwrite,
        as_json=as_json,
    )


@main.command()
@click.argument("request_file", type=click.Path(dir_okay=False))
@click.option("--every", default="6h", show_default=True, help="Time between passes: 30m, 6h, 1d.")
@click.option("--passes", type=click.IntRange(min=1), help="Stop after this number of passes.")
@output_option
@runner_option
@set_option
def watch(request_file: str, every: str, passes: int | None, **given: Any) -> None:
    """Run a series again and again: search, and make what is new.

    A pass that fails is reported, and the next one tries again.
    """
    from scenebeam.execution.watch import parse_pause, watch_series

    pause = parse_pause(every)
    request, _ = read_request_file(request_file, overrides_of(**given))
    for status in watch_series(request, pause, passes):
        show_status(status, as_json=False)


@main.command()
@click.argument("request_file", type=click.Path(dir_okay=False))
@output_option
@set_option
@refresh_option
@click.option(
    "--completeness",
    is_flag=True,
    help="Also write catalog_completeness.csv: which catalog has or lacks which scene.",
)
@json_option
def scenes(
    request_file: str, refresh: bool, completeness: bool, as_json: bool, **given: Any
) -> None:
    """Search and select, and write the tables of scenes: the first step of a run, alone."""
    from scenebeam.catalog.hosts import COMPLETENESS_FILE
    from scenebeam.execution.driver import write_completeness, write_scenes

    request, _ = read_request_file(request_file, overrides_of(**given))
    found, store = write_scenes(request, refresh=refresh)
    tables = found.tables(request)
    if completeness:
        tables[COMPLETENESS_FILE] = write_completeness(request, found, store)
    if as_json:
        rows: dict[str, Any] = {"scenes": found.discovered(request)}
        rows |= {name.removesuffix(".csv"): table.rows for name, table in tables.items()}
        click.echo(json.dumps(rows, indent=2, default=str))
        return
    click.echo(found.selection.explain())
    for name, table in tables.items():
        click.echo(f"{len(list(table.rows)):>6}  {store.uri_for(name)}")


@main.command()
@click.argument("request_file", type=click.Path(dir_okay=False))
@click.option(
    "--show-request",
    is_flag=True,
    help="Print the resolved request and where each value came from.",
)
@click.option(
    "--blocks",
    type=click.Path(dir_okay=False),
    help="Write a table of the blocks that would be read.",
)
@click.option(
    "--vrt",
    type=click.Path(file_okay=False),
    help="Write a VRT of each task's inputs into this folder.",
)
@click.option(
    "--view",
    help="Show a view of the product instead: `classes` counts land-cover windows by class.",
)
@click.option("--classes", is_flag=True, help="The same as --view classes.")
@output_option
@runner_option
@set_option
@overwrite_option
@json_option
def plan(
    request_file: str,
    show_request: bool,
    blocks: str | None,
    vrt: str | None,
    view: str | None,
    classes: bool,
    overwrite: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Search, select and estimate what a run would do, without writing anything else.

    Products that the output holds already are counted as kept or replaced, and left out of the
    estimate.
    """
    request, came_from = read_request_file(request_file, overrides_of(**given))
    if show_request:
        _show_request(request, came_from, as_json)
        return
    from scenebeam.execution.explain import describe, explain
    from scenebeam.planning.reuse import reconcile
    from scenebeam.planning.work import count_work
    from scenebeam.storage import open_store

    if view is not None or classes:
        _show_view(request, view or "classes", as_json)
        return
    store = open_store(request.output)
    found = reconcile(request, store, overwrite=overwrite, measure=True)
    made = found.plan
    if blocks is not None or vrt is not None:
        from scenebeam.imaging.virtual import block_table, write_vrts
        from scenebeam.transfer.signing import effective_limits

        if blocks is not None:
            Path(blocks).write_bytes(
                block_table(made.tasks, effective_limits(made.request)).to_bytes()
            )
        if vrt is not None:
            write_vrts(made.tasks, Path(vrt), effective_limits(made.request))
    facts = explain(made, count_work(made, store, found.superseded))
    click.echo(json.dumps(facts, indent=2) if as_json else _aligned(describe(facts)))


@main.command()
@click.argument("output", type=click.Path())
@json_option
def status(output: str, as_json: bool) -> None:
    """Show the status of the run in an output folder or gs:// prefix.

    The exit code is that of the run: 0 while it is running, 1 if it has failed.
    """
    from scenebeam.execution.live import live_status

    found = live_status(output)
    show_status(found, as_json)
    sys.exit(found.exit_code)


@main.command()
@click.option(
    "--product",
    type=click.Choice(sorted(PRODUCTS)),
    default="mosaic",
    show_default=True,
)
@click.option(
    "-o",
    "--output",
    default="demo",
    show_default=True,
    help="Folder for the scenes and the products.",
)
def demo(product: str, output: str) -> None:
    """Make a product of a small synthetic Earth, without a network or an account."""
    from scenebeam.progress import show_progress
    from scenebeam.sandbox.demo import run_demo

    with show_progress(quiet=is_quiet()) as progress:
        summary = run_demo(Path(output), product, progress)
    click.echo(summary)


def _show_request(request: RunRequest, came_from: dict[str, str], as_json: bool) -> None:
    document = request.model_dump(mode="json")
    if as_json:
        click.echo(json.dumps({"request": document, "from": came_from}, indent=2))
        return
    from scenebeam.requestfile import flatten

    for name, value in flatten(document):
        source = came_from.get(name) or next(
            (came_from[n] for n in came_from if name.startswith(f"{n}.")), "default"
        )
        click.echo(f"{name} = {json.dumps(value)}  ({source})")


def _show_view(request: RunRequest, name: str, as_json: bool) -> None:
    """Show one of the product's own views of a plan."""
    from scenebeam.planning.search import plan_selection, search
    from scenebeam.products import product_of
    from scenebeam.storage import open_store

    view = product_of(request.product.kind).plan_views.get(name)
    if view is None:
        raise RequestError(f"--{name}: a plan of kind {request.product.kind} has no such view")
    result = search(request, open_store(request.output))
    plan = plan_selection(request, result)
    document = view.compute(request, result.selection, result.search_scope, plan.tasks)
    click.echo(json.dumps(document, indent=2) if as_json else view.describe(document))


def _aligned(facts: dict[str, Any]) -> str:
    width = max(len(name) for name in facts)
    return "\n".join(
        f"{name:{width}}  {value}" for name, value in facts.items() if value not in ("", None)
    )
