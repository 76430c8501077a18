"""A hook of mkdocs: links to files outside of this folder go to the repository."""

from __future__ import annotations

import re
from typing import Any

_REPOSITORY = "https://github.com/scenebeam/scenebeam/blob/main/"


def on_page_markdown(markdown: str, **context: Any) -> str:
    """Rewrite links that start with `../`."""
    outside = re.sub(r"\]\(\.\./", f"]({_REPOSITORY}", markdown)
    return re.sub(r"\]\((?=ftw-extension/)", f"]({_REPOSITORY}docs/", outside)
