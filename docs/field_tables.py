"""Write what is generated in this folder: tables of request fields, commands, JSON Schema.

    python docs/field_tables.py            # rewrite the pages
    python docs/field_tables.py --check    # print a diff and exit with 1 if a page is out of date

`cli.md` and `request.schema.json` are generated whole. A table is between two comments:

    <!-- fields: mosaic grid.* product.* -->
    <!-- end fields -->

The first word is the kind of a product, or `request` for the fields that all products share. The
other words are dotted names of fields, or patterns of them:

    select.mode          one field
    select.*             the fields of a section
    checks.**            the fields of a section, and of the sections in it, to any depth
    product.*.dtype      the field of this name in each section of `product`, as one row

The meaning of a field is the docstring below it. A default that depends on something else is a
sentence `Default: …` of the docstring, or ends a sentence as `; default: …`.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import click
from pydantic import ByteSize
from pydantic.fields import FieldInfo

from scenebeam.request import ProductRequest, RunRequest, request_model
from scenebeam.request.choices import Choices
from scenebeam.request.schema import request_schema
from scenebeam.request.sections import StrictModel

DOCS = Path(__file__).parent
_TABLE = re.compile(r"(<!-- fields: ([^>]*?) -->\n).*?(<!-- end fields -->)", re.DOTALL)
_HEADER = "| field | default | meaning |\n|---|---|---|\n"
_DEFAULT = re.compile(r"(; d| D)efault: (.+?)\.(?=$| [A-Z`])")
"""The part of a description that states a default. It ends with its sentence."""


class Field(NamedTuple):
    """A field of a request model."""

    name: str
    """Dotted name in a request."""
    info: FieldInfo
    description: str
    section: type[StrictModel] | None
    """The model of its value, if it is a section of the request."""

    @property
    def meaning(self) -> str:
        """The description without the default, and with the choices that it does not name."""
        match = _DEFAULT.search(self.description)
        text = self.description
        if match:
            end_of_sentence = "." if match[1] == "; d" else ""
            text = text[: match.start()] + end_of_sentence + text[match.end() :]
        choices = [f"`{choice}`" for choice in _field_choices(self.info)]
        if any(choice not in text for choice in choices):
            text += f" Choices: {', '.join(choices)}."
        return text

    @property
    def default(self) -> str:
        """The default value; empty if there is none, or for a section, whose fields have theirs."""
        if self.info.is_required():
            return "required"
        value = self.info.get_default(call_default_factory=True)
        if value not in (None, [], {}) and self.section is None:
            return _format_value(value)
        match = _DEFAULT.search(self.description)
        return match[2] if match else ""


def update_page(text: str) -> str:
    """Return the text of a page with all of its tables of fields written anew.

    Raises:
        ValueError: A marker is not closed, or names an unknown field.
    """
    updated, count = _TABLE.subn(
        lambda match: f"{match[1]}\n{field_table(match[2])}\n{match[3]}", text
    )
    if count != text.count("<!-- fields:") or count != text.count("<!-- end fields -->"):
        raise ValueError("each `<!-- fields: … -->` needs one `<!-- end fields -->`")
    return updated


def field_table(marker: str) -> str:
    """Make the table that a marker describes.

    Args:
        marker: The kind of a product, or `request`, and the names or patterns of fields.

    Returns:
        A table in Markdown, with a row for each field.
    """
    kind, *patterns = marker.split()
    product = ProductRequest if kind == "request" else request_model(kind)
    rows = []
    for pattern in patterns:
        if pattern.endswith(".*") or pattern == "*":
            fields = _fields_of_section(pattern.removesuffix("*").removesuffix("."), product)
            rows += [_row(field.name, [field]) for field in fields]
        elif pattern.endswith(".**"):
            fields = _all_fields(pattern.removesuffix(".**"), product)
            rows += [_row(field.name, [field]) for field in fields]
        elif ".*." in pattern:
            rows.append(_row(pattern, _same_fields(pattern, product)))
        else:
            rows.append(_row(pattern, [_find_field(pattern, product)]))
    return _HEADER + "".join(rows)


def _row(name: str, fields: Sequence[Field]) -> str:
    """Format the row of a field, or of several that differ in nothing but their defaults."""
    meanings = {field.meaning for field in fields}
    if len(meanings) != 1:
        raise ValueError(f"{name}: no field, or fields with different descriptions: {meanings}")
    owners_by_default: dict[str, list[str]] = {}
    for field in fields:
        owner = field.name.split(".")[-2] if "." in field.name else ""
        owners_by_default.setdefault(field.default, []).append(f"`{owner}`")
    default = next(iter(owners_by_default))
    if len(owners_by_default) > 1:
        parts = [f"{', '.join(owners)}: {value}" for value, owners in owners_by_default.items()]
        default = "; ".join(parts)
    # A vertical bar would end the cell, even inside backticks.
    meaning = meanings.pop().replace("|", "\\|")
    return f"| `{name}` | {default} | {meaning} |\n" if default else f"| `{name}` | | {meaning} |\n"


def _fields_of_section(name: str, product: type[ProductRequest]) -> Iterator[Field]:
    """Yield the fields of a section in the order of its model; of a product, all but its kind."""
    section = _find_field(name, product).section if name else RunRequest
    if section is None:
        raise ValueError(f"{name} has no fields")
    for key, info in section.model_fields.items():
        if (name, key) == ("product", "kind"):
            continue
        nested = product if (name, key) == ("", "product") else _section_model(info.annotation)
        dotted = f"{name}.{key}" if name else key
        yield Field(dotted, info, _description(section, key), nested)


def _all_fields(name: str, product: type[ProductRequest]) -> Iterator[Field]:
    for field in _fields_of_section(name, product):
        yield field
        if field.section is not None:
            yield from _all_fields(field.name, product)


def _same_fields(pattern: str, product: type[ProductRequest]) -> list[Field]:
    """The fields that `parent.*.name` describes."""
    parent, _, name = pattern.partition(".*.")
    fields = []
    for section in _fields_of_section(parent, product):
        if section.section is not None and name in section.section.model_fields:
            fields.append(_find_field(f"{section.name}.{name}", product))
    return fields


def _find_field(name: str, product: type[ProductRequest]) -> Field:
    parent, _, key = name.rpartition(".")
    if name == "product.kind":
        return Field(name, product.model_fields[key], _description(product, key), None)
    for field in _fields_of_section(parent, product):
        if field.name == name:
            return field
    raise ValueError(f"{name} is not a field of a request")


def _description(model: type[StrictModel], name: str) -> str:
    """The docstring of a field, or of the field of a base class that it overrides."""
    for base in model.__mro__:
        if issubclass(base, StrictModel) and name in base.model_fields:
            description = base.model_fields[name].description
            if description:
                return " ".join(description.split())
    raise ValueError(f"{model.__name__}.{name} has no docstring")


def _section_model(annotation: Any) -> type[StrictModel] | None:
    """The model in an annotation, if a request gives its fields in mappings."""
    if isinstance(annotation, type) and issubclass(annotation, StrictModel):
        return annotation
    members: Sequence[Any] = ()
    if get_origin(annotation) is Annotated:
        members = get_args(annotation)[:1]
    elif get_origin(annotation) in (Union, UnionType, list):
        members = get_args(annotation)
    for member in members:
        model = _section_model(member)
        if model is not None:
            return model
    return None


def _field_choices(field: FieldInfo) -> list[Any]:
    for item in field.metadata:
        if isinstance(item, Choices):
            return list(item.names())
    return _choices(field.annotation)


def _choices(annotation: Any) -> list[Any]:
    """The values of the Literals in an annotation, each once."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    choices: dict[Any, None] = {}
    for member in get_args(annotation):
        choices |= dict.fromkeys(_choices(member))
    return list(choices)


def _format_value(value: Any) -> str:
    """Format a default: numbers as text, anything else as code."""
    if isinstance(value, int | float) and not isinstance(value, bool | ByteSize):
        return _number(value)
    return f"`{_yaml(value)}`"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _yaml(value: Any) -> str:
    """Write a value as YAML, as it would be in a request."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, ByteSize):
        return re.sub(r"\.0(?=[A-Z])", "", value.human_readable(decimal=value % 1000 == 0))
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    return str(value)


def generated_files() -> dict[Path, str]:
    """Return the content of all pages with tables, and of the files that are generated whole."""
    files = {}
    for page in sorted(DOCS.glob("*.md")):
        try:
            files[page] = update_page(page.read_text(encoding="utf-8"))
        except (KeyError, ValueError) as error:
            sys.exit(f"{page.name}: {error}")
    files[DOCS / "cli.md"] = command_reference()
    files[DOCS / "request.schema.json"] = json.dumps(request_schema(), indent=1) + "\n"
    return files


def command_reference() -> str:
    """Return the page of all commands, with the help that each prints."""
    from scenebeam.cli import main as group

    settings = group.context_settings
    context = click.Context(
        group, info_name="scenebeam", terminal_width=96, max_content_width=96, **settings
    )
    parts = [_CLI_HEAD, "    " + group.get_help(context).replace("\n", "\n    ")]
    parts += _commands(group, context, "scenebeam")
    text = "\n".join(parts)
    return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE) + "\n"


_CLI_HEAD = """# Commands

What `scenebeam --help` and the help of each command print.
"""


def _commands(group: click.Group, context: click.Context, path: str) -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None:
            continue
        inner = click.Context(
            command, parent=context, info_name=name, terminal_width=96, max_content_width=96
        )
        yield f"\n## {path} {name}\n\n    " + command.get_help(inner).replace("\n", "\n    ")
        if isinstance(command, click.Group):
            yield from _commands(command, inner, f"{path} {name}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite or check the files. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Tables of request fields in docs/.")
    parser.add_argument("--check", action="store_true", help="Print a diff; change nothing.")
    check = parser.parse_args(arguments).check
    outdated = False
    for path, updated in generated_files().items():
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if updated == text:
            continue
        outdated = True
        if check:
            before, after = text.splitlines(keepends=True), updated.splitlines(keepends=True)
            sys.stdout.writelines(difflib.unified_diff(before, after, path.name, "make docs"))
        else:
            path.write_text(updated, encoding="utf-8")
    return int(check and outdated)


if __name__ == "__main__":
    sys.exit(main())
