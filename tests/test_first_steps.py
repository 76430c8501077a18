"""The first steps: a commented request, its schema, and what a typing error is answered with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from scenebeam.cli import main
from scenebeam.errors import RequestError
from scenebeam.request import RunRequest
from scenebeam.request.product import PRODUCTS
from scenebeam.request.schema import request_schema
from scenebeam.requestfile import load_request, parse_document, validate_request
from scenebeam.suggestions import suggest

Make = Callable[..., RunRequest]
CONFIG = Path(__file__).parents[1] / "config"
EXAMPLES = sorted(CONFIG.glob("*.yaml"))


def told(*words: str, code: int = 2) -> str:
    done = CliRunner().invoke(main, words)
    assert done.exit_code == code, done.output
    return done.output


@pytest.mark.parametrize("kind", sorted(PRODUCTS))
def test_init_writes_a_request_that_is_valid(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("fields.geojson", "aois.geojson"):
        (tmp_path / name).write_text("{}")
    told("init", kind, "--bbox", "5,45,6,46", "--dates", "2024", code=0)
    text = (tmp_path / "request.yaml").read_text()
    document = parse_document(text)
    if kind not in ("chips", "fields", "landcover"):  # whose own fields say where
        assert document["area"] == {"bbox": [5, 45, 6, 46]}
    request, _ = load_request(tmp_path / "request.yaml")
    assert request.product.kind == kind
    jsonschema.validate(document, request_schema())
    assert text.count("\n  # ") > 4, "the fields are explained"
    assert all(len(line) < 120 for line in text.splitlines())
    assert "exists" in told("init", kind)


@pytest.mark.parametrize("words", [["--bbox", "40,23,x"], ["--dates", "2021-13"]])
def test_init_refuses_an_area_and_dates_that_are_none(words: list[str], tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    assert "not valid" in told("init", *words, "--file", str(file))
    assert not file.exists()
    assert "is not a folder" in told("init", "--file", str(tmp_path / "none/x.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_fit_the_schema(path: Path) -> None:
    document = parse_document(path.read_text(), str(path))
    jsonschema.validate(document, request_schema())
    first, second, *_ = path.read_text().splitlines()
    assert first.startswith(("# Needs the network", "# Needs no network"))
    assert second == "# yaml-language-server: $schema=../docs/request.schema.json"


@pytest.mark.parametrize("path", sorted(CONFIG.glob("*-sandbox.yaml")), ids=lambda path: path.stem)
def test_examples_of_the_sandbox_run_after_the_demo(
    path: Path, sandbox: Path, tmp_path: Path
) -> None:
    (tmp_path / "config").mkdir()
    shutil.copy(path, tmp_path / "config")
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/scenes").symlink_to(sandbox)
    said = told("run", str(tmp_path / "config" / path.name), code=0)
    assert "succeeded, 2 of 2" in said


def test_the_schema_is_that_of_the_models_and_refuses_what_they_refuse(make_request: Make) -> None:
    schema = json.loads(told("schema", code=0))
    assert schema == json.loads(json.dumps(request_schema()))
    assert schema == json.loads((CONFIG.parent / "docs" / "request.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    document = parse_document(EXAMPLES[0].read_text())
    changes: list[dict[str, Any]] = [
        {"product": {"kind": "mosaik"}},
        {"dates": {}},
        {"collektions": []},
        {"select": {"max_cloud_cover": "low"}},
    ]
    for change in changes:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**document, **change}, schema)


def test_the_schema_takes_one_value_where_validation_does() -> None:
    document = parse_document(EXAMPLES[0].read_text())
    changes: list[dict[str, Any]] = [
        {"select": {"platform": "sentinel-2a", "relative_orbit": 93}},
        {"select": {"platform": ["sentinel-2a"], "relative_orbit": [93, 7]}},
        {"dates": "2023"},
        {"product": {"kind": "composite", "bands": ["red"], "period": "month"}},
        {"product": {"kind": "composite", "bands": ["red"], "period": "2023-01/2023-02"}},
        {"product": {"kind": "stack", "bands": ["red"], "required": "red"}},
        {"checks": "off"},
    ]
    for change in changes:
        validate_request({**document, **change})
        jsonschema.validate({**document, **change}, request_schema())


def test_an_empty_file_says_how_to_start(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert "is empty: `scenebeam init`" in told("plan", str(tmp_path / "empty.yaml"), code=2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"product": {"kind": "mosaic", "bands": ["redd"]}}, "did you mean 'red'?"),
        ({"product": {"kind": "mosaik", "bands": ["red"]}}, "did you mean 'mosaic'?"),
        (
            {"product": {"kind": "mosaic", "bands": ["red"], "method": "medain"}},
            "did you mean 'median'?",
        ),
        ({"catalog": "earthsearch"}, "did you mean 'earth-search'?"),
        ({"collections": ["sentinel-2-l2"]}, "did you mean 'sentinel-2-l2a'?"),
        ({"select": {"mode": "anchor"}}, "did you mean 'anchors'?"),
        ({"runner": "serail"}, "did you mean 'serial'?"),
        ({"dates": "2023/02/01"}, "write a day as 2023-02-03"),
        ({"dates": "June 2023"}, "a month as 2023-02"),
        ({"dates": "2023-13"}, "month must be in 1..12"),
        ({"select": {"n_anchors": "many"}}, "must be a whole number, not 'many'"),
        ({"run": "my run"}, "Name of the run: letters, digits, - and _"),
        ({"area": 5}, "must be a mapping of fields, not '5'"),
        ({"area": {"bbox": [40.55, 23.93, 40.63, 24.07]}}, "Are latitude and longitude swapped?"),
    ],
)
def test_a_typing_error_is_answered_with_what_was_meant(
    make_request: Make, changes: dict[str, Any], said: str
) -> None:
    from scenebeam.execution.driver import run

    document = {**make_request().model_dump(mode="json"), **changes}
    with pytest.raises(RequestError) as error:
        run(validate_request(document))
    assert said in str(error.value)
    assert "Input should" not in str(error.value)
    assert "pattern" not in str(error.value)


def test_an_area_without_scenes_is_not_called_swapped_without_reason(make_request: Make) -> None:
    from scenebeam.execution.driver import run

    with pytest.raises(RequestError) as error:
        run(make_request(area={"bbox": [10.0, 40.0, 10.1, 40.1]}))
    assert "swapped" not in str(error.value)


def test_a_command_is_suggested() -> None:
    assert "did you mean 'mosaic'?" in told("mosaik")
    assert "known: " in told("xyz")


def test_suggestions() -> None:
    assert suggest("RED", ["red", "green"]) == "did you mean 'red'?"
    assert suggest("zzz", ["red", "green"]) == "known: red, green"
    assert suggest("z" * 10**6, [f"n{n}" for n in range(1000)]).endswith(", …")
