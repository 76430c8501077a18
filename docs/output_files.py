"""Write outputs.md: the files that each product's demo has written, and the columns of tables.

python docs/output_files.py            # rewrite the page
python docs/output_files.py --check    # exit with 1 if it is out of date
"""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from scenebeam.request.product import PRODUCTS
from scenebeam.sandbox.demo import run_demo

PAGE = Path(__file__).parent / "outputs.md"
_HEAD = """# Output files

What is in the output of a run, as the demo of each product writes it. Every product writes the
common files; its own are listed below. CSV files are listed with their columns, Parquet files with
those columns that are not properties of items. Of files whose names differ only by dates, tiles and
numbers, one is listed.

Products are published atomically: a file that exists is complete. Tables, the collection and the
report are rewritten at the end of each run. The meaning of the columns is described on the page of
the product, and in [requests.md](requests.md) for the tables of scenes.

## Upgrades

Every release opens and resumes the outputs of the releases before it: what is made is kept, and the
rest is made. Pixels stay the same; the bytes of files that are made anew may differ, because
releases and their libraries encode differently. A release that has to break this says so in the
changelog, and refuses the output with a message that says how to go on. Small outputs of each
release are in `tests/golden/`, where tests resume them.

`run.json` names the `format` of the plan, and in `versions` the release that wrote it. An output of
release 0.1.0 names no format, which is format 1. Newer formats than a release knows are refused,
and nothing is changed. Then upgrade scenebeam; or run the request file with `--overwrite`, which
replaces what is there; or choose another output. The products themselves need no plan:
`scenebeam.open` and other tools still read them.

`status.json` may get further fields. Readers ignore fields that they do not know, and use defaults
for those that are missing; the states stay. So `scenebeam status` and a deployment read the
statuses of newer and older releases. If the plan is of a newer format, the status is that of its
last update.
"""
_MAX_COLUMNS = 14


def main() -> int:
    """Write or check the page. Returns the exit code."""
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stderr(io.StringIO()):
        trees = {}
        for kind in sorted(PRODUCTS):
            folder = Path(name) / kind
            run_demo(folder, kind)
            trees[kind] = dict(_files(folder / kind))
    common = {path for path in trees["mosaic"] if all(path in tree for tree in trees.values())}
    parts = [
        _HEAD,
        "\n## Every product\n",
        *_table({path: trees["mosaic"][path] for path in common}),
    ]
    for kind, tree in trees.items():
        own = {path: text for path, text in tree.items() if path not in common}
        parts += [f"\n## {kind}\n", *_table(own)]
    text = "\n".join(parts) + "\n"
    if "--check" in sys.argv:
        return int(not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


def _files(output: Path) -> Iterator[tuple[str, str]]:
    """Yield (path, description) of each kind of file in an output."""
    seen: set[str] = set()
    for path in sorted(output.rglob("*")):
        if not path.is_file() or path.name.startswith("."):
            continue
        relative = path.relative_to(output)
        # Names that differ only by dates, tiles and numbers are of one kind: the first is shown.
        kind = re.sub(r"[0-9A-Z]*[0-9][0-9A-Z]*", "0", str(relative))
        if kind in seen:
            continue
        seen.add(kind)
        yield str(relative), _describe(path)


def _describe(path: Path) -> str:
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return _columns(next(csv.reader(file), []))
    if path.suffix == ".parquet":
        names = pq.ParquetFile(path).schema_arrow.names
        return _columns([name for name in names if ":" not in name])
    return {
        ".tif": "COG",
        ".vrt": "VRT",
        ".png": "thumbnail",
        ".webp": "picture of the report",
        ".html": "the report",
        ".geojson": "GeoJSON",
        ".zst": "compressed newline-delimited JSON",
        ".json": "JSON",
        ".gz": "archive",
        ".md": "text",
    }.get(path.suffix, "")


def _columns(names: list[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:_MAX_COLUMNS])
    return f"{shown}, …" if len(names) > _MAX_COLUMNS else shown


def _table(files: dict[str, str]) -> Iterator[str]:
    yield "| file | what it is, or its columns |"
    yield "|---|---|"
    for path, text in sorted(files.items()):
        yield f"| `{path}` | {text} |"


if __name__ == "__main__":
    sys.exit(main())
