"""Plans of many tasks: read when they are used, made in ranges, and reported from files."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import tree
from scenebeam.csvtable import Table
from scenebeam.errors import StorageError
from scenebeam.execution import row_ranges
from scenebeam.execution.driver import run
from scenebeam.execution.row_ranges import merged_group, split_ranges, undone_ranges
from scenebeam.planning import stored_tasks
from scenebeam.planning.plan import PLAN_FILE, Plan, read_plan
from scenebeam.planning.reuse import load_or_create_plan
from scenebeam.planning.stored_tasks import StoredTasks, TaskRows, store_tasks
from scenebeam.report import outcomes as outcome_files
from scenebeam.report.outcomes import Outcomes, delete_outcomes, merge_parts, part_key, write_part
from scenebeam.request import RunRequest
from scenebeam.storage import Store, open_store
from scenebeam.tasks import CubeBand, CubeSlice, Outcome, Task

Make = Callable[..., RunRequest]
FOLDER = "outcomes/20260101T000000Z/"


def some_tasks(count: int) -> list[Task]:
    return [
        Task(id=f"t{row}", outputs=(f"a/{row}.tif",), item_path=f"a/{row}") for row in range(count)
    ]


@pytest.fixture(params=["folder", "gs"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return open_store(str(tmp_path / "store"))
    return open_store(request.getfixturevalue("prefix"))


def test_stored_tasks_are_those_that_were_stored(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_tasks, "_GROUP_ROWS", 7)
    tasks = some_tasks(30)
    store_tasks(tasks, store, "plan.parquet")
    stored = StoredTasks(store, "plan.parquet", Task)
    assert stored == tasks
    assert tuple(tasks) == stored
    assert stored != tasks[:-1]
    assert stored[6:9] == tasks[6:9]
    assert stored[-1] == tasks[-1]
    assert list(TaskRows(stored, [3, 28])) == [tasks[3], tasks[28]]
    with pytest.raises(IndexError):
        stored[30]


def test_one_task_is_read_without_the_others(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_tasks, "_SMALL_FILE", 0)
    monkeypatch.setattr(stored_tasks, "_GROUP_ROWS", 10)
    read: list[int] = []
    original = StoredTasks._read_definitions

    def counted(self: StoredTasks, group: int) -> list[str]:
        read.append(group)
        return original(self, group)

    monkeypatch.setattr(StoredTasks, "_read_definitions", counted)
    tasks = some_tasks(100)
    store_tasks(tasks, store, "plan.parquet")
    stored = StoredTasks(store, "plan.parquet", Task)
    assert len(stored) == 100
    assert not read, "the footer says how many there are"
    assert [stored[row] for row in (55, 56, 55)] == [tasks[55], tasks[56], tasks[55]]
    assert read == [5]


def test_a_plan_that_is_damaged_says_what_to_do(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.write(PLAN_FILE, b"PAR1 and then nothing")
    with pytest.raises(StorageError, match="cannot be read .* run again with --overwrite"):
        StoredTasks(store, PLAN_FILE, Task)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(1, 40), st.data())
def test_ranges_cover_each_undone_task_once(count: int, most: int, data: Any) -> None:
    done = data.draw(st.sets(st.integers(0, count - 1)))
    existing = {f"a/{row}.tif" for row in done}

    class Listed:
        uri = "gs://bucket/run"

        def list(self) -> set[str]:
            return existing

    plan: Any = SimplePlan(some_tasks(count))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_ranges, "MOST_RANGES", most)
        ranges: Any = list(split_ranges(undone_ranges(plan, Listed())))  # type: ignore[arg-type]
    if len(done) == count:
        assert ranges == [("gs://bucket/run", 0, 0)]
        return
    assert len(ranges) <= most
    rows = [row for _, first, last in ranges for row in range(first, last)]
    assert len(rows) == len(set(rows))
    assert set(range(count)) - done <= set(rows)
    groups = [merged_group(one) for one in ranges]
    assert groups == sorted(groups)


class SimplePlan:
    """A plan without a request."""

    undone = Plan.undone

    def __init__(self, tasks: list[Task]) -> None:
        self.tasks = tasks


def outcome(task: str, state: Any = "failed") -> Outcome:
    return Outcome(task=task, state=state, reason=f"why {task}")


def test_outcomes_are_found_by_task_and_merged_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcome_files, "_GROUP_ROWS", 3)
    parts = []
    for first in range(0, 40, 10):
        parts.append(part_key(FOLDER, first))
        write_part([outcome(f"t{row}") for row in range(first, first + 8)], store, parts[-1])
    merged = merge_parts([*parts, part_key(FOLDER, 90)], store)
    assert store.list(FOLDER) == {merged}, "of the range from 90, nothing was left to make"
    assert merge_parts(parts, store) == merged, "a worker whose answer was lost"
    found = Outcomes([merged, "outcomes/none.parquet"], store)
    assert len(found) == 32
    assert list(found) == [f"t{row}" for row in range(40) if row % 10 < 8]
    assert found["t27"] == outcome("t27")
    assert found.get("t9") is None
    assert [one.task for one in found.values()] == list(found)
    write_part([], store, "outcomes/20250101T000000Z/00000000.parquet")
    write_part([], store, "outcomes/20270101T000000Z/00000000.parquet")
    delete_outcomes(FOLDER, store)
    assert store.list() == {"outcomes/20270101T000000Z/00000000.parquet"}, "of a later run"


def test_ids_with_the_same_hash_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcome_files, "hash", lambda text: len(text), raising=False)
    store = open_store(str(tmp_path))
    write_part([outcome("aa"), outcome("b"), outcome("cc")], store, part_key(FOLDER, 0))
    found = Outcomes([part_key(FOLDER, 0)], store)
    assert [found[name].task for name in ("cc", "aa", "b")] == ["cc", "aa", "b"]
    assert "dd" not in found


def test_find_existing_knows_superseded_files(store: Store) -> None:
    for key in ("a/1", "a/2", "b/3"):
        store.write(key, b"x")
    assert store.find_existing(["a/1", "b/3", "c/4"]) == {"a/1", "b/3"}
    store.supersede(["a/1"])
    again = open_store(store.uri)
    assert again.find_existing(["a/1", "a/2"]) == {"a/2"}
    again.write("a/1", b"new")
    assert again.find_existing(["a/1", "a/2"]) == {"a/1", "a/2"}


def test_a_file_is_read_in_parts(store: Store) -> None:
    content = bytes(range(256)) * 9000
    store.write("a/b", content)
    with store.open_read("a/b") as file:
        file.seek(-10, io.SEEK_END)
        assert file.read() == content[-10:]
        file.seek(1_100_000)
        assert file.read(5) == content[1_100_000:1_100_005]
        assert file.tell() == 1_100_005
    with pytest.raises(StorageError, match="a/none"):
        store.open_read("a/none")


def test_a_long_table_is_written_row_by_row() -> None:
    made: list[int] = []

    def rows() -> Any:
        for number in range(3500):
            made.append(number)
            yield {"number": number, "text": "é,"}

    class Sink:
        written: list[tuple[int, bytes]] = []  # noqa: RUF012

        def write(self, data: bytes) -> None:
            self.written.append((len(made), data))

    Table(("number", "text"), rows()).write_to(Sink())
    assert [count for count, _ in Sink.written] == [1000, 2000, 3000, 3500]
    text = b"".join(data for _, data in Sink.written).decode()
    assert [int(row["number"]) for row in csv.DictReader(io.StringIO(text))] == made


@pytest.mark.parametrize("kind", ["serial", "direct"])
def test_ranges_of_several_tasks_make_the_same_bytes(
    make_request: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(stored_tasks, "_GROUP_ROWS", 2)
    shards = {"limits.memory": "100MB"}
    calm = make_request(output=str(tmp_path / "calm"), **shards)
    assert run(calm).state == "succeeded"
    monkeypatch.setattr(row_ranges, "MOST_RANGES", 3)
    monkeypatch.setattr(row_ranges, "_MERGED_RANGES", 2)
    request = make_request(output=str(tmp_path / kind), runner=kind, **shards)
    store = open_store(request.output)
    plan = load_or_create_plan(request, store)
    assert len(plan.tasks) > 3
    assert len(undone_ranges(plan, store)[2]) <= 3
    status = run(request)
    assert (status.state, status.done) == ("succeeded", len(plan.tasks))
    assert tree(tmp_path / kind) == tree(tmp_path / "calm")
    spent = list(csv.DictReader(io.StringIO((store.read("spending.csv") or b"").decode())))
    assert [row["task"] for row in spent if not row["band"]] == [task.id for task in plan.tasks]
    frozen = read_plan(store)
    assert frozen is not None
    assert frozen.tasks == plan.tasks


def test_a_nodata_value_of_nan_is_still_nan_in_a_frozen_plan(tmp_path: Path) -> None:
    band = CubeBand(
        name="ndvi", dtype="float32", nodata=float("nan"), scale=1, offset=0, categorical=False
    )
    cube = CubeSlice(format="zarr", index=0, bands=(band,), cuts=(0, 0))
    store = open_store(str(tmp_path))
    tasks = [Task(id="a", outputs=("a",), item_path="a", cube=cube)]
    store_tasks(tasks, store, "plan.parquet")
    stored = StoredTasks(store, "plan.parquet", Task)
    assert stored[0].cube is not None
    assert math.isnan(stored[0].cube.bands[0].nodata or 0)
    assert stored == tasks, "or it would be made again"
