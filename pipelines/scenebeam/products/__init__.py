"""Products: one package each. `product_of(kind)` imports the implementation of a product."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from scenebeam.request.product import PRODUCTS

if TYPE_CHECKING:
    from scenebeam.products.base import Product


def product_of(kind: str) -> Product[Any, Any]:
    """Import the implementation of a product on first use.

    Args:
        kind: `product.kind` of a request.

    Raises:
        KeyError: No product of that kind is registered.
    """
    product: Product[Any, Any] = importlib.import_module(f"{PRODUCTS[kind]}.product").PRODUCT
    return product
