"""Time-series tables in every form that people and programs write them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenebeam.catalog.timeseries import SeriesRow, parse_series, series_digest
from scenebeam.errors import RequestError

NOON = datetime(2023, 2, 2, 12, tzinfo=UTC)
PLAIN = SeriesRow(NOON, ("A", "B"), None, None)


def parse(text: str) -> list[SeriesRow]:
    return parse_series(text.encode(), "t.csv")


@pytest.mark.parametrize(
    "cell",
    [
        "A|B",
        "A;B",
        "A | B",
        '"A,B"',
        '"A, B"',
        "\"['A', 'B']\"",
        '"[""A"", ""B""]"',
        "['A' 'B']",
        "\"['A'\n 'B']\"",
        "\"('A', 'B')\"",
        '"[A, B]"',
        '"A\tB"',
        "'A|B'",
        "A|B|A",
        "|A||B|",
        "\"['A', nan, 'B']\"",
        "A,B",
        "A, B",
    ],
)
def test_lists_of_tiles_in_every_style(cell: str) -> None:
    assert parse(f"acq_datetime,tile_ids\n2023-02-02T12:00:00Z,{cell}\n") == [PLAIN]


@pytest.mark.parametrize(
    "cell",
    ["", " ", "[]", '""', "nan", "NaN", "None", "()", "|", "<NA>", "'[]'"],
)
def test_empty_lists_of_tiles(cell: str) -> None:
    (row,) = parse(f"acq_datetime,tile_ids\n2023-02-02T12:00:00Z,{cell}\n")
    assert row.scenes == ()


@pytest.mark.parametrize(
    "when",
    [
        "2023-02-02 12:00:00+00:00",
        "2023-02-02T12:00:00Z",
        "2023-02-02 12:00:00",
        "2023-02-02T13:00:00+01:00",
        "20230202T120000Z",
        " 2023-02-02 12:00:00.000000 ",
    ],
)
def test_times_in_every_style(when: str) -> None:
    (row,) = parse(f"acq_datetime,tile_ids\n{when},A|B\n")
    assert row.acquired == NOON


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_separators_line_ends_and_byte_order_marks(delimiter: str, ends: str, mark: str) -> None:
    lines = [
        delimiter.join(["", "cloud_score", "tile_ids", "anchor_date", "acq_datetime"]),
        delimiter.join(["0", "12.5", "A|B", "2023-02-01", "2023-02-02 12:00:00"]),
        delimiter.join(["1", "", "", "", "2023-02-03 12:00:00"]),
    ]
    first, second = parse(mark + ends.join(lines) + ends)
    assert first == SeriesRow(NOON, ("A", "B"), datetime(2023, 2, 1, tzinfo=UTC), 12.5)
    assert (second.scenes, second.anchor, second.cloud) == ((), None, None)


def test_blank_lines_and_rows_of_empty_cells_are_no_rows() -> None:
    text = "\nacq_datetime , tile_ids\n\n2023-02-02T12:00:00Z,A|B\n,\n  ,  \n\n"
    assert parse(text) == [PLAIN]


def test_columns_that_a_short_row_lacks_are_empty() -> None:
    text = "acq_datetime,tile_ids,cloud_score\n2023-02-02T12:00:00Z,A|B\n"
    assert parse(text) == [PLAIN]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("acq_datetime,tiles\n2021-06-10,x\n", "lacks the columns tile_ids; it has acq_datetime"),
        ("acq_datetime,tile_ids\n", "has no rows"),
        ("", "lacks the columns acq_datetime, tile_ids"),
        ("acq_datetime,tile_ids\n,A\n", "line 2: acq_datetime is empty"),
        ("acq_datetime,tile_ids\nNaT,A\n", "line 2: acq_datetime is empty"),
        ("acq_datetime,tile_ids\n\n2021-06-10,A\nsoon,A\n", "line 4: acq_datetime 'soon'"),
        ("acq_datetime,tile_ids\n2021-06-10,a b\n", "line 2: 'a b' is not the id of a scene"),
        ("acq_datetime,tile_ids\n2021-06-10,../../etc\n", "'../../etc' is not the id of a scene"),
        ("acq_datetime,tile_ids\n2021-06-10,['A' ... 'B']\n", "'...' is not the id of a scene"),
        ("acq_datetime,tile_ids,n\n2021-06-10,A,B,2\n", "line 2 has more cells .* quote the list"),
        ('acq_datetime,tile_ids\n2021-06-10,"A|\nB"\nsoon,x\n', "line 4: acq_datetime 'soon'"),
    ],
)
def test_a_table_that_is_none_is_told(text: str, told: str) -> None:
    with pytest.raises(RequestError, match=told):
        parse(text)


def test_a_table_that_is_no_text_is_told() -> None:
    with pytest.raises(RequestError, match="cannot read the table t.csv"):
        parse_series("acq_datetime,tile_ids\n".encode("utf-16"), "t.csv")


ids = st.sampled_from(["A", "B", "S2A_34TGL_20230202_0_L2A", "x.y-z"])
names = st.lists(ids, unique=True, max_size=4)
styles, line_ends = st.sampled_from([str, "|".join]), st.sampled_from(["\n", "\r\n"])
rows = st.builds(
    SeriesRow,
    st.datetimes(datetime(2015, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),
    names.map(tuple),
    st.none(),
    st.none() | st.floats(0, 100),
)


@given(st.lists(rows, min_size=1, max_size=6), styles, line_ends)
def test_what_is_written_is_read(
    table: list[SeriesRow], style: Callable[[list[str]], str], ends: str
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=ends)
    writer.writerow(["cloud_score", "tile_ids", "acq_datetime"])
    for row in table:
        cloud = "nan" if row.cloud is None else repr(row.cloud)
        writer.writerow([cloud, style(list(row.scenes)), row.acquired])
    found = parse(text.getvalue())
    assert found == table
    assert series_digest(found) == series_digest(table)


def test_a_digest_follows_what_a_table_says() -> None:
    text = "acq_datetime,tile_ids,cloud_score,anchor_date\n2023-02-02 12:00:00,A|B,5,2023-02-01\n"
    same = [text.replace("A|B", "\"['A', 'B']\""), text.replace("12:00:00", "12:00:00Z")]
    others = [
        text.replace("A|B", "B|A"),
        text.replace("A|B", "A"),
        text.replace(",5,", ",6,"),
        text.replace("02-01", "02-03"),
        text.replace("12:00:00", "12:00:01"),
        text + "2023-02-03 12:00:00,,,\n",
    ]
    digest = series_digest(parse(text))
    assert {series_digest(parse(one)) for one in same} == {digest}
    assert len({series_digest(parse(one)) for one in others} | {digest}) == len(others) + 1
