"""Numbers as text, in headers and XML."""

from __future__ import annotations


def number_text(value: float) -> str:
    """Write a number as an integer if it is one, else with all its digits."""
    if float(value).is_integer() and abs(value) < 2**53:
        return str(int(value))
    return repr(float(value))
