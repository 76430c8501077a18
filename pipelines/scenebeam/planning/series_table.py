"""The table of a time series: read from a local file or from a bucket."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from scenebeam.catalog.acquisition import Acquisition
from scenebeam.catalog.timeseries import SeriesRow, parse_series
from scenebeam.errors import RequestError, StorageError
from scenebeam.request import TimeSeries
from scenebeam.storage import open_store


def read_series(source: TimeSeries) -> list[SeriesRow]:
    """Read and parse the table of a time series.

    Raises:
        RequestError: The table cannot be read, or is not a time series.
    """
    name = source.time_series
    try:
        if name.startswith("gs://"):
            folder, _, file = name.rpartition("/")
            content = open_store(folder).read(file)
        else:
            content = Path(name).read_bytes()
    except (OSError, StorageError) as error:
        raise RequestError(f"cannot read the table {name}: {error}") from None
    if content is None:
        raise RequestError(f"cannot read the table {name}: no such file")
    return parse_series(content, name)


def empty_rows(rows: Iterable[SeriesRow]) -> list[Acquisition]:
    """The rows that name no scene, as acquisitions without scenes."""
    return [Acquisition(row.acquired, (), None, row.anchor) for row in rows if not row.scenes]
