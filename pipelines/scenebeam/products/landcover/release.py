"""Release: the chosen chips under their final names, with tables, checksums and an archive."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scenebeam.collections import LandClass
from scenebeam.csvtable import File
from scenebeam.errors import StorageError
from scenebeam.metadata import stac_items
from scenebeam.metadata.item_tables import (
    COLLECTION_FILE,
    ITEMS_FILE,
    BytesFile,
    dump_items,
    join_items,
)
from scenebeam.multihash import SHA256_PREFIX
from scenebeam.products.landcover.chips import Chip
from scenebeam.products.landcover.items import chip_item, item_id
from scenebeam.products.landcover.record import MadeFile
from scenebeam.products.landcover.request import LandcoverRequest
from scenebeam.products.landcover.tables import CHIPS_FILE, TRACKER_FILE, chip_table, tracker
from scenebeam.request.markers import Marker, marked_fields
from scenebeam.storage import Store

RELEASES = "processed/"
MANIFEST_FILE = "manifest.json"
_COPIERS = 16
_PER_FILE, _PER_CHIP = 512, 64 * 1024
"""Bytes of an archive that a file takes beside its content, and what is told of a chip, at most."""
_BATCH = 500
"""Items that are in memory together."""
_EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The time of every file in an archive: the earliest that it can tell."""


@dataclass(frozen=True)
class Copy:
    """A file of the release and the working file that it is."""

    source: str
    made: MadeFile


def release(
    run: str,
    product: LandcoverRequest,
    classes: Mapping[int, LandClass],
    chips: Sequence[Chip],
    store: Store,
) -> None:
    """Publish the release of some chips, those that have an id. Its manifest comes last: where that stands all of it
    stands, and what stands of the same chips is not made again. One of other chips is replaced file by file. `classes`
    are those that were asked for.

    Raises StorageError where the archive would not fit onto the disk, before anything is written or removed.
    """
    folder, archive = f"{RELEASES}{product.version}/", f"{RELEASES}{product.version}.zip"
    released = [chip for chip in chips if chip.id is not None]
    copies = dict(sorted(_copies(released)))
    inputs = _inputs(run, product, copies)
    told = store.read(f"{folder}{MANIFEST_FILE}")
    if told is not None and json.loads(told)["inputs"] == inputs:
        return
    if product.zip:
        _check_room(copies, len(released), store)
    with ThreadPoolExecutor(_COPIERS) as threads:
        list(threads.map(lambda name: store.copy(copies[name].source, folder + name), copies))
    files = {name: copy.made for name, copy in copies.items()} | _documents(
        run, product, released, store, folder
    )
    manifest = stac_items.to_bytes(_manifest(run, product, classes, chips, inputs, files))
    if product.zip:
        _write_archive(archive, product.version, sorted(files), manifest, store)
    store.write(f"{folder}{MANIFEST_FILE}", manifest)
    left = store.list(folder) - {f"{folder}{name}" for name in (*files, MANIFEST_FILE)}
    store.delete(sorted(left | (set() if product.zip else store.list(archive))))


def _copies(chips: Sequence[Chip]) -> Iterator[tuple[str, Copy]]:
    for chip in chips:
        assert chip.id is not None
        for layer in chip.task.layers:
            for ending in (".tif", ".png"):
                name = layer.name(chip.made.chip) + ending
                if name in chip.made.files:
                    yield (
                        layer.release_name(chip.id) + ending,
                        Copy(f"{chip.task.output_prefix}/{name}", chip.made.files[name]),
                    )


def _inputs(run: str, product: LandcoverRequest, copies: Mapping[str, Copy]) -> str:
    """SHA-256 over all that decides what the release holds."""
    document = {
        "run": run,
        "product": product.model_dump(
            mode="json", include=marked_fields(LandcoverRequest, Marker.NOT_FINGERPRINTED)
        ),
        "software": version("scenebeam"),
        "files": {name: [copy.source, copy.made.checksum] for name, copy in copies.items()},
    }
    return sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _check_room(copies: Mapping[str, Copy], chips: int, store: Store) -> None:
    room = store.free_space()
    needed = sum(copy.made.size + _PER_FILE for copy in copies.values()) + chips * _PER_CHIP
    if room is not None and needed > room:
        raise StorageError(
            f"cannot write the release to {store.uri}: its archive takes {needed / 1e6:,.0f} MB, and the disk has "
            f"{room / 1e6:,.0f} MB free; free some space or set product.zip: false, and run again: the chips are kept"
        )


def _documents(
    run: str, product: LandcoverRequest, chips: Sequence[Chip], store: Store, folder: str
) -> dict[str, MadeFile]:
    """Publish the items, the tables and the collection; what they are."""
    files: dict[str, MadeFile] = {}

    def publish(name: str, content: File) -> None:
        with store.open_write(folder + name) as file:
            file.write(content.to_bytes())
        files[name] = MadeFile(size=file.size, checksum=file.checksum)

    joined = None
    with tempfile.TemporaryDirectory() as parts, ThreadPoolExecutor(_COPIERS) as threads:
        names = []
        for start in range(0, len(chips), _BATCH):
            items = [chip_item(chip, product.version) for chip in chips[start : start + _BATCH]]
            list(
                threads.map(
                    lambda item: publish(
                        f"{item['id']}.json", BytesFile(stac_items.to_bytes(item))
                    ),
                    items,
                )
            )
            names.append(f"{parts}/{start}.parquet")
            Path(names[-1]).write_bytes(dump_items(items))
        if names:
            joined = join_items(names, lambda name: nullcontext(Path(name)))
            publish(ITEMS_FILE, BytesFile(joined.content))
    title = f"Land-cover chips {product.version} of the run {run}"
    collection = stac_items.make_collection(
        product.version, title, [], [f"{item_id(chip)}.json" for chip in chips]
    )
    if joined is not None:
        collection["extent"] = joined.extent
    publish(COLLECTION_FILE, BytesFile(stac_items.to_bytes(collection)))
    publish(CHIPS_FILE, chip_table(chips, product))
    publish(TRACKER_FILE, tracker(chips, product))
    return files


def _manifest(
    run: str,
    product: LandcoverRequest,
    classes: Mapping[int, LandClass],
    chips: Sequence[Chip],
    inputs: str,
    files: Mapping[str, MadeFile],
) -> dict[str, Any]:
    """Counts, and the size and SHA-256 of every file."""
    made = Counter(chip.made.land_class for chip in chips)
    kept = Counter(chip.made.land_class for chip in chips if chip.id is not None)
    return {
        "version": product.version,
        "run": run,
        "chips": sum(kept.values()),
        "classes": [
            {"class": number, "category": one.name, "made": made[number], "released": kept[number]}
            for number, one in sorted(classes.items())
        ],
        "missing_classes": [
            one.name for number, one in sorted(classes.items()) if not made[number]
        ],
        "sampling_factor": product.sampling_factor,
        "inputs": inputs,
        "files": {
            name: {"size": made.size, "sha256": made.checksum.removeprefix(SHA256_PREFIX)}
            for name, made in sorted(files.items())
        },
    }


def _write_archive(
    name: str, release: str, members: Sequence[str], manifest: bytes, store: Store
) -> None:
    """One ZIP of the release, streamed; ZIP64 where it needs to be. The same release gives the same bytes.

    Nothing is compressed in it: rasters and pictures are already.
    """
    with (
        store.open_write(name) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
    ):
        for member in members:
            with (
                store.local_copy(f"{RELEASES}{release}/{member}") as path,
                path.open("rb") as content,
                archive.open(_entry(f"{release}/{member}"), "w", force_zip64=True) as target,
            ):
                shutil.copyfileobj(content, target, 2**20)
        archive.writestr(_entry(f"{release}/{MANIFEST_FILE}"), manifest)
    digest = file.checksum.removeprefix(SHA256_PREFIX)
    store.write(f"{name}.sha256", f"{digest}  {name.rpartition('/')[2]}\n".encode())


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EARLIEST)
    entry.external_attr = 0o644 << 16
    entry.create_system = 3
    return entry
