"""The guard: which requests from outside may run in a deployment."""

from __future__ import annotations

import re
from typing import Any

from pydantic import ByteSize
from pydantic_core import PydanticSerializationError

from scenebeam.cloud.settings import ANY_HOST, CloudSettings
from scenebeam.cloud.urls import UrlError, is_inside, is_public_host, normalize_url, redact
from scenebeam.errors import RequestError, StorageError
from scenebeam.request import KNOWN_CATALOGS, Runner, RunRequest, is_url
from scenebeam.request.places import PlaceField, place_fields
from scenebeam.requestfile import parse_document, validate_request
from scenebeam.storage import checked_key

_NO_FILES = "a run in the cloud cannot read local files"
_CRS_FILES = re.compile(
    r"^\s*(?:\w+://|[./~])"
    r"|\binit\s*=\s*(?!epsg:)"
    r"|grids\s*=\s*(?!@null(?:[\s\"]|$))",
    re.IGNORECASE,
)
"""Definitions of a CRS for which PROJ opens a file."""


def authorize(content: bytes, settings: CloudSettings) -> RunRequest:
    """Parse and validate a request, and check it against what the deployment allows.

    Every field that names a place is normalized before it is compared, and the request gets the
    normal form. Limits are capped by the deployment's, and only `workers` of its runner is used.

    Args:
        content: The text of a request, YAML or JSON in UTF-8.
        settings: What the deployment allows.

    Returns:
        The request as it may run here.

    Raises:
        RequestError: The request is not valid, or names a local file, or a catalog, an input or an
            output that is not allowed.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise RequestError("the request is not UTF-8") from None
    document = parse_document(text, "the request")
    for field in place_fields(document):
        _check_place(field, settings)
    _check_crs(document.get("grid"))
    # A message may not name secrets: the deployment's account could read others than are meant.
    document["accounts"] = settings.accounts
    document["runner"] = _runner(document.get("runner"), settings).model_dump()
    request = validate_request(document)
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
        raise RequestError("the request contains invalid Unicode (unpaired surrogates)") from None
    return admitted


def is_below(uri: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a `gs://` URI or a folder is below one of some prefixes."""
    return normal_below(uri, prefixes) is not None


def normal_below(uri: str, prefixes: tuple[str, ...]) -> str | None:
    """Normalize a URI that is below one of some prefixes; None if it is not.

    Both may be local folders, in a deployment on one machine.
    """
    here = _normal(uri)
    for prefix in prefixes:
        base = _normal(prefix)
        if here is None or base is None:
            continue
        inside = here.removeprefix(f"{base.rstrip('/')}/")
        if inside != here and _is_name(inside):
            return here
    return None


def _normal(uri: str) -> str | None:
    """The normal form of a URL; local folders are compared as they are."""
    try:
        return normalize_url(uri) if "://" in uri else uri
    except UrlError:
        return None


def _is_name(name: str) -> bool:
    try:
        return bool(checked_key(name))
    except StorageError:
        return False


def _check_place(field: PlaceField, settings: CloudSettings) -> None:
    """Check the place that a field names, and put its normal form into the document.

    Raises:
        RequestError: The deployment does not allow the place.
    """
    dotted, value = field.dotted, field.value
    if isinstance(value, bytes):  # YAML's !!binary, which a model would accept as text
        raise RequestError(f"{dotted}: give text, not binary data")
    if not isinstance(value, str):
        return
    if field.place.access == "read-on-load":
        raise RequestError(f"{dotted}: {_NO_FILES}; write its content into the request")
    if dotted == "catalog" and value in KNOWN_CATALOGS:
        _check_known(value, settings)
    elif not is_url(value) or value.lower().startswith("file:"):
        raise RequestError(f"{dotted}: {_NO_FILES}; use a gs:// or https:// URL")
    elif field.place.access == "write":
        field.holder[field.key] = _written(dotted, value, settings)
    else:
        field.holder[field.key] = _read(dotted, value, settings)


def _check_known(name: str, settings: CloudSettings) -> None:
    if name not in settings.catalogs:
        raise RequestError(f"catalog: {name} is not one of {', '.join(settings.catalogs)}")


def _written(dotted: str, value: str, settings: CloudSettings) -> str:
    found = normal_below(value.rstrip("/"), settings.outputs)
    if found is None:
        allowed = " or ".join(settings.outputs)
        raise RequestError(f"{dotted}: {redact(value)} is not below {allowed}{_why(value)}")
    return found + ("/" if value.endswith("/") else "")


def _read(dotted: str, value: str, settings: CloudSettings) -> str:
    inputs = (*settings.requests, *settings.outputs, *settings.inputs)
    is_catalog = dotted == "catalog"
    found = _allowed(value, settings.catalogs if is_catalog else (*inputs, *settings.catalogs))
    if found is not None:
        return found
    if is_catalog:
        refusal = f"is not one of {', '.join(settings.catalogs)}"
    else:
        refusal = f"is not below {' or '.join(inputs)}"
    raise RequestError(f"{dotted}: {redact(value)} {refusal}{_why(value)}")


def _allowed(value: str, prefixes: tuple[str, ...]) -> str | None:
    """The normal form of a URL that a prefix allows to be read; None if no prefix does."""
    found = _normal(value)
    if found is None:
        return None
    for prefix in prefixes:
        base = _normal(prefix) if is_url(prefix) else None
        public = prefix == ANY_HOST and is_public_host(found)
        if public or (base is not None and is_inside(found, base)):
            return found
    return None


def _why(value: str) -> str:
    """What is wrong with a URL, for messages; empty if nothing is."""
    try:
        normalize_url(value)
    except UrlError as error:
        return f": {error}"
    return ""


def _check_crs(grid: Any) -> None:
    crs = grid.get("crs") if isinstance(grid, dict) else None
    if isinstance(crs, bytes) or (isinstance(crs, str) and _CRS_FILES.search(crs)):
        raise RequestError(f"grid.crs: {_NO_FILES}; name a CRS by its code or as WKT")


def _runner(asked: Any, settings: CloudSettings) -> Runner:
    if settings.launcher != "dataflow":
        return Runner(kind="auto")
    workers = asked.get("workers") if isinstance(asked, dict) else None
    count = workers if isinstance(workers, int) and workers > 0 else settings.max_workers
    return Runner(kind="dataflow", workers=min(count, settings.max_workers))
