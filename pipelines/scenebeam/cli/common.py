"""What the commands share: the group, options, progress, and the summary of a run."""

from __future__ import annotations

import logging
import signal
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from scenebeam.errors import RequestError, SceneBeamError, Terminated
from scenebeam.request.product import PRODUCTS
from scenebeam.suggestions import suggest

if TYPE_CHECKING:
    from scenebeam.request import RunRequest
    from scenebeam.status import RunStatus


def set_up_logging(verbose: int, debug: bool = False, quiet: bool = False) -> None:
    """Configure logging to stderr.

    Args:
        verbose: 0 logs warnings, 1 what scenebeam does, 2 its details too, and 3 also what other
            libraries log.
        debug: Log everything that scenebeam does, with tracebacks.
        quiet: Log errors only.
    """
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG)
    # Problems of other libraries reach users as errors of scenebeam.
    logging.basicConfig(
        level=logging.DEBUG if verbose > 2 else logging.CRITICAL,
        format="%(levelname)s %(name)s: %(message)s",
    )
    if quiet:
        level = logging.ERROR
    logging.getLogger("scenebeam").setLevel(logging.DEBUG if debug else level)
    if sys.stderr.isatty():
        logging.getLogger("scenebeam.progress").setLevel(min(level, logging.INFO))
    logging.getLogger("stac_io").setLevel(logging.WARNING)  # it logs every item


def exit_code(signalled: KeyboardInterrupt) -> int:
    """The exit code of a process that a signal ends: 128 and the number of the signal."""
    return 128 + (signalled.number if isinstance(signalled, Terminated) else signal.SIGINT)


class _Group(click.Group):
    """Prints errors without a traceback, and exits with the documented codes.

    Registered products without a command of their own get one that is built from their request.
    """

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted({*super().list_commands(context), *PRODUCTS})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        command = super().get_command(context, name)
        if command is None and name in PRODUCTS:
            from scenebeam.cli.products import product_command

            return product_command(name)
        return command

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(context, args[0]) is None and not args[0].startswith("-"):
            hint = suggest(args[0], self.list_commands(context))
            context.fail(f"there is no command {args[0]!r}; {hint}")
        return super().resolve_command(context, args)

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except SceneBeamError as error:
            if context.params.get("debug"):
                traceback.print_exc()
            click.echo(f"scenebeam: {error}", err=True)
            context.exit(2 if isinstance(error, RequestError) else 1)
        except KeyboardInterrupt as signalled:
            click.echo("scenebeam: interrupted; run the same command again to resume", err=True)
            context.exit(exit_code(signalled))


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="scenebeam")
@click.option(
    "-v",
    "--verbose",
    count=True,
    envvar="SCENEBEAM_VERBOSE",
    help="Log what is found, left out and made; twice: details; three times: other libraries.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print only errors and the result.")
@click.option("--debug", is_flag=True, help="Show tracebacks, and run tasks serially.")
def main(verbose: int, quiet: bool, debug: bool) -> None:
    """Satellite scenes to mosaics, stacks and chips, from one request.

    Exit codes: 0 succeeded, 1 failed or partial, 2 bad request, 130 interrupted, 143 terminated.
    """
    if verbose and quiet:
        raise RequestError("--verbose and --quiet contradict each other: give one of them")
    set_up_logging(verbose, debug, quiet)


def is_quiet() -> bool:
    """Return whether `--quiet` was given."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.find_root().params.get("quiet"))


refresh_option = click.option(
    "--refresh", is_flag=True, help="Search the catalog again instead of using the cached answer."
)
retry_option = click.option(
    "--retry-failed",
    is_flag=True,
    help="Search again, and make what failed, found no scenes or lacks a tile; keep the rest.",
)
verify_option = click.option(
    "--verify",
    is_flag=True,
    help="Compare existing files with their checksums, and make damaged ones again.",
)
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace the products of another request."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
runner_option = click.option("--runner", help="auto, serial, direct, dataflow, or any Beam runner.")
output_option = click.option(
    "-o", "--output", type=click.Path(), help="Folder or gs:// prefix for the products."
)
set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set any field: select.max_cloud_cover=20.",
)


def options(*several: Callable[..., Any]) -> Callable[..., Any]:
    """Combine several options into one decorator, in their order."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(several):
            command = option(command)
        return command

    return add


run_options = options(
    output_option, runner_option, set_option, refresh_option, overwrite_option, json_option
)
"""The options of every command that runs a request."""


def overrides_of(
    output: str | None = None, runner: str | None = None, settings: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The values that a command line sets, by dotted name.

    Args:
        output: Value of `--output`.
        runner: Value of `--runner`; with `--debug` always `serial`.
        settings: Values of `--set`.

    Raises:
        RequestError: A setting is not NAME=VALUE, or its value is not YAML.
    """
    from scenebeam.requestfile import parse_value

    context = click.get_current_context(silent=True)
    if context is not None and context.find_root().params.get("debug"):
        runner = "serial"
    overrides: dict[str, Any] = {}
    if output is not None:
        overrides["output"] = output
    if runner is not None:
        overrides["runner"] = runner
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise RequestError(f"--set {setting}: write NAME=VALUE")
        overrides[name] = parse_value(value, name)
    return overrides


def run_and_show(
    request: RunRequest,
    *,
    refresh: bool,
    overwrite: bool,
    as_json: bool,
    retry_failed: bool = False,
    verify: bool = False,
) -> None:
    """Run a request, show its status, and exit with the code of its state."""
    from scenebeam.execution.driver import run as run_request
    from scenebeam.progress import show_progress

    with show_progress(quiet=as_json or is_quiet()) as progress:
        status = run_request(
            request,
            refresh=refresh,
            overwrite=overwrite,
            retry_failed=retry_failed,
            verify=verify,
            progress=progress,
        )
    show_status(status, as_json)
    sys.exit(status.exit_code)


def show_status(status: RunStatus, as_json: bool) -> None:
    """Print the status of a run, as text or as JSON."""
    from scenebeam.status import FAILURES_FILE, PAGE_FILE
    from scenebeam.storage import open_store

    if as_json:
        click.echo(status.model_dump_json(indent=2))
        return
    click.echo(f"{status.run}: {status.state}, {_describe_done(status)}")
    for stalled in status.stalled:
        click.echo(f"stalled: {stalled}")
    if status.incomplete:
        noun = "product is" if status.incomplete == 1 else "products are"
        click.echo(f"{status.incomplete} {noun} incomplete: the report says what is missing")
    if status.failed or status.skipped:
        retry = "; run it again to retry" if status.retriable else ""
        click.echo(f"{status.failed} failed, {status.skipped} skipped: see {FAILURES_FILE}{retry}")
    if status.message:
        click.echo(status.message)
    click.echo(status.output)
    # A run that was interrupted has not come to its report.
    if status.ended and status.tasks and open_store(status.output).size(PAGE_FILE) is not None:
        click.echo(f"Report: {status.output.rstrip('/')}/{PAGE_FILE}")


def _describe_done(status: RunStatus) -> str:
    """Return a text such as `6 of 6 tasks done (2 products, 4 kept, 1 replaced)`."""
    notes = []
    if 0 < status.products < status.tasks:
        notes.append(f"{status.products} products")
    counts = {"kept": status.kept, "replaced": status.replaced, "waiting": status.waiting}
    notes += [f"{count} {name}" for name, count in counts.items() if count]
    if status.tasks_per_minute and not status.ended:
        notes.append(f"{status.tasks_per_minute:g} a minute")
    text = f"{status.done} of {status.tasks} tasks done"
    return f"{text} ({', '.join(notes)})" if notes else text
