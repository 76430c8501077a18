"""Launch: a message starts a run, once, however often it comes; one that never can is put aside."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from scenebeam.cloud.guard import authorize, normal_below
from scenebeam.cloud.messages import Message
from scenebeam.cloud.runs import Claim, Runs, run_id
from scenebeam.cloud.settings import CloudSettings
from scenebeam.errors import RequestError, SceneBeamError, unexpected
from scenebeam.request import RunRequest
from scenebeam.status import RunStatus, now
from scenebeam.storage import open_store

REJECTED = "rejected/"
_LARGEST = 10_000_000
_LARGEST_DEAD_LETTER = 9_000_000
"""Bytes of a message that Pub/Sub takes, less its attributes."""
_LONGEST_ATTRIBUTE = 1000
"""Bytes; Pub/Sub takes 1,024."""
log = logging.getLogger(__name__)


class RetryableError(SceneBeamError):
    """What may be otherwise when the message comes again."""


class LaunchError(SceneBeamError):
    """The job cannot be started, now or later: somebody has to mend the deployment."""


class Launcher(Protocol):
    """What starts a run."""

    def launch(self, run: str, job_name: str, request_uri: str, request: RunRequest) -> str:
        """Start a job and give its id; of a job of that name that goes already, its own.

        Raises RetryableError for what may pass, LaunchError for what will not.
        """
        ...


Publish = Callable[[str, bytes, dict[str, str]], None]
"""(topic, data, attributes)."""


@dataclass
class Launch:
    """What launching needs."""

    settings: CloudSettings
    runs: Runs
    launcher: Launcher
    publish: Publish

    def handle(self, message: Message) -> RunStatus:
        """Start the run that a message asks for, if it has not been started; its status, or that it is rejected.

        Raises RetryableError, StorageError and the like where the message is to come again.
        """
        try:
            request, run = self._admitted(self._content(message))
        except RequestError as error:
            return self.reject(message, str(error))
        claim = self._claimed(run, message)
        if claim is None:
            return self._status(run, request)
        return self._start(run, claim, request)

    def _admitted(self, content: bytes) -> tuple[RunRequest, str]:
        """The request as it may run here, and its run's id.

        Raises RequestError for every fault, also for one that nobody foresaw: the same text would
        fail in the same way each time that the message comes again.
        """
        try:
            request = authorize(content, self.settings)
            return request, run_id(request)
        except (RequestError, MemoryError):
            raise
        except Exception as error:
            log.exception("a request cannot be read")
            raise RequestError(unexpected(error)) from error

    def _content(self, message: Message) -> bytes:
        if not message.reference:
            return message.content
        reference = normal_below(message.reference, self.settings.requests)
        if reference is None:
            allowed = (
                " or ".join(self.settings.requests) or "any prefix: SCENEBEAM_REQUESTS is empty"
            )
            raise RequestError(f"{message.reference[:200]} does not lie below {allowed}")
        folder, _, name = reference.rpartition("/")
        if not name:
            raise RequestError(f"{message.reference[:200]} is a folder: name a request file in it")
        store = open_store(folder)
        size = store.size(name)
        if size is not None and size > _LARGEST:
            raise RequestError(f"{message.reference[:200]} is larger than {_LARGEST:,} bytes")
        content = None if size is None else store.read(name)
        if content is None:
            raise RequestError(f"{message.reference[:200]} is not there")
        return content

    def _claimed(self, run: str, message: Message) -> Claim | None:
        """A claim of our own; None where the message needs no answer any more."""
        found = self.runs.claim(run)
        if found is None:
            ours, version = Claim(message=message.id, since=time.time()), None
        else:
            claim, version = found
            if claim.job:
                status = self.runs.status(run)
                again = status is not None and status.ended and status.state != "succeeded"
                if message.id in (claim.message, *claim.answered) or not again:
                    return None
                ours = Claim(
                    message=message.id, since=time.time(), answered=(*claim.answered, claim.message)
                )
            else:
                age = self.runs.claim_age(run)
                if not claim.released and age < self.settings.claim_seconds:
                    raise RetryableError(f"{run} is being launched since {age:.0f} s")
                ours = claim.model_copy(update={"since": time.time(), "released": False})
        if not self.runs.try_claim(run, ours, version):
            raise RetryableError(f"{run} has just been claimed by another delivery")
        return ours

    def _start(self, run: str, claim: Claim, request: RunRequest) -> RunStatus:
        name = self.runs.name(run, "request")
        self.runs.store.write(name, (request.model_dump_json(indent=2) + "\n").encode())
        job_name = f"scenebeam-{run}" + (f"-{len(claim.answered)}" if claim.answered else "")
        fault = ""
        try:
            job = self.launcher.launch(run, job_name, self.runs.store.path(name), request)
        except LaunchError as error:
            job, fault = "none", str(error)
        except BaseException:
            self._record_job(
                run, claim.model_copy(update={"released": True})
            )  # the next delivery need not wait
            raise
        self._record_job(run, claim.model_copy(update={"job": job}))
        fresh = _launched(run, request, job, fault)
        return self._told(self.runs.update(run, lambda before: _later(before, fresh)))

    def _record_job(self, run: str, claim: Claim) -> None:
        found = self.runs.claim(run)
        if found is not None and found[0].message == claim.message:
            self.runs.try_claim(run, claim, found[1])

    def _status(self, run: str, request: RunRequest) -> RunStatus:
        """What is known of a run that was launched before; written again where that was lost in a crash."""
        claim = self.runs.claim(run)
        assert claim is not None, "it has just been read"
        told = _launched(run, request, claim[0].job)
        return self.runs.update(run, lambda before: before or told)

    def reject(self, message: Message, reason: str) -> RunStatus:
        """Record a message that can never start a run, and pass it on to the dead letters."""
        reason = _printable(reason)[:2000]
        name = re.sub(r"[^A-Za-z0-9_-]", "_", message.id)[:80] or "unnamed"
        status = RunStatus(
            run="rejected", state="rejected", id=name, updated=now(), finished=now(), message=reason
        )
        self.runs.store.create(f"{REJECTED}{name}.json", status.to_bytes())
        if self.settings.dead_letter_topic:
            content = message.content or _printable(message.reference).encode()
            attributes = {"reason": _cut(reason[:500], _LONGEST_ATTRIBUTE), "message": name}
            if len(content) > _LARGEST_DEAD_LETTER:
                attributes["left_out"] = f"{len(content)} bytes"
                content = b""
            self.publish(self.settings.dead_letter_topic, content, attributes)
        return status

    def _told(self, status: RunStatus) -> RunStatus:
        if self.settings.status_topic:
            self.publish(
                self.settings.status_topic,
                status.to_bytes(),
                {"run": status.id, "state": status.state},
            )
        return status


def _launched(run: str, request: RunRequest, job: str, fault: str = "") -> RunStatus:
    """A run that waits for its job, or, with a fault, will never have one."""
    return RunStatus(
        run=request.run,
        state="failed" if fault else "queued",
        id=run,
        job=job,
        fingerprint=request.fingerprint(),
        output=request.output,
        started=now(),
        updated=now(),
        message=fault,
    )


def _printable(text: str) -> str:
    """Without halves of characters, which JSON may hold and UTF-8 may not."""
    return text.encode("utf-8", "replace").decode()


def _cut(text: str, size: int) -> str:
    """The beginning of a text that takes so many bytes at most."""
    return text.encode()[:size].decode(errors="ignore")


def _later(before: RunStatus | None, fresh: RunStatus) -> RunStatus:
    """What was just launched, unless the job has said more of itself already."""
    return (
        before
        if before is not None and before.job == fresh.job and before.state != "queued"
        else fresh
    )
