"""`flink` and `spark`: which options they need, and which messages they give before a search."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
)

from local_cloud import free_port
from scenebeam.errors import RequestError, RunnerError
from scenebeam.execution.driver import run
from scenebeam.execution.runners import check_runner
from scenebeam.execution.runners.flink import arguments_for
from scenebeam.planning.plan import Plan
from scenebeam.request import RunRequest
from scenebeam.status import STATUS_FILE, RunStatus

Make = Callable[..., RunRequest]
POOL = {
    "job_endpoint": "flink:8099",
    "environment_type": "EXTERNAL",
    "environment_config": "localhost:50000",
}


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in POOL.items() if key != name}


@pytest.mark.parametrize("kind", ["flink", "spark"])
@pytest.mark.parametrize(
    "options",
    [
        POOL,
        {**POOL, "job_endpoint": "[::1]:8099"},
        {**POOL, "parallelism": 4, "experiments": ["a", "b"]},
        {**POOL, "environment_type": "DOCKER", "environment_config": "example.org/worker:1"},
        {**POOL, "environment_type": "PROCESS", "environment_config": '{"command": "/boot"}'},
        {**without("environment_config"), "environment_type": "LOOPBACK"},
    ],
)
def test_options_that_name_a_job_server_and_its_workers(
    make_request: Make, kind: str, options: dict[str, Any]
) -> None:
    check_runner(make_request(runner={"kind": kind, "options": options}))


@pytest.mark.parametrize("kind", ["flink", "spark"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "needs job_endpoint, the address of a Beam job server, such as localhost:8099"),
        ({**POOL, "job_endpoint": "flink"}, "job_endpoint: 'flink' is not an address"),
        ({**POOL, "job_endpoint": "http://flink:8099"}, "give host:port, without a scheme"),
        ({**POOL, "job_endpoint": "flink:80990"}, "is not an address"),
        ({**POOL, "job_endpoint": "embed"}, "'embed' is not an address"),
        (without("environment_type"), "needs the type of workers; known: EXTERNAL, DOCKER"),
        ({**POOL, "environment_type": "EXTERN"}, "did you mean 'EXTERNAL'"),
        ({**POOL, "environment_type": ["DOCKER"]}, "is not a type of workers"),
        (without("environment_config"), "the address of a worker pool, such as localhost:50000"),
        ({**POOL, "environment_config": "pool"}, "environment_config: 'pool' is not an address"),
        ({**without("environment_config"), "environment_type": "DOCKER"}, "the worker image, such"),
        ({**POOL, "environment_type": "PROCESS"}, "is not JSON with the command of a worker"),
        ({**POOL, "environment_type": "PROCESS", "environment_config": "{}"}, "is not JSON with"),
        ({**POOL, "environment_type": "LOOPBACK"}, "LOOPBACK takes none; remove it"),
        ({**POOL, "job_endpont": "flink:8099"}, "did you mean 'job_endpoint'"),
        ({**POOL, "parallelsm": 4}, "did you mean 'parallelism'"),
    ],
)
def test_options_that_cannot_work_are_refused_before_a_search(
    make_request: Make, tmp_path: Path, kind: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(RequestError) as refused:
        run(make_request(runner={"kind": kind, "options": options}))
    assert said in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_a_job_server_that_does_not_answer_is_named(make_request: Make, tmp_path: Path) -> None:
    endpoint = f"localhost:{free_port()}"
    request = make_request(runner={"kind": "flink", "options": {**POOL, "job_endpoint": endpoint}})
    with pytest.raises(RunnerError, match=f"no job server answers at {endpoint} .* to resume"):
        run(request)
    status = RunStatus.model_validate_json((tmp_path / "out" / STATUS_FILE).read_bytes())
    assert (status.state, status.runner) == ("failed", "flink")
    resumed = run(request.model_copy(update={"runner": make_request().runner}))
    assert resumed.state == "succeeded"


def test_workers_are_the_parallelism_of_flink(make_request: Make) -> None:
    def parallelism(**runner: Any) -> int:
        request = make_request(runner={"kind": "flink", **runner})
        parsed = PipelineOptions(arguments_for(Plan(request, ())))
        assert parsed.view_as(StandardOptions).runner == "FlinkRunner"
        assert parsed.view_as(PortableOptions).environment_config == "localhost:50000"
        return int(parsed.view_as(FlinkRunnerOptions).parallelism)

    assert parallelism(options=POOL) == -1, "the job server's default"
    assert parallelism(options=POOL, workers=4) == 4
    assert parallelism(options={**POOL, "parallelism": 8}, workers=4) == 8


def test_a_misspelled_kind_suggests_flink(make_request: Make) -> None:
    with pytest.raises(RequestError, match="did you mean 'flink'"):
        check_runner(make_request(runner={"kind": "flnk", "options": POOL}))


def test_beams_own_names_take_any_option(make_request: Make) -> None:
    for kind in ("PortableRunner", "PrismRunner", "FlinkRunner", "scenebeam.tests.OwnRunner"):
        check_runner(make_request(runner={"kind": kind, "options": {"of_the_job_server": True}}))
