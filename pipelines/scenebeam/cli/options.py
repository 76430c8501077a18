"""Command-line options derived from the models of a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from scenebeam.request.choices import Choices
from scenebeam.request.markers import models_in
from scenebeam.request.values import first_sentence

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def field_options(model: type[BaseModel], names: Sequence[str] | None = None) -> list[Decorator]:
    """Derive one click option from each field of a model that a command line can express.

    A boolean becomes a switch, a Literal a choice, and a list is separated by commas. Nested models
    have no option; their fields are set with `--set`.

    Args:
        model: A request model.
        names: The fields to use; default: all.
    """
    options = []
    for name, field in model.model_fields.items():
        if name == "kind" or (names is not None and name not in names):
            continue
        if not models_in(field.annotation):
            options.append(_option(name, field))
    return options


def dotted_options(model: type[BaseModel], fields: Mapping[str, str]) -> list[Decorator]:
    """Derive options from fields anywhere in a request.

    Args:
        model: The model that dotted names start from.
        fields: Name of the option's parameter → dotted name of the field.
    """
    decorators = []
    for name, dotted in fields.items():
        decorators.append(_option(name, field_at(model, dotted)))
    return decorators


def field_at(model: type[BaseModel], dotted: str) -> FieldInfo:
    """Look up a field by its dotted name."""
    *parents, last = dotted.split(".")
    for parent in parents:
        model = models_in(model.model_fields[parent].annotation)[0]
    return model.model_fields[last]


def parse_option(field: FieldInfo, value: Any) -> Any:
    """Convert the value of an option into what the field's model validates.

    Text stays text: it is not parsed as YAML, so `--expression "- red + nir"` is an expression.
    """
    kinds = _kinds(field.annotation)
    if not isinstance(value, str):
        return value
    if list in kinds:
        return [part.strip() for part in value.split(",") if part.strip()]
    if dict in kinds and value.lstrip().startswith("{"):
        from scenebeam.request.document import parse_text

        return parse_text(value, "the option")
    choices = field_choices(field)
    return next((choice for choice in choices if str(choice) == value), value)


def _option(parameter: str, field: FieldInfo) -> Decorator:
    flag = parameter.replace("_", "-")
    kinds, choices = _kinds(field.annotation), field_choices(field)
    declaration, settings = f"--{flag}", dict[str, Any]()
    if bool in kinds:
        declaration = f"--{flag}/--no-{flag}"
        settings["default"] = None
    elif choices and dict not in kinds:
        settings["type"] = click.Choice([str(choice) for choice in choices])
    elif int in kinds and list not in kinds:
        settings["type"] = int
    elif float in kinds and list not in kinds:
        settings["type"] = float
    return click.option(declaration, parameter, help=_help(field), **settings)


def _help(field: FieldInfo) -> str:
    """The first sentence of a field's description, and its default."""
    sentence = first_sentence((field.description or "").replace("`", ""))
    default = field.get_default(call_default_factory=True)
    if field.is_required():
        return f"{sentence}  [required]"
    if default is None or default == [] or isinstance(default, bool):
        return sentence
    shown = ",".join(map(str, default)) if isinstance(default, list) else default
    return f"{sentence}  [default: {shown}]"


def _kinds(annotation: Any) -> set[Any]:
    """The plain types that a field accepts: `list[str] | None` gives {list, str, NoneType}."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kinds(get_args(annotation)[0])
    if origin in (Union, UnionType):
        kinds: set[Any] = set()
        for member in get_args(annotation):
            kinds |= _kinds(member)
        return kinds
    if origin is Literal:
        return {type(choice) for choice in get_args(annotation)}
    return {origin or annotation}


def field_choices(field: FieldInfo) -> list[Any]:
    """The values that a field accepts, if it is limited to some; otherwise empty."""
    for item in field.metadata:
        if isinstance(item, Choices):
            return list(item.names())
    return _choices(field.annotation)


def _choices(annotation: Any) -> list[Any]:
    """The values of the Literals in an annotation, in their order."""
    origin = get_origin(annotation)
    if origin is Literal:
        return list(get_args(annotation))
    if origin is Annotated:
        return _choices(get_args(annotation)[0])
    choices = []
    if origin in (Union, UnionType):
        for member in get_args(annotation):
            choices += _choices(member)
    return choices
