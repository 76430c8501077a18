"""A store that grows: a series appends along time, and readers never see half of an update."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

import scenebeam
from growing_catalog import Catalog
from lives import Killed
from scenebeam.errors import RequestError
from scenebeam.execution import driver
from scenebeam.request import RunRequest

Make = Callable[..., RunRequest]
GRID = {
    "grid.crs": "EPSG:32635",
    "grid.resolution": 10,
    "grid.bounds": [240_000, 4_493_000, 252_000, 4_502_000],
}


@pytest.fixture
def catalog(sandbox: Path, tmp_path: Path) -> Catalog:
    return Catalog(sandbox, tmp_path)


def grow(make: Make, catalog: Catalog, output: Path, form: str, **fields: Any) -> xarray.Dataset:
    document = {
        "catalog": str(catalog.path),
        "output": str(output),
        "series": {"settled_after": None},
        "product.format": form,
        "product.bands": ["red"],
        **GRID,
        **fields,
    }
    request = make(**document)
    status = scenebeam.run(request, progress=False)
    assert status.state == "succeeded", status.message
    return scenebeam.open(str(output))


@pytest.mark.parametrize("form", ["zarr", "icechunk"])
def test_a_series_appends_along_time(
    make_request: Make, catalog: Catalog, tmp_path: Path, form: str
) -> None:
    if form == "icechunk":
        pytest.importorskip("icechunk")
    catalog.add("2022")
    first = grow(make_request, catalog, tmp_path / form, form)
    assert first.sizes["time"] == 1
    before = first.red[0].values
    catalog.add("2021")  # older scenes that arrive later
    second = grow(make_request, catalog, tmp_path / form, form)
    assert second.time.dt.year.values.tolist() == [2021, 2022], "in the order of time"
    np.testing.assert_array_equal(second.red[1], before)
    np.testing.assert_array_equal(first.red[0], before, "who has opened it before is not disturbed")
    cogs = grow(make_request, catalog, tmp_path / "cog", "cog")
    np.testing.assert_array_equal(second.red, cogs.red)
    if form == "icechunk":
        import icechunk

        storage = icechunk.local_filesystem_storage(str(tmp_path / form / "cube.icechunk"))
        history = list(icechunk.Repository.open(storage).ancestry(branch="main"))
        assert len(history) == 3, "an update is one commit"


@pytest.mark.parametrize("form", ["zarr", "icechunk"])
def test_a_late_tile_replaces_its_time(
    make_request: Make, catalog: Catalog, tmp_path: Path, form: str
) -> None:
    if form == "icechunk":
        pytest.importorskip("icechunk")
    catalog.add("2021", "2022")
    [late] = [name for name in catalog.items if "35TKF_2022" in name]
    kept = catalog.items.pop(late)
    catalog.write()
    before = grow(make_request, catalog, tmp_path / form, form).red.load()
    catalog.items[late] = kept
    catalog.write()
    after = grow(make_request, catalog, tmp_path / form, form)
    assert after.sizes["time"] == 2
    assert (after.red[1] != before[1]).any()
    np.testing.assert_array_equal(after.red[0], before[0])
    cogs = grow(make_request, catalog, tmp_path / "cog", "cog")
    np.testing.assert_array_equal(after.red, cogs.red)
    np.testing.assert_array_equal(after.id, cogs.id)


def test_a_time_stays_readable_until_it_is_replaced(
    make_request: Make, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passes that are killed before they have made anything remove nothing."""
    catalog.add("2021", "2022")
    [late] = [name for name in catalog.items if "35TKF_2022" in name]
    kept = catalog.items.pop(late)
    catalog.write()
    before = grow(make_request, catalog, tmp_path / "out", "zarr").red.load()
    catalog.items[late] = kept
    catalog.write()

    def killed(*arguments: Any) -> None:
        raise Killed

    for _ in range(3):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(driver, "run_tasks", killed)
            grow(make_request, catalog, tmp_path / "out", "zarr")
        np.testing.assert_array_equal(scenebeam.open(str(tmp_path / "out")).red, before)
    after = grow(make_request, catalog, tmp_path / "out", "zarr")
    assert (after.red[1] != before[1]).any()


def test_another_grid_is_refused_and_nothing_lost(
    make_request: Make, catalog: Catalog, tmp_path: Path
) -> None:
    catalog.add("2022")
    before = grow(make_request, catalog, tmp_path / "out", "zarr").red.load()
    catalog.add("2021")
    with pytest.raises(RequestError, match="grid"):
        grow(make_request, catalog, tmp_path / "out", "zarr", **{"grid.resolution": 20})
    np.testing.assert_array_equal(scenebeam.open(str(tmp_path / "out")).red, before)


def test_more_dates_keep_the_places_of_others(
    make_request: Make, catalog: Catalog, tmp_path: Path
) -> None:
    """Without a series, a new search finds older scenes: what is made keeps its place in the store."""
    catalog.add("2022")
    output = tmp_path / "out"
    fields = {"catalog": str(catalog.path), "output": str(output), **GRID}
    stored = {**fields, "product.format": "zarr"}
    scenebeam.run(make_request(**stored), progress=False)
    shard = output / "cube.zarr/0/red/c/0/0/0"
    made = shard.stat().st_ino
    catalog.add("2021")
    status = scenebeam.run(make_request(**stored), refresh=True, progress=False)
    assert status.state == "succeeded", status.message
    cube = scenebeam.open(str(output))
    assert cube.time.dt.year.values.tolist() == [2021, 2022]
    assert shard.stat().st_ino == made, "it was not made again"
    cogs = scenebeam.run(
        make_request(**{**fields, "output": str(tmp_path / "cog")}), progress=False
    )
    np.testing.assert_array_equal(cube.red, scenebeam.open(cogs).red)


def test_versions_are_kept_by_icechunk_only(
    make_request: Make, catalog: Catalog, tmp_path: Path
) -> None:
    catalog.add("2022")
    with pytest.raises(RequestError, match=r"series.keep_versions: a Zarr store has one version"):
        grow(make_request, catalog, tmp_path / "out", "zarr", series={"keep_versions": 2})
