"""What a simulated run depends on: its tasks, what steps cost, what surrounds it, and its design."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Sample:
    """A measured task, per million pixels of output."""

    seconds: float
    cpu: float
    read_bytes: float
    requests: float
    written: float
    """Bytes of all parts."""


@dataclass(frozen=True)
class Costs:
    """Measured seconds of everything that is not a task."""

    search_page: float
    plan_scene: float
    """Searching for, selecting and describing a scene."""
    plan_task: float
    plan_source: float
    """Planning and freezing one file of one task."""
    read_task: float
    read_source: float
    """Reading one file of one task from the frozen plan."""
    source_bytes: float
    """Bytes of the frozen plan per file of a task."""
    list_key: float
    assemble_byte: float
    """Copying, hashing and writing a byte of the encoded parts."""
    coarse_pixel: float
    """Encoding a pixel that the parts hold unencoded."""
    merge_outcome: float
    report_outcome: float
    report_fixed: float


@dataclass(frozen=True)
class Workload:
    """A request, as the planner cuts it."""

    images: int
    shards: int
    """Tasks per image."""
    pixels: float
    """Million pixels per task."""
    outputs: int
    """COGs per image."""
    found: int
    """Scenes that the catalog answers with."""
    scenes: int
    """Scenes that are selected."""
    sources: int
    """Files that the plan lists for each task."""
    shared_levels: int
    """Levels of an image that each shard encodes itself."""
    pieces: int
    """Objects of a shard's blocks, for each COG, where the bucket composes it."""
    item_bytes: int
    """Bytes of an unencoded pixel."""
    samples: Sequence[Sample]

    @property
    def tasks(self) -> int:
        """Number of all tasks."""
        return self.images * self.shards

    @property
    def coarse(self) -> float:
        """Million pixels of one COG that its parts hold unencoded."""
        return self.shards * self.pixels / 4**self.shared_levels


@dataclass(frozen=True)
class Environment:
    """What surrounds a run, none of it measured here."""

    cores: int
    slots: int
    """Tasks that a machine makes at once."""
    launch: float = 0.0
    """Median seconds until a machine is ready."""
    launch_spread: float = 0.0
    """Standard deviation of the logarithm of these seconds."""
    preemptions: float = 0.0
    """Per machine and hour."""
    stragglers: float = 0.0
    """Share of tasks that are stragglers."""
    page_interval: float = 0.0
    page_latency: float = 0.0
    latency: float = 0.0
    """Seconds of a request to the bucket, without its bytes."""
    stream: float = math.inf
    """Bytes per second of one stream to or from the bucket."""
    download: float = math.inf
    """Bytes per second that a machine reads from the source."""
    at_once: int = 16
    """Requests that one process has in flight to the bucket, where it does not wait for each."""
    compose: float = 0.0
    """Seconds of a call that composes."""
    rates: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Resource → units per second, and seconds in which they double."""


@dataclass(frozen=True)
class Design:
    """How the engine distributes the work, and what it does with parts and outcomes."""

    ranges: int = 1
    """Rows of the plan that an element names; 0: an element names a task, and each machine reads
    the whole plan."""
    compose: bool = True
    """Whether COGs are composed in the bucket; otherwise one worker downloads all parts."""
    tree: bool = True
    """Whether outcomes are merged in a tree; otherwise one worker collects all of them."""
    claim: bool = False
    """Whether a worker creates an object before it assembles, so that no other one does."""


NEW = Design()
"""Ranges of the plan, composed COGs, and a tree of outcomes."""
OLD = Design(ranges=0, compose=False, tree=False)
"""Ids of tasks, COGs of downloaded parts, and all outcomes on one worker."""
