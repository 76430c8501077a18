"""A job server with two workers, which stands for that of a cluster.

    python tests/job_server.py PORT

It is Beam's local one behind gRPC. That starts a single worker; this one asks the worker pool that
the pipeline names for two.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from apache_beam.portability.api import beam_job_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.portability.local_job_service import BeamJob, LocalJobServicer


class TwoWorkers(BeamJob):  # type: ignore[misc]
    """A job on two workers."""

    def _invoke_runner(self) -> Any:
        self.set_state(beam_job_api_pb2.JobState.RUNNING)
        runner = fn_runner.FnApiRunner(provision_info=self._provision_info)
        runner._num_workers = 2
        return runner.run_via_runner_api(self._pipeline_proto, self.pipeline_options())


if __name__ == "__main__":
    LocalJobServicer(beam_job_type=TwoWorkers).start_grpc_server(int(sys.argv[1]))
    while True:
        time.sleep(3600)
