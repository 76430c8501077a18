"""Load a request from a file, the environment and the command line.

Precedence, highest first: command line, environment (`SCENEBEAM_*`), request file, defaults.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from scenebeam.collections import CollectionRecord, known_records
from scenebeam.csvtable import read_day, read_rows
from scenebeam.errors import RequestError
from scenebeam.request import Checks, RunRequest, is_remote
from scenebeam.request.document import MAX_BYTES, parse_text
from scenebeam.request.format import check_format
from scenebeam.request.places import place_fields
from scenebeam.request.validation import explain_errors
from scenebeam.request.values import check_values, dotted_name, quoted

_SHORT_NAMES = {"BANDS": "product.bands", "MAX_DOWNLOAD_WORKERS": "limits.max_download_workers"}
"""Short environment variables, without SCENEBEAM_ → dotted name."""


def parse_document(text: str, name: str = "request") -> dict[str, Any]:
    """Parse a request as JSON, or as YAML by the core schema of YAML 1.2.

    Args:
        text: One document.
        name: What messages call the document.

    Returns:
        The mapping in the document.

    Raises:
        RequestError: The text is neither, is too large, or is not a mapping.
    """
    document = parse_text(text, name)
    if document is None:
        raise RequestError(f"{name} is empty: `scenebeam init` writes a request to start from")
    if not isinstance(document, dict):
        keys = ", ".join(RunRequest.model_fields)
        raise RequestError(f"{name} must be a mapping with the keys {keys}")
    return document


def load_request(
    path: str | Path | None = None,
    *,
    content: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[RunRequest, dict[str, str]]:
    """Load a request from a file, the environment and overrides.

    Args:
        path: A request file or the `run.json` of a run; None: overrides alone.
        content: What the file contains, if it has been read from elsewhere.
        overrides: Dotted name → value, with the highest precedence.
        environ: Environment variables; default: those of the process.

    Returns:
        The request, and for each dotted name that was given where its value came from.

    Raises:
        RequestError: The request is not valid; the message names each field and the fix.
    """
    document: dict[str, Any] = {}
    sources: dict[str, str] = {}
    if path is not None:
        file = Path(path)
        document = _read_file(file) if content is None else dict(content)
        if content is None:
            _resolve_paths(document, file.resolve().parent)
        for name, _ in flatten(document):
            sources[name] = str(path)
    for name, value in _from_environment(os.environ if environ is None else environ):
        set_dotted(document, name, value)
        sources[name] = "environment"
    for name, value in (overrides or {}).items():
        set_dotted(document, name, value)
        sources[name] = "command line"
    _resolve_paths(document, Path.cwd())
    return validate_request(document), sources


def _read_file(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as content:
            data = content.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise RequestError(
                f"{file} is larger than {MAX_BYTES:,} bytes: put the area into a separate file"
            )
        document = parse_document(data.decode("utf-8"), str(file))
    except (OSError, ValueError) as error:
        raise RequestError(f"cannot read the request file {file}: {error}") from None
    if is_frozen(document):
        return frozen_request(document, str(file.resolve().parent), str(file))
    return document


def is_frozen(document: Mapping[str, Any]) -> bool:
    """Whether a document is the `run.json` of a run."""
    return {"fingerprint", "request"} <= document.keys()


def frozen_request(document: Mapping[str, Any], folder: str, name: str) -> dict[str, Any]:
    """Extract the request from the `run.json` of a run, wherever its output was moved to.

    Args:
        document: The content of `run.json`.
        folder: Where it was found: this becomes the output. Paths inside the former output are
            moved along.
        name: What messages call the document.

    Raises:
        RequestError: The document has no request.
        StorageError: A newer release has written it.
    """
    check_format(document, name)
    request = document["request"]
    if not isinstance(request, dict):
        raise RequestError(f"{name}: request must be a mapping, as in the run.json of a run")
    former = str(request.get("output", "")).rstrip("/")
    for field in place_fields(request):
        path = str(field.value)
        if former and (path == former or path.startswith(f"{former}/")):
            field.holder[field.key] = folder + path.removeprefix(former)
    return {**request, "output": folder}


def validate_request(document: Mapping[str, Any]) -> RunRequest:
    """Validate a request, and read the files that it stands for (`area.geojson`, `select.table`).

    Raises:
        RequestError: The request is not valid; the message names each field and the fix.
    """
    try:
        check_values(document)
        request = RunRequest.model_validate(document)
        # The fingerprint must depend on the content of these files, not on their names.
        if request.area is not None and request.area.geojson is not None:
            area = {"geometry": _read_area(request.area.geojson)}
            check_values({"area": area}, most_values=sys.maxsize)
            document = {**document, "area": area}
        if request.select.table is not None:
            select = request.select.model_dump(exclude_unset=True, exclude={"table"})
            select["scenes"] = _read_table(Path(request.select.table))
            document = {**document, "select": select}
        return RunRequest.model_validate(document)
    except ValidationError as error:
        lines = explain_errors(error, document)
        raise RequestError("the request is not valid:\n" + "\n".join(lines)) from None


def read_checks(settings: Mapping[str, Any]) -> Checks:
    """Build Checks from thresholds by dotted name, such as `checks.max_nodata_percent`.

    The prefix `checks.` may be left out. Values of None are ignored.

    Raises:
        RequestError: A threshold is unknown or not valid.
    """
    document: dict[str, Any] = {}
    for name, value in settings.items():
        if value is not None:
            is_full = name == "checks" or name.startswith("checks.")
            set_dotted(document, name if is_full else f"checks.{name}", value)
    try:
        check_values(document)
        return Checks.model_validate(document.get("checks", {}))
    except ValidationError as error:
        lines = []
        for detail in error.errors(include_url=False, include_context=False, include_input=False):
            message = detail["msg"].removeprefix("Value error, ")
            if detail["type"] == "extra_forbidden":
                message = f"unknown key; known keys: {', '.join(sorted(Checks.model_fields))}"
            lines.append(f"  {dotted_name(detail['loc']) or 'checks'}: {message}")
        raise RequestError("checks are not valid:\n" + "\n".join(lines)) from None


def read_record(name: str) -> CollectionRecord:
    """Find a collection record.

    Args:
        name: A collection id, `provider/id`, or the path of a YAML file with a record.

    Raises:
        RequestError: There is no such record, or the file is not a valid one.
    """
    for record in known_records():
        if name in (record.id, f"{record.provider}/{record.id}"):
            return record
    path = Path(name)
    if not path.is_file():
        ids = ", ".join(sorted({record.id for record in known_records()}))
        raise RequestError(f"no record of {name!r}; known: {ids}; or give a YAML file with one")
    try:
        document = parse_document(path.read_text(encoding="utf-8"), name)
        return CollectionRecord.model_validate(document)
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise RequestError(f"{name} is not a valid collection record: {error}") from None


def _read_table(path: Path) -> list[dict[str, Any]]:
    """Read the scenes of a `scenes_selected.csv`, each with its first anchor."""
    scenes: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(read_rows(path, ("anchor_date", "id")), start=2):
        date = read_day(row, "anchor_date", f"{path} line {number}")
        anchor = f"{date:%Y-%m-%d}" if date else None
        scenes.setdefault(row["id"], {"id": row["id"], "anchor": anchor})
    return list(scenes.values())


def _read_area(path: str) -> dict[str, Any]:
    """Read the polygons of a vector file as one GeoJSON geometry, with its CRS if it names one."""
    from scenebeam.vectors import read_area  # loads NumPy, Shapely and PROJ

    try:
        return read_area(path)
    except RequestError as error:
        raise RequestError(f"area.geojson: {error}") from None


def _resolve_paths(document: dict[str, Any], base: Path) -> None:
    """Resolve relative paths against a folder: in a request file they are relative to the file."""
    for field in place_fields(document):
        value = field.value
        if not isinstance(value, str) or not value or is_remote(value):
            continue
        try:
            field.holder[field.key] = os.path.normpath(base / Path(value).expanduser())
        except (RuntimeError, ValueError) as error:  # an unknown user, or a NUL character
            message = f"{field.dotted}: {quoted(value)} is not a path: {error}"
            raise RequestError(message) from None


def _from_environment(environ: Mapping[str, str]) -> list[tuple[str, Any]]:
    """Read `SCENEBEAM_SELECT__MAX_CLOUD_COVER=20` as ("select.max_cloud_cover", 20).

    Variables that name no section of a request are ignored.
    """
    values = []
    for key in sorted(environ):
        if not key.startswith("SCENEBEAM_"):
            continue
        short = key.removeprefix("SCENEBEAM_")
        dotted = _SHORT_NAMES.get(short, short.lower().replace("__", "."))
        if dotted.split(".")[0] in RunRequest.model_fields:
            values.append((dotted, parse_value(environ[key], dotted)))
    return values


def parse_value(text: str, name: str) -> Any:
    """Parse a value typed at a shell as YAML; `product.bands` may also be `a,b`.

    Args:
        text: What was typed.
        name: Dotted name of its field.

    Raises:
        RequestError: The text is not YAML; the message names the field.
    """
    if name == "product.bands" and not text.lstrip().startswith("["):
        return [band.strip() for band in text.split(",") if band.strip()]
    return parse_text(text, name)


def set_dotted(document: dict[str, Any], dotted: str, value: Any) -> None:
    """Set a field of a nested mapping. Missing mappings are created.

    Args:
        document: The mapping, which is changed in place.
        dotted: Dotted name of the field.
        value: The new value.
    """
    *parents, last = dotted.split(".")
    holder = document
    for parent in parents:
        inner = holder.get(parent)
        if not isinstance(inner, dict):
            # `runner: direct` is short for `runner: {kind: direct}`.
            inner = {"kind": inner} if parent == "runner" and isinstance(inner, str) else {}
            holder[parent] = inner
        holder = inner
    holder[last] = value


def flatten(document: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """List the values of a nested mapping, each with its dotted name."""
    if not isinstance(document, dict) or not document:
        return [(prefix, document)] if prefix else []
    values = []
    for key, value in document.items():
        values += flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return values
