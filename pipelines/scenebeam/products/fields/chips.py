"""Read the chips of an existing catalog, each with the grid of its mask."""

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
from scenebeam.storage import Store, checked_key, open_store
from scenebeam.transfer.retry import Budget

_MASK_WORDS = ("instance", "semantic", "mask", "label")
"""Words in the keys or roles of assets that are masks, in order of preference."""
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
"""Columns of `items.parquet` that are read."""
_THREADS = 16

Transform = tuple[float, float, float, float, float, float]
GridFacts = tuple[str, Transform, tuple[int, int]]
"""CRS, affine transform, and rows and columns; the CRS is empty if the grid is not known."""
_UNKNOWN_GRID: GridFacts = ("", (0.0, 0.0, 0.0, 0.0, 0.0, 0.0), (0, 0))


class Chip(NamedTuple):
    """One chip, and the grid on which its images are made."""

    name: str
    """Id of its item, and name of its folder."""
    crs: str
    transform: Transform
    shape: tuple[int, int]
    """Rows and columns."""
    mask: str = ""
    """Path or URL of its mask, whose grid the images must have; empty if the run makes the mask."""
    item: str = ""
    """Key of its item in the catalog; empty if the chip is only a row of a table."""


class _Faults:
    """Chips that cannot be used, by what is wrong with them."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._names: dict[str, list[str]] = {}

    def add(self, fault: str, name: str) -> None:
        self._names.setdefault(fault, []).append(name)

    def raise_if_any(self) -> None:
        if self._names:
            faults = [f"{_few(names)} {fault}" for fault, names in sorted(self._names.items())]
            raise RequestError(f"product.chips: {self._path}: {'; '.join(faults)}")


def catalog_folder(path: str) -> str:
    """Return the folder of a catalog of chips, which is given by itself or by one of its files."""
    return os.path.dirname(path) if path.endswith((".json", ".parquet")) else path.rstrip("/")


def read_collection(path: str) -> dict[str, Any]:
    """Return the STAC collection of a catalog of chips, or an empty dict if it has none."""
    content = open_store(catalog_folder(path)).read(COLLECTION_FILE)
    document: dict[str, Any] = {} if content is None else json.loads(content)
    return document


def read_chips(path: str) -> list[Chip]:
    """Read all chips of a catalog.

    They come from its `items.parquet` if it has one, else from the items that its collection links
    to. Items of a season's imagery are skipped.

    Args:
        path: The catalog: its folder, `collection.json` or `items.parquet`.

    Returns:
        The chips in the order of their names.

    Raises:
        RequestError: There is no catalog, it has no chips, or some chips have no id, no mask or no
            grid, or the same name; the message names them.
    """
    store = open_store(catalog_folder(path))
    keys = store.list()
    file_name = path.rpartition("/")[2]
    table = file_name if path.endswith(".parquet") else ITEMS_FILE
    if not path.endswith(".json") and table in keys:
        items = _table_items(store, table)
    elif COLLECTION_FILE in keys or path.endswith(".json"):
        items = _linked_items(store, file_name if path.endswith(".json") else COLLECTION_FILE)
    else:
        raise RequestError(
            f"product.chips: {path} holds neither {ITEMS_FILE} nor {COLLECTION_FILE}"
        )

    faults = _Faults(path)
    listed: list[Chip] = []
    for item, item_key in items:
        chip = None if _is_image(item) else _chip(item, item_key, store, keys, faults)
        if chip is not None:
            listed.append(chip)
    faults.raise_if_any()
    chips = _with_grids(listed, faults)
    faults.raise_if_any()

    repeated = [name for name, count in Counter(chip.name for chip in chips).items() if count > 1]
    if repeated:
        raise RequestError(f"product.chips: {path} holds {_few(repeated)} twice")
    if not chips:
        raise RequestError(f"product.chips: {path} holds no chips")
    return sorted(chips)


def _few(names: Sequence[str]) -> str:
    """List the first three names, and count the others."""
    others = f" and {len(names) - 3} others" if len(names) > 3 else ""
    return ", ".join(sorted(names)[:3]) + others


def _table_items(store: Store, table: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the items of a table, with the properties that are needed here, and no key."""
    with store.local_copy(table) as file:
        parquet = pq.ParquetFile(file)
        columns = [name for name in _COLUMNS if name in parquet.schema_arrow.names]
        for batch in parquet.iter_batches(columns=columns, batch_size=5000):
            for row in batch.to_pylist():
                # A struct column has all keys of all items, with null for those an item lacks.
                assets = _without_nulls(row.pop("assets", None) or {})
                properties = _without_nulls(row)
                yield {"id": row.get("id"), "assets": assets, "properties": properties}, ""


def _without_nulls(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _linked_items(store: Store, collection_key: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the items that a collection links to, and their keys in the store."""
    content = store.read(collection_key)
    if content is None:
        raise RequestError(f"product.chips: {store.uri_for(collection_key)} does not exist")
    keys: list[str] = []
    for link in json.loads(content).get("links") or []:
        if link.get("rel") == "item":
            keys.append(os.path.normpath(str(link["href"])))
    with ThreadPoolExecutor(_THREADS) as threads:
        contents = threads.map(store.read, map(checked_key, keys))
        for key, item in zip(keys, contents, strict=True):
            if item is None:
                raise RequestError(
                    f"product.chips: {store.uri_for(collection_key)} links to {key}, which does "
                    "not exist"
                )
            yield json.loads(item), key


def _is_image(item: Mapping[str, Any]) -> bool:
    """Whether an item is a season's imagery of a chip rather than a chip."""
    return "ftw:season" in (item.get("properties") or {})


def _chip(
    item: Mapping[str, Any], item_key: str, store: Store, keys: set[str], faults: _Faults
) -> Chip | None:
    """Build a chip from its item; records a fault and returns None if something is missing.

    The grid is unknown (an empty CRS) if the item does not state it.
    """
    name, from_table = str(item.get("id") or ""), not item_key
    if not name:
        faults.add("have no id", "(some)")
        return None
    mask = _best_mask(item.get("assets") or {})
    if mask is None:
        faults.add("have no mask among their assets", name)
        return None
    usual_key = f"{name}/{name}.json"
    if from_table and usual_key in keys:
        item_key = usual_key
    href = str(mask["href"])
    if not is_url(href) and not os.path.isabs(href):
        # Hrefs in a table should be relative to the table, but the tables of other tools repeat
        # those of the items, which are relative to the item.
        from_item = os.path.normpath(os.path.join(os.path.dirname(item_key), href))
        from_folder = os.path.normpath(href)
        href = store.uri_for(from_folder if from_table and from_folder in keys else from_item)
    # The asset's own projection fields override those of the item.
    properties: dict[str, Any] = dict(item.get("properties") or {})
    for key, value in mask.items():
        if key.startswith("proj:") and value is not None:
            properties[key] = value
    crs, transform, shape = _grid(properties)
    return Chip(checked_key(name), crs, transform, shape, href, item_key)


def _best_mask(assets: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the TIFF asset that is most likely an item's mask."""
    images: dict[str, Mapping[str, Any]] = {}
    for key, asset in assets.items():
        if str(asset.get("href", "")).lower().endswith((".tif", ".tiff")):
            images[key] = asset
    for word in _MASK_WORDS:
        for key in sorted(images):
            if word in key.lower() or word in (images[key].get("roles") or ()):
                return images[key]
    return None


def _grid(properties: Mapping[str, Any]) -> GridFacts:
    """Return the grid that the fields of the projection extension state, if they do."""
    code = properties.get("proj:code")
    if not code and properties.get("proj:epsg"):
        code = f"EPSG:{int(properties['proj:epsg'])}"
    shape = properties.get("proj:shape")
    transform, bbox = properties.get("proj:transform"), properties.get("proj:bbox")
    if not code or not shape:
        return _UNKNOWN_GRID
    height, width = int(shape[0]), int(shape[1])
    if transform:
        a, b, c, d, e, f = map(float, transform[:6])
    elif bbox:
        left, bottom, right, top = bbox
        a, b, c, d, e, f = (right - left) / width, 0.0, left, 0.0, (bottom - top) / height, top
    else:
        return _UNKNOWN_GRID
    return str(code), (a, b, c, d, e, f), (height, width)


def _with_grids(chips: Sequence[Chip], faults: _Faults) -> list[Chip]:
    """Read the grid from the mask's header for the chips whose item does not state it."""

    def complete(chip: Chip) -> Chip:
        try:
            crs, transform, shape = mask_grid(chip.mask)
        except ReadError:
            faults.add("have neither a grid nor a mask that can be read", chip.name)
            return chip
        return chip._replace(crs=crs, transform=transform, shape=shape)

    incomplete = [number for number, chip in enumerate(chips) if not chip.crs]
    completed = list(chips)
    with ThreadPoolExecutor(_THREADS) as threads:
        found = threads.map(complete, [chips[number] for number in incomplete])
        for number, chip in zip(incomplete, found, strict=True):
            completed[number] = chip
    return completed


def mask_grid(href: str) -> GridFacts:
    """Read the grid of a mask from its header.

    Raises:
        ReadError: The header cannot be read.
    """
    grid = read_grid(href, Budget(private=True))
    if grid is None:
        source = open_source(href, 1, Budget(private=True))
        info = source.info
        source.close()
        grid = info.crs, info.transform, (info.height, info.width)
    crs, transform, shape = grid
    a, b, c, d, e, f = tuple(transform)[:6]
    return crs, (a, b, c, d, e, f), shape
