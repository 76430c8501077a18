"""Old names of fields, which are accepted for one release with a deprecation warning."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any


def accept_old_names(value: Any, new_names: Mapping[str, str]) -> Any:
    """Rename deprecated keys of a document before a model validates it.

    Args:
        value: What the model is given; anything but a mapping is returned unchanged.
        new_names: Deprecated key → the key that replaces it.

    Returns:
        The document under the new names. If a key is given under both names, the old one stays, so
        that the model rejects it as unknown.
    """
    if not isinstance(value, Mapping):
        return value
    renamed = dict(value)
    for old, new in new_names.items():
        if old in renamed and new not in renamed:
            warnings.warn(f"{old!r} is deprecated; use {new!r}", FutureWarning, stacklevel=2)
            renamed[new] = renamed.pop(old)
    return renamed
