"""Download one whole file of a scene into a store, and verify it before it appears there."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from scenebeam.catalog.scene import Asset
from scenebeam.errors import CheckError
from scenebeam.imaging.band_budget import BandBudget, LoggedTarget
from scenebeam.imaging.bands import band_spec, scale_offset
from scenebeam.metadata import stac_items
from scenebeam.raster.damage import check_file, find_damage
from scenebeam.request import Checks, is_url
from scenebeam.storage import Store
from scenebeam.transfer.checksum import Checksum, parse_checksum
from scenebeam.transfer.download import download

_SUFFIXES = {".tif", ".tiff", ".jp2"}
_MEDIA_SUFFIXES = {"image/jp2": ".jp2", "image/jpeg2000": ".jp2"}


def file_suffix(asset: Asset) -> str:
    """Return the suffix of an asset's file, by its href or else by its media type."""
    suffix = PurePosixPath(urlsplit(asset.href).path).suffix.lower()
    if suffix in _SUFFIXES:
        return suffix
    media_type = (asset.media_type or "").split(";")[0]
    return _MEDIA_SUFFIXES.get(media_type, ".tif")


def fetch(
    asset: Asset,
    store: Store,
    key: str,
    budget: BandBudget,
    checks: Checks,
    href: str = "",
    signing: str = "",
) -> tuple[int, str]:
    """Download, verify and publish one file.

    A file whose size or checksum differs from the catalog's is downloaded once more. A file without
    a checksum in the catalog is decoded completely, as nothing else reveals a damaged byte.

    Args:
        asset: The file.
        store: Where it is published.
        key: Its key there.
        budget: Retries and waiting time.
        checks: Thresholds of a usable image.
        href: Another place that has the same file.
        signing: How that place is signed.

    Returns:
        Size in bytes, and `file:checksum`.

    Raises:
        CheckError: The file is not fit to use.
        ReadError: The file cannot be downloaded.
        StorageError: The file cannot be published.
    """
    href, signing = href or asset.href, signing or asset.signing
    expected = catalog_checksum(asset)
    algorithms = [expected.algorithm] if expected else []
    difference = ""
    for _ in range(2):
        if difference:
            budget.log_retry(difference)
        with store.open_download(key, href, algorithms) as partial:
            download(href, LoggedTarget(partial, budget), budget, signing)
            digest = partial.digest(expected.algorithm) if expected is not None else ""
            difference = _difference(asset, expected, digest, partial.offset)
            if difference:
                # Discard all of it: resuming cannot repair a wrong byte.
                partial.restart("", None)
                continue
            spec = asset.index, asset.dtype, asset.nodata, band_spec(asset)
            try:
                check_file(partial.finish(), *spec, checks, deep=expected is None)
            except CheckError:
                partial.restart("", None)
                raise
            partial.publish()
            return partial.offset, partial.checksum
    raise CheckError(
        f"{difference}; the file was downloaded twice and discarded. The item may be out of date: "
        "ask the provider"
    )


def catalog_checksum(asset: Asset) -> Checksum | None:
    """Return the checksum of a file in the catalog; None if there is none that can be verified."""
    return parse_checksum(asset.checksum) if asset.checksum else None


def checksum_warning(asset: Asset | None) -> str:
    """Explain why a catalog checksum is not verified; empty if it is, or if there is none."""
    declared = asset.checksum if asset is not None else None
    if declared is None or parse_checksum(declared) is not None:
        return ""
    return f"the catalog's checksum {declared!r} is malformed or unknown, and was not checked"


def _difference(asset: Asset, expected: Checksum | None, digest: str, size: int | None) -> str:
    """Explain how a file differs from what the catalog says; empty if it does not."""
    if expected is not None and digest != expected.digest:
        return f"its {expected.algorithm} is {digest}, the catalog says {expected.digest}"
    if expected is None and asset.size not in (None, size):
        return f"it has {size or 0:,} bytes, the catalog says {asset.size:,}"
    return ""


def find_stored_damage(asset: Asset, store: Store, key: str) -> str:
    """Verify a file that exists in the store.

    Size and checksum are compared with those of the catalog. A file without a checksum is decoded
    completely on this machine. In a bucket, where objects appear only when they are complete, a
    sample of it is enough.

    Args:
        asset: The file as the catalog describes it.
        store: Where it is.
        key: Its key.

    Returns:
        Why the file must be downloaded again; empty if it is intact.

    Raises:
        ReadError: The file cannot be read now.
        StorageError: The store cannot be read.
    """
    expected = catalog_checksum(asset)
    if expected is None:
        difference = _difference(asset, None, "", store.size(key))
        if difference:
            return difference
    else:
        digest = _digest(store, key, expected.algorithm)
        if digest is not None:
            return _difference(asset, expected, digest, None)
    return find_damage(store.uri_for(key), asset.index, deep=not _is_bucket(store))


def _digest(store: Store, key: str, algorithm: str) -> str | None:
    """Return a file's digest in hex; None if the bucket stores one of another algorithm."""
    if _is_bucket(store):
        stored = parse_checksum(store.checksum(key)[1])
        return stored.digest if stored is not None and stored.algorithm == algorithm else None
    with store.local_copy(key) as path, path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _is_bucket(store: Store) -> bool:
    return store.uri.startswith("gs://")


def file_asset(
    href: str, bands: Sequence[tuple[str, Asset]], size: int, checksum: str
) -> dict[str, Any]:
    """Describe a scene's file, as its provider made it, as an asset of a STAC item.

    Args:
        href: The file, relative to the item or absolute.
        bands: Name and asset of each band that is taken from it.
        size: Bytes of the file.
        checksum: Its `file:checksum`.

    Returns:
        The asset. `scenebeam:shift` and the offsets describe the radiometric offset that is still
        in the pixels, `scenebeam:source` is where the file was downloaded from.
    """
    first = bands[0][1]
    raster_bands = []
    for _, asset in bands:
        _, offset = scale_offset(asset, "raw")
        encoding = asset.dtype, asset.nodata, asset.scale, offset, asset.resolution
        raster_bands.append(stac_items.raster_band(*encoding))
    default_type = "image/jp2" if file_suffix(first) == ".jp2" else stac_items.COG_TYPE
    described: dict[str, Any] = {
        "href": href,
        "type": first.media_type or default_type,
        "roles": ["data"],
        "file:size": size,
        "file:checksum": checksum,
        "scenebeam:index": first.index,
    }
    if is_url(first.href):
        described["scenebeam:source"] = first.href
    if first.signing != "none":
        described["scenebeam:signing"] = first.signing
    if first.add_offset_known:
        described["scenebeam:shift"] = first.add_offset
    described["bands"] = [{"name": name} for name, _ in bands]
    described["raster:bands"] = raster_bands
    return described
