"""Field chips: for every chip its masks, and its imagery at planting and at harvest."""

from __future__ import annotations

from scenebeam.products.base import Product
from scenebeam.products.fields.kept import kept
from scenebeam.products.fields.make import make
from scenebeam.products.fields.plan import aim, plan
from scenebeam.products.fields.report import report
from scenebeam.products.fields.task import FieldsTask

__all__ = ["PRODUCT", "FieldsTask", "aim", "kept", "make", "plan", "report"]

PRODUCT = Product(FieldsTask, plan, make, report, aim, kept)
