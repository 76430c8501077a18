"""Products: one module each, with the same functions. Adding a product is adding a module to this table.

    plan(selection, request, area) -> tasks          on the driver, no pixels
    make(task, store, budget) -> Outcome             on the workers: the only step that touches pixels
    tables(tasks, outcomes, items) -> rows by file   for the report

and its task model, which knows the name of its STAC item in the store.
"""

from __future__ import annotations

from scenebeam.products import mosaic_tables, mosaics
from scenebeam.products.product import Product

PRODUCTS = {
    "mosaic": Product(mosaics.MosaicTask, mosaics.plan, mosaics.make, mosaic_tables.tables),
}
