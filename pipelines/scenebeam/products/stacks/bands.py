"""The state of each band of a scene while its stack is made."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from scenebeam.errors import CheckError, SceneBeamError
from scenebeam.imaging.band_budget import BandBudget
from scenebeam.imaging.bands import band_spec
from scenebeam.products.stacks.task import StackBand, StackTask
from scenebeam.raster.checks import Finding, check_band
from scenebeam.raster.sample import Sample
from scenebeam.transfer.retry import Budget

log = logging.getLogger("scenebeam.progress")


@dataclass
class BandStates:
    """What has happened to each band so far. Thread-safe."""

    task: StackTask
    budget: Budget
    """Budget of the whole task."""
    complete: set[str] = field(default_factory=set)
    """Names of bands whose files are downloaded, or which are in the stack."""
    failed: dict[str, SceneBeamError] = field(default_factory=dict)
    """Name of a band → why it cannot be in the stack."""
    warnings: list[str] = field(default_factory=list)
    """Warnings for the stack's item: they follow from the plan and the pixels."""
    notes: list[str] = field(default_factory=list)
    """Warnings that concern this run only."""
    budgets: dict[str, BandBudget] = field(default_factory=dict)
    """Name of a band → its budget. Bands of one file share it, as they share the file's blocks."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        by_file: dict[str, BandBudget] = {}
        for band in self.task.bands:
            file = band.asset.href if isinstance(band, StackBand) else band.name
            label = f"{self.task.scene.id}: {band.name}"
            self.budgets[band.name] = by_file.setdefault(file, BandBudget(self.budget, label))

    def complete_band(self, band: str) -> None:
        """Record that a band is downloaded, or in the stack."""
        with self._lock:
            if band in self.complete:  # downloaded before, and now in the stack too
                return
            self.complete.add(band)
            log.info("%s: %s is done, %s", self.task.scene.id, band, self.summary)

    def fail(self, band: str, error: SceneBeamError) -> None:
        """Record why a band cannot be in the stack."""
        with self._lock:
            self.failed[band] = error
            self.complete.discard(band)
            scene = self.task.scene.id
            if self._is_required(band):
                log.warning("%s: %s failed (%s), %s", scene, band, error, self.summary)
            else:
                log.info("%s: %s is left out (%s), %s", scene, band, error, self.summary)

    def _is_required(self, name: str) -> bool:
        return any(band.name == name and band.required for band in self.task.bands)

    def note(self, text: str) -> None:
        """Log a warning that concerns this run only."""
        with self._lock:
            self.notes.append(text)
            log.warning("%s: %s", self.task.scene.id, text)

    def check_band(self, band: StackBand, sample: Sample) -> None:
        """Check the pixels of a band on its grid, and record what is found.

        Args:
            band: The band.
            sample: Sample of its pixels.
        """
        findings = check_band(band.name, sample, band_spec(band.asset), self.task.checks)
        self.record_findings(band, findings)

    def record_findings(self, band: StackBand, findings: Sequence[Finding]) -> None:
        """Record the findings of checks: errors fail the band, the others are warnings."""
        errors = [finding.message for finding in findings if finding.level == "error"]
        if errors:
            self.fail(band.name, CheckError("; ".join(errors)))
        else:
            self.warnings += [f"{finding.band}: {finding.message}" for finding in findings]

    @property
    def summary(self) -> str:
        """`3/6 bands complete, 1 failed`."""
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"{len(self.complete)}/{len(self.task.bands)} bands complete{failed}"

    @property
    def usable(self) -> list[StackBand]:
        """Bands that have a file and have not failed."""
        usable = []
        for band in self.task.bands:
            if isinstance(band, StackBand) and band.name not in self.failed:
                usable.append(band)
        return usable

    def usable_in(self, stack: str) -> list[StackBand]:
        """Return the usable bands of one stack.

        Args:
            stack: Suffix of the stack.
        """
        return [band for band in self.usable if band.stack == stack]

    @property
    def missing(self) -> dict[str, str]:
        """Name of a band → why it is not in the stack, in canonical order."""
        missing = {}
        for band in self.task.bands:
            if band.name in self.failed:
                missing[band.name] = str(self.failed[band.name])
        return missing

    @property
    def detail(self) -> dict[str, Any]:
        """The `detail` of the task's outcome."""
        return {
            "complete": sorted(self.complete),
            "missing": self.missing,
            "warnings": [*self.warnings, *self.notes],
            "bands": self._spending(),
        }

    def _spending(self) -> dict[str, dict[str, Any]]:
        """Return what each file has taken, by the name of its first band."""
        spending: dict[str, dict[str, Any]] = {}
        counted: set[int] = set()
        for name, budget in self.budgets.items():
            if id(budget) not in counted:
                counted.add(id(budget))
                spending[name] = budget.spending
        return spending
