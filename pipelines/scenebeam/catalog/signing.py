"""Signing: an href as a plan holds it → an href that opens now."""

from __future__ import annotations

from scenebeam.errors import CatalogError


def sign(href: str, how: str) -> str:
    """An href that opens now. Tokens live for minutes: sign when a file is opened, never when planning.

    `how` is a record's `signing`; `planetary-computer` adds a SAS token that its package caches and renews.
    """
    if how == "none":
        return href
    if how == "planetary-computer":
        import planetary_computer

        try:
            signed: str = planetary_computer.sign_url(href)
        except Exception as error:
            raise CatalogError(f"cannot sign {href} at the Planetary Computer: {error}") from error
        return signed
    raise CatalogError(f"unknown way of signing: {how!r}")
