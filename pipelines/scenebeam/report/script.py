"""Script: the script of a run's page, which the status page allows by its hash.

Imports nothing heavy, because a Cloud Function loads it.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files


@cache
def page_script() -> str:
    """Return the script of a run's page."""
    folder = files("scenebeam.report").joinpath("templates")
    return "\n" + folder.joinpath("report.js").read_text(encoding="utf-8")


def script_hash() -> str:
    """Return the hash of the script, as Content-Security-Policy has it."""
    digest = hashlib.sha256(page_script().encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
