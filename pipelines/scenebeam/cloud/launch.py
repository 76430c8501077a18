"""Launch runs: start the run that a request message describes, exactly once.

Pub/Sub delivers a message at least once, and functions can crash at any point, so launching is
idempotent. The id of a run is derived from its request. A run is claimed with a generation
precondition before its job is launched, and the name of the job is derived from the claim, so that
Dataflow refuses a second active job. Messages that can never start a run are rejected.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from scenebeam.cloud.guard import authorize, normal_below
from scenebeam.cloud.ledger import Ledger
from scenebeam.cloud.messages import MAX_REQUEST_BYTES, Message
from scenebeam.cloud.runs import REJECTED, Claim, Runs, run_id
from scenebeam.cloud.settings import CloudSettings
from scenebeam.errors import RequestError, SceneBeamError, unexpected
from scenebeam.request import RunRequest
from scenebeam.status import RunStatus, now
from scenebeam.storage import open_store

_MAX_DEAD_LETTER_BYTES = 9_000_000
"""Pub/Sub's limit is 10 MB per message, including its attributes."""
_MAX_ATTRIBUTE_BYTES = 1000
"""Pub/Sub's limit is 1,024 bytes per attribute value."""
_MAX_ANSWERED = 100
"""Messages that a claim remembers: Pub/Sub redelivers a message for days at most."""
_MAX_REASON = 2000
"""Characters of a rejection's reason in the status."""
log = logging.getLogger(__name__)


class RetryableError(SceneBeamError):
    """A transient failure: redelivering the message may succeed."""

    kind = "RetryableError"


class LaunchError(SceneBeamError):
    """A permanent failure to start the job: the deployment has to be fixed first."""

    kind = "LaunchError"


class Launcher(Protocol):
    """Starts jobs."""

    def launch(self, run: str, job_name: str, request_uri: str, request: RunRequest) -> str:
        """Start a job for a run. Idempotent per job name.

        Args:
            run: Id of the run.
            job_name: Name of the job; the launcher starts at most one active job per name.
            request_uri: URI of the stored request.
            request: The same request.

        Returns:
            The job's id. If a job of that name is active, its id.

        Raises:
            RetryableError: A transient error.
            LaunchError: The job cannot be started.
        """
        ...


Publish = Callable[[str, bytes, dict[str, str]], None]
"""Publishes a message: (topic, data, attributes)."""


@dataclass
class LaunchHandler:
    """Handles request messages of a deployment."""

    settings: CloudSettings
    runs: Runs
    launcher: Launcher
    publish: Publish

    def handle(self, message: Message) -> RunStatus:
        """Start the run that a message requests, unless it has been started already.

        Args:
            message: A request message, possibly delivered before.

        Returns:
            The status of the run, or a status `rejected` with the reason.

        Raises:
            RetryableError: The message should be delivered again.
            StorageError: The state cannot be read or written; the message should be delivered
                again.
        """
        try:
            request, run = self.authorize(self.read_content(message))
            request = self.within_budget(request)
        except RequestError as error:
            return self.reject(message, str(error))
        return self.launch_request(run, request, message)

    def launch_request(self, run: str, request: RunRequest, message: Message) -> RunStatus:
        """Start a run, unless the message has started it already.

        Args:
            run: Id of the run.
            request: The authorized request.
            message: What asks for it.

        Returns:
            The status of the run.

        Raises:
            RetryableError: Another delivery is launching the run.
        """
        claim = self._claim(run, message, again=request.series is not None)
        if claim is None:
            return self._current_status(run, request)
        return self._start(run, claim, request)

    def reject(self, message: Message, reason: str) -> RunStatus:
        """Record a message that can never start a run, and forward it to the dead-letter topic.

        Args:
            message: The message.
            reason: Why it is rejected.

        Returns:
            The status `rejected` that was recorded.
        """
        reason = _replace_surrogates(reason)[:_MAX_REASON]
        name = re.sub(r"[^A-Za-z0-9_-]", "_", message.id)[:80] or "unnamed"
        status = RunStatus(
            run="rejected", state="rejected", id=name, updated=now(), finished=now(), message=reason
        )
        self.runs.store.create(f"{REJECTED}{name}.json", status.to_bytes())
        if self.settings.dead_letter_topic:
            content = message.content or _replace_surrogates(message.reference).encode()
            attributes = {
                "reason": _truncate_utf8(reason[:500], _MAX_ATTRIBUTE_BYTES),
                "message": name,
            }
            if len(content) > _MAX_DEAD_LETTER_BYTES:
                attributes["left_out"] = f"{len(content)} bytes"
                content = b""
            self.publish(self.settings.dead_letter_topic, content, attributes)
        return status

    def authorize(self, content: bytes) -> tuple[RunRequest, str]:
        """Validate and authorize a request. Returns the request and the id of its run.

        Unexpected exceptions also become RequestErrors: the same text would fail in the same way
        at each redelivery, and the message would be retried forever.
        """
        try:
            request = authorize(content, self.settings)
            return request, run_id(request)
        except (RequestError, MemoryError):
            raise
        except Exception as error:
            log.exception("unexpected error while reading a request")
            raise RequestError(unexpected(error)) from error

    def within_budget(self, request: RunRequest) -> RunRequest:
        """Return a request that may cost what is left of the month's budget.

        Raises:
            RequestError: Nothing is left.
        """
        budget = self.settings.max_monthly_cost
        if budget is None:
            return request
        spent = Ledger(self.runs.store).spent(now())
        left = budget - spent
        if left <= 0:
            raise RequestError(
                f"the deployment has spent about {spent:.2f} USD of {budget:.2f} USD this month "
                "(SCENEBEAM_MAX_MONTHLY_COST)"
            )
        own = request.limits.max_cost
        least = left if own is None else min(own, left)
        limits = request.limits.model_copy(update={"max_cost": least})
        return request.model_copy(update={"limits": limits})

    def read_content(self, message: Message) -> bytes:
        """Return the text of a request, read from its file if the message is a reference."""
        if not message.reference:
            return message.content
        described = message.reference[:200]
        uri = normal_below(message.reference, self.settings.requests)
        if uri is None:
            allowed = " or ".join(self.settings.requests)
            reason = (
                f"is not below {allowed}" if allowed else "is not allowed: set SCENEBEAM_REQUESTS"
            )
            raise RequestError(f"the request file {described} {reason}")
        folder, _, key = uri.rpartition("/")
        if not key:
            raise RequestError(f"{described} is a folder: name a request file in it")
        store = open_store(folder)
        # The size is checked first, so that a huge file is never read into memory.
        size = store.size(key)
        if size is not None and size > MAX_REQUEST_BYTES:
            raise RequestError(
                f"the request file {described} is larger than {MAX_REQUEST_BYTES:,} bytes"
            )
        content = None if size is None else store.read(key)
        if content is None:
            raise RequestError(f"the request file {described} does not exist")
        return content

    def _claim(self, run: str, message: Message, *, again: bool = False) -> Claim | None:
        """Claim a run for a message, so that no other delivery launches it.

        Returns:
            The claim, or None if nothing is to be launched.

        Raises:
            RetryableError: Another delivery is launching the run.
        """
        current = self.runs.claim(run)
        version: str | None
        if current is None:
            present = time.time()
            claim, version = Claim(message=message.id, since=present, began=present), None
        else:
            held, version = current
            if held.job:
                if not self._may_relaunch(run, held, message, again=again):
                    return None
                answered = (*held.answered, held.message)[-_MAX_ANSWERED:]
                present = time.time()
                claim = Claim(
                    message=message.id,
                    since=present,
                    began=present,
                    answered=answered,
                    launches=held.launch_count + 1,
                )
            else:
                age = self.runs.claim_age(run)
                if not held.released and age < self.settings.claim_seconds:
                    raise RetryableError(
                        f"{run} was claimed {age:.0f} s ago and is being launched: try again later"
                    )
                # Take over an abandoned claim without changing what the job's name is derived
                # from. If its owner crashed after the launch, the launcher finds that job.
                claim = held.model_copy(update={"since": time.time(), "released": False})
        if not self.runs.try_claim(run, claim, version):
            raise RetryableError(f"{run} has just been claimed by another delivery")
        return claim

    def _may_relaunch(self, run: str, held: Claim, message: Message, *, again: bool) -> bool:
        """Return whether a message launches a run again.

        It does if it is new, and the run has failed; a series is also launched after a success.
        The status must be that of the last launch, which writes it after its claim.
        """
        if message.id in (held.message, *held.answered):
            return False
        status = self.runs.status(run)
        if status is None or not status.ended or status.job != held.job:
            return False
        return again or status.state != "succeeded"

    def _start(self, run: str, claim: Claim, request: RunRequest) -> RunStatus:
        """Launch the job of a claimed run, and record and publish its first status."""
        request_key = self.runs.key(run, "request")
        self.runs.store.write(request_key, (request.model_dump_json(indent=2) + "\n").encode())
        job_name = f"scenebeam-{run}"
        if claim.launch_count:
            job_name += f"-{claim.launch_count}"
        fault = ""
        try:
            job = self.launcher.launch(run, job_name, self.runs.store.uri_for(request_key), request)
        except LaunchError as error:
            job, fault = "none", str(error)
        except BaseException:
            # Release the claim, so that the next delivery need not wait until it expires.
            self._update_claim(run, claim, released=True)
            raise
        self._update_claim(run, claim, job=job)
        status = self._record_launch(run, claim, _launched_status(run, request, claim, job, fault))
        self._publish_status(status)
        return status

    def _update_claim(self, run: str, claim: Claim, **update: object) -> None:
        """Update our claim, unless another delivery has taken it over."""
        current = self.runs.claim(run)
        if current is not None and current[0] == claim:
            self.runs.try_claim(run, claim.model_copy(update=update), current[1])

    def _record_launch(self, run: str, claim: Claim, launched: RunStatus) -> RunStatus:
        """Store the first status of a launch, unless there is a newer one."""

        def change(current: RunStatus | None) -> RunStatus:
            if current is None or current.job == launched.job:
                return current or launched
            # Read after the status: a later launch writes its claim before its status, so no
            # status of a later launch is replaced, however late this one is.
            stored = self.runs.claim(run)
            assert stored is not None, "claims are never deleted"
            is_latest = stored[0].launch_count == claim.launch_count
            return launched if is_latest and stored[0].job in ("", launched.job) else current

        return self.runs.update(run, change)

    def _current_status(self, run: str, request: RunRequest) -> RunStatus:
        """Return the status of a launched run. Restore it if a crash left none of its launch.

        Raises:
            RetryableError: Another delivery has begun to launch the run again.
        """
        current = self.runs.claim(run)
        assert current is not None, "claims are never deleted"
        claim = current[0]
        if not claim.job:
            raise RetryableError(f"{run} is being launched again: try again later")
        return self._record_launch(run, claim, _launched_status(run, request, claim, claim.job))

    def _publish_status(self, status: RunStatus) -> None:
        if self.settings.status_topic:
            self.publish(
                self.settings.status_topic,
                status.to_bytes(),
                {"run": status.id, "state": status.state},
            )


def _launched_status(
    run: str, request: RunRequest, claim: Claim, job: str, fault: str = ""
) -> RunStatus:
    """Create the first status of a run: queued, or failed if its job could not be launched."""
    # The job may have begun long before, if a crash has left its launch to a later delivery.
    began = datetime.fromtimestamp(claim.began, UTC).replace(microsecond=0)
    return RunStatus(
        run=request.run,
        state="failed" if fault else "queued",
        id=run,
        job=job,
        fingerprint=request.fingerprint(),
        output=request.output,
        started=began if claim.began else now(),
        updated=now(),
        message=fault,
    )


def _replace_surrogates(text: str) -> str:
    """Replace unpaired surrogates, which JSON can contain but UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode()


def _truncate_utf8(text: str, size: int) -> str:
    """Truncate a text to at most `size` bytes of UTF-8, without splitting a character."""
    return text.encode()[:size].decode(errors="ignore")
