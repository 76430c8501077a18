"""Which runner, with which options; and that all of them give the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, WorkerOptions

from conftest import tree
from scenebeam.errors import RequestError
from scenebeam.execution.driver import run
from scenebeam.execution.explain import explain
from scenebeam.execution.runners import choose_runner
from scenebeam.execution.runners.dataflow import arguments_for
from scenebeam.planning.cost import advice, dataflow_cost
from scenebeam.planning.plan import Plan
from scenebeam.planning.search import make_plan
from scenebeam.request import Runner, RunRequest
from scenebeam.tasks import Estimate, Task

Make = Callable[..., RunRequest]


@pytest.mark.parametrize(
    ("blocks", "kind"), [(0, "serial"), (99, "serial"), (100, "direct"), (10**6, "direct")]
)
def test_auto_goes_by_blocks(make_request: Make, blocks: int, kind: str) -> None:
    task = Task(id="a", outputs=(), item_path="a", estimate=Estimate(blocks=blocks))
    assert choose_runner(Plan(make_request(runner="auto"), (task,))) == kind
    assert choose_runner(Plan(make_request(runner="dataflow"), (task,))) == "dataflow"


def test_thresholds_of_auto_are_the_requests(make_request: Make) -> None:
    def kind(blocks: int, output: str = "gs://bucket/run", **runner: object) -> str:
        task = Task(id="a", outputs=(), item_path="a", estimate=Estimate(blocks=blocks))
        request = make_request(runner={"kind": "auto", **runner}, output=output)
        return choose_runner(Plan(request, (task,)))

    cluster: dict[str, Any] = {
        "options": {"project": "p", "region": "r", "temp_location": "gs://bucket/tmp"}
    }
    assert [kind(blocks, **cluster) for blocks in (99, 100, 999, 1000)] == [
        "serial",
        "direct",
        "direct",
        "dataflow",
    ]
    assert [kind(blocks) for blocks in (999, 10**6)] == ["direct", "direct"], "no cluster is named"
    assert kind(10**6, output="out", **cluster) == "direct", "a cluster cannot write to this disk"
    assert [kind(20, serial_blocks=10, local_blocks=n, **cluster) for n in (30, 20)] == [
        "direct",
        "dataflow",
    ]


def test_what_only_waits_needs_no_beam_here(make_request: Make) -> None:
    task = Task(id="a", outputs=(), item_path="a", estimate=Estimate(blocks=10**6))
    request = make_request(runner="auto", product={"kind": "assets"})
    assert choose_runner(Plan(request, (task,))) == "serial"


def test_dataflow_is_advised_where_this_machine_would_take_hours() -> None:
    assert advice(Estimate(pixels=10**8), Runner()) == ""
    told = advice(Estimate(pixels=10**12, read_bytes=10**13), Runner())
    assert "h on this machine" in told
    assert "USD" in told


def test_more_workers_are_faster_and_start_for_more_money() -> None:
    work = Estimate(pixels=10**12)
    few, many = Runner(workers=10), Runner(workers=100)
    assert dataflow_cost(work, few)[0] > 5 * dataflow_cost(work, many)[0]
    assert dataflow_cost(work, few)[1] < dataflow_cost(work, many)[1]
    assert dataflow_cost(work, Runner(options={"max_num_workers": 10})) == dataflow_cost(work, few)


def test_cores_of_a_machine_type_share_the_work_and_are_all_paid() -> None:
    work = Estimate(pixels=10**14)
    small = Runner(options={"machine_type": "n2-standard-2"})
    large = Runner(options={"worker_machine_type": "n2-standard-8"})
    assert dataflow_cost(work, Runner()) == dataflow_cost(work, small)
    assert dataflow_cost(work, small)[0] > 3 * dataflow_cost(work, large)[0]
    assert dataflow_cost(work, large)[1] == pytest.approx(dataflow_cost(work, small)[1], rel=0.1)


def test_direct_makes_the_same_bytes_as_serial(make_request: Make, tmp_path: Path) -> None:
    trees = []
    for kind in ("serial", "direct"):
        request = make_request(output=str(tmp_path / kind), runner=kind)
        status = run(request)
        assert status.state == "succeeded"
        assert status.runner == kind
        assert status.read_bytes > 0
        trees.append(tree(tmp_path / kind))
    assert trees[0] == trees[1]


def test_dataflow_options(make_request: Make) -> None:
    options = {
        "project": "p",
        "region": "europe-west1",
        "temp_location": "gs://b/tmp",
        "machine_type": "n2-standard-4",
    }
    request = make_request()
    plan = make_plan(request)
    on_gcs = request.model_copy(
        update={
            "output": "gs://bucket/run",
            "runner": Runner(kind="dataflow", workers=7, options=options),
        }
    )
    arguments = arguments_for(replace(plan, request=on_gcs))
    parsed = PipelineOptions(arguments)
    assert parsed.view_as(GoogleCloudOptions).region == "europe-west1"
    assert (
        parsed.view_as(GoogleCloudOptions).job_name == f"scenebeam-test-{request.fingerprint()[:8]}"
    )
    assert parsed.view_as(WorkerOptions).machine_type == "n2-standard-4"
    assert parsed.view_as(WorkerOptions).max_num_workers == 7
    assert "--no_save_main_session" in arguments


def test_dataflow_without_its_options_or_a_bucket_is_refused(make_request: Make) -> None:
    with pytest.raises(RequestError, match="project, region, temp_location"):
        run(make_request(runner="dataflow"))
    options = {"project": "p", "region": "r", "temp_location": "gs://b/t"}
    with pytest.raises(RequestError, match="gs://"):
        run(make_request(runner={"kind": "dataflow", "options": options}))


def test_an_unknown_runner_is_refused(make_request: Make) -> None:
    with pytest.raises(RequestError, match="SparkleRunner"):
        run(make_request(runner="SparkleRunner"))


@pytest.mark.parametrize(
    ("runner", "said"),
    [
        ("FooRunner", "is not known to Beam"),
        ("serail", "did you mean 'serial'"),
        ({"kind": "dataflow"}, "Dataflow needs project, region, temp_location"),
        ({"kind": "dataflow", "options": {"project": "p", "region": "r", "temp_location": "gs://t"}}, "share no disk"),
    ],
)  # fmt: skip
def test_a_runner_that_cannot_run_leaves_a_finished_output_alone(
    make_request: Make, runner: Any, said: str
) -> None:
    request = make_request(**{"product.bands": ["scl"]})
    run(request)
    before = tree(Path(request.output), ())
    refused = make_request(**{"product.bands": ["scl"]}, runner=runner)
    with pytest.raises(RequestError, match=said):
        run(refused)
    with pytest.raises(RequestError, match=said):
        explain(make_plan(refused))
    assert tree(Path(request.output), ()) == before
