"""Signer of Microsoft's Planetary Computer: SAS tokens in the query of the URL."""

from __future__ import annotations

from scenebeam.errors import ReadError
from scenebeam.extras import import_extra
from scenebeam.transfer.signing.base import SignedRequest, redact_url


def sign_http(href: str) -> SignedRequest:
    """Append a SAS token to the URL of an Azure blob.

    The `planetary_computer` package fetches the tokens and renews them. No account is needed.

    Raises:
        ReadError: The token service is unavailable (not permanent).
    """
    planetary_computer = import_extra(
        "planetary_computer", "planetary-computer", "reading from the Planetary Computer"
    )
    try:
        url: str = planetary_computer.sign_url(href)
    except Exception as error:
        raise ReadError(
            f"{redact_url(href)} cannot be signed at the Planetary Computer "
            f"({type(error).__name__}): run again later",
            permanent=False,
        ) from None
    return SignedRequest(url)
