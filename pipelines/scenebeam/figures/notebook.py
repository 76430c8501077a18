"""Notebook: how objects of scenebeam look in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import jinja2

from scenebeam.figures.svg import Figure


def render_card(
    title: str,
    facts: Mapping[str, object],
    *,
    figures: Sequence[Figure | None] = (),
    header: Sequence[str] = (),
    rows: Sequence[Sequence[object]] = (),
    note: str = "",
) -> str:
    """Render an object as HTML.

    Args:
        title: What it is, in a few words.
        facts: Label → value; empty values are left out.
        figures: Maps and charts; None is left out.
        header: Header of a table.
        rows: Rows of the table.
        note: A line below.
    """
    shown = {label: value for label, value in facts.items() if value not in ("", None)}
    context: dict[str, Any] = {
        "title": title,
        "facts": shown,
        "figures": [figure for figure in figures if figure is not None],
        "header": header,
        "rows": rows,
        "note": note,
    }
    return _templates().get_template("card.html").render(context)


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("scenebeam.figures", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
