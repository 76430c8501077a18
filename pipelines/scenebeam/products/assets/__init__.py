"""Assets: the scenes' own files, band by band, with a manifest of them and a STAC item per scene."""

from __future__ import annotations

from scenebeam.metadata.item_tables import report_items
from scenebeam.products.assets.make import make
from scenebeam.products.assets.plan import plan
from scenebeam.products.assets.tables import tables
from scenebeam.products.assets.task import AssetsTask, reusable_outputs
from scenebeam.products.base import Product

__all__ = ["PRODUCT", "AssetsTask", "kept", "make", "plan", "tables"]

PRODUCT = Product(
    AssetsTask, plan, make, report_items(tables), reusable_outputs=reusable_outputs, io_bound=True
)
