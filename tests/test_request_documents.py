"""Request documents: JSON as JSON, YAML by the core schema of 1.2, and an end in words for everything else."""

from __future__ import annotations

import ast
import json
import math
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from scenebeam.cli import main
from scenebeam.collections import CollectionRecord
from scenebeam.errors import RequestError
from scenebeam.products.mosaics.request import MosaicRequest
from scenebeam.request import RunRequest, parse_interval
from scenebeam.request.document import MAX_BYTES, _Builder, parse_text
from scenebeam.request.expression import parse_expression
from scenebeam.request.values import MAX_LIST, MAX_TEXT, check_values
from scenebeam.requestfile import load_request, parse_document, parse_value, validate_request

REQUEST: dict[str, Any] = {
    "run": "t",
    "catalog": "earth-search",
    "collections": ["sentinel-2-l2a"],
    "area": {"bbox": [22.85, 40.55, 23.05, 40.75]},
    "dates": "2023-02",
    "product": {"kind": "mosaic", "bands": ["red"]},
    "output": "gs://p/x",
}


def changed(**changes: Any) -> dict[str, Any]:
    return {**REQUEST, **changes}


def refused(text: str) -> str:
    """The words in which a request's text is refused."""
    with pytest.raises(RequestError) as fault:
        validate_request(parse_document(text, "r.yaml"))
    return str(fault.value)


# ---------------------------------------------------------------------------------------------
# An end in words


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: !!int ''", "a: '' is not a value of the tag !!int (line 1, column 4)"),
        ("a: !!int 1:30", "a: '1:30' is not a value of the tag !!int"),
        ("a: !!bool maybe", "a: 'maybe' is not a value of the tag !!bool"),
        ("a: !!float x", "a: 'x' is not a value of the tag !!float"),
        ("a: !!null x", "a: 'x' is not a value of the tag !!null"),
        ("a: !!timestamp 2001-01-01", "the tag 'tag:yaml.org,2002:timestamp' is not allowed"),
        ("output: !!binary L2V0Yw==", "output: give text, not binary data"),
        ("a: !!python/object/apply:os.system ['true']", "a: the tag 'tag:yaml.org,2002:python/object/apply:os.system'"),
        ("a: !!set {b}", "a: the tag 'tag:yaml.org,2002:set' is not allowed"),
        ("a: {b: [1, !mine 2]}", "a.b.1: the tag '!mine' is not allowed in a request (line 1, column 12)"),
        ("!!int a: 1", "a key is text; it cannot have the tag"),
        ("a: &x [1]\nb: *x", "b: anchors and aliases are not allowed"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "b.0: anchors and aliases are not allowed"),
        ("a: &a {<<: *a}", "a.<<: anchors and aliases are not allowed"),
        ("run: x\nrun: y", "the key 'run' is given twice (line 2, column 1)"),
        ('{"run": 1, "run": 2}', "the key 'run' is given twice"),
        ("? [a]\n: b", "a key must be text"),
        ("? {a: b}\n: b", "a key must be text"),
        ("a: 1\n---\nb: 2", "a request is one document; several begin here (line 2, column 1)"),
        ("", "is empty: `scenebeam init`"),
        ("\ufeff", "is empty: `scenebeam init`"),
        ("# nothing\n", "is empty: `scenebeam init`"),
        ("null", "is empty: `scenebeam init`"),
        ("[1, 2]", "must be a mapping"),
        ("- run: x", "must be a mapping"),
        ('"run: x"', "must be a mapping"),
        ("just words", "must be a mapping"),
        ("a: [1", "is neither YAML nor JSON"),
        ('{"a": 1', "as JSON: Expecting ',' delimiter"),
        ("\t-", "is neither YAML nor JSON"),
        ("a: \0", "is neither YAML nor JSON"),
        ("a: \ud800", "contains invalid Unicode (unpaired surrogates)"),
        ('{"output": "a\\u0000b"}', "output: it contains a NUL character"),
        ('output: "a\\0b"', "output: it contains a NUL character"),
        ('{"output": "\\ud83d"}', "output: it contains invalid Unicode (unpaired surrogates)"),
        ('{"\\ud83d": 1}', "its key '\\ud83d': it contains invalid Unicode"),
        ("[" * 5000, "nested more than 60 times"),
        ("[" * 5000 + "]" * 5000, "nested more than 60 times"),
        ('{"a":' * 100_000, "nested more than 60 times"),
        ("{a: " * 100, "nested more than 60 times"),
        ("- " * 100, "nested more than 60 times"),
        ('{"limits": {"max_failed": NaN}}', "limits.max_failed: it must be a finite number"),
        ('{"limits": {"max_failed": -Infinity}}', "limits.max_failed: it must be a finite number"),
        ('{"limits": {"max_failed": 1e400}}', "limits.max_failed: it must be a finite number"),
        ("limits: {max_failed: 1e400}", "limits.max_failed: it must be a finite number"),
        ("limits: {max_failed: .inf}", "limits.max_failed: it must be a finite number"),
        ("limits: {max_failed: .NaN}", "limits.max_failed: it must be a finite number"),
        ('{"limits": {"max_scenes": %s}}' % ("9" * 5000), "limits.max_scenes: it must be a finite number"),
        ("limits: {max_scenes: %s}" % ("9" * 5000), "limits.max_scenes: it must be a finite number"),
        ("limits: {max_scenes: 0x%s}" % ("f" * 5000), "limits.max_scenes: it must be a finite number"),
        ("limits: {max_scenes: 9223372036854775808}", "limits.max_scenes: it must be a whole number that 64 bits can hold"),
        ("area: {bbox: [1, 2, .nan, 4]}", "area.bbox.2: it must be a finite number"),
    ],
)  # fmt: skip
def test_every_text_that_is_no_request_ends_in_words(text: str, told: str) -> None:
    assert told in refused(text)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"dates": "9999-12-31"}, "dates.0: '9999-12-31' is not a date like 2023-02-03: the year must be from 1800 to 2999"),
        ({"dates": "9999"}, "the year must be from 1800 to 2999"),
        ({"dates": "0001-01-01T00:00:00+14:00"}, "the year must be from 1800 to 2999"),
        ({"dates": "2023-01-01/9999-12-31T23:59:59-12:00"}, "the year must be from 1800 to 2999"),
        ({"dates": "0000"}, "the year must be from 1800 to 2999"),
        ({"dates": "٢٠٢٣"}, "is not a date"),
        ({"dates": {"a": 1}}, "is not a date"),
        ({"select": {"window_days": 10**9}}, "select.window_days: must be at most 36500"),
        ({"select": {"n_anchors": 10**9}}, "select.n_anchors: must be at most"),
        ({"limits": {"file_seconds": 1e300}}, "limits.file_seconds: must be at most"),
        ({"limits": {"max_failed": "nan"}}, "limits.max_failed: must be a finite number"),
        ({"limits": {"max_bytes": "9" * 400 + "TB"}}, "limits.max_bytes: could not parse value and unit"),
        ({"limits": {"max_bytes": "9" * 5000}}, "limits.max_bytes: "),
        ({"area": {"mgrs": ["٣٤TFK"]}}, "is not an MGRS tile"),
        ({"area": {"mgrs": ["61TFK"]}}, "is not an MGRS tile"),
        ({"area": {"geometry": {"coordinates": [{1: 2}]}}}, "area.geometry: a GeoJSON geometry has text for keys"),
        ({"area": {"geometry": {"coordinates": {1, 2}}}}, "numbers and text, not set"),
        ({"grid": {"resolution": 1e-300}}, "grid.resolution: must be at least 1e-09, not 1e-300"),
        ({"grid": {"resolution": 1e300}}, "grid.resolution: must be at most 10000000"),
        ({"grid": {"crs": "EPSG:32634", "bounds": [0, 0, 1e300, 1e300]}}, "grid.bounds lie farther from the origin"),
        ({"output": b"/etc"}, "output: give text, not binary data"),
        ({"output": "\ud800"}, "output: it contains invalid Unicode"),
        ({"runner": {"options": {f"k{n}": 1 for n in range(2000)}}}, "runner.options: Dictionary should have at most 1000"),
        (
            {"product": {"kind": "landcover", "aois": "x", "lulc": {"resolution": 1e-300}}},
            "lulc.resolution: must be at least",
        ),
        (
            {
                "product": {
                    "kind": "fields", "year": 2024, "boundaries": "x", "images": "none",
                    "buffer_expansions": 1000, "buffer_expansion_size": 36_500,
                }
            },
            "the widest window reaches 36,500,014 days",
        ),
    ],
)  # fmt: skip
def test_every_document_that_is_no_request_ends_in_words(
    changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(RequestError) as fault:
        validate_request(changed(**changes))
    assert told in str(fault.value)


def test_a_document_that_contains_itself_ends_in_words() -> None:
    document = changed()
    document["select"] = document
    with pytest.raises(RequestError, match="nested more than 60 times"):
        validate_request(document)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("-" * 1990 + "red", "at most 100 nested operations"),
        ("+".join(["red"] * 400), "at most 100 nested operations"),
        ("abs(" * 390 + "red" + ")" * 390, "is not an expression"),
        ("abs(" * 150 + "red" + ")" * 150, "at most 100 nested operations"),
        ("(" * 1900 + "red", "is not an expression"),
        ("red" * 1000, "at most 2,000 characters; this one has 3,000"),
        ("9" * 1990 + "*red", "outside the range of float32"),
        ("1e999*red", "outside the range of float32"),
        ("True*red", "True is not a number"),
        ("1j*red", "1j is not a number"),
        ("red\0", "is not an expression"),
        ("red\ud800", "is not an expression"),
    ],
)
def test_an_expression_that_cannot_be_evaluated_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        parse_expression(text)


def test_long_sums_and_deep_parentheses_are_expressions() -> None:
    assert isinstance(parse_expression("+".join(["red"] * 99)), ast.BinOp)
    assert isinstance(parse_expression("(" * 90 + "red" + ")" * 90), ast.Name)


def test_dates_to_the_last_of_all_years_are_read() -> None:
    assert parse_interval("2999")[1].isoformat() == "2999-12-31T23:59:59.999999+00:00"
    assert parse_interval("1800-01-01")[0].year == 1800


@pytest.mark.parametrize(
    "content",
    [
        b"a: !!int ''\n",
        b"a: !!bool maybe\n",
        b"a: " + b"1:" * 300 + b"1.5\n",
        json.dumps(changed(dates="9999-12-31")).encode(),
        json.dumps(changed(output="\ud83d")).encode(),
        json.dumps(changed(product={"kind": "index", "expression": "-" * 1500 + "red"})).encode(),
        json.dumps({"fingerprint": "x", "request": [1]}).encode(),
        json.dumps(changed(output="~nobody-of-that-name/x")).encode(),
        b"[" * 100_000,
        b"\xff\xfe\x00",
        b"a: \x00",
        b"",
    ],
)
def test_the_command_line_answers_no_request_with_a_traceback(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    answer = CliRunner().invoke(main, ["plan", str(path)])
    assert answer.exit_code == 2, answer.output
    assert answer.output.startswith("scenebeam: ")
    assert "Traceback" not in answer.output


@pytest.mark.parametrize(
    "setting",
    ["dates=9999", "dates=!!int ''", "a.b=[" * 1, "output=\udcff", "limits.max_scenes=1e400"],
)
def test_a_value_of_the_command_line_is_refused_by_its_name(tmp_path: Path, setting: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(REQUEST))
    answer = CliRunner().invoke(main, ["plan", str(path), "--set", setting])
    assert answer.exit_code == 2, answer.output
    assert setting.partition("=")[0].partition(".")[0] in answer.output


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        "[]",
        '{"type": "FeatureCollection", "features": null}',
        '{"type": "FeatureCollection", "features": [1]}',
        '{"type": "Feature"}',
        '{"type": "Polygon", "coordinates": [[[NaN, 1], [1e400, 1]]]}',
    ],
)
def test_a_geojson_file_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "area.geojson"
    path.write_text(content)
    with pytest.raises(RequestError, match=r"area\.ge"):
        validate_request(changed(area={"geojson": str(path)}))


def test_a_file_is_read_no_further_than_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    with path.open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(RequestError, match=r"is larger than 10,000,000 bytes"):
        load_request(path, environ={})
    with pytest.raises(RequestError, match=r"is larger than 10,000,000 bytes"):
        parse_document("é" * (MAX_BYTES // 2 + 1))


# ---------------------------------------------------------------------------------------------
# JSON as JSON, YAML by 1.2


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), inner),
    ),
    st.booleans(),
)  # fmt: skip
def test_json_is_read_as_json(value: Any, escaped: bool) -> None:
    assert parse_text(json.dumps(value, ensure_ascii=escaped), "x") == value


def test_escaped_surrogate_pairs_and_long_keys_are_json() -> None:
    request = validate_request(parse_document(json.dumps(changed(output="gs://p/\U0001f6f0"))))
    assert request.output == "gs://p/\U0001f6f0"
    assert parse_document(json.dumps({"k" * 2000: 1})) == {"k" * 2000: 1}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e3", 1000.0), ("1E3", 1000.0), ("+1.5e-2", 0.015), (".5", 0.5), ("5.", 5.0), ("-0", 0), ("+7", 7),
        ("017", 17), ("0o17", 15), ("0x1F", 31), ("1_000", "1_000"), ("0b11", "0b11"),
        ("1:30", "1:30"), ("190:20:30", "190:20:30"), ("1:30.5", "1:30.5"),
        ("on", "on"), ("Off", "Off"), ("yes", "yes"), ("NO", "NO"), ("y", "y"),
        ("true", True), ("True", True), ("FALSE", False), ("tRue", "tRue"),
        ("null", None), ("~", None), ("", None), ("Null", None), ("nULL", "nULL"),
        ("2020-05-18", "2020-05-18"), ("2020-05-18T10:00:00Z", "2020-05-18T10:00:00Z"),
        ("'1e3'", "1e3"), ('"on"', "on"), ("! 12", "12"), ("!!str 12", "12"), ("!!int '12'", 12), ("!!float 1", 1.0),
        ("=", "="), ("<<", "<<"), ("{20: a, null: b}", {"20": "a", "null": "b"}), ("[1, [2, {}]]", [1, [2, {}]]),
        ("&unused 5", 5), ("\ufeff7", 7), ("|\n  a\n  b\n", "a\nb\n"),
    ],
)  # fmt: skip
def test_yaml_is_read_by_the_core_schema(text: str, value: Any) -> None:
    found = parse_document(f"a: {text}" if "\ufeff" not in text else f"\ufeffa: {text[1:]}")["a"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("word", ["off", "Off", "no", "false", "'off'"])
def test_words_for_booleans_still_switch_what_is_boolean(word: str) -> None:
    document = parse_document(f"checks: {word}\nlimits: {{private_addresses: {word}}}")
    request = validate_request(changed(**document))
    assert not request.checks.enabled
    assert not request.limits.private_addresses
    document = parse_document("checks: yes\nlimits: {private_addresses: on}")
    request = validate_request(changed(**document))
    assert (request.checks.enabled, request.limits.private_addresses) == (True, True)


def test_a_number_in_scientific_notation_is_a_number() -> None:
    assert parse_value("1e3", "limits.max_scenes") == 1000.0
    assert (
        validate_request(changed(limits=parse_document("max_scenes: 1e3"))).limits.max_scenes
        == 1000
    )


def test_nodata_may_be_nan() -> None:
    record = parse_document(
        "{id: x, dtype: float32, nodata: .nan, bands: {red: {asset: r, resolution: 10}}}"
    )
    [found] = validate_request(changed(collections=[record])).collections
    assert isinstance(found, CollectionRecord)
    assert found.nodata is not None
    assert math.isnan(found.nodata)
    with pytest.raises(RequestError, match=r"collections\.0\.scale: it must be a finite number"):
        validate_request(changed(collections=[{**record, "scale": math.nan}]))


# ---------------------------------------------------------------------------------------------
# Linear time, or refused by size


def test_bands_are_compared_once_each_or_refused_by_number() -> None:
    compared = 0

    class Name(str):
        __slots__ = ()

        def lower(self) -> Name:
            return self

        def __hash__(self) -> int:
            return super().__hash__()

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return super().__eq__(other)

    names: list[str] = [Name(f"b{number}") for number in range(1000)]
    assert MosaicRequest._unique_bands(names) == names
    assert compared < 5 * len(names)
    with pytest.raises(RequestError, match="20,000 bands are named; the limit is 1,000"):
        validate_request(
            changed(product={"kind": "mosaic", "bands": [f"b{number}" for number in range(20_000)]})
        )


@pytest.mark.parametrize("size", [1000, 10_000])
def test_yaml_takes_one_step_for_each_event(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    taken = 0
    take = _Builder.take

    def count(builder: _Builder, event: yaml.Event) -> None:
        nonlocal taken
        taken += 1
        take(builder, event)

    monkeypatch.setattr(_Builder, "take", count)
    parse_text("dates:\n" + "- a\n" * size, "x")
    assert taken <= size + 10


def test_long_texts_and_lists_are_refused_with_the_figure() -> None:
    sexagesimal = "1:" * 100_000 + "1.5"
    assert "a: a text of 200,003 characters; the limit is 100,000" in refused(f"a: {sexagesimal}")
    assert f"output: a text of {MAX_TEXT + 1:,} characters" in refused(
        json.dumps(changed(output="x" * (MAX_TEXT + 1)))
    )
    assert f"dates: a list of {MAX_LIST + 1:,} values" in refused(
        json.dumps(changed(dates=["2023"] * (MAX_LIST + 1)))
    )
    assert "a mapping of 10,001 keys" in refused(
        json.dumps({str(number): 1 for number in range(10_001)})
    )
    assert "more than 1,000,000 values" in refused(json.dumps([0] * 1_000_001))
    assert "more than 1,000,000 values" in refused("- 0\n" * 1_000_001)
    assert "the request has more than 200,000 values" in refused(
        json.dumps({"a": [[0] * 100_000] * 5})
    )


def test_long_rings_are_part_of_an_area() -> None:
    ring = [[22 + number * 1e-6, 40.0] for number in range(MAX_LIST + 1)]
    area = {"geometry": {"type": "Polygon", "coordinates": [ring]}}
    assert validate_request(parse_document(json.dumps(changed(area=area)))).area is not None
    check_values({"fingerprint": "x", "request": changed(area=area)})


def test_of_many_faults_the_first_are_told() -> None:
    told = refused(
        json.dumps(
            {**REQUEST, "dates": ["x" * 1000] * 5000, **{f"k{number}": 1 for number in range(5000)}}
        )
    )
    assert told.count("is not a date") == 1, "of a list the first"
    assert told.splitlines()[-1] == "  and 4,981 more errors"
    assert len(told) < 15_000


@pytest.mark.slow
def test_the_largest_documents_take_seconds_and_little_memory() -> None:
    """In a process of its own, whose processor time and memory are bounded by the system."""
    code = """
import json, sys
from scenebeam.errors import RequestError
from scenebeam.requestfile import parse_document, validate_request
for text in [
    "a: " + "1:" * 100_000 + "1.5", "- 1\\n" * 1_100_000, "? " * 2_000_000, "- " * 2_000_000, "a: " + "!" * 9_000_000, "x\\n" * 4_000_000,
    '{"dates": ' + json.dumps(["x"] * 90_000) + ', "collections": ' + json.dumps([1] * 90_000) + "}",
    '{"collections": [{"required": ' + json.dumps([1] * 90_000) + ', "default": ' + json.dumps([1] * 90_000) + "}]}",
    json.dumps({"product": {"kind": "mosaic", "bands": [f"b{n}" for n in range(20_000)]}}),
    "".join(f"key{n}: 1\\n" for n in range(500_000)), '"' + "\\\\n" * 4_000_000,
]:
    try:
        validate_request(parse_document(text))
    except RequestError:
        print("refused")
"""

    def bound() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
        resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=bound
    )
    assert done.stdout.splitlines() == ["refused"] * 11, done.stderr


def test_a_request_that_is_read_says_what_it_said() -> None:
    request = validate_request(parse_document(json.dumps(REQUEST)))
    assert request == validate_request(parse_document(yaml.safe_dump(REQUEST)))
    assert (
        RunRequest.model_validate_json(request.model_dump_json()).fingerprint()
        == request.fingerprint()
    )
