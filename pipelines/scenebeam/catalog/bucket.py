"""Bucket: static catalogs, ItemCollections and items that lie in a bucket."""

from __future__ import annotations

from typing import Any

import pystac
from pystac.stac_io import DefaultStacIO

from scenebeam.errors import CatalogError
from scenebeam.transfer.ranges import Budget, local_copy
from scenebeam.transfer.signing import redact_url

_LARGEST_DOCUMENT = 1 * 2**30


class BucketIO(DefaultStacIO):
    """Reads the documents of a static catalog by the byte ranges that pixels come by."""

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self._budget = budget

    def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:
        """See StacIO.

        Raises:
            CatalogError: It names a local file.
            ReadError: It cannot be read.
        """
        href = source.get_absolute_href() if isinstance(source, pystac.Link) else str(source)
        if not str(href).lower().startswith(("gs://", "https://")):
            raise CatalogError(f"a catalog in a bucket names {href!r}; refused")
        with local_copy(str(href), self._budget, _LARGEST_DOCUMENT) as path:
            try:
                return path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                raise CatalogError(f"{redact_url(str(href))} is not JSON") from None
