"""The `ftw` STAC extension in docs/ftw-extension: its schema, examples and README."""

from __future__ import annotations

import json
import re
import socket
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn

import jsonschema
import pystac
import pytest

EXTENSION = Path(__file__).parents[2] / "docs" / "ftw-extension"
SCHEMA_BYTES = (EXTENSION / "json-schema" / "schema.json").read_bytes()
SCHEMA: dict[str, Any] = json.loads(SCHEMA_BYTES)
README = (EXTENSION / "README.md").read_text(encoding="utf-8")
EXAMPLES = sorted((EXTENSION / "examples").glob("*.json"))
ITEMS = [path for path in EXAMPLES if path.stem != "collection"]
TABLES = {"chip": "### Chip items", "image": "### Season-image items"}
"""Heading of the README's table for each definition of the schema."""


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(host: str, *_: object, **__: object) -> NoReturn:
        raise AssertionError(f"the test looked up {host}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def load(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def table_below(heading: str) -> dict[str, str]:
    """Read the README's first table after a heading: the last cell of each row by its first."""
    _, found, section = README.partition(f"\n{heading}\n")
    assert found, f"the README has no heading {heading!r}"
    table = re.search(r"^\|.*\n\| -.*\n((?:\|.*\n)+)", section.split("\n#", 1)[0], re.MULTILINE)
    assert table, f"the README has no table below {heading!r}"
    rows = [line.strip("|").split("|") for line in table[1].splitlines()]
    return {cells[0].strip(): cells[-1].strip() for cells in rows}


def required_in(table: dict[str, str]) -> set[str]:
    return {name for name, description in table.items() if description.startswith("**REQUIRED**")}


def fields_of(definition: str) -> dict[str, Any]:
    """The schema of the Item Properties of chip items or season-image items."""
    properties: dict[str, Any] = SCHEMA["definitions"][definition]["properties"]["properties"]
    return properties


def link_of(document: dict[str, Any], rel: str) -> str:
    """The href of the only link of a relation type."""
    (href,) = [link["href"] for link in document["links"] if link["rel"] == rel]
    return str(href)


def test_the_schema_is_that_of_the_package() -> None:
    package = files("scenebeam.products.fields").joinpath("ftw-schema.json")
    assert package.read_bytes() == SCHEMA_BYTES
    jsonschema.Draft7Validator.check_schema(SCHEMA)


def test_the_identifier_is_the_id_of_the_schema() -> None:
    assert f"- **Identifier:** <{SCHEMA['$id']}>\n" in README
    scripts = load(EXTENSION / "package.json")["scripts"]
    assert f"--schemaMap {SCHEMA['$id']}=./json-schema/schema.json" in scripts["check-examples"]
    assert f"--schemaMap {SCHEMA['$id']}=./json-schema/schema.json" in scripts["format-examples"]


@pytest.mark.parametrize("path", ITEMS, ids=lambda path: path.stem)
def test_example_items_are_stac_and_ftw(path: Path) -> None:
    item = load(path)
    jsonschema.Draft7Validator(SCHEMA).validate(item)
    # Schemas of other extensions would have to be fetched.
    pystac.Item.from_dict({**item, "stac_extensions": []}, href=str(path)).validate()


def test_the_example_collection_holds_the_example_items() -> None:
    path = EXTENSION / "examples" / "collection.json"
    collection = pystac.Collection.from_file(str(path))
    collection.validate()
    items = list(collection.get_items())
    assert sorted(item.id for item in items) == sorted(load(item)["id"] for item in ITEMS)
    assert {item.collection_id for item in items} == {collection.id}
    assert {item.get_root() for item in items} == {collection}


def test_the_example_items_link_to_each_other() -> None:
    chip = load(EXTENSION / "examples" / "chip.json")
    for season in ("planting", "harvest"):
        image = load(EXTENSION / "examples" / link_of(chip, f"ftw:{season}"))
        assert image["properties"]["ftw:season"] == season
        assert image["geometry"] == chip["geometry"]
        for rel in ("ftw:parent_chip", "derived_from"):
            assert load(EXTENSION / "examples" / link_of(image, rel))["id"] == chip["id"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_hrefs_of_examples_are_files_or_at_example_com(path: Path) -> None:
    document = load(path)
    assert link_of(document, "self") == f"https://example.com/examples/{path.name}"
    links = [link["href"] for link in document["links"]]
    assets = [asset["href"] for asset in document.get("assets", {}).values()]
    others = [other["href"] for other in document.get("properties", {}).get("ftw:alternatives", [])]
    for href in (*links, *assets, *others):
        if href.startswith("./"):
            assert (path.parent / href).is_file(), href
        else:
            assert href.startswith("https://example.com/")


def test_examples_show_every_field() -> None:
    shown = {name for path in ITEMS for name in load(path)["properties"] if name.startswith("ftw:")}
    assert shown == {name for definition in TABLES for name in fields_of(definition)["properties"]}


@pytest.mark.parametrize("definition", TABLES)
def test_the_tables_of_the_readme_are_the_fields_of_the_schema(definition: str) -> None:
    table, fields = table_below(TABLES[definition]), fields_of(definition)
    assert table.keys() == fields["properties"].keys()
    assert required_in(table) == set(fields["required"])
    for name, field in fields["properties"].items():
        for value in field.get("enum", []):
            assert f"`{value}`" in table[name]


def test_the_table_of_alternatives_is_that_of_the_schema() -> None:
    table = table_below("### Alternative Object")
    alternative = fields_of("image")["properties"]["ftw:alternatives"]["items"]
    assert table.keys() == alternative["properties"].keys()
    assert required_in(table) == set(alternative["required"])


def test_the_readme_names_no_other_field() -> None:
    relations = table_below("## Relation types").keys()
    assert relations == {"ftw:planting", "ftw:harvest", "ftw:parent_chip"}
    fields = {name for definition in TABLES for name in fields_of(definition)["properties"]}
    assert set(re.findall(r"ftw:\w+", README)) == fields | relations
