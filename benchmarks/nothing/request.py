"""The section `product` of a request for nothing."""

from __future__ import annotations

from typing import Literal

from scenebeam.request.product import ProductRequest


class NothingRequest(ProductRequest):
    """Tasks that do nothing."""

    kind: Literal["nothing"] = "nothing"
    tasks: int = 1000
    """Number of tasks."""


REQUEST = NothingRequest
