"""Products: one package each, with the same functions. Adding a product is adding one, and a line to this table.

    plan(selection, request, area) -> tasks          on the driver, no pixels
    make(task, store, budget) -> Outcome             on the workers: the only step that touches pixels
    tables(tasks, outcomes, items) -> rows by file   for the report

and its task model, which knows the name of its STAC item in the store.
"""

from __future__ import annotations

from scenebeam.products.mosaics import PRODUCT as MOSAICS

PRODUCTS = {"mosaic": MOSAICS}
