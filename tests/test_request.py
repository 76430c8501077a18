"""What a user may ask for, and how a mistake is told."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from example import EXAMPLE
from scenebeam.collections import CollectionRecord
from scenebeam.errors import RequestError
from scenebeam.request import RunRequest, parse_interval
from scenebeam.request.product import BandsRequest
from scenebeam.requestfile import load_request, parse_document, validate_request


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "request.yaml"
    path.write_text(EXAMPLE)
    return path


def changed(**changes: object) -> dict:
    document = parse_document(EXAMPLE)
    for name, value in changes.items():
        first, _, second = name.partition("__")
        if second:
            document[first] = {**document[first], second: value}
        else:
            document[first] = value
    return document


def test_the_example_of_the_manual_is_read(file: Path) -> None:
    request, came_from = load_request(file, environ={})
    assert request.limits.max_bytes == 10**12
    assert request.catalog == str(file.parent / "items.json"), "paths are relative to the file"
    assert request.output == str(file.parent / "out/landsat-pair")
    record = request.collections[1]
    assert isinstance(record, CollectionRecord)
    assert record.bands["red"].band == 1
    assert came_from["grid.crs"] == str(file)


def test_json_is_yaml_too(file: Path, tmp_path: Path) -> None:
    twin = tmp_path / "request.json"
    twin.write_text(json.dumps(parse_document(EXAMPLE)))
    assert load_request(twin, environ={})[0] == load_request(file, environ={})[0]


def test_command_line_beats_environment_beats_file_beats_default(file: Path) -> None:
    environ = {
        "SCENEBEAM_SELECT__MAX_CLOUD_COVER": "20",
        "SCENEBEAM_BANDS": "red,qa",
        "SCENEBEAM_REAL_DATA": "/x",
    }
    request, came_from = load_request(
        file, environ=environ, overrides={"select.max_cloud_cover": 10}
    )
    assert request.select.max_cloud_cover == 10
    assert came_from["select.max_cloud_cover"] == "command line"
    assert cast(BandsRequest, request.product).bands == ["red", "qa"]
    assert came_from["product.bands"] == "environment"
    assert "select.min_coverage" not in came_from


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (changed(selct={}), "did you mean 'select'"),
        (changed(product__bnds=["red"]), "product.bnds: unknown key; did you mean 'bands'"),
        (changed(area={"bbox": [10, 0, -10, 5]}), "swap the two"),
        (changed(area={"bbox": [0, 5, 10, 0]}), "south (5.0) must be less than north (0.0)"),
        (changed(area={"bbox": [0, 0, 1, 1], "mgrs": ["34TFK"]}), "exactly one of"),
        (changed(area={"mgrs": ["34TIO"]}), "not an MGRS tile"),
        (changed(dates="2020-05-18/2019-01-01"), "dates are reversed"),
        (changed(dates="18.5.2020"), "is not a date like 2023-02-03"),
        (changed(grid={"bounds": [0, 0, 1, 1]}), "grid.bounds needs grid.crs"),
        (changed(product__bands=["red", "RED"]), "named twice: red"),
        (changed(product__method="middle"), "product.method"),
        (changed(run="../up"), "run: "),
        (changed(collections=[]), "collections"),
        (changed(area={"geojson": "/nowhere.geojson"}), "cannot read /nowhere.geojson"),
    ],
)
def test_a_mistake_is_named_with_its_fix(document: dict, told: str) -> None:
    with pytest.raises(RequestError, match="not valid|geojson") as fault:
        validate_request(document)
    assert told in str(fault.value)


def test_a_search_of_an_api_needs_area_and_dates() -> None:
    document = changed(catalog="earth-search")
    del document["area"]
    with pytest.raises(RequestError, match="area is required"):
        validate_request(document)


@pytest.mark.parametrize("text", ["just words", "[1, 2]", "a: &x [1]\nb: *x", "\t-", "{" * 5000])
def test_what_is_no_request_is_refused(text: str) -> None:
    with pytest.raises(RequestError):
        parse_document(text)


def test_an_antimeridian_box_is_no_mistake() -> None:
    assert validate_request(changed(area={"bbox": [179, -1, -179, 1]})).area is not None


def test_the_fingerprint_follows_what_decides_the_products(file: Path) -> None:
    request = validate_request(changed())
    assert (
        validate_request(changed(runner="direct", output="elsewhere")).fingerprint()
        == request.fingerprint()
    )
    assert validate_request(changed(dates="2020-05-18")).fingerprint() != request.fingerprint()


def test_a_request_survives_being_written_down() -> None:
    request = validate_request(changed())
    assert RunRequest.model_validate_json(request.model_dump_json()) == request


@given(st.dates(date(1990, 1, 1), date(2980, 1, 1)), st.integers(0, 4000))
def test_an_interval_holds_both_its_days_whole(first: date, days: int) -> None:
    last = first + timedelta(days=days)
    start, end = parse_interval(f"{first}/{last}")
    assert start.date() == first
    assert end.date() == last
    assert end - start == timedelta(days=days + 1) - timedelta(microseconds=1)


def test_months_and_years_are_whole_periods() -> None:
    start, end = parse_interval("2024-02")
    assert (start.isoformat(), end.date().isoformat()) == (
        "2024-02-01T00:00:00+00:00",
        "2024-02-29",
    )
    assert parse_interval("2023")[1].date().isoformat() == "2023-12-31"


def test_the_attribution_of_a_collection_does_not_change_the_fingerprint() -> None:
    collections = parse_document(EXAMPLE)["collections"]
    named = [collections[0], {**collections[1], "attribution": "ours, CC-BY-4.0"}]
    plain = validate_request(changed())
    assert "attribution" not in str(plain.fingerprint_fields())
    assert plain.fingerprint() == validate_request(changed(collections=named)).fingerprint()
