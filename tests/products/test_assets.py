"""The assets product: manifest, downloads, what goes wrong with them, and where they come to lie."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio

from conftest import changed
from known import check
from scenebeam.errors import RequestError
from scenebeam.execution.driver import run
from scenebeam.request import RunRequest
from scenebeam.requestfile import validate_request
from scenebeam.sandbox.scenes import AREA, COLLECTION, DATES, SCENES
from scenebeam.sandbox.server import Fault, SandboxServer
from scenebeam.storage import open_store
from scenebeam.transfer import retry

Assets = Callable[..., RunRequest]
SCENE = SCENES[0].id


@pytest.fixture(autouse=True)
def not_halted() -> Iterator[None]:
    yield
    retry.shutdown.clear()


@pytest.fixture
def catalog(server: SandboxServer, tmp_path: Path) -> Callable[..., Path]:
    """An ItemCollection on the server's files; `edit` changes each item, `only` takes some."""

    def write(
        edit: Callable[[dict[str, Any]], None] = lambda item: None, only: tuple[str, ...] = ()
    ) -> Path:
        items = [scene.item(server.url) for scene in SCENES if not only or scene.id in only]
        for item in items:
            edit(item)
        path = tmp_path / "catalog.json"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
        return path

    return write


@pytest.fixture
def ask(catalog: Callable[..., Path], tmp_path: Path) -> Assets:
    """An assets request; keywords with dots change it."""

    def make(path: Path | None = None, **changes: Any) -> RunRequest:
        document: dict[str, Any] = {
            "run": "raw",
            "catalog": str(path or catalog()),
            "collections": [COLLECTION],
            "area": {"bbox": list(AREA)},
            "dates": DATES,
            "product": {"kind": "assets"},
            "output": str(tmp_path / "out"),
            "runner": "serial",
            "limits": {"retry_wait": 0.01},
        }
        return validate_request(changed(document, changes))

    return make


def rows(request: RunRequest, name: str) -> list[dict[str, str]]:
    content = open_store(request.output).read(name)
    assert content is not None
    return list(csv.DictReader(content.decode().splitlines()))


def status_of(request: RunRequest, scene: str = SCENE) -> dict[str, str]:
    return next(
        row for row in rows(request, "assets_download_status.csv") if row["scene_id"] == scene
    )


def test_every_band_is_there_and_is_the_file_that_was_served(
    ask: Assets, sandbox: Path, server: SandboxServer
) -> None:
    request = ask()
    status = run(request)
    assert (status.state, status.done) == ("succeeded", 6)
    assert server.requests.total() == 18, "one request a file"
    for row in rows(request, "assets_manifest_selected.csv"):
        for label, band in (("b04", "red"), ("b08", "nir"), ("scl", "scl")):
            served = sandbox / row["scene_id"] / f"{band}.tif"
            assert Path(row[f"local_{label}"]).read_bytes() == served.read_bytes()
            assert row[f"available_{label}"] == "True"
    assert {row["status"] for row in rows(request, "assets_download_status.csv")} == {"success"}
    spending = [
        f"{kind}_{band}"
        for kind in ("seconds", "bytes", "retries")
        for band in ("b04", "b08", "scl")
    ]
    columns = ["scene_id", "status", "ok_b04", "ok_b08", "ok_scl", "message", *spending]
    assert list(status_of(request)) == columns


def test_each_scene_has_an_item_that_tells_what_its_files_hold(ask: Assets, sandbox: Path) -> None:
    request = ask()
    run(request)
    catalog = json.loads((sandbox / "items.json").read_text())["features"]
    for source in catalog:
        path = Path(request.output, "raw", source["id"], f"{source['id']}.json")
        if not path.exists():
            assert source["id"].endswith("_0_L2A"), "the older processing is left out"
            continue
        item = json.loads(path.read_text())
        pystac.Item.from_dict({**item, "stac_extensions": []}).validate()
        assert item["properties"]["eo:cloud_cover"] == source["properties"]["eo:cloud_cover"]
        content = path.with_name("B04.tif").read_bytes()
        assert item["assets"]["B04"]["file:size"] == len(content)
        assert (
            item["assets"]["B04"]["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
        )
        shifted = source["properties"]["s2:processing_baseline"] >= "04.00"
        shifted &= not source["properties"].get("earthsearch:boa_offset_applied", False)
        assert item["assets"]["B04"]["raster:bands"][0]["offset"] == pytest.approx(
            -0.1 if shifted else 0
        )
        assert item["assets"]["SCL"]["raster:bands"][0]["offset"] == 0


def test_the_manifest_has_the_documented_columns(ask: Assets) -> None:
    request = ask(**{"product.download_n": 0})
    assert run(request).tasks == 0
    manifest = rows(request, "assets_manifest_selected.csv")
    assert ",".join(manifest[0]).startswith(
        "scene_id,datetime,cloud_cover,href_b04,href_b08,href_scl,local_b04,local_b08,local_scl,"
    )
    assert len(manifest) == 6
    assert not (Path(request.output) / "raw").exists()


def test_a_second_run_makes_no_request(ask: Assets, server: SandboxServer) -> None:
    request = ask()
    run(request)
    server.reset_counts()
    assert run(request).state == "succeeded"
    assert server.requests.total() == 0


def test_overwriting_leaves_no_half_download(ask: Assets, server: SandboxServer) -> None:
    server.faults += [Fault(f"{SCENE}/nir", cut=5000, times=1), Fault(f"{SCENE}/nir", status=404)]
    request = ask()
    run(request)
    assert [path.name for path in Path(request.output).rglob(".*.arriving")] == [
        ".B08.tif.arriving"
    ]
    run(ask(**{"product.bands": ["SCL"]}), overwrite=True)
    assert {path.name for path in Path(request.output, "raw").rglob("*.arriving*")} == set()
    assert {path.name for path in Path(request.output, "raw").rglob("*.tif")} == {"SCL.tif"}


def test_options_choose_the_rows_and_how_many_are_downloaded(ask: Assets) -> None:
    by_cloud = ask(**{"product.download_n": 2, "product.max_scenes": 4})
    run(by_cloud)
    manifest = rows(by_cloud, "assets_manifest_selected.csv")
    clouds = [float(row["cloud_cover"]) for row in manifest]
    assert clouds == sorted(clouds)
    assert clouds[0] == 0
    assert [len(manifest), len(rows(by_cloud, "assets_download_status.csv"))] == [4, 2]
    by_time = ask(
        **{"product.sort_mode": "time", "product.date_start": "2022-01-01", "product.download_n": 0}
    )
    run(by_time, overwrite=True)
    assert {row["datetime"][:4] for row in rows(by_time, "assets_manifest_selected.csv")} == {
        "2022"
    }


def test_a_date_after_all_scenes_is_named(ask: Assets) -> None:
    with pytest.raises(RequestError, match="date_start"):
        run(ask(**{"product.date_start": "2030-01-01"}))


def test_downloads_feed_the_mosaics_with_their_offsets(ask: Assets, tmp_path: Path) -> None:
    raw = ask(**{"product.bands": ["red", "SCL"]})
    run(raw)
    out = Path(raw.output)
    mosaic = validate_request(
        {
            "catalog": {"time_series": str(out / "time_serie.csv"), "root": str(out / "raw")},
            "collections": [COLLECTION],
            "area": {"bbox": list(AREA)},
            "product": {"kind": "mosaic", "bands": ["red", "scl"]},
            "output": str(tmp_path / "mosaics"),
            "runner": "serial",
        }
    )
    assert run(mosaic).state == "succeeded"
    scenes = {scene.id: scene for scene in SCENES}
    for row in rows(raw, "time_serie.csv"):
        stamp = row["acq_datetime"][:19].replace("-", "").replace(":", "").replace(" ", "T") + "Z"
        tiles = [scenes[name] for name in row["tile_ids"].split("|")]
        check(Path(mosaic.output) / "mosaics" / stamp / "red.tif", tiles, "red")


@pytest.mark.parametrize(
    ("fault", "status", "told"),
    [
        (Fault(f"{SCENE}/nir", status=404), "download_incomplete", "404"),
        (Fault(f"{SCENE}/nir", status=403), "download_incomplete", "403"),
        (Fault(f"{SCENE}/nir", status=503), "download_incomplete", "503"),
        (Fault(f"{SCENE}/nir", cut=0), "download_incomplete", "run again later"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_band_that_fails_is_named_and_loses_no_other(
    ask: Assets, server: SandboxServer, fault: Fault, status: str, told: str
) -> None:
    server.faults.append(fault)
    request = ask(**{"limits.max_failed": 0.5})
    assert run(request).state == "partial"
    row = status_of(request)
    assert (row["status"], row["ok_b04"], row["ok_b08"], row["ok_scl"]) == (
        status,
        "True",
        "False",
        "True",
    )
    assert row["message"].startswith("B08: ")
    assert told in row["message"]
    server.faults.clear()
    server.reset_counts()
    assert run(request).state == "succeeded"
    assert {path.rpartition("/")[2] for path in server.requests} == {"nir.tif"}, (
        "what is there is not fetched again"
    )
    assert status_of(request)["status"] == "success"


def test_faults_that_pass_are_not_seen(ask: Assets, server: SandboxServer) -> None:
    server.faults += [
        Fault("red", status=429, retry_after="0", times=3),
        Fault("nir", status=503, times=4),
        Fault("scl", cut=100, times=5),
        Fault("nir", cut=70_000, times=5),
    ]
    request = ask()
    assert run(request).state == "succeeded"
    for row in rows(request, "assets_manifest_selected.csv"):
        with rasterio.open(row["local_b08"]) as file:
            assert file.read(1).any()


def test_a_missing_href_is_a_status_of_its_own(ask: Assets, catalog: Callable[..., Path]) -> None:
    request = ask(catalog(lambda item: item["assets"].pop("nir", None)))
    status = run(request)
    assert (status.state, status.skipped) == ("failed", 6)
    row = status_of(request)
    assert (row["status"], row["ok_b04"], row["ok_b08"]) == (
        "skipped_missing_href",
        "True",
        "False",
    )
    assert "no file of nir" in row["message"]
    manifest = rows(request, "assets_manifest_selected.csv")[0]
    assert (manifest["href_b08"], manifest["local_b08"], manifest["available_b08"]) == (
        "",
        "",
        "False",
    )


def test_an_empty_file_is_told(
    ask: Assets, server: SandboxServer, catalog: Callable[..., Path]
) -> None:
    (server.folder / "empty.tif").write_bytes(b"")

    def edit(item: dict[str, Any]) -> None:
        item["assets"]["nir"]["href"] = f"{server.url}/empty.tif"

    request = ask(catalog(edit), **{"product.download_n": 1})
    run(request)
    (row,) = rows(request, "assets_download_status.csv")
    assert row["status"] == "download_incomplete"
    assert "empty file" in row["message"]
    assert not list(Path(request.output).rglob("*B08*")), "nothing is left of it"


@pytest.mark.parametrize(
    "content", ["<html>log in</html>", "II*\0 and nothing more"], ids=["html", "header"]
)
def test_what_is_no_image_is_not_kept(
    ask: Assets, server: SandboxServer, catalog: Callable[..., Path], content: str
) -> None:
    (server.folder / "bad.tif").write_text(content)

    def edit(item: dict[str, Any]) -> None:
        item["assets"]["nir"]["href"] = f"{server.url}/bad.tif"

    request = ask(catalog(edit), **{"product.download_n": 1})
    run(request)
    (row,) = rows(request, "assets_download_status.csv")
    assert row["status"] == "validation_failed"
    assert "not a usable image" in row["message"]
    assert not list(Path(request.output).rglob("*B08*"))


def test_a_block_that_does_not_decode_is_found(
    ask: Assets, server: SandboxServer, sandbox: Path
) -> None:
    broken = bytearray((sandbox / SCENE / "nir.tif").read_bytes())
    broken[-2000:] = b"\xff" * 2000
    (server.folder / "broken.tif").write_bytes(broken)
    server.faults.append(Fault(f"{SCENE}/nir", status=302, location="/broken.tif"))
    request = ask(**{"limits.max_failed": 0.5})
    run(request)
    row = status_of(request)
    assert row["status"] == "validation_failed"
    assert "corrupt" in row["message"]


def test_another_number_type_is_not_what_was_asked_for(
    ask: Assets, catalog: Callable[..., Path]
) -> None:
    def edit(item: dict[str, Any]) -> None:
        item["assets"]["nir"]["href"] = item["assets"]["scl"]["href"]

    request = ask(catalog(edit), **{"product.download_n": 1})
    run(request)
    (row,) = rows(request, "assets_download_status.csv")
    assert (row["status"], "uint8" in row["message"]) == ("validation_failed", True)


def with_checksum(
    server: SandboxServer, make: Callable[[bytes], str]
) -> Callable[[dict[str, Any]], None]:
    def edit(item: dict[str, Any]) -> None:
        asset = item["assets"]["nir"]
        content = (server.folder / asset["href"].removeprefix(f"{server.url}/")).read_bytes()
        asset["file:checksum"] = make(content)

    return edit


@pytest.mark.parametrize(
    ("make", "status", "told", "times"),
    [
        (lambda content: "1220" + hashlib.sha256(content).hexdigest(), "success", "", 1),
        (lambda content: "1620" + hashlib.sha3_256(content).hexdigest(), "success", "", 1),
        (lambda content: "md5:" + hashlib.md5(content).hexdigest(), "success", "", 1),
        (lambda content: hashlib.md5(content).hexdigest(), "success", "", 1),
        (
            lambda content: "d501" + hashlib.sha256(content).hexdigest(),
            "success",
            "malformed or unknown",
            1,
        ),
        (lambda content: "1220" + "0" * 64, "validation_failed", "downloaded twice", 2),
    ],
    ids=["sha256", "sha3", "prefix", "bare", "malformed", "wrong"],
)
def test_checksums_of_the_catalogue_are_held_against_the_bytes(
    ask: Assets,
    server: SandboxServer,
    catalog: Callable[..., Path],
    make: Callable[[bytes], str],
    status: str,
    told: str,
    times: int,
) -> None:
    request = ask(catalog(with_checksum(server, make), only=(SCENE,)))
    run(request)
    row = status_of(request)
    assert row["status"] == status
    assert told in row["message"]
    assert server.requests[f"/{SCENE}/nir.tif"] == times


def test_a_size_that_is_not_the_catalogues_fails_where_there_is_no_checksum(
    ask: Assets, catalog: Callable[..., Path]
) -> None:
    def edit(item: dict[str, Any]) -> None:
        item["assets"]["nir"]["file:size"] = 7
        item["assets"]["nir"].pop("file:checksum", None)

    request = ask(catalog(edit, only=(SCENE,)))
    run(request)
    assert "the catalog says 7" in status_of(request)["message"]


def test_a_disk_with_too_little_room_is_told_before_the_download(
    ask: Assets, server: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=1000))
    request = ask(**{"product.download_n": 1})
    run(request)
    (row,) = rows(request, "assets_download_status.csv")
    assert row["status"] == "download_incomplete"
    assert "the disk has 0 MB free" in row["message"]
    assert not list(Path(request.output).rglob("*.tif"))


def test_a_table_of_chosen_scenes_is_all_that_is_fetched(ask: Assets, tmp_path: Path) -> None:
    everything = ask()
    run(everything)
    table = (Path(everything.output) / "scenes_selected.csv").read_text().splitlines()
    chosen = tmp_path / "chosen.csv"
    chosen.write_text("\n".join([table[0], table[1].replace("2021-06-10,", "2021-06-01,", 1)]))
    request = ask(output=str(tmp_path / "few"), **{"select.table": str(chosen)})
    run(request)
    (row,) = rows(request, "scenes_selected.csv")
    assert row["anchor_date"] == "2021-06-01"
    assert [row["scene_id"] for row in rows(request, "assets_manifest_selected.csv")] == [row["id"]]


def test_a_table_without_its_columns_is_told_which(ask: Assets, tmp_path: Path) -> None:
    chosen = tmp_path / "chosen.csv"
    chosen.write_text("scene,datetime\nx,2021-06-10\n")
    with pytest.raises(
        RequestError, match="lacks the columns anchor_date, id; it has scene, datetime"
    ):
        ask(**{"select.table": str(chosen)})


def test_jpeg_2000_stays_jpeg_2000(
    ask: Assets, server: SandboxServer, catalog: Callable[..., Path]
) -> None:
    pixels = np.arange(256 * 256, dtype=np.uint16).reshape(256, 256)
    profile = {
        "driver": "JP2OpenJPEG",
        "width": 256,
        "height": 256,
        "count": 1,
        "dtype": "uint16",
        "crs": "EPSG:32634",
    }
    transform = rasterio.transform.from_origin(600000, 4500000, 10, 10)
    with rasterio.open(
        server.folder / "B08.jp2",
        "w",
        **profile,
        transform=transform,
        QUALITY="100",
        REVERSIBLE="YES",
    ) as file:
        file.write(pixels, 1)

    def edit(item: dict[str, Any]) -> None:
        item["assets"]["nir"] |= {"href": f"{server.url}/B08.jp2", "type": "image/jp2"}

    request = ask(catalog(edit, only=(SCENE,)))
    assert run(request).state == "succeeded"
    with rasterio.open(f"{request.output}/raw/{SCENE}/B08.jp2") as file:
        assert file.driver == "JP2OpenJPEG"
        assert (file.read(1) == pixels).all()


@pytest.mark.parametrize("runner", ["serial", "direct"])
def test_no_more_files_at_once_than_a_host_may_bear(
    ask: Assets, server: SandboxServer, runner: str
) -> None:
    server.latency = 0.05
    request = ask(runner=runner, **{"limits.max_per_host": 2, "limits.max_download_workers": 8})
    assert run(request).state == "succeeded"
    assert server.max_active == 2
    run(ask(runner=runner, output=f"{request.output}-2", **{"limits.max_per_host": 6}))
    assert server.max_active > 2, "and no fewer, where there are more"
