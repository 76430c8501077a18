"""Publish a release: the selected chips under their final names, with tables and an archive.

A release is a function of its inputs: the working chips, the fields of the request that shape it,
and the software version. Their hash is stored in the manifest, which is written last. So a manifest
with the same hash means that the release is complete and need not be made again, and one that is
missing or different means that everything is published again, file by file.

Nothing in a release depends on the clock or the machine: the same chips give the same bytes,
including the archive.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
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
    MergedItems,
    merge_items,
)
from scenebeam.multihash import SHA256_PREFIX
from scenebeam.products.landcover.chips import Chip
from scenebeam.products.landcover.items import chip_item, item_id
from scenebeam.products.landcover.record import FileRecord
from scenebeam.products.landcover.request import LandcoverRequest
from scenebeam.products.landcover.tables import CHIPS_FILE, TRACKER_FILE, chip_table, chip_tracker
from scenebeam.request.markers import Marker, marked_fields
from scenebeam.stac_geoparquet import write_items
from scenebeam.storage import Store

RELEASES_PREFIX = "processed/"
"""Folder of the releases, one for each version."""
MANIFEST_FILE = "manifest.json"
_THREADS = 16
"""Files that are copied or published at once."""
_ARCHIVE_OVERHEAD = 512
"""Upper bound of the bytes that a file takes in an archive besides its content."""
_METADATA_BYTES = 64 * 1024
"""Upper bound of the bytes that items and tables hold for each chip."""
_BATCH = 500
"""Items that are in memory at once."""
_ARCHIVE_TIME = (1980, 1, 1, 0, 0, 0)
"""Modification time of every file in an archive: the earliest that ZIP can represent."""


@dataclass(frozen=True)
class _Copy:
    """A working file that becomes a file of the release."""

    source_key: str
    record: FileRecord


@dataclass(frozen=True)
class _Publisher:
    """Writes files into the folder of a release, and records them for the manifest."""

    store: Store
    folder: str
    files: dict[str, FileRecord] = field(default_factory=dict)
    """File name → size and checksum, of the files published so far."""

    def publish(self, name: str, content: File) -> None:
        with self.store.open_write(self.folder + name) as file:
            content.write_to(file)
        self.files[name] = FileRecord(size=file.size, checksum=file.checksum)


def release(
    run: str,
    product: LandcoverRequest,
    classes: Mapping[int, LandClass],
    chips: Sequence[Chip],
    store: Store,
) -> None:
    """Publish the release of the chips that have an id, unless it exists.

    An earlier release of the same version but other chips is replaced file by file.

    Args:
        run: Name of the run.
        product: The request.
        classes: The requested classes.
        chips: All chips, with ids as `assign_ids` gives them.
        store: Where the working chips are and the release is published.

    Raises:
        StorageError: The archive would not fit on the disk (nothing has been written or removed
            then), or a file cannot be copied or published.
    """
    folder = f"{RELEASES_PREFIX}{product.version}/"
    archive_key = f"{RELEASES_PREFIX}{product.version}.zip"
    copies = _plan_copies(chips)
    inputs = _hash_inputs(run, product, copies)
    # The manifest is written last, so one with these inputs belongs to a complete release.
    existing = store.read(f"{folder}{MANIFEST_FILE}")
    if existing is not None and json.loads(existing)["inputs"] == inputs:
        return
    released = [chip for chip in chips if chip.id is not None]
    # Check first, so that a run that ends here leaves the store as it was.
    if product.zip:
        _check_free_space(copies, len(released), store)
    # `list` waits for all copies, and raises the first error.
    with ThreadPoolExecutor(_THREADS) as threads:
        list(threads.map(lambda name: store.copy(copies[name].source_key, folder + name), copies))
    publisher = _Publisher(store, folder)
    _publish_documents(run, product, released, publisher)
    files = {name: copy.record for name, copy in copies.items()} | publisher.files
    manifest = stac_items.to_bytes(_manifest(run, product, classes, chips, inputs, files))
    if product.zip:
        _write_archive(archive_key, product.version, sorted(files), manifest, store)
    # The manifest marks the release complete, so it comes after everything that it lists.
    store.write(f"{folder}{MANIFEST_FILE}", manifest)
    # Remove what an earlier release under this version has and this one has not.
    obsolete = store.list(folder) - {f"{folder}{name}" for name in (*files, MANIFEST_FILE)}
    if not product.zip:
        obsolete |= store.list(archive_key)
    store.delete(sorted(obsolete))


def _plan_copies(chips: Sequence[Chip]) -> dict[str, _Copy]:
    """Return file name in the release → working file, sorted by name."""
    copies = {}
    for chip in chips:
        if chip.id is None:
            continue
        for layer in chip.task.layers:
            for extension in (".tif", ".png"):
                working = layer.working_name(chip.record.chip) + extension
                # Without thumbnails there is no PNG.
                if working in chip.record.files:
                    key = f"{chip.task.output_prefix}/{working}"
                    released = layer.release_name(chip.id) + extension
                    copies[released] = _Copy(key, chip.record.files[working])
    return dict(sorted(copies.items()))


def _hash_inputs(run: str, product: LandcoverRequest, copies: Mapping[str, _Copy]) -> str:
    """Return the SHA-256 of everything that determines the content of the release.

    Of the request these are the fields outside its fingerprint, which can change under one output.
    The others determine the working chips, whose checksums are included.
    """
    document = {
        "run": run,
        "product": product.model_dump(
            mode="json", include=marked_fields(LandcoverRequest, Marker.NOT_FINGERPRINTED)
        ),
        "software": version("scenebeam"),
        "files": {name: [copy.source_key, copy.record.checksum] for name, copy in copies.items()},
    }
    return sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _check_free_space(copies: Mapping[str, _Copy], chips: int, store: Store) -> None:
    """Check that the archive will fit. The copies are not counted: on a disk they are hard links.

    Raises:
        StorageError: It will not.
    """
    free = store.free_space()
    needed = chips * _METADATA_BYTES
    for copy in copies.values():
        needed += copy.record.size + _ARCHIVE_OVERHEAD
    if free is not None and needed > free:
        raise StorageError(
            f"cannot write the release to {store.uri}: its archive takes {needed / 1e6:,.0f} MB, "
            f"and the disk has {free / 1e6:,.0f} MB free; free some space or set product.zip: "
            "false, and run again: the chips are kept"
        )


def _publish_documents(
    run: str, product: LandcoverRequest, chips: Sequence[Chip], publisher: _Publisher
) -> None:
    """Publish the items, their table, the collection and the tables of chips."""
    merged = _publish_items(product, chips, publisher)
    title = f"Land-cover chips {product.version} of the run {run}"
    names = [f"{item_id(chip.id)}.json" for chip in chips if chip.id is not None]
    collection = stac_items.make_collection(product.version, title, [], names)
    if merged is not None:
        collection["extent"] = merged.extent
    publisher.publish(COLLECTION_FILE, BytesFile(stac_items.to_bytes(collection)))
    publisher.publish(CHIPS_FILE, chip_table(chips, product))
    publisher.publish(TRACKER_FILE, chip_tracker(chips, product))


def _publish_items(
    product: LandcoverRequest, chips: Sequence[Chip], publisher: _Publisher
) -> MergedItems | None:
    """Publish the item of each chip, and all of them as `items.parquet`. None without chips.

    A release can have tens of thousands of items, so they are built in batches: each batch becomes
    a temporary table, and the tables are merged at the end.
    """

    def publish(item: stac_items.Item) -> None:
        publisher.publish(f"{item['id']}.json", BytesFile(stac_items.to_bytes(item)))

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(_THREADS) as threads:
        tables = []
        for start in range(0, len(chips), _BATCH):
            items = []
            for chip in chips[start : start + _BATCH]:
                if chip.id is not None:
                    items.append(chip_item(chip, chip.id, product.version))
            list(threads.map(publish, items))
            tables.append(f"{folder}/{start}.parquet")
            Path(tables[-1]).write_bytes(write_items(items))
        if not tables:
            return None
        merged = merge_items(tables, lambda name: nullcontext(Path(name)))
        publisher.publish(ITEMS_FILE, BytesFile(merged.content))
        return merged


def _manifest(
    run: str,
    product: LandcoverRequest,
    classes: Mapping[int, LandClass],
    chips: Sequence[Chip],
    inputs: str,
    files: Mapping[str, FileRecord],
) -> dict[str, Any]:
    """Return the chips of each class, and the size and SHA-256 of every file."""
    made = Counter(chip.record.land_class for chip in chips)
    released = Counter(chip.record.land_class for chip in chips if chip.id is not None)
    class_counts, missing = [], []
    for number, land_class in sorted(classes.items()):
        class_counts.append(
            {
                "class": number,
                "category": land_class.name,
                "made": made[number],
                "released": released[number],
            }
        )
        if not made[number]:
            missing.append(land_class.name)
    entries = {}
    for name, record in sorted(files.items()):
        digest = record.checksum.removeprefix(SHA256_PREFIX)
        entries[name] = {"size": record.size, "sha256": digest}
    return {
        "version": product.version,
        "run": run,
        "chips": sum(released.values()),
        "classes": class_counts,
        "missing_classes": missing,
        "sampling_factor": product.sampling_factor,
        "inputs": inputs,
        "files": entries,
    }


def _write_archive(
    key: str, release_name: str, members: Sequence[str], manifest: bytes, store: Store
) -> None:
    """Write the release as one ZIP archive, and its SHA-256 beside it.

    Members are read from the store one at a time and streamed, so memory is bounded. They are
    stored without compression: rasters and thumbnails are compressed already.
    """
    with (
        store.open_write(key) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
    ):
        for member in members:
            # The output is not seekable, so the size of a member is only known after its header
            # has been written: `force_zip64` leaves room for one of more than 4 GiB.
            with (
                store.local_copy(f"{RELEASES_PREFIX}{release_name}/{member}") as path,
                path.open("rb") as content,
                archive.open(_entry(f"{release_name}/{member}"), "w", force_zip64=True) as target,
            ):
                shutil.copyfileobj(content, target, 2**20)
        archive.writestr(_entry(f"{release_name}/{MANIFEST_FILE}"), manifest)
    digest = file.checksum.removeprefix(SHA256_PREFIX)
    # The format of `sha256sum --check`.
    store.write(f"{key}.sha256", f"{digest}  {key.rpartition('/')[2]}\n".encode())


def _entry(name: str) -> zipfile.ZipInfo:
    """Describe a member with the same metadata on every machine: time, permissions and system."""
    entry = zipfile.ZipInfo(name, _ARCHIVE_TIME)
    entry.external_attr = 0o644 << 16
    # Python's default is the system that it runs on; 3 is Unix.
    entry.create_system = 3
    return entry
