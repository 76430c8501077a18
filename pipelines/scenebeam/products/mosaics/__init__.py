"""Mosaics: for every acquisition and band one COG on the run's grid, with a STAC item per acquisition."""

from __future__ import annotations

from scenebeam.products.catalogue import report_items
from scenebeam.products.mosaics.make import make
from scenebeam.products.mosaics.plan import plan
from scenebeam.products.mosaics.tables import tables
from scenebeam.products.mosaics.task import MosaicTask
from scenebeam.products.product import Product

__all__ = ["PRODUCT", "MosaicTask", "make", "plan", "tables"]

PRODUCT = Product(MosaicTask, plan, make, report_items(tables))
