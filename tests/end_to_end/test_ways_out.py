"""A catalog that nobody here wrote: none of its items reads a file or a server that is not its own.

One server stands for the public network, one for a private network, and one for the metadata server
of a cloud. The last two remember who asks them.
"""

from __future__ import annotations

import copy
import csv
import ipaddress
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rustac

from hostile import Hostile, serve_hostile
from known import check
from scenebeam.errors import CatalogError, SceneBeamError
from scenebeam.execution.driver import run
from scenebeam.request import RunRequest
from scenebeam.sandbox.scenes import SCENES
from scenebeam.sandbox.server import Fault
from scenebeam.transfer import addresses

Make = Callable[..., RunRequest]
SECRET = b"root:s3cr3t-of-this-machine:0:0"
STAMP = "20210610T092031Z"
GOOD = next(scene for scene in SCENES if scene.id == "S2A_34TGL_20210610_1_L2A")
BAD = next(scene for scene in SCENES if scene.id == "S2A_34TGK_20210610_1_L2A")
"""The scene whose red band tries to get out."""
_REAL_PRIVATE, _REAL_FORBIDDEN = addresses._is_private, addresses._is_forbidden


@dataclass
class World:
    """What there is to reach, and what must not be reached."""

    public: Hostile
    private: Hostile
    metadata: Hostile
    secret: Path
    """A file of this machine, with text in it."""
    picture: Path
    """A file of this machine: an image of the place, all 4242."""

    @property
    def asked(self) -> int:
        """Requests that the private and the metadata server have seen."""
        return self.private.requests.total() + self.metadata.requests.total()


@pytest.fixture
def world(sandbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    public, metadata = map(ipaddress.ip_address, ("127.0.0.1", "127.0.0.3"))
    monkeypatch.setattr(addresses, "_is_private", lambda one: one != public and _REAL_PRIVATE(one))
    monkeypatch.setattr(
        addresses,
        "_is_forbidden",
        lambda one: one == metadata or _REAL_FORBIDDEN(one),
    )
    folders = [tmp_path / name for name in ("public", "private", "metadata")]
    for folder in folders:
        for scene in (GOOD, BAD):
            (folder / scene.id).mkdir(parents=True)
            for band in ("red", "scl"):
                shutil.copy(sandbox / scene.id / f"{band}.tif", folder / scene.id)
    secret, picture = tmp_path / "passwd", tmp_path / "picture.tif"
    secret.write_bytes(SECRET * 200_000)
    spoil(sandbox / BAD.id / "red.tif", picture, lambda pixels: pixels * 0 + 4242)
    with serve_hostile(folders[0]) as one, serve_hostile(folders[1], "127.0.0.2") as other:
        with serve_hostile(folders[2], "127.0.0.3") as third:
            yield World(one, other, third, secret, picture)


def spoil(source: Path, target: Path, change: Callable[[Any], Any]) -> None:
    """Rewrite an image with other numbers."""
    with rasterio.open(source) as file:
        pixels, profile = file.read(), file.profile
    profile.update(driver="GTiff")
    with rasterio.open(target, "w", **profile) as file:
        file.write(change(pixels).astype(profile["dtype"]))


def vrt(source: Path, band: str) -> str:
    """A VRT with the grid of an image, and a band of its own."""
    with rasterio.open(source) as file:
        place = ", ".join(map(str, file.transform.to_gdal()))
        head = f'<VRTDataset rasterXSize="{file.width}" rasterYSize="{file.height}">'
        head += f"<SRS>EPSG:{file.crs.to_epsg()}</SRS><GeoTransform>{place}</GeoTransform>"
        return f"{head}{band}</VRTDataset>"


def raw_band(path: str) -> str:
    return (
        '<VRTRasterBand dataType="UInt16" band="1" subClass="VRTRawRasterBand">'
        f'<SourceFilename relativetoVRT="0">{path}</SourceFilename><ImageOffset>0</ImageOffset>'
        "<PixelOffset>2</PixelOffset><LineOffset>2048</LineOffset></VRTRasterBand>"
    )


def simple_band(path: str) -> str:
    return (
        '<VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="0">{path}</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand>"
    )


def red_of(world: World) -> Path:
    return world.public.folder / BAD.id / "red.tif"


def disguised(band: Callable[[World], str]) -> Callable[[World], str | None]:
    """Make the asset's file a VRT."""

    def write(world: World) -> str | None:
        red_of(world).write_text(vrt(red_of(world), band(world)))
        return None

    return write


def redirected(server: Callable[[World], Hostile]) -> Callable[[World], str | None]:
    """Let the asset's file redirect to another server's."""

    def redirect(world: World) -> str | None:
        location = f"{server(world).url}/{BAD.id}/red.tif"
        world.public.faults.append(Fault(f"{BAD.id}/red", status=302, location=location))
        return None

    return redirect


def zipped(world: World) -> str:
    with zipfile.ZipFile(world.public.folder / "a.zip", "w") as archive:
        archive.write(red_of(world), "red.tif")
    return f"/vsizip//vsicurl/{world.public.url}/a.zip/red.tif"


WAYS: dict[str, tuple[Callable[[World], str | None], str]] = {
    "raw VRT of a local file": (disguised(lambda w: raw_band(str(w.secret))), "it is XML"),
    "VRT of a local image": (disguised(lambda w: simple_band(str(w.picture))), "it is XML"),
    "VRT of a private server": (
        disguised(lambda w: simple_band(f"/vsicurl/{w.private.url}/{BAD.id}/red.tif")),
        "it is XML",
    ),
    "redirect to a private server": (redirected(lambda w: w.private), "private network"),
    "redirect to a metadata server": (redirected(lambda w: w.metadata), "metadata address"),
    "private server": (lambda w: f"{w.private.url}/{BAD.id}/red.tif", "private network"),
    "metadata server": (lambda w: f"{w.metadata.url}/{BAD.id}/red.tif", "metadata address"),
}
"""What is tried → its href, or None where the file itself has changed; and what is said of it."""
LOCAL_WAYS: dict[str, Callable[[World], str]] = {
    "/vsicurl/": lambda w: f"/vsicurl/{w.private.url}/{BAD.id}/red.tif",
    "/vsizip/": zipped,
    "file://": lambda w: f"file://{w.picture}",
    "FILE://": lambda w: f"FILE://{w.picture}",
    "path": lambda w: str(w.picture),
    "GTIFF_DIR": lambda w: f"GTIFF_DIR:1:{w.picture}",
    "ftp://": lambda w: f"ftp://127.0.0.2/{BAD.id}/red.tif",
    "vrt://": lambda w: f"vrt://{w.picture}",
}


def items_of(world: World, href: str | None) -> list[dict[str, Any]]:
    items = [copy.deepcopy(scene.item(world.public.url)) for scene in (GOOD, BAD)]
    if href is not None:
        items[1]["assets"]["red"]["href"] = href
    for item in items:
        url = f"{world.public.url}/{item['id']}/item.json"
        item["links"] = [{"rel": "self", "href": url}]
    return items


def publish(world: World, items: list[dict[str, Any]]) -> str:
    """Put a static catalog of items on the public server; gives its URL."""
    links = []
    for item in items:
        (world.public.folder / item["id"] / "item.json").write_text(json.dumps(item))
        links.append({"rel": "item", "href": f"{world.public.url}/{item['id']}/item.json"})
    root = {
        "type": "Catalog",
        "stac_version": "1.0.0",
        "id": "public",
        "description": "-",
        "links": links,
    }
    (world.public.folder / "catalog.json").write_text(json.dumps(root))
    return f"{world.public.url}/catalog.json"


@pytest.fixture
def ask(make_request: Make) -> Make:
    def make(catalog: str, **changes: Any) -> RunRequest:
        asked = {"dates": "2021", "grid.crs": "EPSG:32634", "product.bands": ["red"], **changes}
        return make_request(catalog=catalog, **asked)

    return make


def check_nothing_left(world: World, output: Path) -> None:
    """Assert that nothing was asked of the other servers, and that no product holds local files."""
    assert world.asked == 0
    for path in output.rglob("*"):
        if path.is_file():
            assert SECRET not in path.read_bytes(), path
        if path.suffix == ".tif":
            with rasterio.open(path) as file:
                pixels = file.read(1)
            assert not (pixels == 4242).all()
            assert SECRET not in pixels.tobytes()
            assert not np.isin(pixels, np.frombuffer(SECRET[:30], "<u2")).all()


def missing_reason(output: Path) -> str:
    item = json.loads((output / "mosaics" / STAMP / f"{STAMP}.json").read_text())
    (missing,) = item["assets"]["red"]["scenebeam:missing"]
    assert missing["scene"] == BAD.id
    return str(missing["reason"])


@pytest.mark.parametrize("name", WAYS)
def test_a_mosaic_has_the_good_tile_and_names_the_other(ask: Make, world: World, name: str) -> None:
    way, told = WAYS[name]
    request = ask(publish(world, items_of(world, way(world))))
    status = run(request)
    assert (status.state, status.incomplete) == ("succeeded", 1), status.message
    output = Path(request.output)
    assert told in missing_reason(output)
    with (output / "timestamps_aggregation_band_report.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert told in row["message"]
    check(output / "mosaics" / STAMP / "red.tif", [GOOD], "red")
    check_nothing_left(world, output)


@pytest.mark.parametrize("name", WAYS)
def test_a_download_has_the_good_file_and_names_the_other(
    ask: Make,
    world: World,
    name: str,
) -> None:
    way, told = WAYS[name]
    catalog = publish(world, items_of(world, way(world)))
    request = ask(catalog, product={"kind": "assets", "bands": ["red"]})
    status = run(request)
    assert status.state in ("partial", "failed")
    output = Path(request.output)
    with (output / "assets_download_status.csv").open(newline="") as file:
        rows = {row["scene_id"]: row for row in csv.DictReader(file)}
    assert rows[GOOD.id]["status"] == "success"
    assert told.removeprefix("it is ") in rows[BAD.id]["message"]
    assert not (output / "raw" / BAD.id / "red.tif").exists()
    check_nothing_left(world, output)


@pytest.mark.parametrize("product", ["mosaic", "assets"])
@pytest.mark.parametrize("name", LOCAL_WAYS)
def test_an_href_to_this_machine_is_refused(
    ask: Make,
    world: World,
    caplog: pytest.LogCaptureFixture,
    name: str,
    product: str,
) -> None:
    """Either the run is refused, or the item is left out and named."""
    catalog = publish(world, items_of(world, LOCAL_WAYS[name](world)))
    request = ask(catalog, product={"kind": product, "bands": ["red"]})
    try:
        told = run(request).message
    except SceneBeamError as error:
        told = str(error)
    output = Path(request.output)
    told += caplog.text + "".join(path.read_text() for path in output.glob("*.csv"))
    assert BAD.id in told
    assert "unexpected" not in told
    check_nothing_left(world, output)


def test_a_file_names_no_others_by_its_metadata(ask: Make, world: World) -> None:
    """What stands in a TIFF's own metadata is text; side-car files are not looked for."""
    with rasterio.open(red_of(world)) as file:
        pixels, profile = file.read(), file.profile
    profile.update(driver="GTiff", tiled=False)  # of strips: GDAL reads it
    for name in ("blockxsize", "blockysize", "interleave"):
        del profile[name]
    with rasterio.open(red_of(world), "w", **profile) as file:
        file.write(pixels)
        file.update_tags(SourceFilename=str(world.secret), href=f"{world.private.url}/x")
        file.update_tags(ns="xml:VRT", VRT=vrt(world.picture, raw_band(str(world.secret))))
        file.update_tags(1, ns="OVERVIEWS", OVERVIEW_FILE=str(world.picture))
    told = f'<MDI key="OVERVIEW_FILE">{world.picture}</MDI>'
    overview = f'<PAMDataset><Metadata domain="OVERVIEWS">{told}</Metadata></PAMDataset>'
    red_of(world).with_suffix(".tif.aux.xml").write_text(overview)
    red_of(world).with_suffix(".tif.msk").write_text(
        vrt(world.picture, simple_band(str(world.picture))),
    )
    red_of(world).with_suffix(".tif.ovr").write_text(
        vrt(world.picture, simple_band(str(world.picture))),
    )
    request = ask(publish(world, items_of(world, None)))
    status = run(request)
    assert (status.state, status.incomplete) == ("succeeded", 0), status.message
    output = Path(request.output)
    check(output / "mosaics" / STAMP / "red.tif", [GOOD, BAD], "red")
    assert {path.rpartition("/")[2] for path in world.public.requests if BAD.id in path} <= {
        "red.tif",
        "item.json",
    }
    check_nothing_left(world, output)


def test_a_table_of_items_is_judged_like_any_other_catalog(ask: Make, world: World) -> None:
    items = items_of(world, f"{world.private.url}/{BAD.id}/red.tif")
    rustac.write_sync(str(world.public.folder / "items.parquet"), items)
    request = ask(f"{world.public.url}/items.parquet")
    status = run(request)
    assert (status.state, status.incomplete) == ("succeeded", 1), status.message
    assert "private network" in missing_reason(Path(request.output))
    check_nothing_left(world, Path(request.output))


def test_a_next_page_on_a_private_server_is_not_asked_for(ask: Make, world: World) -> None:
    search = f"{world.public.url}/search"
    conforms = [
        "https://api.stacspec.org/v1.0.0/core",
        "https://api.stacspec.org/v1.0.0/item-search",
    ]
    links = [
        {"rel": "search", "href": search, "method": method, "type": "application/geo+json"}
        for method in ("GET", "POST")
    ]
    links.append({"rel": "self", "href": f"{world.public.url}/stac"})
    root = {
        "type": "Catalog",
        "stac_version": "1.0.0",
        "id": "api",
        "description": "-",
        "conformsTo": conforms,
    }
    (world.public.folder / "stac").write_text(json.dumps({**root, "links": links}))
    page = {"type": "FeatureCollection", "features": items_of(world, None)}
    page["links"] = [{"rel": "next", "href": f"{world.private.url}/search", "method": "GET"}]
    (world.public.folder / "search").write_text(json.dumps(page))
    request = ask(f"{world.public.url}/stac")
    with pytest.raises(CatalogError):
        run(request)
    assert world.public.requests["/search"] > 0
    check_nothing_left(world, Path(request.output))
