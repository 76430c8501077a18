"""Products: one package each, with the same functions. Adding a product is adding one, and a line to this table.

    plan(selection, request, area) -> Planned            on the driver, no pixels: tasks, and tables of what is planned
    make(task, store, budget) -> Outcome                 on the workers: the only step that touches pixels
    tables(tasks, outcomes, items) -> tables by file     for the report

and its task model, which knows the name of its STAC item in the store.
"""

from __future__ import annotations

from scenebeam.products.assets import PRODUCT as ASSETS
from scenebeam.products.indices import PRODUCT as INDICES
from scenebeam.products.mosaics import PRODUCT as MOSAICS
from scenebeam.products.stacks import PRODUCT as STACKS

PRODUCTS = {"assets": ASSETS, "index": INDICES, "mosaic": MOSAICS, "stack": STACKS}
