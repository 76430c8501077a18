"""scenebeam: satellite scenes to mosaics, stacks and training chips, on Apache Beam.

    import scenebeam

    request = scenebeam.read_request("config/mosaic-thessaloniki.yaml")
    scenes = scenebeam.search(request)
    selection = scenebeam.select(scenes, request)
    print(scenebeam.explain(scenebeam.plan(request, selection)))
    status = scenebeam.run(request)
    mosaics = scenebeam.open_mosaics(status.output)

Each name is imported on first use, so that `scenebeam.request` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scenebeam.api import explain, open_mosaics, plan, read_request, run, search, select

__all__ = ["explain", "open_mosaics", "plan", "read_request", "run", "search", "select"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("scenebeam.api"), name)
    raise AttributeError(f"module 'scenebeam' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
