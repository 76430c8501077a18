"""Fetch: one whole file of a scene into a store, checked before it appears there."""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import urlsplit

from scenebeam.catalog.scene import Asset
from scenebeam.errors import CheckError
from scenebeam.products.inputs import spec_of
from scenebeam.raster.intact import check_file
from scenebeam.request import Checks
from scenebeam.storage import Store
from scenebeam.transfer.checksum import parse_checksum
from scenebeam.transfer.download import download
from scenebeam.transfer.ranges import Budget

_SUFFIXES = {".tif", ".tiff", ".jp2"}
_MEDIA_SUFFIXES = {"image/jp2": ".jp2", "image/jpeg2000": ".jp2"}


def file_suffix(asset: Asset) -> str:
    """What a file is called where it lies, else what its media type says: JPEG 2000 stays JPEG 2000."""
    own = PurePosixPath(urlsplit(asset.href).path).suffix.lower()
    return own if own in _SUFFIXES else _MEDIA_SUFFIXES.get((asset.media_type or "").split(";")[0], ".tif")


def fetch(
    asset: Asset, store: Store, name: str, budget: Budget, checks: Checks, href: str = "", signing: str = ""
) -> tuple[int, str]:
    """Download, check and publish one file; its size and checksum.

    One that is not what the catalogue says is fetched once more. `href` and `signing` name another place that holds the
    same file. Raises CheckError where it is not fit to use, ReadError where it cannot be fetched.
    """
    href, signing = href or asset.href, signing or asset.signing
    wanted = parse_checksum(asset.checksum) if asset.checksum else None
    wrong = ""
    for _ in range(2):
        with store.receiving(name, href, [wanted.algorithm] if wanted else []) as arrival:
            download(href, arrival, budget, signing)
            if wanted is not None and arrival.digest(wanted.algorithm) != wanted.digest:
                wrong = (
                    f"its {wanted.algorithm} is {arrival.digest(wanted.algorithm)}, the catalogue says {wanted.digest}"
                )
            elif wanted is None and asset.size not in (None, arrival.offset):
                wrong = f"it has {arrival.offset:,} bytes, the catalogue says {asset.size:,}"
            else:
                try:
                    check_file(arrival.finish(), asset.index, asset.dtype, asset.nodata, spec_of(asset), checks)
                except CheckError:
                    arrival.restart("", None)
                    raise
                arrival.publish()
                return arrival.offset, arrival.checksum
            arrival.restart("", None)
    raise CheckError(f"{wrong}; fetched twice, and not kept. Is the item out of date? Ask the provider")
