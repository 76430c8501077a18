"""Field chips: for every chip its masks, and its imagery at planting and at harvest."""

from __future__ import annotations

from scenebeam.products.base import Product
from scenebeam.products.fields.make import make
from scenebeam.products.fields.plan import plan, search_scope
from scenebeam.products.fields.report import report
from scenebeam.products.fields.reuse import reusable_outputs
from scenebeam.products.fields.task import FieldsTask

__all__ = ["PRODUCT", "FieldsTask", "aim", "kept", "make", "plan", "report"]

PRODUCT = Product(FieldsTask, plan, make, report, search_scope, reusable_outputs)
