"""Extras: import packages that only some runs need, and name what to install where one lacks."""

from __future__ import annotations

import importlib
from typing import Any

from scenebeam.errors import RequestError

_DISTRIBUTIONS = {"planetary_computer": "planetary-computer"}
"""Package → what pip calls it, where that differs."""


class MissingExtraError(RequestError):
    """A package that this run needs is not installed."""

    kind = "MissingExtraError"


def import_extra(module: str, extra: str, purpose: str) -> Any:
    """Import a module of a package that an extra of scenebeam installs.

    Args:
        module: Dotted name of the module.
        extra: The extra.
        purpose: What needs it, as the beginning of a sentence.

    Raises:
        MissingExtraError: The package is not installed; the message names the command.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise MissingExtraError(
            f"{purpose} needs the package {_DISTRIBUTIONS.get(package, package)}: install it with "
            f"pip, or scenebeam with its extra {extra!r}"
        ) from None
