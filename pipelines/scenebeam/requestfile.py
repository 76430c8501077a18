"""From a request file, the environment and the command line to one RunRequest, and where each value came from.

Precedence, highest first: command line, environment (`SCENEBEAM_*`), request file, defaults.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from scenebeam.collections import CollectionRecord, known_records
from scenebeam.csvtable import read_day, read_rows
from scenebeam.errors import RequestError
from scenebeam.request import Checks, RunRequest, is_remote
from scenebeam.request.document import MAX_BYTES, parse_text
from scenebeam.request.values import check_values, dotted_name, quoted

_SHORT_NAMES = {"BANDS": "product.bands", "MAX_DOWNLOAD_WORKERS": "limits.max_download_workers"}
PATHS = (
    *("catalog", "catalog.time_series", "catalog.root", "area.geojson", "select.table", "output"),
    *("product.chips", "product.boundaries", "product.crop_calendar", "product.aois"),
)
"""Fields that name files or folders."""

_SUCCESSORS = {
    "upload_to_gcs": "product.raw_storage_mode: url_to_gcs_keep_local",
    "delete_local_after_upload": "product.raw_storage_mode: url_to_gcs_drop_local",
    "gcs_bucket": "product.gcs: gs://bucket/prefix",
    "gcs_prefix": "product.gcs: gs://bucket/prefix",
    "cloud_cover": "select.max_cloud_cover",
    "bbox": "area.bbox",
}
"""Keys that other tools have for what is asked here in other words."""
NULL = object()
"""In overrides: null, said in so many words. None is an option that was not given."""
_MOST_FAULTS, _LONGEST_FAULT, _LONGEST_KEY = 20, 500, 60
"""Of a message: its lines, characters of a line, and characters of an unknown key that are compared."""


def parse_document(text: str, name: str = "request") -> dict[str, Any]:
    """Parse a request as JSON, or as YAML by the core schema of YAML 1.2.

    Args:
        text: One document.
        name: What messages call it.

    Returns:
        The mapping that the text holds.

    Raises:
        RequestError: The text is neither, is too large, or does not hold a mapping.
    """
    document = parse_text(text, name)
    if not isinstance(document, dict):
        raise RequestError(
            f"{name} must hold a mapping with the keys {', '.join(RunRequest.model_fields)}"
        )
    return document


def load_request(
    path: str | Path | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[RunRequest, dict[str, str]]:
    """Read a request file and lay the environment and `overrides` (dotted names) over it.

    Returns the request and, for each dotted name that was given, where its value came from.
    Raises RequestError with the field's name and the fix.
    """
    document: dict[str, Any] = {}
    came_from: dict[str, str] = {}
    if path is not None:
        file = Path(path)
        document = _read_file(file)
        _resolve_paths(document, file.resolve().parent)
        came_from.update((name, str(file)) for name, _ in flatten(document))
    for name, value in _from_environment(os.environ if environ is None else environ):
        set_dotted(document, name, value)
        came_from[name] = "environment"
    for name, value in (overrides or {}).items():
        if value is not None:
            set_dotted(document, name, None if value is NULL else value)
            came_from[name] = "command line"
    _resolve_paths(document, Path.cwd())
    return validate_request(document), came_from


def _read_file(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as content:
            read = content.read(MAX_BYTES + 1)
        if len(read) > MAX_BYTES:
            raise RequestError(
                f"{file} is larger than {MAX_BYTES:,} bytes: put the area into a file of its own"
            )
        document = parse_document(read.decode("utf-8"), str(file))
    except (OSError, ValueError) as error:
        raise RequestError(f"cannot read the request file {file}: {error}") from None
    return (
        frozen_request(document, str(file.resolve().parent), str(file))
        if is_frozen(document)
        else document
    )


def is_frozen(document: Mapping[str, Any]) -> bool:
    """Whether a document is the `run.json` of a run."""
    return {"fingerprint", "request"} <= document.keys()


def frozen_request(document: Mapping[str, Any], folder: str, name: str) -> dict[str, Any]:
    """The request in the `run.json` of a run, whose output is the folder that it lies in, wherever that was moved to.

    Files that lay in the output when the run was planned are looked for in `folder`, too.
    """
    request = document["request"]
    if not isinstance(request, dict):
        raise RequestError(f"{name}: request must hold a mapping, as in the run.json of a run")
    before = str(request.get("output", "")).rstrip("/")
    for _, holder, last in paths_in(request):
        path = str(holder[last])
        if before and (path == before or path.startswith(f"{before}/")):
            holder[last] = folder + path.removeprefix(before)
    return {**request, "output": folder}


def validate_request(document: Mapping[str, Any]) -> RunRequest:
    """Validate a request, and read the files whose content it stands for (`area.geojson`, `select.table`).

    Raises:
        RequestError: The request is not valid. The message names the fields at fault, and the fix.
    """
    try:
        check_values(document)
        request = RunRequest.model_validate(document)
        # The fingerprint must follow a file's content, not its name.
        if request.area is not None and request.area.geojson is not None:
            area = {"geometry": _read_geojson(request.area.geojson)}
            check_values({"area": area}, most_values=sys.maxsize)
            document = {**document, "area": area}
        if request.select.table is not None:
            given = request.select.model_dump(exclude_unset=True, exclude={"table"})
            document = {
                **document,
                "select": {**given, "scenes": _read_table(Path(request.select.table))},
            }
        return RunRequest.model_validate(document)
    except ValidationError as error:
        raise RequestError("the request is not valid:\n" + "\n".join(_explain(error))) from None


def read_checks(settings: Mapping[str, Any]) -> Checks:
    """Thresholds by dotted name (`checks.max_nodata_percent`) → Checks. RequestError names what is wrong."""
    document: dict[str, Any] = {}
    for name, value in settings.items():
        if value is not None and value is not NULL:
            set_dotted(
                document,
                name if name == "checks" or name.startswith("checks.") else f"checks.{name}",
                value,
            )
    try:
        check_values(document)
        return Checks.model_validate(document.get("checks", {}))
    except ValidationError as error:
        raise RequestError("checks are not valid:\n" + "\n".join(_explain(error))) from None


def read_record(name: str) -> CollectionRecord:
    """A record by the id of its collection, with its provider where several have it, or from a YAML file.

    Raises RequestError where there is none.
    """
    known = [
        record
        for record in known_records()
        if name in (record.id, f"{record.provider}/{record.id}")
    ]
    if known:
        return known[0]
    path = Path(name)
    if not path.is_file():
        ids = ", ".join(sorted({record.id for record in known_records()}))
        raise RequestError(f"no record of {name!r}; known: {ids}; or give a YAML file with one")
    try:
        return CollectionRecord.model_validate(
            parse_document(path.read_text(encoding="utf-8"), name)
        )
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise RequestError(f"{name} holds no record of a collection: {error}") from None


def _read_table(path: Path) -> list[dict[str, Any]]:
    """A `scenes_selected.csv` → its scenes, each for its first anchor."""
    scenes: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(read_rows(path, ("anchor_date", "id")), start=2):
        anchor = read_day(row, "anchor_date", f"{path} line {number}")
        scenes.setdefault(
            row["id"], {"id": row["id"], "anchor": f"{anchor:%Y-%m-%d}" if anchor else None}
        )
    return list(scenes.values())


def _read_geojson(place: str) -> dict[str, Any]:
    """The polygons of a vector file as one GeoJSON geometry, with the CRS that it names, if any."""
    from scenebeam.vectors import read_area  # heavy: numpy, shapely and pyproj

    try:
        return read_area(place)
    except RequestError as error:
        raise RequestError(f"area.geojson: {error}") from None


def _resolve_paths(document: dict[str, Any], base: Path) -> None:
    """Paths in a request file are relative to that file."""
    for dotted, holder, last in paths_in(document):
        value = holder[last]
        if not is_remote(value):
            try:
                holder[last] = os.path.normpath(base / Path(value).expanduser())
            except (RuntimeError, ValueError) as error:  # no such user's folder; no text for a path
                raise RequestError(f"{dotted}: {quoted(value)} is not a path: {error}") from None


def paths_in(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Where a request names files and folders: the field's dotted name, the mapping that holds it, its key there."""
    for dotted in PATHS:
        *parents, last = dotted.split(".")
        holder: Any = document
        for parent in parents:
            holder = holder.get(parent) if isinstance(holder, dict) else None
        value = holder.get(last) if isinstance(holder, dict) else None
        if isinstance(value, str) and value:
            yield dotted, holder, last


def _from_environment(environ: Mapping[str, str]) -> list[tuple[str, Any]]:
    """`SCENEBEAM_SELECT__MAX_CLOUD_COVER=20` → ("select.max_cloud_cover", 20); other names are left alone."""
    found = []
    for key in sorted(environ):
        if not key.startswith("SCENEBEAM_"):
            continue
        short = key.removeprefix("SCENEBEAM_")
        dotted = _SHORT_NAMES.get(short, short.lower().replace("__", "."))
        if dotted.split(".")[0] in RunRequest.model_fields:
            found.append((dotted, parse_value(environ[key], dotted)))
    return found


def parse_value(text: str, name: str) -> Any:
    """Read a value typed at a shell as YAML; `a,b` is a list for the fields that are lists.

    Raises RequestError with the field's name where the text is not YAML.
    """
    if name == "product.bands" and not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    return parse_text(text, name)


def set_dotted(document: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    holder = document
    for parent in parents:
        inner = holder.get(parent)
        if not isinstance(inner, dict):
            inner = {"kind": inner} if parent == "runner" and isinstance(inner, str) else {}
            holder[parent] = inner
        holder = inner
    holder[last] = value


def flatten(document: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Every value of a nested mapping with its dotted name."""
    if not isinstance(document, dict) or not document:
        return [(prefix, document)] if prefix else []
    return [
        leaf
        for key, value in document.items()
        for leaf in flatten(value, f"{prefix}.{key}" if prefix else str(key))
    ]


def _explain(error: ValidationError) -> list[str]:
    lines: list[str] = []
    faults = [
        fault
        for fault in error.errors(include_url=False, include_context=False, include_input=False)
        # The other half of a "name or record" union says what is wrong.
        if not (fault["type"] == "string_type" and fault["loc"][-1] == "str")
    ]
    for fault in faults[:_MOST_FAULTS]:
        loc = fault["loc"]
        # A product's fault lies below the name of its kind, which the user did not write there.
        named = (loc[0], *loc[2:]) if loc[:1] == ("product",) and len(loc) > 2 else loc
        place = dotted_name(part for part in named if "[" not in str(part)) or "request"
        if fault["type"] == "extra_forbidden":
            known = _known_keys(RunRequest, loc[:-1])
            successor = _SUCCESSORS.get(str(loc[-1]))
            near = difflib.get_close_matches(str(loc[-1])[:_LONGEST_KEY], known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            hint = f"say it with {successor}" if successor else hint
            lines.append(f"  {place}: unknown key; {hint}")
        else:
            told = fault["msg"].removeprefix("Value error, ")
            lines.append(
                f"  {place}: {told[:_LONGEST_FAULT]}{'…' if len(told) > _LONGEST_FAULT else ''}"
            )
    if len(faults) > _MOST_FAULTS:
        lines.append(f"  and {len(faults) - _MOST_FAULTS:,} faults more")
    return lines


def _known_keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Field names of the model that stands at `loc`, following nested models and unions by name."""
    for part in loc:
        if isinstance(part, int) or part not in model.model_fields:
            if isinstance(part, str):
                model = next((m for m in _MODELS if part in (m.__name__, _kind(m))), model)
            continue
        model = next(iter(_models_in(model.model_fields[part].annotation)), model)
    return sorted(model.model_fields)


def _kind(model: type[BaseModel]) -> str | None:
    """The name of a product's model in a request: `product.kind`."""
    kind = model.model_fields.get("kind")
    return get_args(kind.annotation)[0] if kind is not None and get_args(kind.annotation) else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]


_MODELS = [
    model for field in RunRequest.model_fields.values() for model in _models_in(field.annotation)
]
