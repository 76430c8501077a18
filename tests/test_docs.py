"""The tables of request fields in docs/ are those of the request models, and complete."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

from scenebeam.request import RunRequest, request_model
from scenebeam.request.markers import models_in
from scenebeam.request.product import PRODUCTS
from scenebeam.request.sections import StrictModel

DOCS = Path(__file__).parents[1] / "docs"
LISTED = {"select.scenes"}
"""Lists of models: the row of the list describes the fields of its members."""


def fields_of(model: type[StrictModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield all fields of a request model as (dotted name, field), nested models included."""
    for name, field in model.model_fields.items():
        dotted = f"{prefix}{name}"
        yield dotted, field
        for nested in models_in(field.annotation):
            if issubclass(nested, StrictModel) and dotted not in LISTED:
                yield from fields_of(nested, f"{dotted}.")


def documented_fields(*kinds: str) -> set[str]:
    """Names in the tables whose markers start with one of these words."""
    names: set[str] = set()
    for page in DOCS.glob("*.md"):
        tables = re.findall(
            r"<!-- fields: (\S+).*?-->(.*?)<!-- end fields -->", page.read_text(), re.DOTALL
        )
        for marker, table in tables:
            if marker in kinds:
                names |= set(re.findall(r"^\| `(\S+)` \|", table, re.MULTILINE))
    return names


def first_sentence(field: FieldInfo) -> str:
    """The help of a field's option on the command line, as `cli.options` cuts it."""
    text = " ".join((field.description or "").replace("`", "").split())
    return re.split(r"(?<=[.;]) (?=[A-Z])", text)[0]


def test_tables_of_fields_are_those_of_the_models() -> None:
    check = subprocess.run(
        [sys.executable, str(DOCS / "field_tables.py"), "--check"], capture_output=True, text=True
    )
    assert check.returncode == 0, f"run `make docs`:\n{check.stdout}{check.stderr}"


@pytest.mark.parametrize("kind", PRODUCTS)
def test_every_field_of_a_product_is_in_a_table(kind: str) -> None:
    documented = documented_fields(kind, "request")
    fields = [name for name, _ in fields_of(request_model(kind), "product.")]
    # The row of `product.*.dtype` is that of the field in each nested model.
    assert [
        name for name in fields if not any(fnmatchcase(name, pattern) for pattern in documented)
    ] == []


def test_every_shared_field_is_in_a_table() -> None:
    shared = {name for name, _ in fields_of(RunRequest)}
    assert shared - documented_fields("request", *PRODUCTS) == set()


def test_the_kinds_of_products_are_listed() -> None:
    row = re.search(r"^\| `product\.kind` .*$", (DOCS / "requests.md").read_text(), re.MULTILINE)
    assert row is not None
    assert {kind for kind in PRODUCTS if f"`{kind}`" in row[0]} == PRODUCTS.keys()


def test_the_first_sentence_of_a_field_is_short() -> None:
    described = list(fields_of(RunRequest))
    for kind in PRODUCTS:
        described += fields_of(request_model(kind), f"{kind}: product.")
    too_long = {name for name, field in described if len(first_sentence(field)) > 90}
    assert too_long == set()
    assert {name for name, field in described if "](" in (field.description or "")} == set()
