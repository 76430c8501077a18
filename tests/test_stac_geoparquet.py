"""Items as a table: what is written is read back, by us and by others, and the reverse."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rustac
from hypothesis import given
from hypothesis import strategies as st

from scenebeam.sandbox.scenes import SCENES
from scenebeam.stac_geoparquet import read_items, write_items

ITEMS = [scene.item("https://example.com") for scene in SCENES]
REAL = (
    Path(os.environ.get("SCENEBEAM_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    / "stac-items"
)


def stored(tmp_path: Path, items: list[dict[str, Any]]) -> Path:
    path = tmp_path / "items.parquet"
    path.write_bytes(write_items(items))
    return path


def test_items_come_back(tmp_path: Path) -> None:
    assert list(read_items(stored(tmp_path, ITEMS))) == json.loads(json.dumps(ITEMS))


def test_another_tool_reads_them(tmp_path: Path) -> None:
    found = rustac.read_sync(str(stored(tmp_path, ITEMS)))["features"]
    for item, expected in zip(found, json.loads(json.dumps(ITEMS)), strict=True):
        for name in ("id", "geometry", "assets", "collection"):
            assert item[name] == expected[name]
        for name, value in expected["properties"].items():
            assert item["properties"][name] == value, name


def test_tables_of_another_tool_are_read(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    rustac.write_sync(str(path), ITEMS)
    for found, expected in zip(read_items(path), json.loads(json.dumps(ITEMS)), strict=True):
        assert found == {**expected, "stac_version": found["stac_version"]}


def test_times_of_a_nanosecond_are_read_without_pandas(tmp_path: Path) -> None:
    path = stored(tmp_path, ITEMS)
    table = pq.read_table(path)
    number = table.schema.get_field_index("datetime")
    fine = table.column(number).cast(pa.timestamp("ns", tz="UTC"))
    pq.write_table(table.set_column(number, "datetime", fine), path)
    times = [item["properties"]["datetime"] for item in read_items(path)]
    assert times == [item["properties"]["datetime"] for item in ITEMS]


def test_columns_are_those_of_the_specification(tmp_path: Path) -> None:
    file = pq.ParquetFile(stored(tmp_path, ITEMS))
    schema = file.schema_arrow
    assert schema.field("datetime").type == pa.timestamp("us", tz="UTC")
    assert schema.field("geometry").type == pa.binary()
    assert {field.name for field in schema.field("bbox").type} == {"xmin", "ymin", "xmax", "ymax"}
    assert "red" in {field.name for field in schema.field("assets").type}
    geo = json.loads(file.metadata.metadata[b"geo"])["columns"]["geometry"]
    assert geo["encoding"] == "WKB"
    assert geo["geometry_types"] == ["Polygon"]
    assert b"stac-geoparquet" in file.metadata.metadata


def test_a_microsecond_and_a_zone_survive(tmp_path: Path) -> None:
    item = {
        **ITEMS[0],
        "properties": {"datetime": "2024-01-01T01:00:00.000001+01:00", "created": "2024"},
    }
    [found] = read_items(stored(tmp_path, [item]))
    assert found["properties"]["datetime"] == "2024-01-01T00:00:00.000001Z"
    assert found["properties"]["created"] == "2024", "what is no time stays text"


@pytest.mark.parametrize(
    "other",
    [
        {"properties": {"x": "text"}},
        {"properties": {"x": 2**70}},
        {"properties": ["x"]},
        {"geometry": {"type": "Nothing"}},
        {"assets": "none"},
    ],
)
def test_what_does_not_fit_is_an_error_in_words(other: dict[str, Any]) -> None:
    items = [{**ITEMS[0], "properties": {"x": 1}}, {**ITEMS[0], "properties": {}, **other}]
    with pytest.raises(ValueError, match="."):
        write_items(items)


@pytest.mark.parametrize("content", [b"", b"PAR1 nothing", b"{}"])
def test_a_file_of_another_kind_is_an_error_in_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "items.parquet"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a Parquet file"):
        list(read_items(path))
    pq.write_table(pa.table({"id": ["x"]}), path)
    with pytest.raises(ValueError, match="no column geometry"):
        list(read_items(path))


values = st.one_of(
    st.booleans(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False, allow_infinity=False), st.text(st.characters(codec="utf-8")),
    st.lists(st.integers(0, 9), min_size=1, max_size=3), st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
)  # fmt: skip
names = st.text("abcxyz:_", min_size=1, max_size=6)


@given(st.dictionaries(names, values, max_size=5), st.dictionaries(names, values, max_size=5))
def test_any_properties_come_back_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory, one: dict[str, Any], other: dict[str, Any]
) -> None:
    items = [{**ITEMS[0], "properties": properties} for properties in (one, other)]
    try:
        content = write_items(items)
    except ValueError:
        assert any(
            type(one[name]) is not type(other[name]) or isinstance(one[name], list)
            for name in one.keys() & other.keys()
        )
        return
    path = tmp_path_factory.mktemp("table") / "items.parquet"
    path.write_bytes(content)
    for found, properties in zip(read_items(path), (one, other), strict=True):
        assert found["properties"] == properties


@pytest.mark.skipif(not REAL.is_dir(), reason="the real STAC items are not here")
def test_real_items_come_back(tmp_path: Path) -> None:
    count = 0
    for file in sorted(REAL.rglob("*.json")):
        document = json.loads(file.read_text())
        items = document.get("features") or (
            [document] if document.get("type") == "Feature" else []
        )
        for item in items:
            [found] = read_items(stored(tmp_path, [item]))
            assert found["id"] == item["id"]
            assert found["assets"].keys() == item["assets"].keys()
            hrefs = {key: asset["href"] for key, asset in item["assets"].items()}
            assert {key: asset["href"] for key, asset in found["assets"].items()} == hrefs
            count += 1
    assert count > 5
