"""Stacks: for every scene its bands on one grid, in canonical order, as a VRT over files or as one COG."""

from __future__ import annotations

from scenebeam.metadata.item_tables import report_items
from scenebeam.products.base import Product
from scenebeam.products.stacks.make import make
from scenebeam.products.stacks.plan import plan
from scenebeam.products.stacks.tables import tables
from scenebeam.products.stacks.task import StackTask

__all__ = ["PRODUCT", "StackTask", "make", "plan", "tables"]

PRODUCT = Product(StackTask, plan, make, report_items(tables))
