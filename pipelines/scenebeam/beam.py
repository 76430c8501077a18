"""Beam: the products of scenebeam as a step of a pipeline of your own.

    import apache_beam as beam
    import scenebeam
    from scenebeam.beam import MakeProducts

    outputs = [scenebeam.freeze(request) for request in requests]
    with beam.Pipeline(options=options) as pipeline:
        statuses = pipeline | beam.Create(outputs) | MakeProducts()

Catalogs are searched where the pipeline is built, so that one client asks them; workers read and
write pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import apache_beam as beam

from scenebeam.execution.engine import MakeAll, MakeOptions, all_ranges, report
from scenebeam.planning.plan import read_plan
from scenebeam.planning.start import new_status
from scenebeam.report.outcomes import OUTCOMES_PREFIX
from scenebeam.status import RunStatus, now
from scenebeam.storage import open_store


class MakeProducts(beam.PTransform):  # type: ignore[misc]
    """Make the products of frozen plans, and report on them.

    The input is a PCollection of URIs of outputs, as `scenebeam.freeze` returns them. The output is
    a PCollection of `scenebeam.RunStatus`, one for each. Tasks of all outputs are spread over the
    workers together. Products that exist are kept, so a pipeline that is run again resumes.
    """

    def expand(self, outputs: Any) -> Any:
        """Apply the transform."""
        options = MakeOptions(f"{OUTCOMES_PREFIX}{now():%Y%m%dT%H%M%SZ}/")
        return (
            outputs
            | "Ranges" >> beam.Map(all_ranges)
            | "Make" >> MakeAll(options)
            | "Report" >> beam.Map(_report)
        )


def _report(made: tuple[str, Iterable[str]]) -> RunStatus:
    store = open_store(made[0])
    plan = read_plan(store)
    assert plan is not None, "its tasks have just been made"
    status = new_status(plan, store, "beam")
    return RunStatus.model_validate_json(report(made, status.model_dump_json()))
