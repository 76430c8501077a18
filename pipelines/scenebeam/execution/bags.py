"""The graph on Dask: Beam's runner, with the two transforms that it does not spread over workers.

Beam turns each transform into an operation on a `dask.bag.Bag`. Two of them are replaced:

- `Reshuffle` is ignored by Beam, so that all tasks stay in the partition of the one element that
  they come from, on one worker. Here, it splits the bag into partitions of one element.
- `GroupByKey` shuffles by `hash(key)`, which for strings differs between processes, and takes
  thousands of Dask tasks per thousand partitions. Keys of this graph are few: here, partitions are
  merged by a tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
import dask
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor
from apache_beam.runners.dask import overrides
from apache_beam.runners.dask.dask_runner import DaskRunner, DaskRunnerResult
from apache_beam.runners.dask.transform_evaluator import Create, NoOp, ParDo, defenestrate
from dask.bag import Bag

_FAN_IN = 32
"""Partitions that are merged at once."""
_Groups = dict[Any, list[Any]]


class BagRunner(DaskRunner):  # type: ignore[misc]
    """Runs a pipeline on the cluster of a client."""

    def __init__(self, client: Any, partitions: int) -> None:
        """Describe the runner.

        Args:
            client: The `distributed.Client` of the cluster; the caller closes it.
            partitions: Into how many partitions `Reshuffle` splits its input.
        """
        super().__init__()
        self._client, self._partitions = client, partitions

    def run_pipeline(self, pipeline: Any, options: Any) -> DaskRunnerResult:
        """Submit the pipeline."""
        pipeline.replace_all(overrides.dask_overrides())
        visitor = _BagVisitor(self._partitions)
        pipeline.visit(visitor)
        # The last bag depends on all others.
        (last,) = dask.optimize(visitor.last)
        return DaskRunnerResult(self._client, [self._client.compute(last)])


class _BagVisitor(PipelineVisitor):  # type: ignore[misc]
    """Builds a bag for each transform of a pipeline, which is a chain."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._bags: dict[AppliedPTransform, Bag] = {}
        self.last: Bag = None

    def visit_transform(self, transform_node: AppliedPTransform) -> None:
        """Apply a transform to the bag of its input."""
        bag = None
        for value in transform_node.inputs:
            bag = self._bags.get(value.producer)
        self.last = self._bags[transform_node] = self._apply(transform_node, bag)

    def _apply(self, node: AppliedPTransform, bag: Bag) -> Bag:
        kind = type(node.transform)
        if kind is overrides._Reshuffle:
            return bag.repartition(npartitions=self._partitions)
        if kind is overrides._GroupByKeyOnly:
            groups = bag.reduction(_group, _merge, split_every=_FAN_IN, out_type=Bag)
            return groups.map_partitions(_items)
        operation = {overrides._Create: Create, beam.ParDo: ParDo}.get(kind, NoOp)
        return operation(node, {"npartitions": 1}).apply(bag)


def _group(items: Iterable[tuple[Any, Any]]) -> _Groups:
    """Group the (key, windowed value) of a partition by key."""
    groups: _Groups = {}
    for key, value in items:
        groups.setdefault(key, []).append(defenestrate(value))
    return groups


def _merge(parts: Iterable[_Groups]) -> _Groups:
    """Merge groups of several partitions."""
    merged: _Groups = {}
    for groups in parts:
        for key, values in groups.items():
            merged.setdefault(key, []).extend(values)
    return merged


def _items(groups: _Groups) -> Sequence[tuple[Any, list[Any]]]:
    return list(groups.items())
