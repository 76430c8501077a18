"""Suggestions: what someone may have meant by a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MAX_COMPARED = 60
"""Characters of a name that are compared."""
_MAX_LISTED = 30


def suggest(typed: str, known: Iterable[str]) -> str:
    """Return `did you mean 'nir'?`, or the known names if none is like the typed one.

    Args:
        typed: The name that is not known.
        known: The known names.
    """
    names = list(dict.fromkeys(known))
    lower = {name.lower(): name for name in reversed(names)}
    near = difflib.get_close_matches(typed.lower()[:_MAX_COMPARED], lower, n=1, cutoff=0.6)
    if near:
        return f"did you mean {lower[near[0]]!r}?"
    listed = ", ".join(names[:_MAX_LISTED])
    return f"known: {listed}{', …' if len(names) > _MAX_LISTED else ''}"
