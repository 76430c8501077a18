"""Guard: a request that came from outside → one that may run here, or the reason why not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ByteSize
from pydantic_core import PydanticSerializationError

from scenebeam.cloud.settings import CloudSettings
from scenebeam.errors import RequestError, StorageError
from scenebeam.request import KNOWN_CATALOGS, Runner, RunRequest, is_url
from scenebeam.requestfile import PATHS, parse_document, validate_request
from scenebeam.storage import checked_name

_READ_HERE = ("area.geojson", "select.table", "catalog.time_series", "catalog.root")
"""Fields whose files are read where the request is validated: in the cloud they must stand in the request itself."""


def admit(content: bytes, settings: CloudSettings) -> RunRequest:
    """A request's text → the request, within what the deployment allows.

    Raises RequestError: not YAML or JSON, unknown or wrong fields, files of this machine, catalogues or outputs that
    are not allowed. Its limits are cut to the deployment's, and of its runner no more than `workers` is taken.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise RequestError("the request is not UTF-8") from None
    document = parse_document(text, "the request")
    _check_paths(document)
    document["runner"] = _runner(document.get("runner"), settings).model_dump()
    request = validate_request(document)
    _check_catalog(request, settings)
    _check_output(request.output, settings)
    limits = request.limits.model_copy(
        update={
            "max_scenes": min(request.limits.max_scenes, settings.max_scenes),
            "max_bytes": ByteSize(min(request.limits.max_bytes, settings.max_bytes)),
        }
    )
    admitted = request.model_copy(update={"limits": limits})
    try:
        admitted.model_dump_json()
    except PydanticSerializationError:
        raise RequestError("the request holds text that is none") from None
    return admitted


def is_below(uri: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a `gs://` name or folder lies below one of some prefixes, and stays there."""
    for prefix in prefixes:
        inside = uri.removeprefix(f"{prefix.rstrip('/')}/")
        if inside != uri:
            try:
                return bool(checked_name(inside))
            except StorageError:
                return False
    return False


def _check_paths(document: Mapping[str, Any]) -> None:
    for dotted in PATHS:
        value: Any = document
        for part in dotted.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if not isinstance(value, str):
            continue
        if dotted in _READ_HERE:
            raise RequestError(
                f"{dotted}: a run in the cloud has no files of yours; write what it holds into the request"
            )
        if not (is_url(value) or value in KNOWN_CATALOGS) or value.lower().startswith("file:"):
            raise RequestError(f"{dotted}: a run in the cloud has no files of yours; name one at gs:// or https://")


def _runner(asked: Any, settings: CloudSettings) -> Runner:
    workers = asked.get("workers") if isinstance(asked, Mapping) else None
    count = workers if isinstance(workers, int) and workers > 0 else settings.max_workers
    kind = "dataflow" if settings.launcher == "dataflow" else "auto"
    return Runner(kind=kind, workers=min(count, settings.max_workers) if kind == "dataflow" else None)


def _check_catalog(request: RunRequest, settings: CloudSettings) -> None:
    catalog = request.catalog
    assert isinstance(catalog, str), "time series are refused before"
    allowed = catalog in settings.catalogs or any(
        is_url(one) and (catalog == one or catalog.startswith(f"{one.rstrip('/')}/")) for one in settings.catalogs
    )
    if not allowed:
        raise RequestError(f"catalog: {catalog[:200]} is not one of {', '.join(settings.catalogs)}")


def _check_output(output: str, settings: CloudSettings) -> None:
    if not is_below(output.rstrip("/"), settings.outputs):
        raise RequestError(f"output: {output[:200]} does not lie below {' or '.join(settings.outputs)}")
