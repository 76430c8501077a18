"""Claims and statuses of a deployment: any interleaving of its functions, with crashes, lost answers and wrong clocks.

The functions, the state and the clients of Dataflow are the real ones. Dataflow is the stand-in of
the tests, and the clocks are the machine's.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import types
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

from actors import Actor, Crash, Fault, Times, current_actor, stepped
from google.api_core.exceptions import ServiceUnavailable
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from local_dataflow import RUNNING, Dataflow
from scenebeam.cloud import launch, report
from scenebeam.cloud.jobs import DataflowJobs
from scenebeam.cloud.launch import LaunchError, LaunchHandler, RetryableError
from scenebeam.cloud.launchers import DataflowLauncher
from scenebeam.cloud.messages import Message
from scenebeam.cloud.report import StatusUpdater
from scenebeam.cloud.runs import RUN_LABEL, Runs
from scenebeam.cloud.settings import CloudSettings
from scenebeam.errors import StorageError
from scenebeam.request import RunRequest
from scenebeam.status import STATUS_FILE, RunStatus, State
from scenebeam.storage import Store, open_store

CLAIM_SECONDS = FUNCTION_SECONDS = 120
TASKS = 8
_MOST_ACTORS = 5
_REQUEST: dict[str, Any] = {
    "run": "demo",
    "catalog": "earth-search",
    "collections": ["sentinel-2-l2a"],
    "area": {"bbox": [23.9, 40.5, 24.1, 40.7]},
    "dates": "2023-06",
    "product": {"kind": "mosaic", "bands": ["red"]},
    "output": "gs://products/demo",
}
REQUESTS = {
    "run": _REQUEST,
    "series": {**_REQUEST, "series": True, "dates": "2024-01-01/..", "output": "gs://products/series"},
}  # fmt: skip
"""A run, and a series: new messages launch that after a success too."""
_STATES = ("queued", "running", "ended")
FAULTS: st.SearchStrategy[Fault] = st.sampled_from(["", "", "", "", "lost", "error"])


@dataclass
class Job:
    """What a job of the stand-in has done."""

    run: str
    name: str
    began: datetime | None = None
    done: int = 0
    reported: RunStatus | None = None
    """Its last words."""


class CloudMachine(RuleBasedStateMachine):
    """Rules and invariants."""

    dataflow: Dataflow
    """The stand-in, of all examples."""
    bucket = ""
    """`gs://` prefix of the state; a local folder if empty."""
    examples = steps = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).examples += 1
        self.stack, self.times = ExitStack(), Times()
        if self.bucket:
            self.base = f"{self.bucket}/{uuid.uuid4().hex}"
            # The emulator keeps objects in memory.
            store = open_store(self.base)
            self.stack.callback(lambda: store.delete(store.list()))
        else:
            self.base = tempfile.mkdtemp()
            self.stack.callback(shutil.rmtree, self.base)
        self.dataflow.jobs.clear()
        self.dataflow.launches.clear()
        self.settings = CloudSettings(
            state=f"{self.base}/state",
            outputs=("gs://products",),
            claim_seconds=CLAIM_SECONDS,
            project="p",
            region="r",
            template="gs://t/x.json",
            temp_location="gs://t/tmp",
            dataflow_endpoint=self.dataflow.url,
        )
        self.patch_clocks()
        self.runs = Runs(stepped(open_store(self.settings.state), self.times))
        assert self.runs.open_ids() == []
        self.outputs: dict[str, Store] = {}
        self.actors: list[Actor] = []
        self.messages: list[Message] = []
        self.waiting: dict[str, Message] = {}
        """Messages that have not been acknowledged, by id."""
        self.jobs: dict[str, Job] = {}
        self.seen: dict[str, RunStatus] = {}
        self.disturbed = False
        """Whether an instance has crashed, an operation has failed, or time has passed."""

    def patch_clocks(self) -> None:
        def now() -> datetime:
            return datetime.fromtimestamp(self.times.local(), UTC).replace(microsecond=0)

        def enter(target: Any, **values: Any) -> None:
            self.stack.enter_context(patch.multiple(target, **values))

        enter(launch, now=now, time=types.SimpleNamespace(time=self.times.local))
        enter(report, now=now, open_store=self.open_output)
        enter("tenacity.nap", time=types.SimpleNamespace(sleep=lambda _: None))

    def open_output(self, uri: str) -> Store:
        if uri not in self.outputs:
            folder = uri.removeprefix("gs://")
            self.outputs[uri] = stepped(open_store(f"{self.base}/{folder}"), self.times)
        return self.outputs[uri]

    # Messages ------------------------------------------------------------------------------------

    @rule(kind=st.sampled_from(sorted(REQUESTS)), skew=st.sampled_from([-5, 0, 5]))
    @precondition(lambda self: len(self.actors) < _MOST_ACTORS)
    def publish(self, kind: str, skew: float) -> None:
        message = Message(f"m{len(self.messages)}", json.dumps(REQUESTS[kind]).encode())
        self.messages.append(message)
        self.waiting[message.id] = message
        self.deliver(message, skew)

    @rule(data=st.data(), skew=st.sampled_from([-5, 0, 5]))
    @precondition(lambda self: self.messages and len(self.actors) < _MOST_ACTORS)
    def redeliver(self, data: st.DataObject, skew: float) -> None:
        """A message is delivered again, whether it was acknowledged or not."""
        number = data.draw(st.integers(0, len(self.messages) - 1))
        self.deliver(self.messages[number], skew)

    def deliver(self, message: Message, skew: float) -> None:
        handler = LaunchHandler(self.settings, self.runs, Launcher(self), lambda *words: None)

        def work() -> None:
            handler.handle(message)
            self.waiting.pop(message.id, None)

        self.start(f"launch {message.id}", work, skew)

    # Statuses ------------------------------------------------------------------------------------

    @rule(data=st.data(), skew=st.sampled_from([-5, 0, 5]))
    @precondition(lambda self: self.seen and len(self.actors) < _MOST_ACTORS)
    def refresh(self, data: st.DataObject, skew: float) -> None:
        run = data.draw(st.sampled_from([*sorted(self.seen), ""]))
        updater = self.updater()
        work: Callable[[], Any] = (lambda: updater.refresh(run)) if run else updater.sweep
        self.start(f"report {run}", work, skew)

    def updater(self) -> StatusUpdater:
        return StatusUpdater(self.settings, self.runs, Jobs(self), lambda *words: None)

    # Instances -----------------------------------------------------------------------------------

    def start(self, name: str, work: Callable[[], Any], skew: float) -> None:
        self.actors.append(Actor(name, work, self.times.now, skew))

    @rule(data=st.data(), fault=FAULTS, count=st.integers(1, 8))
    @precondition(lambda self: self.actors)
    def step(self, data: st.DataObject, fault: Fault, count: int) -> None:
        actor = data.draw(st.sampled_from(self.actors))
        self.disturbed |= fault != ""
        for number in range(count):
            if not actor.done:
                actor.step(fault if number == count - 1 else "")
                self.check_statuses()
        self.note_end(actor)

    @rule(data=st.data())
    @precondition(lambda self: self.actors)
    def finish(self, data: st.DataObject) -> None:
        self.complete(data.draw(st.sampled_from(self.actors)))

    def complete(self, actor: Actor) -> None:
        while not actor.done:
            actor.step()
            self.check_statuses()
        self.note_end(actor)

    @rule(data=st.data())
    @precondition(lambda self: self.actors)
    def crash(self, data: st.DataObject) -> None:
        actor = data.draw(st.sampled_from(self.actors))
        self.disturbed = True
        actor.crash()
        self.note_end(actor)

    def note_end(self, actor: Actor) -> None:
        if not actor.done:
            return
        self.actors.remove(actor)
        expected = (Crash, RetryableError, StorageError, ServiceUnavailable)
        if actor.error is not None and not isinstance(actor.error, expected):
            raise actor.error

    @rule(seconds=st.sampled_from([1, 60, CLAIM_SECONDS + 1, 1900]))
    def wait(self, seconds: float) -> None:
        """Time passes. Cloud Run ends instances that take too long."""
        self.times.now += seconds
        for actor in list(self.actors):
            self.disturbed = True
            if self.times.now - actor.started > FUNCTION_SECONDS:
                actor.crash()
                self.note_end(actor)

    # Jobs ----------------------------------------------------------------------------------------

    def active(self) -> list[str]:
        return [id for id, job in self.dataflow.jobs.items() if job["currentState"] == RUNNING]

    def working(self) -> list[str]:
        """Jobs that have begun, and have not reported their end."""
        return [id for id in self.active() if self.jobs[id].began and not self.jobs[id].reported]

    @rule(data=st.data(), count=st.integers(0, 3), read=st.integers(0, 5))
    @precondition(lambda self: self.active())
    def work(self, data: st.DataObject, count: int, read: int) -> None:
        """A job begins, or finishes some tasks."""
        id = data.draw(st.sampled_from(self.active()))
        job = self.jobs[id]
        if job.began is None:
            self.begin(job)
        elif job.reported is None:
            counts = self.dataflow.jobs[id].setdefault("counts", {"tasks_done": 0, "read_bytes": 0})
            job.done = min(job.done + count, TASKS)
            counts["tasks_done"] += count
            counts["read_bytes"] += read

    def begin(self, job: Job) -> None:
        # A job takes longer to start, and to end, than clocks differ.
        self.wait(30)
        job.began = datetime.fromtimestamp(self.times.now, UTC).replace(microsecond=0)
        self.write_report(job, "running")

    @rule(data=st.data(), state=st.sampled_from(["succeeded", "partial", "failed"]))
    @precondition(lambda self: self.working())
    def report_end(self, data: st.DataObject, state: State) -> None:
        self.report_job(self.jobs[data.draw(st.sampled_from(self.working()))], state)

    def report_job(self, job: Job, state: State) -> None:
        self.wait(30)
        job.done = TASKS if state == "succeeded" else job.done
        job.reported = self.write_report(job, state)

    def write_report(self, job: Job, state: State) -> RunStatus:
        """What the driver and the pipeline write into the output."""
        request = self.request_of(job.run)
        ended = state != "running"
        status = RunStatus(
            run=request.run,
            state=state,
            fingerprint=request.fingerprint(),
            tasks=TASKS,
            done=job.done if ended else 0,
            started=job.began,
            finished=job.began if ended else None,
            message=job.name,
        )
        self.open_output(request.output).write(STATUS_FILE, status.to_bytes())
        return status

    def request_of(self, run: str) -> RunRequest:
        content = self.runs.store.read(self.runs.key(run, "request"))
        assert content is not None
        return RunRequest.model_validate_json(content)

    @rule(data=st.data(), state=st.sampled_from(["DONE", "FAILED", "CANCELLED", ""]))
    @precondition(lambda self: self.active())
    def end_job(self, data: st.DataObject, state: str) -> None:
        """A job ends, or Dataflow no longer knows it."""
        id = data.draw(st.sampled_from(self.active()))
        self.wait(30)
        if state:
            self.dataflow.jobs[id]["currentState"] = f"JOB_STATE_{state}"
        else:
            # The stand-in numbers jobs by their count, so the entry stays under another id.
            self.dataflow.jobs[f"gone-{id}"] = {
                **self.dataflow.jobs.pop(id),
                "currentState": "GONE",
            }

    # Invariants ----------------------------------------------------------------------------------

    @invariant()
    def count(self) -> None:
        type(self).steps += 1

    @invariant()
    def one_job_at_a_time(self) -> None:
        """A run has one job that works, and each message has launched a job of its own at most."""
        working = [self.jobs[id].run for id in self.active() if not self.jobs[id].reported]
        assert len(working) == len(set(working)), f"two jobs of a run: {working}"
        for run in {job.run for job in self.jobs.values()}:
            names = [job.name for job in self.jobs.values() if job.run == run]
            assert len(set(names)) <= len(self.messages)
            if not self.disturbed:
                assert len(names) == len(set(names)), f"launched twice: {names}"

    def check_statuses(self) -> None:
        """Called after each operation."""
        order = [*self.jobs, "none"]
        for run in self.runs.ids():
            status, before = self.runs.status(run), self.seen.get(run)
            assert status is not None
            self.seen[run] = status
            assert 0 <= status.done <= status.tasks
            if not status.ended:
                marker = f"open/{run}+{status.job}"
                assert self.runs.store.size(marker) is not None, f"{marker} is missing"
            if before is None or before == status:
                continue
            if before.job != status.job:
                assert before.ended, f"{before.job} is replaced by {status.job} before it ended"
                if "none" not in (before.job, status.job):
                    assert order.index(before.job) < order.index(status.job), "an earlier launch"
                continue
            assert not before.ended, f"{status.job} ended as {before.state}, now {status.state}"
            assert rank(before) <= rank(status)
            if not status.ended:
                assert before.done <= status.done
                assert before.read_bytes <= status.read_bytes

    def teardown(self) -> None:
        try:
            self.settle()
        finally:
            for actor in self.actors:
                if not actor.done:
                    actor.crash()
            self.stack.close()

    def settle(self) -> None:
        """Without further faults, every run comes to its end, and its status says which."""
        for actor in list(self.actors):
            self.complete(actor)
        for _ in range(4):
            for message in list(self.waiting.values()):
                self.deliver(message, 0)
                self.complete(self.actors[-1])
            self.wait(CLAIM_SECONDS + 1)
        assert not self.waiting, "a message is never acknowledged"
        self.end_all()
        for run, status in self.seen.items():
            assert status.ended
            claim = self.runs.claim(run)
            assert claim is not None
            assert claim[0].job == status.job, "the status is that of an earlier launch"
            job = self.jobs.get(status.job)
            if job is not None and job.reported is not None:
                assert status.state == job.reported.state, (status, job)
                assert status.done == job.reported.done
        assert self.runs.open_ids() == []

    def end_all(self) -> None:
        for id in self.active():
            job = self.jobs[id]
            if job.began is None:
                self.begin(job)
            if job.reported is None:
                self.report_job(job, "succeeded")
            self.dataflow.jobs[id]["currentState"] = "JOB_STATE_DONE"
        self.wait(3600)
        for _ in range(2):
            self.start("report", self.updater().sweep, 0)
            self.complete(self.actors[-1])


class BucketCloudMachine(CloudMachine):
    """The same with a state bucket, on the emulator."""

    bucket = "gs://bucket"


def rank(status: RunStatus) -> int:
    return _STATES.index("ended" if status.ended else status.state)


class Launcher:
    """Dataflow's launcher, stepped, with a fault where the machine wants one."""

    def __init__(self, machine: CloudMachine) -> None:
        self.machine, self.launcher = machine, DataflowLauncher(machine.settings)

    def launch(self, run: str, job_name: str, request_uri: str, request: RunRequest) -> str:
        actor = current_actor()
        assert actor is not None
        fault = actor.wait()
        if fault == "error":
            raise LaunchError("injected")
        id = self.launcher.launch(run, job_name, request_uri, request)
        for known, job in self.machine.dataflow.jobs.items():
            if known not in self.machine.jobs and not known.startswith("gone-"):
                self.machine.jobs[known] = Job(job["labels"][RUN_LABEL], job["name"])
        if fault == "lost":
            raise RetryableError("the answer is lost")
        return id


class Jobs:
    """Dataflow's monitor, stepped."""

    def __init__(self, machine: CloudMachine) -> None:
        self.jobs = DataflowJobs(machine.settings)

    def state(self, job: str) -> str:
        if self.fault():
            raise ServiceUnavailable("injected")
        return self.jobs.state(job)

    def counters(self, job: str) -> dict[str, int]:
        # The client of Dataflow gives none where it cannot ask for them.
        return {} if self.fault() else self.jobs.counters(job)

    def fault(self) -> Fault:
        actor = current_actor()
        assert actor is not None
        return actor.wait()
