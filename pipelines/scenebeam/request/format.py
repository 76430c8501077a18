"""The format of a frozen run: what a release can read of what another one has frozen.

`run.json` names the format of itself, of `plan.parquet`, and of what else a run resumes from. The
number is increased by a release whose outputs older releases cannot resume.

    1   written by 0.1.0, which names no format
    2   names its format
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scenebeam.errors import StorageError

FORMAT = 2
"""The format that this release writes. It reads this one and all before it."""


def check_format(document: Mapping[str, Any], name: str) -> None:
    """Check that this release can read what a `run.json` describes.

    Args:
        document: The content of `run.json`.
        name: What messages call the file.

    Raises:
        StorageError: A newer release has written it, or its format is not a number.
    """
    number = document.get("format", 1)
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise StorageError(
            f"{name} is damaged: format is {number!r}, not a number from 1; run your request file "
            "with --overwrite, or choose another output"
        )
    if number > FORMAT:
        versions = document.get("versions")
        writer = versions.get("scenebeam") if isinstance(versions, dict) else None
        raise StorageError(
            f"{name} was written by scenebeam {writer or 'of an unknown version'} in format "
            f"{number}; this version reads formats up to {FORMAT}: upgrade scenebeam, or run your "
            "request file with --overwrite to replace what is there, or choose another output"
        )
