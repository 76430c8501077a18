"""What becomes of each band of a scene on its way into a stack."""

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
    """What has become of each band so far. Threads share it."""

    task: StackTask
    budget: Budget
    complete: set[str] = field(default_factory=set)
    failed: dict[str, SceneBeamError] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    """What the stack's item tells too: it follows from the plan and the pixels."""
    notes: list[str] = field(default_factory=list)
    """What befell this run alone."""
    budgets: dict[str, BandBudget] = field(default_factory=dict)
    """What each band may spend and has spent, by name. Bands of one file share it, and so the blocks
    of the file."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        by_file: dict[str, BandBudget] = {}
        for band in self.task.bands:
            file = band.asset.href if isinstance(band, StackBand) else band.name
            label = f"{self.task.scene.id}: {band.name}"
            self.budgets[band.name] = by_file.setdefault(file, BandBudget(self.budget, label))

    def complete_band(self, band: str) -> None:
        """Note that a band is where it is to be."""
        with self._lock:
            if band in self.complete:  # its file was fetched, and is now in the stack too
                return
            self.complete.add(band)
            log.info("%s: %s is done, %s", self.task.scene.id, band, self.summary)

    def fail(self, band: str, error: SceneBeamError) -> None:
        """Note that a band cannot be had now, and why."""
        with self._lock:
            self.failed[band] = error
            self.complete.discard(band)
            if any(one.name == band and one.required for one in self.task.bands):
                log.warning("%s: %s failed (%s), %s", self.task.scene.id, band, error, self.summary)
            else:
                log.info(
                    "%s: %s is left out (%s), %s", self.task.scene.id, band, error, self.summary
                )

    def note(self, text: str) -> None:
        """Warn of something that befell this run."""
        with self._lock:
            self.notes.append(text)
            log.warning("%s: %s", self.task.scene.id, text)

    def check_band(self, band: StackBand, sample: Sample) -> None:
        """Judge a band by a sample of what lies on the grid: it fails, or comes with warnings."""
        self.record_findings(
            band, check_band(band.name, sample, band_spec(band.asset), self.task.checks)
        )

    def record_findings(self, band: StackBand, findings: Sequence[Finding]) -> None:
        """Take over what checks have found of a band."""
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
    def left(self) -> list[StackBand]:
        """Bands that nothing has gone wrong with."""
        bands = [band for band in self.task.bands if isinstance(band, StackBand)]
        return [band for band in bands if band.name not in self.failed]

    @property
    def missing(self) -> dict[str, str]:
        """Band → why it is not in the stack."""
        names = [band.name for band in self.task.bands if band.name in self.failed]
        return {name: str(self.failed[name]) for name in names}

    @property
    def detail(self) -> dict[str, Any]:
        """What an outcome tells of the bands."""
        return {
            "complete": sorted(self.complete),
            "missing": self.missing,
            "warnings": [*self.warnings, *self.notes],
            "bands": self._spending,
        }

    @property
    def _spending(self) -> dict[str, dict[str, Any]]:
        """What each file has taken, by the first of its bands."""
        found: dict[str, dict[str, Any]] = {}
        seen: set[int] = set()
        for name, budget in self.budgets.items():
            if id(budget) not in seen:
                seen.add(id(budget))
                found[name] = budget.spending
        return found
