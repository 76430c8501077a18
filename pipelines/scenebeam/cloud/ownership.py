"""Ownership: one deployment keeps a series up to date; a second one on its output is refused."""

from __future__ import annotations

import json

from scenebeam.errors import RequestError
from scenebeam.storage import open_store

OWNER_FILE = "deployment.json"
"""In the output of a series: where the state of its deployment is."""


def check_owner(output: str, state: str) -> None:
    """Check that no other deployment makes a series.

    Args:
        output: The output of the series.
        state: Folder or `gs://` prefix of the deployment's state.

    Raises:
        RequestError: Another deployment makes it.
    """
    content = open_store(output).read(OWNER_FILE)
    if content is not None and content != _owner(state):
        raise RequestError(
            f"output: {output} belongs to the deployment that {OWNER_FILE} there names; choose "
            "another output, or delete that file if the deployment no longer exists"
        )


def take_output(output: str, state: str) -> None:
    """Note in the output of a series which deployment makes it.

    Args:
        output: The output of the series.
        state: Folder or `gs://` prefix of the deployment's state.

    Raises:
        RequestError: Another deployment makes it.
    """
    open_store(output).create(OWNER_FILE, _owner(state))
    check_owner(output, state)


def _owner(state: str) -> bytes:
    return (json.dumps({"state": state.rstrip("/")}) + "\n").encode()
