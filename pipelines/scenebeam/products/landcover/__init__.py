"""Land-cover chips: windows of one class, seen by several sensors on several dates, and a balanced release of them."""

from __future__ import annotations

from scenebeam.products.base import Product
from scenebeam.products.landcover.make import make
from scenebeam.products.landcover.plan import plan, search_scope
from scenebeam.products.landcover.report import report
from scenebeam.products.landcover.task import LandcoverTask

__all__ = ["PRODUCT", "LandcoverTask", "aim", "make", "plan", "report"]

PRODUCT = Product(LandcoverTask, plan, make, report, search_scope)
