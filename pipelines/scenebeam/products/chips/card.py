"""The dataset card: a page about the chips for people who use them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from scenebeam.catalog.bands import records_for
from scenebeam.products.chips.request import ChipsRequest
from scenebeam.request import RunRequest

if TYPE_CHECKING:
    from scenebeam.products.chips.report import DatasetSummary

CARD_FILE = "README.md"
_SHOWN = ("mean", "std", "p2", "p50", "p98")
_LAYOUTS = {
    "cogs": "a folder for each chip in `chips/`, with COGs and `sample.json`",
    "webdataset": "tar files in a folder for each split; the members of a chip share its id",
    "parquet": "Parquet files in a folder for each split; columns of bytes are COGs",
    "zarr": "`chips.zarr`, a Zarr v3 store with a group for each split",
}


def dataset_card(request: RunRequest[ChipsRequest], summary: DatasetSummary) -> str:
    """Return the card as Markdown."""
    return "\n".join(_lines(request, summary)) + "\n"


def _lines(request: RunRequest[ChipsRequest], summary: DatasetSummary) -> Iterator[str]:
    product = request.product
    side = product.side * product.resolution
    yield f"# {request.run}"
    yield ""
    yield (
        f"{summary.chips:,} chips of {product.side} x {product.side} pixels "
        f"({side:g} x {side:g} units of their CRS), {summary.images:,} images of the bands "
        f"{', '.join(product.bands)}."
    )
    yield ""
    yield f"Layout: {_LAYOUTS[product.layout]}. `manifest.parquet` has the checksum of each file,"
    yield "`chips.parquet` a row for each chip, and for each that is missing the reason."
    yield ""
    yield "```python"
    yield "import scenebeam.chips"
    yield ""
    split = next(
        (
            f', split="{name}"'
            for name in ("train", *summary.splits)
            if name in summary.splits and name
        ),
        "",
    )
    yield f'for sample in scenebeam.chips.open("."{split}):'
    yield '    print(sample["id"], sample["image"].shape)'
    yield "```"
    yield ""
    yield "The metadata of a sample have `scale`, `offset` and `nodata` of its images: pixels"
    yield "without data are `nodata`, and physical values are scale * pixel + offset."
    if any(summary.splits):
        yield from _table("Splits", ("split", "chips"), list(summary.splits.items()))
    for label, counts in summary.classes.items():
        names = summary.class_names.get(label, {})
        rows = []
        for value, count in counts.items():
            name = names.get(int(value), "") if value.lstrip("-").isdigit() else ""
            rows.append((value, name, f"{count:,}"))
        yield from _table(f"Label `{label}`", ("value", "name", "count"), rows)
    for image, bands in summary.bands.items():
        described = [_band_row(name, figures) for name, figures in bands.items()]
        title = f"Bands of `{image}` (training split)"
        yield from _table(title, ("band", *_SHOWN), described)
    if summary.missing:
        missing = [(reason, f"{count:,}") for reason, count in summary.missing.items()]
        yield from _table("Missing chips", ("reason", "chips"), missing)
    yield ""
    yield "## Sources"
    yield ""
    records = {record.id: record for record in reversed(records_for(request))}
    for record in records.values():
        terms = f": {record.attribution}" if record.attribution else ""
        yield f"- {record.title or record.id} (`{record.id}`){terms}"
    yield ""
    yield "Made with scenebeam; the request is in `run.json`, and the scenes in `scenes.parquet`."


def _band_row(name: str, figures: Mapping[str, float | int]) -> Sequence[object]:
    numbers = [f"{figures[key]:.6g}" if key in figures else "" for key in _SHOWN]
    return name, *numbers


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    yield ""
    yield f"## {title}"
    yield ""
    yield f"| {' | '.join(columns)} |"
    yield f"|{' --- |' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(str(cell) for cell in row)} |"
