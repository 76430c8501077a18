"""Write the notebooks of this folder, executed.

    python docs/notebooks/make.py

The cells are here, so that they are reviewed as code; tests execute the notebooks.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
Cells = list[tuple[str, str]]

FIRST_MOSAIC: Cells = [
    (
        "markdown",
        "# A first mosaic\n\nFrom a search to pixels, on the sandbox: a synthetic Earth that needs "
        "neither a network nor an account. For a real catalog, only the request changes.\n\n"
        "    pip install '.[notebook]'",
    ),
    (
        "code",
        "from pathlib import Path\n\nimport scenebeam\n"
        "from scenebeam.sandbox.scenes import AREA, DATES, write_sandbox\n\n"
        'write_sandbox(Path("scenes"))',
    ),
    ("markdown", "## Search\n\nAll scenes of the area and dates, before anything is left out."),
    (
        "code",
        'scenes = scenebeam.search(catalog="scenes/catalog.json", bbox=AREA, dates=DATES)\nscenes',
    ),
    ("markdown", "## Select\n\nFilters are keywords. The result says what each left out."),
    ("code", "selection = scenebeam.select(scenes, max_cloud_cover=30)\nselection"),
    ("markdown", "## Plan\n\nWhat a run will read, write and cost, before it reads a pixel."),
    (
        "code",
        'product = {"kind": "mosaic", "bands": ["red", "green", "blue", "nir", "scl"]}\n'
        'scenebeam.plan(scenes.request, selection, product=product, output="out/first-mosaic")',
    ),
    ("markdown", "## Run\n\nInterrupt it at any time, and run the cell again to resume."),
    (
        "code",
        'status = scenebeam.run(\n    scenes.request, product=product, output="out/first-mosaic",'
        " max_cloud_cover=30, overwrite=True\n)\nstatus",
    ),
    (
        "markdown",
        "## Pixels\n\n`open` is lazy: pixels are read on access. With `decode`, values are "
        "reflectance, and NaN marks nodata.",
    ),
    ("code", "mosaics = scenebeam.open(status.output, decode=True)\nmosaics"),
    (
        "code",
        "import matplotlib.pyplot as plt\n\n"
        'color = mosaics[["red", "green", "blue"]].to_array().isel(time=0, x=slice(None, None, 4), '
        "y=slice(None, None, 4))\n"
        'color.transpose("y", "x", "variable").clip(0, 0.25).plot.imshow(vmax=0.25, size=4)\n'
        'plt.gca().set_aspect("equal")',
    ),
    (
        "code",
        "ndvi = (mosaics.nir - mosaics.red) / (mosaics.nir + mosaics.red)\n"
        "clear = ndvi.where(~mosaics.scl.isin([3, 8, 9, 10]))\n"
        'clear.mean(("y", "x")).round(3)',
    ),
]
COMPOSITES: Cells = [
    (
        "markdown",
        "# Cloud-free months\n\nClouds and shadows are masked pixel by pixel, and what is clear is "
        "reduced to one image per month.\n\n    pip install '.[notebook]'",
    ),
    (
        "code",
        "from pathlib import Path\n\nimport scenebeam\n"
        "from scenebeam.sandbox.series import SERIES_AREA, SERIES_DATES, write_series\n\n"
        'write_series(Path("series"))\n'
        'scenes = scenebeam.search(catalog="series/catalog.json", bbox=SERIES_AREA, '
        "dates=SERIES_DATES)\nscenes",
    ),
    (
        "code",
        "status = scenebeam.run(\n    scenes.request,\n"
        '    product={\n        "kind": "composite",\n        "bands": ["red", "green", "blue", '
        '"nir"],\n        "period": "month",\n        "method": "medoid",\n'
        '        "extra": ["observations"],\n    },\n'
        '    output="out/composites",\n    overwrite=True,\n)\nstatus',
    ),
    (
        "code",
        "months = scenebeam.open(status.output, decode=True)\n"
        'ndvi = ((months.nir - months.red) / (months.nir + months.red)).rename("ndvi")\n'
        'ndvi.isel(x=slice(None, None, 2), y=slice(None, None, 2)).plot(\n    col="time", '
        'cmap="RdYlGn", vmin=-0.2, vmax=0.9\n);',
    ),
    (
        "markdown",
        "How many clear observations each pixel had. Where there was none, the composite has no "
        "data.",
    ),
    (
        "code",
        "months.observations.isel(time=0, x=slice(None, None, 2), y=slice(None, None, 2)).plot();",
    ),
]
NOTEBOOKS = {"first-mosaic": FIRST_MOSAIC, "composites": COMPOSITES}


def build(cells: Cells) -> nbformat.NotebookNode:
    """Return a notebook that is not executed yet."""
    makers = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    notebook = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    )
    for number, (kind, source) in enumerate(cells):
        notebook.cells.append(makers[kind](source, id=f"cell-{number}"))
    return notebook


def execute(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Execute a notebook in a folder."""
    client = NotebookClient(notebook, timeout=180, resources={"metadata": {"path": str(folder)}})
    client.execute()


def main() -> None:
    """Write all notebooks."""
    for name, cells in NOTEBOOKS.items():
        notebook = build(cells)
        with tempfile.TemporaryDirectory() as folder:
            execute(notebook, Path(folder))
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # times
        nbformat.write(notebook, HERE / f"{name}.ipynb")


if __name__ == "__main__":
    main()
