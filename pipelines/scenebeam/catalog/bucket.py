"""Read static catalogs, ItemCollections and items from a bucket (`gs://`)."""

from __future__ import annotations

from typing import Any

import pystac
from pystac.stac_io import DefaultStacIO

from scenebeam.errors import CatalogError
from scenebeam.transfer.ranges import local_copy
from scenebeam.transfer.retry import Budget
from scenebeam.transfer.signing import redact_url

_LARGEST_DOCUMENT = 1 * 2**30
"""Maximum size of a document in bytes."""


class BucketIO(DefaultStacIO):
    """Reads the documents of a static catalog with the same client as pixels."""

    def __init__(self, budget: Budget) -> None:
        """Create a reader.

        Args:
            budget: Limits on retries, shared by all documents.
        """
        super().__init__()
        self._budget = budget

    def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:
        """Read a document by URL. See StacIO.

        Raises:
            CatalogError: `source` is neither at `gs://` nor at `https://`, or is not UTF-8.
            ReadError: The document cannot be read.
        """
        href = source.get_absolute_href() if isinstance(source, pystac.Link) else str(source)
        if not str(href).lower().startswith(("gs://", "https://")):
            raise CatalogError(f"a catalog in a bucket must not refer to {href!r}; refused")
        with local_copy(str(href), self._budget, _LARGEST_DOCUMENT) as path:
            try:
                return path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                raise CatalogError(f"{redact_url(str(href))} is not JSON") from None
