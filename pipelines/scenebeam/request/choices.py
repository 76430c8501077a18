"""Choices of a request that are modules of a package: to add one is to add a file.

Only the names of the modules are read here; whoever needs an implementation imports it.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from scenebeam.suggestions import suggest


@dataclass(frozen=True)
class Choices:
    """The values of a field are the names of a package's modules."""

    package: str

    def names(self) -> list[str]:
        """The names, sorted. Modules that start with an underscore are not choices."""
        path = importlib.import_module(self.package).__path__
        names = [module.name for module in pkgutil.iter_modules(path)]
        return sorted(name for name in names if not name.startswith("_"))

    def check(self, value: str) -> str:
        """Return the value. Raises ValueError if it is not a choice."""
        names = self.names()
        if value not in names:
            raise ValueError(f"{value!r} is not known; {suggest(value, names)}")
        return value


_METHODS = Choices("scenebeam.raster.merge_methods")
MergeMethod = Annotated[str, AfterValidator(_METHODS.check), _METHODS]
"""Name of a merge method."""
_CODECS = Choices("scenebeam.raster.block_codecs")
Codec = Annotated[str, AfterValidator(_CODECS.check), _CODECS]
"""Name of a codec that products may be compressed with."""
