"""The crop calendar: real values, empty cells, years that wrap, and files that are not there."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenebeam.errors import RequestError
from scenebeam.products.fields.calendar import FILES, CropCalendar, season_days
from scenebeam.sandbox.fields import write_calendar
from scenebeam.sandbox.scenes import write_image
from scenebeam.sandbox.server import serve

PLACES = {"Austria": (13.15, 48.15, 96, 298), "Mato Grosso": (-55.55, -12.05, 281, 157),
          "New South Wales": (147.05, -33.55, 329, 175)}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_real_values(real_data: Path, place: str) -> None:
    longitude, latitude, planting, harvest = PLACES[place]
    calendar = CropCalendar(str(real_data / "crop-calendar"))
    assert calendar.days(longitude, latitude) == (planting, harvest)
    calendar.close()


def test_over_http_each_block_is_read_once(real_data: Path) -> None:
    with serve(real_data / "crop-calendar") as server:
        calendar = CropCalendar(server.url)
        for _ in range(2):
            for longitude, latitude, planting, harvest in PLACES.values():
                assert calendar.days(longitude, latitude) == (planting, harvest)
        calendar.close()
        assert len(server.ranges) == len(set(server.ranges))
        # Two headers, and of two blocks each (west and east) at most a request.
        assert sum(server.requests.values()) <= 2 + 2 * 2


def test_an_empty_cell_takes_the_nearest_that_has_both(real_data: Path) -> None:
    """In the middle of the Bay of Biscay: by the great circle, over all cells of both files."""
    import rasterio

    longitude, latitude = -4.3, 45.2
    days = []
    for name in FILES.values():
        with rasterio.open(real_data / "crop-calendar" / name) as file:
            days.append(file.read(1))
            transform = file.transform
    rows, columns = np.nonzero((days[0] > 0) & (days[1] > 0))
    x, y = (
        np.radians(transform.c + (columns + 0.5) * 0.5),
        np.radians(transform.f - (rows + 0.5) * 0.5),
    )
    dot = np.sin(y) * np.sin(np.radians(latitude)) + np.cos(y) * np.cos(
        np.radians(latitude)
    ) * np.cos(x - np.radians(longitude))
    near = int(np.argmax(dot))
    column, row = ~transform @ (longitude, latitude)
    assert days[0][int(row), int(column)] == 0
    calendar = CropCalendar(str(real_data / "crop-calendar"))
    assert calendar.days(longitude, latitude) == (
        days[0][rows[near], columns[near]],
        days[1][rows[near], columns[near]],
    )


def test_one_of_two_days_is_not_enough(tmp_path: Path) -> None:
    write_calendar(tmp_path, 100, 200)
    half = np.full((360, 720), 100, np.float32)
    half[:, :360] = 0
    write_image(tmp_path / FILES["planting"], half, "EPSG:4326", (-180.0, 90.0), 0.5, block=512)
    assert CropCalendar(str(tmp_path)).days(-120.2, 10.2) == (100, 200)


def test_nearest_looks_across_the_antimeridian(tmp_path: Path) -> None:
    for number, name in enumerate(FILES.values()):
        days = np.zeros((360, 720), np.float32)
        days[180, 719], days[180, 400] = 50 + number, 70 + number
        write_image(tmp_path / name, days, "EPSG:4326", (-180.0, 90.0), 0.5, block=512)
    assert CropCalendar(str(tmp_path)).days(-179.9, 0.0) == (50, 51)


@pytest.mark.parametrize("broken", ["missing", "empty", "other grid", "no image"])
def test_what_is_wrong_is_said(tmp_path: Path, broken: str) -> None:
    write_calendar(tmp_path)
    path = tmp_path / FILES["harvest"]
    told = "cannot be read"
    if broken == "missing":
        path.unlink()
    elif broken == "no image":
        path.write_text("<html>")
        told = "cannot be opened"
    elif broken == "empty":
        write_image(
            path, np.zeros((360, 720), np.float32), "EPSG:4326", (-180.0, 90.0), 0.5, block=512
        )
        told = "no cell of the files"
    else:
        write_image(
            path, np.ones((180, 360), np.float32), "EPSG:4326", (-180.0, 90.0), 1.0, block=512
        )
        told = "different grids"
    with pytest.raises(RequestError, match=told):
        CropCalendar(str(tmp_path)).days(10, 10)


@given(st.integers(1980, 2100), st.integers(1, 366), st.integers(1, 366))
def test_harvest_never_comes_before_planting(year: int, planting: int, harvest: int) -> None:
    days = season_days(year, planting, harvest)
    assert days["planting"].year == year
    assert days["harvest"].year == year + (harvest < planting)
    assert days["harvest"] >= days["planting"]
    if harvest < 366:
        assert days["harvest"].timetuple().tm_yday == harvest


def test_leap_years() -> None:
    assert season_days(2024, 60, 366)["planting"] == datetime(2024, 2, 29, tzinfo=UTC)
    assert season_days(2024, 60, 366)["harvest"] == datetime(2024, 12, 31, tzinfo=UTC)
    assert season_days(2023, 366, 60)["planting"] == datetime(2023, 12, 31, tzinfo=UTC)
