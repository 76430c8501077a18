"""From an existing time series, with scenes on local disk instead of a catalogue."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import rasterio

from known import check
from scenebeam.errors import RequestError
from scenebeam.request import RunRequest
from scenebeam.requestfile import validate_request
from scenebeam.run.driver import run
from scenebeam.sandbox.scenes import SCENES

BEFORE = sorted((s for s in SCENES if s.taken.year == 2021), key=lambda s: s.id)


def request_for(table: Path, root: Path, out: Path, **more: object) -> RunRequest:
    return validate_request(
        {
            "catalog": {"time_series": str(table), "root": str(root)},
            "collections": ["sentinel-2-l2a"],
            "product": {"kind": "mosaic", "bands": ["B04", "SCL"]},
            "grid": {"crs": "EPSG:32634"},
            "output": str(out),
            "runner": "serial",
            **more,
        }
    )


def table(path: Path, *ids: str, header: str = "anchor_date,acq_datetime,tile_ids") -> Path:
    lines = [f'2021-06-09,2021-06-10 09:20:31.024000+00:00,"{one}"' for one in ids]
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


@pytest.mark.parametrize("separator", ["|", ",", ";", "; "])
def test_tile_lists_of_every_style(sandbox: Path, tmp_path: Path, separator: str) -> None:
    ids = [scene.id for scene in BEFORE]
    path = table(tmp_path / "time_serie.csv", separator.join([*ids, ids[0]]))
    request = request_for(path, sandbox, tmp_path / "out")
    status = run(request)
    assert (status.state, status.tasks) == ("succeeded", 1)
    # Files alone tell nothing of clouds, so coverage and then the id decide.
    check(tmp_path / "out/mosaics/20210610T092031Z/red.tif", BEFORE, "red")
    with rasterio.open(tmp_path / "out/mosaics/20210610T092031Z/red.tif") as file:
        assert file.width * 10 > 10_240, "the grid covers all tiles where no area is given"


def test_a_tile_that_is_not_on_disk_is_missing(sandbox: Path, tmp_path: Path) -> None:
    path = table(tmp_path / "time_series.csv", f"{BEFORE[1].id}|S2A_34TXX_20210610_0_L2A")
    request = request_for(path, sandbox, tmp_path / "out")
    assert run(request).incomplete == 1
    (row, _) = csv.DictReader((tmp_path / "out/timestamps_aggregation_band_report.csv").open())
    assert "S2A_34TXX_20210610_0_L2A" in row["message"]
    strict = request_for(
        path, sandbox, tmp_path / "strict", product={"kind": "mosaic", "bands": ["red"], "on_missing": "fail"}
    )
    assert run(strict).state == "failed"


def test_no_tile_on_disk_at_all(sandbox: Path, tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "nothing_here", BEFORE[0].id)
    path.write_text(path.read_text().replace("2021-06-10", "2021-06-11", 1))
    request = request_for(path, sandbox, tmp_path / "out", limits={"max_failed": 0.5})
    assert run(request).state == "partial"
    rows = list(csv.DictReader((tmp_path / "out/timestamps_aggregation_status.csv").open()))
    assert [row["status"] for row in rows] == ["success", "failed_no_tiles"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("acq_datetime,tiles\n2021-06-10,x\n", "lacks the columns tile_ids"),
        ("acq_datetime,tile_ids\nyesterday,x\n", "line 2: acq_datetime 'yesterday'"),
        ("acq_datetime,tile_ids\n2021-06-10,../../etc\n", "is not the id of a scene"),
        ("acq_datetime,tile_ids\n", "has no rows"),
    ],
)
def test_a_table_that_is_none_is_told(sandbox: Path, tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(RequestError, match=told):
        run(request_for(tmp_path / "t.csv", sandbox, tmp_path / "out"))


def test_the_recorded_series_is_understood(real_data: Path, tmp_path: Path) -> None:
    """Its tiles are not here, so nothing can be made; but every row becomes a timestamp with its tiles."""
    request = request_for(real_data / "thessaloniki" / "time_series.csv", tmp_path, tmp_path / "out")
    request = request.model_copy(
        update={"area": validate_request({**request.model_dump(), "area": {"bbox": [22.85, 40.55, 23.05, 40.75]}}).area}
    )
    status = run(request)
    assert status.state == "failed"
    rows = list(csv.DictReader((tmp_path / "out/timestamps_aggregation_status.csv").open()))
    recorded = list(csv.DictReader((real_data / "thessaloniki" / "time_series.csv").open()))
    assert len(rows) == len(recorded)
    assert rows[0] == {"timestamp": "20230202T092109Z", "status": "failed_no_tiles"}
