"""Run the Beam graph on any runner, and wait for its end."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from scenebeam.errors import RequestError, RunnerError, SceneBeamError
from scenebeam.planning.plan import Plan
from scenebeam.status import STATUS_FILE, RunStatus
from scenebeam.storage import Store

log = logging.getLogger(__name__)


def run_pipeline(
    kind: str, arguments: list[str], plan: Plan, store: Store, status: RunStatus, runner: Any = None
) -> RunStatus:
    """Run the pipeline of a plan, and read the status that its last step has written.

    Args:
        kind: What messages call the runner.
        arguments: Beam pipeline options.
        plan: The plan that is frozen in the store.
        store: The output.
        status: The status of the run so far.
        runner: A Beam runner; default: the one that the options name.

    Raises:
        RequestError: The runner cannot be started with these options.
        RunnerError: It has ended before all tasks were made.
    """
    with _without_hints():
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions

        from scenebeam.execution.engine import build

    try:
        pipeline = beam.Pipeline(runner=runner, options=PipelineOptions(arguments))
    except ImportError as error:
        raise RequestError(
            f"runner {kind!r}: {error}; is scenebeam installed with its extra 'dataflow'?"
        ) from error
    except (ValueError, NotImplementedError) as error:
        raise RequestError(f"runner {kind!r}: {error}") from error
    with plain_labels():
        build(pipeline, plan, store, status)
    try:
        result = pipeline.run()
        result.wait_until_finish()
    except SceneBeamError:
        raise
    except Exception as error:
        log.debug("runner %s", kind, exc_info=True)
        cause = _cause(error)
        hint = "" if cause.endswith("run again") else "; run it again to resume"
        message = f"runner {kind!r} ended before all tasks were made: {cause}{hint}"
        raise RunnerError(message) from error
    content = store.read(STATUS_FILE)
    assert content is not None, "the last step of the pipeline writes it"
    return RunStatus.model_validate_json(content)


@contextmanager
def _without_hints() -> Iterator[None]:
    """Import Beam without its warning that the clients of other Google services lack."""
    root = logging.getLogger()
    root.addFilter(_is_no_hint)
    try:
        yield
    finally:
        root.removeFilter(_is_no_hint)


def _is_no_hint(record: logging.LogRecord) -> bool:
    return "apitools not found" not in record.getMessage()


@contextmanager
def plain_labels() -> Iterator[None]:
    """Build a pipeline as if this were not a notebook.

    In a notebook, Beam prefixes the labels of transforms that a cell applies with the number of
    the cell. For that it imports its data frames, which fail with the pandas of today, or without
    pandas. The pipeline of a run is not written in a cell.
    """
    from apache_beam import pipeline

    altered = pipeline.alter_label_if_ipython
    pipeline.alter_label_if_ipython = lambda transform, pvalueish: None
    try:
        yield
    finally:
        pipeline.alter_label_if_ipython = altered


def _cause(error: Exception) -> str:
    """The message of a worker's exception, which Beam passes on as the text of its traceback."""
    text = str(error)
    pattern = r"^(?:[a-z_]\w*\.)*[A-Z]\w*: (.+?)(?: \[while running .*)?$"
    # An error of gRPC has its message on a line of its own, after the one with its name.
    lines = re.findall(r'^\s+details = "(.+)"$', text, re.MULTILINE)
    lines = lines or re.findall(pattern, text, re.MULTILINE)
    return str(lines[-1]) if lines else f"{type(error).__name__}: {text}"
