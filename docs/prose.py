"""Check the prose of code and documentation for phrases that read like a literal translation.

    python docs/prose.py [path ...]

codespell checks the spelling; this checks a short list of our own. Exits with 1 if a phrase occurs.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATHS = (
    "README.md",
    "CONTRIBUTING.md",
    "docs",
    "pipelines",
    "functions",
    "infra",
    "config",
    "docker",
    "benchmarks",
)
SUFFIXES = {".py", ".md", ".yaml", ".yml", ".tf", ".html", ".json", ".Dockerfile"}
PHRASES = {
    "told": "said, reported, described; or name what the variable holds",
    "lies": "is, is located",
    "stands": "is, exists",
    "gone on with": "resumed",
    "is none": "is not a …, is not valid",
    "of no account": "ignored, irrelevant",
    "hangs on": "depends on",
    "what came of it": "the result, the report",
    "catalogue": "catalog",
    "colour": "color",
    "metres": "meters",
    "licence": "license",
}
_PATTERN = re.compile(r"\b(?:" + "|".join(PHRASES) + r")\b", re.IGNORECASE)
_ALLOWED = re.compile(r"stands for|there is none|is None")
"""An idiom, and Python."""


def files(arguments: list[str]) -> Iterator[Path]:
    """The files to check: those of the arguments, by default the project's."""
    for name in arguments or PATHS:
        path = ROOT / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.suffix in SUFFIXES and "__pycache__" not in file.parts:
                yield file


def main() -> int:
    """Print each occurrence with its file and line; returns the exit code."""
    count = 0
    for file in files(sys.argv[1:]):
        if file == Path(__file__):
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            for match in _PATTERN.finditer(_ALLOWED.sub("", line)):
                advice = PHRASES[match[0].lower()]
                print(f"{file.relative_to(ROOT)}:{number}: {match[0]!r}: write {advice}")
                count += 1
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
