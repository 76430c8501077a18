"""Output files: serve the report of a run and what it shows, and nothing else of an output.

Runs write their statuses and reports themselves, so neither can be trusted: the output must be one
that the deployment allows, a name must stay inside it, files must be what their names say, and of
scripts only the one of the report is allowed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from scenebeam.cloud.guard import is_below
from scenebeam.cloud.http import HttpRequest, HttpResponse, respond
from scenebeam.cloud.settings import CloudSettings
from scenebeam.report.script import script_hash
from scenebeam.status import PAGE_FILE, RunStatus
from scenebeam.storage import open_store

MAX_BYTES = 30_000_000
"""Largest file that is served; Cloud Run's limit is 32 MiB."""
_REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; script-src '{hash}'"
)


@dataclass(frozen=True)
class _Kind:
    """A kind of file that is served."""

    pattern: str
    """Regular expression of its keys."""
    content_type: str
    signature: bytes = b""
    """How its content begins."""


_NAME = r"[A-Za-z0-9][A-Za-z0-9._+-]*"
_KINDS = (
    _Kind(re.escape(PAGE_FILE), "text/html; charset=utf-8"),
    _Kind(rf"(?:{_NAME}/)*{_NAME}\.webp", "image/webp", b"RIFF"),
    _Kind(rf"(?:{_NAME}/)+{_NAME}\.png", "image/png", b"\x89PNG\r\n\x1a\n"),
    _Kind(rf"{_NAME}\.csv", "text/csv; charset=utf-8"),
    _Kind(r"items\.parquet", "application/vnd.apache.parquet", b"PAR1"),
    # Items of products, and the collection; not the request, whose URLs may be confidential.
    _Kind(rf"collection\.json|(?:{_NAME}/)+{_NAME}\.json", "application/json"),
)


def serve_output_file(
    status: RunStatus, key: str, request: HttpRequest, settings: CloudSettings
) -> HttpResponse | None:
    """Serve a file of a run's output.

    Args:
        status: Status of the run.
        key: Key of the file in the output.
        request: The HTTP request.
        settings: Settings of the deployment.

    Returns:
        The response; None if there is no such file, or if it is not to be served.
    """
    kind = next((kind for kind in _KINDS if re.fullmatch(kind.pattern, key)), None)
    output = status.output
    is_allowed = is_below(output, settings.outputs) and is_below(f"{output}/{key}", (output,))
    if kind is None or not is_allowed:
        return None
    store = open_store(output)
    # The size is checked first, so that a huge file is never read into memory.
    size = store.size(key)
    if size is None or size > MAX_BYTES:
        return None
    content = store.read(key)
    if content is None or not content.startswith(kind.signature):
        return None
    headers = {}
    if key == PAGE_FILE:
        headers["Content-Security-Policy"] = _REPORT_POLICY.format(hash=script_hash())
    return respond(content, kind.content_type, "private, no-cache", request, headers)
