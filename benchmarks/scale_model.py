"""The model of a run that `scale.py` simulates: a driver, workers and a bucket.

A run searches, plans, freezes the plan, starts workers, makes tasks, assembles images, merges
outcomes and reports, as `docs/architecture.md` describes it. A worker is a machine that makes some
tasks at once. The time of a task is drawn from measured ones; it is longer where tasks on one
machine share its cores and its network, or where a rate is exceeded.
"""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from collections.abc import Generator

from scale_events import Process, RateLimit, Signal, Simulation
from scale_inputs import NEW, Costs, Design, Environment, Sample, Workload

_Busy = Generator[float, None, bool]
COMPOSED = 32
"""Objects that one call composes at most."""
ASSEMBLY = ("read", "encode", "write", "compose", "delete")
"""Steps of assembling an image."""
LISTED = 1000
"""Keys of one page of a listing."""


RESOURCES = ("source requests", "source bytes", "bucket reads", "bucket writes", "bucket bytes")


class Machine:
    """A worker: when it is ready, and when it is preempted next."""

    def __init__(self, environment: Environment, draws: random.Random, now: float) -> None:
        self._environment, self._draws = environment, draws
        self.active = 0
        self.ready_at = self.preempted_at = 0.0
        self.launch(now)

    def launch(self, now: float) -> None:
        """Start it, for the first time or again."""
        environment = self._environment
        spread = self._draws.lognormvariate(0.0, environment.launch_spread)
        self.ready_at = now + environment.launch * spread
        hours = math.inf
        if environment.preemptions:
            hours = self._draws.expovariate(environment.preemptions)
        self.preempted_at = self.ready_at + 3600 * hours


class Run:
    """One simulated run. `phases`, `limits` and `counts` hold what it took."""

    def __init__(
        self,
        workload: Workload,
        costs: Costs,
        environment: Environment,
        machines: int,
        design: Design = NEW,
        seed: int = 0,
    ) -> None:
        self.workload, self.costs, self.environment = workload, costs, environment
        self.machines, self.design = machines, design
        self.simulation = Simulation()
        self.limits = {}
        for name in RESOURCES:
            self.limits[name] = RateLimit(*environment.rates.get(name, (math.inf, math.inf)))
        self.phases: dict[str, float] = {}
        """Phase → seconds."""
        self.counts: Counter[str] = Counter()
        self.spent: dict[str, float] = {}
        """What slots did → seconds of all of them."""
        self.assembly: dict[str, float] = {}
        """Step → seconds, of the last image that was assembled."""
        self.cpu = 0.0
        self.paid = 0.0
        """Seconds of all machines."""
        self._draws = random.Random(seed)
        self._changed = Signal(self.simulation)
        self._queue: deque[int] = deque()
        self._stored: set[int] = set()
        self._parts: Counter[int] = Counter()
        self._claimed: set[int] = set()
        self._open = workload.tasks
        self._last_part = 0.0
        self._ended = Signal(self.simulation)

    @property
    def seconds(self) -> float:
        """Duration of the run."""
        return sum(self.phases.values())

    def simulate(self) -> Run:
        """Run to the end."""
        self.simulation.start(self._drive())
        self.simulation.run()
        assert self._open == 0, "a task was lost"
        return self

    def _drive(self) -> Process:
        """The run from its search to its report."""
        workload, costs, around = self.workload, self.costs, self.environment
        pages = -(-workload.found // 100)
        page = max(around.page_interval, around.page_latency + costs.search_page)
        yield from self._phase("search", pages * page)
        listed = workload.tasks * workload.sources
        planning = workload.scenes * costs.plan_scene + workload.tasks * costs.plan_task
        planning += listed * costs.plan_source
        plan_bytes = listed * costs.source_bytes
        yield from self._phase("plan", planning + around.latency + plan_bytes / around.stream)
        self.counts["plan bytes"] = int(plan_bytes)
        started = self.simulation.now
        workers = []
        for _ in range(self.machines):
            machine = Machine(around, self._draws, started)
            workers.append(machine)
            for _ in range(around.slots):
                self.simulation.start(self._slot(machine))
        first_ready = min(machine.ready_at for machine in workers)
        yield from self._phase("launch", first_ready - started)
        listing = self._listing(0)
        if not self.design.ranges:
            listing += self._reading_plan(workload.tasks)
        yield from self._phase("read plan", listing)
        begun = self.simulation.now
        self._queue.extend(range(workload.tasks))
        self._changed.fire(workload.tasks)
        yield self._ended
        self.phases["tasks"] = self._last_part - begun
        self.phases["assembly"] = self.simulation.now - self._last_part
        yield from self._phase("outcomes", self._merging())
        yield from self._phase("report", self._reporting())
        self.paid = self.machines * (self.simulation.now - started)

    def _phase(self, name: str, seconds: float) -> Process:
        self.phases[name] = seconds
        yield seconds

    def _reading_plan(self, tasks: int) -> float:
        """Seconds to read some tasks from the frozen plan."""
        costs, sources = self.costs, self.workload.sources
        computing = tasks * (costs.read_task + sources * costs.read_source)
        return self._fetch(1, tasks * sources * costs.source_bytes) + computing

    def _merging(self) -> float:
        """Seconds to bring all outcomes together."""
        tasks, costs = self.workload.tasks, self.costs
        if not self.design.tree:
            return tasks * costs.merge_outcome
        seconds, parts = 0.0, -(-tasks // max(1, self.design.ranges))
        while parts > 1:
            merged = min(parts, COMPOSED)
            latency = (-(-merged // self.environment.at_once) + 1) * self.environment.latency
            outcomes = tasks / parts * merged
            seconds += latency + outcomes * costs.merge_outcome
            parts = -(-parts // COMPOSED)
        return seconds

    def _reporting(self) -> float:
        """Seconds of the report, which one worker writes."""
        costs, tasks = self.costs, self.workload.tasks
        reading = self._reading_plan(tasks)
        return reading + costs.report_fixed + tasks * costs.report_outcome + self._listing(tasks)

    def _slot(self, machine: Machine) -> Process:
        """Make tasks on a machine, one after another."""
        has_plan = False
        while self._open:
            if machine.ready_at > self.simulation.now:
                yield machine.ready_at - self.simulation.now
                continue
            if not self._queue:
                yield self._changed
                continue
            element = []
            for _ in range(min(max(1, self.design.ranges), len(self._queue))):
                element.append(self._queue.popleft())
            machine.active += 1
            survived = yield from self._make_element(machine, element, has_plan=has_plan)
            machine.active -= 1
            has_plan = survived
            if not survived:
                self.counts["retried"] += 1
                self._queue.extendleft(reversed(element))
                self._changed.fire(len(element))
                if machine.ready_at <= self.simulation.now:
                    machine.launch(self.simulation.now)

    def _make_element(self, machine: Machine, element: list[int], *, has_plan: bool) -> _Busy:
        """Make the tasks of an element, and remove those that are made from it."""
        reading = 0.0
        if self.design.ranges:
            reading = self._reading_plan(len(element))
        elif not has_plan:
            reading = self._reading_plan(self.workload.tasks)
        if not (yield from self._busy(machine, "reading the plan", reading)):
            return False
        while element:
            if not (yield from self._make(machine, element[0])):
                return False
            element.pop(0)
            self._open -= 1
            if self._open == 0:
                self._ended.fire()
                self._changed.fire()
        return True

    def _make(self, machine: Machine, task: int) -> _Busy:
        """Make one task, as `imaging.gridded.make_gridded` does; False if it was preempted."""
        workload, image = self.workload, task // self.workload.shards
        is_shard = workload.shards > 1
        if is_shard and not (yield from self._list_parts(machine, image)):
            return False
        if task not in self._stored:
            sample = self._draws.choice(workload.samples)
            seconds = self._computing(machine, sample)
            if not (yield from self._busy(machine, "computing", seconds)):
                return False
            size = sample.written * workload.pixels
            pieces = workload.pieces if self.design.compose else 0
            # The pieces, eight at once, hold nearly all bytes; then the parts that name them.
            seconds = self._store(workload.outputs * pieces, size, 8) if pieces else 0.0
            seconds += self._store(workload.outputs, 0.0 if pieces else size)
            if not (yield from self._busy(machine, "storing", seconds)):
                return False
            self._stored.add(task)
            self._parts[image] += workload.outputs
            self.counts["part bytes"] += int(size)
            self._last_part = self.simulation.now
        if is_shard:
            return (yield from self._assemble_if_complete(machine, image))
        return True

    def _list_parts(self, machine: Machine, image: int) -> _Busy:
        return (yield from self._busy(machine, "listing", self._listing(self._parts[image])))

    def _assemble_if_complete(self, machine: Machine, image: int) -> _Busy:
        """Assemble an image if all its parts are found; False if the machine was preempted.

        Whoever finds all parts assembles them, so without a claim several workers may do the same.
        """
        workload = self.workload
        if not (yield from self._list_parts(machine, image)):
            return False
        if self._parts[image] < workload.shards * workload.outputs:
            return True
        if self.design.claim:
            if not (yield from self._busy(machine, "claiming", self._store(1, 0.0))):
                return False
            if image in self._claimed:
                return True
            self._claimed.add(image)
        self.counts["assemblies"] += 1
        if not (yield from self._busy(machine, "assembling", self._assembling())):
            self._claimed.discard(image)
            return False
        self._parts[image] = 0
        return True

    def _busy(self, machine: Machine, what: str, seconds: float) -> _Busy:
        """Keep a slot busy; False if the machine is preempted meanwhile."""
        left = machine.preempted_at - self.simulation.now
        # Another slot of the machine may have noticed a preemption before, and started it again.
        if machine.ready_at > self.simulation.now or left < seconds:
            lost = max(0.0, min(left, seconds))
            self._spend("lost", lost)
            yield lost
            return False
        self._spend(what, seconds)
        launched = machine.ready_at
        yield seconds
        return launched == machine.ready_at

    def _spend(self, what: str, seconds: float) -> None:
        self.spent[what] = self.spent.get(what, 0.0) + seconds

    def _computing(self, machine: Machine, sample: Sample) -> float:
        """Seconds of a task without its files in the bucket."""
        around, pixels = self.environment, self.workload.pixels
        # At the start of a run, the other slots of a machine are about to take a task each.
        sharing = min(around.slots, machine.active + len(self._queue))
        cpu, read_bytes = sample.cpu * pixels, sample.read_bytes * pixels
        seconds = max(sample.seconds * pixels, sharing * cpu / around.cores)
        seconds = max(seconds, sharing * read_bytes / around.download)
        self.cpu += cpu
        if self._draws.random() < around.stragglers:
            # A Pareto distribution of at least twice the time, with a heavy tail.
            seconds *= min(2 * self._draws.paretovariate(1.5), 20)
        return max(
            seconds,
            self._take("source requests", sample.requests * pixels),
            self._take("source bytes", read_bytes),
        )

    def _take(self, resource: str, units: float) -> float:
        return self.limits[resource].reserve(self.simulation.now, units)

    def _listing(self, keys: int) -> float:
        pages = max(1, -(-keys // LISTED))
        self.counts["class A"] += pages
        seconds = pages * self.environment.latency + keys * self.costs.list_key
        return max(seconds, self._take("bucket reads", pages))

    def _store(self, objects: int, size: float, at_once: int = 1) -> float:
        """Seconds to publish objects, some at once: a look at each, and an upload."""
        self.counts["class A"] += objects
        self.counts["class B"] += objects
        rounds = -(-objects // at_once)
        seconds = 2 * rounds * self.environment.latency + size / self.environment.stream
        return max(
            seconds,
            self._take("bucket reads", objects),
            self._take("bucket writes", objects),
            self._take("bucket bytes", size),
        )

    def _fetch(self, objects: int, size: float, at_once: int = 1) -> float:
        """Seconds to read objects."""
        self.counts["class B"] += objects
        each = self.environment.latency + size / objects / self.environment.stream
        return max(
            -(-objects // at_once) * each,
            self._take("bucket reads", objects),
            self._take("bucket bytes", size),
        )

    def _assembling(self) -> float:
        """Seconds to assemble the COGs of an image, publish it, and delete its parts."""
        workload, costs, around = self.workload, self.costs, self.environment
        parts, outputs = workload.shards, workload.outputs
        size = self.counts["part bytes"] / len(self._stored) * parts / outputs
        coarse_bytes = workload.coarse * 1e6 * workload.item_bytes
        steps = dict.fromkeys(ASSEMBLY, 0.0)
        for _ in range(outputs):
            steps["encode"] += workload.coarse * 1e6 * costs.coarse_pixel
            if self.design.compose:
                steps["read"] += self._fetch(parts, coarse_bytes, around.at_once)
                # The header with the overviews that no part has.
                steps["write"] += self._store(1, coarse_bytes / 3)
                steps["compose"] += self._composing(parts * workload.pieces + 1)
            else:
                steps["read"] += self._fetch(parts, size)
                steps["write"] += size * costs.assemble_byte + self._store(1, size)
        # The thumbnail and the item.
        steps["write"] += self._store(2, 0.0)
        deleted = parts * outputs * (1 + (workload.pieces if self.design.compose else 0))
        seconds = -(-deleted // around.at_once) * around.latency
        steps["delete"] = max(seconds, self._take("bucket writes", deleted))
        self.assembly = steps
        return sum(steps.values())

    def _composing(self, objects: int) -> float:
        """Seconds to compose objects into one, in a tree of calls."""
        seconds, around = 0.0, self.environment
        while objects > 1:
            objects = -(-objects // COMPOSED)
            self.counts["class A"] += objects
            waiting = self._take("bucket writes", objects)
            seconds += max(-(-objects // around.at_once) * around.compose, waiting)
        return seconds
