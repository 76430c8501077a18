"""scenebeam: satellite scenes to mosaics, stacks and training chips, on Apache Beam.

    import scenebeam

    scenes = scenebeam.search(bbox=(22.85, 40.55, 23.05, 40.75), dates="2023-02")
    selection = scenebeam.select(scenes, max_cloud_cover=20)
    status = scenebeam.run("config/mosaic-thessaloniki.yaml")
    mosaics = scenebeam.open(status.output, decode=True)

Each name is imported on first use, so that `scenebeam.request` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scenebeam.api import (
        Plan,
        RunRequest,
        RunStatus,
        Scene,
        Scenes,
        Selection,
        explain,
        freeze,
        plan,
        read_request,
        run,
        search,
        select,
    )
    from scenebeam.errors import (
        CatalogError,
        CheckError,
        ReadError,
        RequestError,
        RunnerError,
        SceneBeamError,
        StorageError,
    )
    from scenebeam.lazy import load, open, open_virtual

_ERRORS = (
    "CatalogError",
    "CheckError",
    "ReadError",
    "RequestError",
    "RunnerError",
    "SceneBeamError",
    "StorageError",
)
_LAZY = ("load", "open", "open_virtual")
__all__ = [
    "CatalogError",
    "CheckError",
    "Plan",
    "ReadError",
    "RequestError",
    "RunRequest",
    "RunStatus",
    "RunnerError",
    "Scene",
    "SceneBeamError",
    "Scenes",
    "Selection",
    "StorageError",
    "explain",
    "freeze",
    "load",
    "open",
    "open_virtual",
    "plan",
    "read_request",
    "run",
    "search",
    "select",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        module = "scenebeam.api"
        if name in _ERRORS:
            module = "scenebeam.errors"
        elif name in _LAZY:
            module = "scenebeam.lazy"
        return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'scenebeam' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
