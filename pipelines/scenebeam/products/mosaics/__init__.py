"""Mosaics: for every acquisition and band one COG on the run's grid, with a STAC item per acquisition."""

from __future__ import annotations

from scenebeam.metadata.item_tables import report_items
from scenebeam.products.base import Product
from scenebeam.products.mosaics.make import make
from scenebeam.products.mosaics.plan import plan
from scenebeam.products.mosaics.tables import tables
from scenebeam.products.mosaics.task import MosaicTask

__all__ = ["PRODUCT", "MosaicTask", "make", "plan", "tables"]

PRODUCT = Product(MosaicTask, plan, make, report_items(tables))
