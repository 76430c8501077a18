"""Chips: the chips of a catalogue, each with the grid of its mask."""

from __future__ import annotations

import json
import os.path
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from scenebeam.errors import ReadError, RequestError
from scenebeam.metadata.item_tables import COLLECTION_FILE, ITEMS_FILE
from scenebeam.raster.reader import open_source
from scenebeam.raster.tiff import read_grid
from scenebeam.request import is_url
from scenebeam.storage import Store, checked_name, open_store
from scenebeam.transfer.retry import Budget

_MASKS = ("instance", "semantic", "mask", "label")
"""Words in the keys of assets that are masks, the best first."""
_COLUMNS = (
    "id",
    "assets",
    "ftw:season",
    "proj:code",
    "proj:epsg",
    "proj:transform",
    "proj:shape",
    "proj:bbox",
)

Transform = tuple[float, float, float, float, float, float]


class Chip(NamedTuple):
    """One chip: what to make images for, and on which grid."""

    name: str
    """Id of its item, and name of its folder."""
    crs: str
    transform: Transform
    shape: tuple[int, int]
    mask: str = ""
    """Path or URL of the mask that its images must fit; empty where the run makes it."""
    item: str = ""
    """Name of its item in the catalogue; empty where there is only a row of a table."""


def catalogue_folder(path: str) -> str:
    """The folder of a catalogue of chips that is named by itself or by one of its files."""
    return os.path.dirname(path) if path.endswith((".json", ".parquet")) else path.rstrip("/")


def collection_of(path: str) -> dict[str, Any]:
    """The collection of a catalogue of chips, as JSON; empty where there is only a table."""
    content = open_store(catalogue_folder(path)).read(COLLECTION_FILE)
    document: dict[str, Any] = {} if content is None else json.loads(content)
    return document


def read_chips(path: str) -> list[Chip]:
    """All chips of a catalogue, by name: its `items.parquet` where there is one, else the items of its collection.

    Raises RequestError where there is none, or where chips lack an id, a mask or a grid: it names them.
    """
    store = open_store(catalogue_folder(path))
    names = store.list()
    table = path.rpartition("/")[2] if path.endswith(".parquet") else ITEMS_FILE
    if not path.endswith(".json") and table in names:
        items = _rows(store, table)
    elif COLLECTION_FILE in names or path.endswith(".json"):
        items = _items(
            store, path.rpartition("/")[2] if path.endswith(".json") else COLLECTION_FILE
        )
    else:
        raise RequestError(
            f"product.chips: {path} holds neither {ITEMS_FILE} nor {COLLECTION_FILE}"
        )
    faults: dict[str, list[str]] = {}
    chips = [
        _chip(item, where, store, names, faults) for item, where in items if not _is_image(item)
    ]
    _refuse(path, faults)
    found = _with_grids([chip for chip in chips if chip is not None], faults)
    _refuse(path, faults)
    twice = [name for name, count in Counter(chip.name for chip in found).items() if count > 1]
    if twice:
        raise RequestError(f"product.chips: {path} holds {_few(twice)} twice")
    if not found:
        raise RequestError(f"product.chips: {path} holds no chips")
    return sorted(found)


def _refuse(path: str, faults: Mapping[str, list[str]]) -> None:
    if faults:
        told = "; ".join(f"{_few(names)} {why}" for why, names in sorted(faults.items()))
        raise RequestError(f"product.chips: {path}: {told}")


def _few(names: list[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (
        f" and {len(names) - 3} others" if len(names) > 3 else ""
    )


def _rows(store: Store, table: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Items as far as they are needed here, batch by batch."""
    with store.local_copy(table) as file:
        parquet = pq.ParquetFile(file)
        known = [name for name in _COLUMNS if name in parquet.schema_arrow.names]
        for batch in parquet.iter_batches(columns=known, batch_size=5000):
            for row in batch.to_pylist():
                assets = {
                    key: asset for key, asset in (row.pop("assets", None) or {}).items() if asset
                }
                properties = {name: value for name, value in row.items() if value is not None}
                yield {"id": row.get("id"), "assets": assets, "properties": properties}, ""


def _items(store: Store, name: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The items that a collection links to, and their names in the store."""
    content = store.read(name)
    if content is None:
        raise RequestError(f"product.chips: {store.path(name)} is not there")
    collection = json.loads(content)
    hrefs = [
        str(link["href"]) for link in collection.get("links") or [] if link.get("rel") == "item"
    ]
    names = [os.path.normpath(href) for href in hrefs]
    with ThreadPoolExecutor(16) as threads:
        for where, item in zip(
            names, threads.map(store.read, map(checked_name, names)), strict=True
        ):
            if item is None:
                raise RequestError(
                    f"product.chips: {store.path(name)} links to {where}, which is not there"
                )
            yield json.loads(item), where


def _is_image(item: Mapping[str, Any]) -> bool:
    """Whether an item is a season's imagery of a chip, not a chip."""
    return "ftw:season" in (item.get("properties") or {})


def _chip(
    item: Mapping[str, Any], where: str, store: Store, names: set[str], faults: dict[str, list[str]]
) -> Chip | None:
    """A chip, its transform empty where only the mask's header knows it; None where something is missing."""
    name, in_table = str(item.get("id") or ""), not where
    if not name:
        faults.setdefault("have no id", []).append("(some)")
        return None
    usual = f"{name}/{name}.json"
    where = where or (usual if usual in names else "")
    mask = _mask(item.get("assets") or {})
    if mask is None:
        faults.setdefault("have no mask among their assets", []).append(name)
        return None
    href = str(mask["href"])
    if not is_url(href) and not os.path.isabs(href):
        beside = os.path.normpath(os.path.join(os.path.dirname(where), href))
        # A table's hrefs start from the table; tables of other tools repeat those of the items.
        from_table = os.path.normpath(href)
        href = store.path(from_table if in_table and from_table in names else beside)
    crs, transform, shape = _grid({**(item.get("properties") or {}), **_told(mask)})
    return Chip(checked_name(name), crs, transform, shape, href, where)


def _told(asset: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value for key, value in asset.items() if key.startswith("proj:") and value is not None
    }


def _mask(assets: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The best of an item's masks."""
    images = {
        k: a
        for k, a in assets.items()
        if str(a.get("href", "")).lower().endswith((".tif", ".tiff"))
    }
    for word in _MASKS:
        for key in sorted(images):
            if word in key.lower() or word in (images[key].get("roles") or ()):
                return images[key]
    return None


def _grid(told: Mapping[str, Any]) -> tuple[str, Transform, tuple[int, int]]:
    """CRS, transform and shape by the projection extension; an empty CRS where it does not say."""
    nothing: tuple[str, Transform, tuple[int, int]] = "", (0.0, 0.0, 0.0, 0.0, 0.0, 0.0), (0, 0)
    code = told.get("proj:code") or (
        f"EPSG:{int(told['proj:epsg'])}" if told.get("proj:epsg") else ""
    )
    shape, transform, bbox = (told.get(f"proj:{name}") for name in ("shape", "transform", "bbox"))
    if not code or not shape:
        return nothing
    height, width = int(shape[0]), int(shape[1])
    if transform:
        a, b, c, d, e, f = (float(number) for number in transform[:6])
    elif bbox:
        left, bottom, right, top = bbox
        a, b, c, d, e, f = (right - left) / width, 0.0, left, 0.0, (bottom - top) / height, top
    else:
        return nothing
    return str(code), (a, b, c, d, e, f), (height, width)


def _with_grids(chips: Sequence[Chip], faults: dict[str, list[str]]) -> list[Chip]:
    """Where the item does not tell its grid, the mask's header does."""

    def settle(chip: Chip) -> Chip:
        try:
            crs, transform, shape = mask_grid(chip.mask)
        except ReadError:
            faults.setdefault("have neither a grid nor a mask that can be read", []).append(
                chip.name
            )
            return chip
        return chip._replace(crs=crs, transform=transform, shape=shape)

    with ThreadPoolExecutor(16) as threads:
        asked = iter(list(threads.map(settle, [chip for chip in chips if not chip.crs])))
    return [chip if chip.crs else next(asked) for chip in chips]


def mask_grid(href: str) -> tuple[str, Transform, tuple[int, int]]:
    """CRS, transform and shape of a mask, by its header. Raises ReadError where it cannot be read."""
    known = read_grid(href, Budget(private=True))
    if known is None:
        source = open_source(href, 1, Budget(private=True))
        info = source.info
        source.close()
        known = info.crs, info.transform, (info.height, info.width)
    crs, transform, shape = known
    a, b, c, d, e, f = tuple(transform)[:6]
    return crs, (a, b, c, d, e, f), shape
