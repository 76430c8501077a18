"""Indices: band maths over an area, one COG per scene, acquisition, day, month or quarter."""

from __future__ import annotations

from scenebeam.metadata.item_tables import report_items
from scenebeam.products.base import Product
from scenebeam.products.indices.make import make
from scenebeam.products.indices.plan import plan
from scenebeam.products.indices.tables import tables
from scenebeam.products.indices.task import IndexTask

__all__ = ["PRODUCT", "IndexTask", "make", "plan", "tables"]

PRODUCT = Product(IndexTask, plan, make, report_items(tables))
