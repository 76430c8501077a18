"""Series: keep standing requests up to date, by announced items and by asking catalogs.

An announced item only marks the series that it belongs to. The scheduled sweep launches a pass of
each marked series, after a while in which more items of the same acquisition may arrive. It also
asks the catalogs for items that nobody has announced, so a lost event does no harm. A pass is a run
of the standing request: it searches the catalog itself, and makes what the series lacks.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from math import inf

from scenebeam.cloud.catalogs import find_items
from scenebeam.cloud.guard import normal_below
from scenebeam.cloud.items import read_items
from scenebeam.cloud.launch import LaunchHandler, RetryableError
from scenebeam.cloud.messages import Message
from scenebeam.cloud.ownership import check_owner
from scenebeam.cloud.series_page import read_products
from scenebeam.cloud.standing import (
    STANDING,
    Mark,
    StandingRequest,
    StandingRequests,
    is_standing,
)
from scenebeam.errors import RequestError, SceneBeamError
from scenebeam.status import RunStatus
from scenebeam.storage import open_store

log = logging.getLogger(__name__)

_REJECTED = ".rejected.txt"
"""Suffix of the file beside a standing request that says why it is not valid."""


@dataclass
class SeriesHandler:
    """Handles all messages of a deployment: requests, standing requests, items and sweeps."""

    launcher: LaunchHandler
    standing: StandingRequests

    def handle(self, message: Message) -> list[RunStatus]:
        """Handle a message.

        Args:
            message: A request, a reference to one, STAC items, or a sweep.

        Returns:
            The statuses of runs that it started or rejected.

        Raises:
            RetryableError: The message should be delivered again.
            StorageError: The state cannot be read or written; the same applies.
        """
        if message.sweep:
            return self.sweep()
        if message.reference:
            if message.reference.endswith(_REJECTED):
                return []
            if is_standing(message.reference):
                return [self.stand(message)]
            return [self.launcher.handle(message)]
        try:
            items = read_items(message.content)
        except RequestError as error:
            return [self.launcher.reject(message, str(error))]
        if items is None:
            return [self.launcher.handle(message)]
        for series, count in sorted(self.standing.announce(items).items()):
            log.info("announced %s: %d new items", series, count)
        return []

    def stand(self, message: Message) -> RunStatus:
        """Add the standing request of an uploaded file, or say beside it why it is not valid."""
        folder, _, name = message.reference.rpartition("/")
        try:
            request, run = self.launcher.authorize(self.launcher.read_content(message))
            if request.series is None:
                raise RequestError("series: a standing request is a series; set series: true")
            check_owner(request.output, self.launcher.settings.state)
            self.standing.add(run, message.reference, request)
        except RequestError as error:
            status = self.launcher.reject(message, str(error))
            # Only where uploads are expected: a message may name any place.
            if normal_below(message.reference, self.launcher.settings.requests):
                open_store(folder).write(f"{name}{_REJECTED}", f"{status.message}\n".encode())
            return status
        open_store(folder).delete([f"{name}{_REJECTED}"])
        return RunStatus(run=request.run, state="queued", id=run, output=request.output)

    def sweep(self) -> list[RunStatus]:
        """Launch what is due, within the bounds of the deployment.

        Returns:
            The statuses of the passes that were launched or refused.
        """
        self._compare_files()
        settings, runs = self.launcher.settings, self.launcher.runs
        known = {one.id: one for one in self.standing.list()}
        checks = self.standing.checks()
        for one in known.values():
            last = runs.status(one.id)
            if checks.get(one.id, inf) >= settings.check_seconds:
                self._check_catalog(one, last)
            # What is left to the next pass; after one without progress, that is tried again when
            # the catalog is asked.
            if last is not None and last.ended and last.waiting and last.done > last.kept:
                self.standing.mark_pending(one.id)
        statuses: list[RunStatus] = []
        active = len(runs.open_ids())
        waiting = sorted(self.standing.pending().items(), key=lambda pair: (-pair[1].age, pair[0]))
        for series, mark in waiting:
            if series not in known:
                self.standing.start_pass(series, mark)  # its file is gone
            elif mark.age >= settings.debounce_seconds:
                if active >= settings.max_runs:
                    log.info("waiting %s: %d runs are active", series, active)
                    break
                status = self._start_pass(known[series], mark)
                if status is not None:
                    statuses.append(status)
                    active += status.state == "queued"
        return statuses

    def _start_pass(self, one: StandingRequest, mark: Mark) -> RunStatus | None:
        """Launch a pass of a series; None if its last one has not ended."""
        before = self.launcher.runs.status(one.id)
        if before is not None and not before.ended:
            return None  # the mark stays, so the next sweep launches it
        content = self.standing.request(one.id)
        message = Message(f"pass-{one.id}-{mark.version}", content or b"")
        try:
            request, _ = self.launcher.authorize(message.content)
            request = self.launcher.within_budget(request)
        except RequestError as error:
            # The mark stays: another month, or another version of the request, may allow it.
            return self.launcher.reject(message, f"{one.source}: {error}")
        # Before the launch: an item that is announced from now on asks for another pass.
        if not self.standing.start_pass(one.id, mark):
            return None  # another sweep launches it
        try:
            return self.launcher.launch_request(one.id, request, message)
        except RetryableError as error:
            self.standing.mark_pending(one.id)
            log.info("waiting %s: %s", one.id, error)
            return None
        except BaseException:
            self.standing.mark_pending(one.id)
            raise

    def _compare_files(self) -> None:
        """Add standing requests whose upload was missed, and remove those whose file is gone."""
        known = {one.source for one in self.standing.list()}
        found: set[str] = set()
        for prefix in self.launcher.settings.requests:
            store = open_store(prefix)
            found.update(store.uri_for(key) for key in store.list(STANDING))
        for uri in sorted(found - known):
            if is_standing(uri) and f"{uri}{_REJECTED}" not in found:
                self.stand(Message(f"found-{sha256(uri.encode()).hexdigest()[:16]}", reference=uri))
        if known - found:
            self.standing.remove(known - found)

    def _check_catalog(self, one: StandingRequest, last: RunStatus | None) -> None:
        """Ask the catalogs of a series for items that nobody has announced.

        Args:
            one: The standing request.
            last: The status of its last pass.
        """
        try:
            items = find_items(one, self.launcher.settings.lookback_days)
            new = self.standing.find_new(one, items)
        except SceneBeamError as error:
            # A pass asks as well, and can read catalogs without an API.
            log.info("cannot ask the catalog of %s: %s", one.id, error)
            self.standing.mark_pending(one.id)
        else:
            if new:
                log.info("found %s: %d items that were not announced", one.id, new)
            # What failed is tried again when the catalog is asked, not at every sweep.
            if last is not None and last.ended and last.state != "succeeded":
                self.standing.mark_pending(one.id)
        self._warn_if_stale(one)
        self.standing.mark_checked(one.id)

    def _warn_if_stale(self, one: StandingRequest) -> None:
        """Log that a series has made nothing for days; an alert counts these lines."""
        products = read_products(one, self.launcher.settings)
        times = [datetime.fromisoformat(row["made"]) for row in products if row["made"]]
        days = (datetime.now(UTC) - max(times)).days if times else 0
        if days >= self.launcher.settings.stale_days:
            log.info("stale %s: no new product for %d days", one.id, days)
