"""Products: one package each, with the same functions. Adding a product is adding one, and a line to this table.

    aim(request) -> SearchScope                                  where and when scenes are wanted; default: the area, the dates
    plan(selection, request, aim) -> Planned             on the driver, no pixels: tasks, and tables of what is planned
    make(task, store, budget) -> Outcome                 on the workers: the only step that touches pixels
    report(request, tasks, done, outcomes, store)        its tables and its STAC catalogue

and its task model, which knows the names of its outputs in the store.
"""

from __future__ import annotations

from scenebeam.products.assets import PRODUCT as ASSETS
from scenebeam.products.fields import PRODUCT as FIELDS
from scenebeam.products.indices import PRODUCT as INDICES
from scenebeam.products.landcover import PRODUCT as LANDCOVER
from scenebeam.products.mosaics import PRODUCT as MOSAICS
from scenebeam.products.stacks import PRODUCT as STACKS

PRODUCTS = {
    "assets": ASSETS,
    "fields": FIELDS,
    "index": INDICES,
    "landcover": LANDCOVER,
    "mosaic": MOSAICS,
    "stack": STACKS,
}
