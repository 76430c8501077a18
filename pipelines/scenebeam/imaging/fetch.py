"""Fetch: one whole file of a scene into a store, checked before it appears there, or in place."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from scenebeam.catalog.scene import Asset
from scenebeam.errors import CheckError
from scenebeam.imaging.band_budget import BandBudget, LoggedTarget
from scenebeam.imaging.bands import band_spec
from scenebeam.metadata import stac_items
from scenebeam.raster.damage import check_file, find_damage
from scenebeam.request import Checks, is_url
from scenebeam.storage import Store
from scenebeam.transfer.checksum import Checksum, parse_checksum
from scenebeam.transfer.download import download

_SUFFIXES = {".tif", ".tiff", ".jp2"}
_MEDIA_SUFFIXES = {"image/jp2": ".jp2", "image/jpeg2000": ".jp2"}


def file_suffix(asset: Asset) -> str:
    """What a file is called where it lies, else what its media type says: JPEG 2000 stays JPEG 2000."""
    own = PurePosixPath(urlsplit(asset.href).path).suffix.lower()
    return (
        own
        if own in _SUFFIXES
        else _MEDIA_SUFFIXES.get((asset.media_type or "").split(";")[0], ".tif")
    )


def fetch(
    asset: Asset,
    store: Store,
    name: str,
    budget: BandBudget,
    checks: Checks,
    href: str = "",
    signing: str = "",
) -> tuple[int, str]:
    """Download, check and publish one file.

    One that is not what the catalog says is fetched once more. A file without a checksum in the
    catalog is decoded from end to end: nothing else tells that no byte of it is damaged.

    Args:
        asset: The file.
        store: Where it goes.
        name: Its name there.
        budget: What it may spend.
        checks: Thresholds.
        href: Another place that holds the same file.
        signing: How that place is opened.

    Returns:
        Size in bytes, and `file:checksum`.

    Raises:
        CheckError: The file is not fit to use.
        ReadError: The file cannot be fetched.
    """
    href, signing = href or asset.href, signing or asset.signing
    wanted = catalog_checksum(asset)
    wrong = ""
    for _ in range(2):
        if wrong:
            budget.log_retry(wrong)
        with store.open_download(name, href, [wanted.algorithm] if wanted else []) as arrival:
            download(href, LoggedTarget(arrival, budget), budget, signing)
            if wanted is not None and arrival.digest(wanted.algorithm) != wanted.digest:
                wrong = f"its {wanted.algorithm} is {arrival.digest(wanted.algorithm)}, the catalogue says {wanted.digest}"
            elif wanted is None and asset.size not in (None, arrival.offset):
                wrong = f"it has {arrival.offset:,} bytes, the catalogue says {asset.size:,}"
            else:
                expected = asset.index, asset.dtype, asset.nodata, band_spec(asset)
                try:
                    check_file(arrival.finish(), *expected, checks, deep=wanted is None)
                except CheckError:
                    arrival.restart("", None)
                    raise
                arrival.publish()
                return arrival.offset, arrival.checksum
            arrival.restart("", None)
    raise CheckError(
        f"{wrong}; fetched twice, and not kept. Is the item out of date? Ask the provider"
    )


def catalog_checksum(asset: Asset) -> Checksum | None:
    """Return the digest that the catalog knows of a file; None where none can be checked."""
    return parse_checksum(asset.checksum) if asset.checksum else None


def checksum_warning(asset: Asset | None) -> str:
    """Say why the catalog's checksum of a file is not checked, if it has one; else empty."""
    told = asset.checksum if asset is not None else None
    if told is None or parse_checksum(told) is not None:
        return ""
    return f"the catalog's checksum {told!r} is malformed or unknown, and was not checked"


def find_stored_damage(asset: Asset, store: Store, name: str) -> str:
    """Check a file that lies in the store already.

    By size and checksum where the catalog knows them. A file without a checksum is decoded from end
    to end on this machine; in a bucket, where objects appear only whole, it is looked at.

    Returns:
        Why the file must be fetched again; empty where it is the one that the catalog describes.

    Raises:
        ReadError, StorageError: It cannot be read now.
    """
    size = store.size(name)
    wanted = catalog_checksum(asset)
    if wanted is not None:
        found = _digest(store, name, wanted.algorithm)
        if found is not None:
            if found == wanted.digest:
                return ""
            return f"its {wanted.algorithm} is {found}, the catalog says {wanted.digest}"
    elif asset.size not in (None, size):
        return f"it has {size or 0:,} bytes, the catalog says {asset.size:,}"
    return find_damage(store.uri_for(name), asset.index, deep=not _is_bucket(store))


def _digest(store: Store, name: str, algorithm: str) -> str | None:
    """Return a file's digest in hex; None where the bucket keeps another one than is asked for."""
    if _is_bucket(store):
        kept = parse_checksum(store.checksum(name)[1])
        return kept.digest if kept is not None and kept.algorithm == algorithm else None
    with store.local_copy(name) as path, path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _is_bucket(store: Store) -> bool:
    return store.uri.startswith("gs://")


def file_asset(
    href: str,
    bands: Sequence[tuple[str, Asset]],
    size: int,
    checksum: str,
) -> dict[str, Any]:
    """Describe a scene's file, as its provider made it, as an asset of a STAC item.

    Args:
        href: The file, from the item's place.
        bands: Name and asset of each band that is taken from it.
        size: Bytes of the file.
        checksum: Its `file:checksum`.

    Returns:
        The asset. `scenebeam:shift` and the offsets tell what the numbers still carry, `scenebeam:source` where it
        was fetched.
    """
    first = bands[0][1]
    jpeg_2000 = file_suffix(first) == ".jp2"
    raster_bands = []
    for _, asset in bands:
        # As the file holds it: what harmonizing would take out is still in its numbers.
        offset = asset.offset - asset.scale * asset.add_offset
        numbers = asset.dtype, asset.nodata, asset.scale, offset, asset.resolution
        raster_bands.append(stac_items.raster_band(*numbers))
    return {
        "href": href,
        "type": first.media_type or ("image/jp2" if jpeg_2000 else stac_items.COG_TYPE),
        "roles": ["data"],
        "file:size": size,
        "file:checksum": checksum,
        "scenebeam:index": first.index,
        **({"scenebeam:source": first.href} if is_url(first.href) else {}),
        **({} if first.signing == "none" else {"scenebeam:signing": first.signing}),
        **({"scenebeam:shift": first.add_offset} if first.add_offset_known else {}),
        "bands": [{"name": name} for name, _ in bands],
        "raster:bands": raster_bands,
    }
