"""Outputs of former releases, opened and resumed by this one: see `golden/make.py`."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import xarray
from click.testing import CliRunner

import scenebeam
from conftest import tree
from golden.make import OUTPUTS, ROOT
from scenebeam.cli import main
from scenebeam.errors import StorageError
from scenebeam.imaging.shards import PARTS_PREFIX
from scenebeam.planning.plan import Plan, read_plan
from scenebeam.request import RunRequest
from scenebeam.request.format import FORMAT
from scenebeam.request.product import PRODUCTS
from scenebeam.requestfile import load_request
from scenebeam.status import RunStatus
from scenebeam.storage import open_store

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(str(path.parent.relative_to(GOLDEN)) for path in GOLDEN.glob("*/*/finished"))
"""`<version>/<name>`."""
FIXTURES = {"series": "series_sandbox"}
"""Folder of scenes → the fixture that writes them, where it has another name."""
OPENED = ("mosaic", "composite", "index", "stack", "chips")
"""Kinds that `scenebeam.open` opens."""

Place = Callable[[str, str], Path]


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Puts a golden output, in a state, to where its scenes are; gives its folder."""

    def copy(name: str, state: str) -> Path:
        source = GOLDEN / name / state
        output = tmp_path / OUTPUTS.relative_to(ROOT) / source.parent.name
        shutil.copytree(source, output)
        for path in output.rglob("*"):
            if path.is_file():
                path.write_bytes(moved(path, tmp_path))
        scenes = Path(str(request_of(output).catalogs[0])).parent
        lay_scenes(scenes, request.getfixturevalue(FIXTURES.get(scenes.name, scenes.name)))
        return output

    return copy


def moved(path: Path, root: Path) -> bytes:
    """The content of a file of a golden output, with paths below another root."""
    content = path.read_bytes()
    if path.name == "plan.parquet":
        table = pq.ParquetFile(io.BytesIO(content)).read()
        column = table.schema.get_field_index("definition")
        texts = [text.replace(str(ROOT), str(root)) for text in table["definition"].to_pylist()]
        sink = io.BytesIO()
        pq.write_table(table.set_column(column, "definition", pa.array(texts)), sink)
        return sink.getvalue()
    return content.replace(str(ROOT).encode(), str(root).encode())


def lay_scenes(folder: Path, scenes: Path) -> None:
    """Lay links to scenes into a folder, with a catalog that names the files there."""
    folder.mkdir(parents=True)
    for path in scenes.iterdir():
        if path.name != "items.json":
            (folder / path.name).symlink_to(path)
    items = (scenes / "items.json").read_text().replace(str(scenes), str(folder))
    (folder / "items.json").write_text(items)


def request_of(output: Path) -> RunRequest:
    """The request of a run, as `scenebeam run <output>/run.json` reads it."""
    return load_request(output / "run.json")[0]


def keys_of(plan: Plan, *, undone: set[str] | None = None) -> set[str]:
    """Keys that the tasks of a plan may write: all, or those that are not done yet."""
    tasks = plan.tasks if undone is None else plan.undone(undone)
    return {key for task in tasks for key in (*task.outputs, *task.possible_outputs)}


def files(output: Path, keys: Iterable[str]) -> dict[str, tuple[int, bytes]]:
    """Inode and bytes of those files that exist: publishing a file changes its inode."""
    found = {}
    for key in sorted(keys):
        path = output / key
        if path.is_file():
            found[key] = path.stat().st_ino, path.read_bytes()
    return found


def frozen_plan(output: Path) -> Plan:
    plan = read_plan(open_store(str(output)))
    assert plan is not None
    return plan


def assert_same_pixels(one: Path, other: Path) -> None:
    with rasterio.open(one) as left, rasterio.open(other) as right:
        assert str(left.profile) == str(right.profile), one  # NaN equals nothing but its text
        assert left.overviews(1) == right.overviews(1), one
        np.testing.assert_array_equal(left.read(), right.read(), str(one))


def show_status(output: Path) -> tuple[int, dict[str, Any]]:
    shown = CliRunner().invoke(main, ["status", str(output), "--json"])
    return shown.exit_code, json.loads(shown.stdout)


def test_there_are_outputs_of_every_product() -> None:
    kinds = set()
    for name in NAMES:
        document = json.loads((GOLDEN / name / "finished/run.json").read_text())
        kinds.add(document["request"]["product"]["kind"])
    assert kinds == PRODUCTS.keys()


@pytest.mark.parametrize("name", NAMES)
def test_a_finished_output_is_kept(place: Place, name: str) -> None:
    output = place(name, "finished")
    assert show_status(output)[0] == 0
    plan = frozen_plan(output)
    before = files(output, keys_of(plan))
    assert before
    if plan.request.product.kind in OPENED:
        for pixels in scenebeam.open(str(output)).data_vars.values():
            assert pixels.values.any(), pixels.name
    for options in ({}, {"verify": True}):
        status = scenebeam.run(request_of(output), progress=False, **options)
        assert (status.state, status.kept) == ("succeeded", status.tasks), status.message
        assert files(output, keys_of(plan)) == before, "not a file is written again"


@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_output_is_resumed(place: Place, name: str) -> None:
    output = place(name, "interrupted")
    code, shown = show_status(output)
    plan = frozen_plan(output)
    existing = open_store(str(output)).list()
    kept = len(plan.tasks) - len(plan.undone(existing))
    assert (code, shown["done"]) == (130, kept)
    left = keys_of(plan, undone=existing)
    before = files(output, keys_of(plan) - left)
    status = scenebeam.run(request_of(output), progress=False)
    assert status.state == "succeeded", status.message
    assert (status.done, status.kept) == (len(plan.tasks), kept)
    assert files(output, before.keys()) == before, "what was made is kept"
    fresh = output.parent / "fresh"
    request = request_of(output).model_copy(update={"output": str(fresh)})
    assert scenebeam.run(request, progress=False).state == "succeeded"
    assert tree(fresh).keys() - tree(output).keys() <= {"scenes.parquet"}
    # What the two releases have made together may be encoded by other libraries.
    for path in sorted(fresh.rglob("*.tif")):
        assert_same_pixels(output / path.relative_to(fresh), path)
    if plan.request.product.kind in OPENED:
        xarray.testing.assert_equal(scenebeam.open(str(output)), scenebeam.open(str(fresh)))
    if not any(key.startswith(PARTS_PREFIX) for key in existing):
        for key in sorted(left):
            path = fresh / key
            assert not path.is_file() or path.read_bytes() == (output / key).read_bytes(), key


def as_newer(output: Path, **changes: Any) -> None:
    """Change a `run.json` into one of a release to come."""
    path = output / "run.json"
    document = json.loads(path.read_text())
    document |= {"format": FORMAT + 1, **changes}
    document["versions"]["scenebeam"] = "9.1.0"
    document["request"]["product"]["of_the_future"] = 1
    path.write_text(json.dumps(document))


def test_a_run_names_its_format(place: Place) -> None:
    output = place("0.1.0/mosaic", "interrupted")
    assert "format" not in json.loads((output / "run.json").read_text())
    again = scenebeam.run(request_of(output), overwrite=True, progress=False)
    assert again.state == "succeeded"
    assert json.loads((output / "run.json").read_text())["format"] == FORMAT


def test_a_newer_format_is_refused_with_ways_on(place: Place) -> None:
    output = place("0.1.0/mosaic", "finished")
    request = request_of(output)
    as_newer(output)
    before = tree(output)
    told = rf"scenebeam 9\.1\.0 in format {FORMAT + 1}; .* up to {FORMAT}: upgrade .* --overwrite"
    with pytest.raises(StorageError, match=told):
        scenebeam.run(request, progress=False)
    with pytest.raises(StorageError, match=told):
        scenebeam.freeze(request)
    with pytest.raises(StorageError, match=told):
        load_request(output / "run.json")
    ran = CliRunner().invoke(main, ["run", str(output / "run.json")])
    assert (ran.exit_code, tree(output)) == (1, before)
    assert scenebeam.open(str(output)).sizes["time"] == 2, "products are still opened"
    other = request.model_copy(update={"output": str(output.parent / "other")})
    assert scenebeam.run(other, progress=False).state == "succeeded"
    replaced = scenebeam.run(request, overwrite=True, progress=False)
    assert (replaced.state, replaced.kept) == ("succeeded", 0)
    assert request_of(output) == request


@pytest.mark.parametrize("number", [0, -1, True, 1.5, "2", None])
def test_a_format_is_a_number(place: Place, number: Any) -> None:
    output = place("0.1.0/mosaic", "finished")
    request = request_of(output)
    as_newer(output, format=number)
    with pytest.raises(StorageError, match=r"run\.json is damaged: format is .* --overwrite"):
        scenebeam.run(request, progress=False)


def test_the_status_of_a_newer_release_is_read(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    output = place("0.1.0/mosaic", "interrupted")
    as_newer(output)
    path = output / "status.json"
    written = json.loads(path.read_text())
    written |= {"state": "running", "runner": "dataflow", "done": 1, "of_the_future": {"x": 1}}
    path.write_text(json.dumps(written))
    code, shown = show_status(output)
    assert (code, shown["state"], shown["done"]) == (0, "running", 1)
    assert "of_the_future" not in shown
    assert "scenebeam 9.1.0" in caplog.text, "why the tasks are not counted"


def test_a_status_needs_a_run_and_a_state() -> None:
    status = RunStatus.model_validate_json('{"run": "x", "state": "running"}')
    assert (status.done, status.pictures, status.started) == (0, (), None)


def test_a_status_that_cannot_be_read_says_so(place: Place) -> None:
    output = place("0.1.0/mosaic", "finished")
    (output / "status.json").write_text('{"run": "x", "state": "dreaming"}')
    shown = CliRunner().invoke(main, ["status", str(output)])
    assert shown.exit_code == 1
    assert "made by another version?" in shown.stderr
