"""Draw the pictures of README.md and of the pages in this folder, from the demos.

    python docs/pictures.py    # needs Chromium for the picture of a report

Run it after a change of the sandbox or of how pictures are drawn.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import matplotlib
import numpy as np

import scenebeam
from scenebeam.sandbox.demo import run_demo
from scenebeam.sandbox.series import SERIES_AREA, SERIES_DATES, write_series

matplotlib.use("agg")
from matplotlib import pyplot

IMAGES = Path(__file__).parent / "images"
METHODS: dict[str, Any] = {
    "first-clear": "first-clear",
    "median": "median",
    "mean": "mean",
    "percentile 25": {"percentile": 25},
    "medoid": "medoid",
    "geomedian": "geomedian",
    "max ndvi": {"max": "ndvi"},
    "best-pixel": "best-pixel",
}
"""Title → method."""
_DPI = 110
Image = np.ndarray[Any, Any]


def main() -> None:
    """Draw all pictures."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in ("mosaic", "index", "composite", "fields", "landcover"):
            run_demo(folder, kind)
        _draw_pair(folder / "mosaic", "mosaic")
        _draw_pair(folder / "index", "index")
        _draw_pair(folder / "composite", "composite")
        _draw_fields(folder / "fields")
        _draw_landcover(folder / "landcover")
        _draw_report(folder / "mosaic" / "report" / "index.html")
        _draw_methods(folder)


def _draw_pair(output: Path, name: str) -> None:
    """Draw the pictures of a report side by side."""
    images = [_read(path) for path in sorted((output / "report/pictures").glob("*.webp"))]
    titles = [path.stem for path in sorted((output / "report/pictures").glob("*.webp"))]
    _draw_grid(images, titles, name, columns=2, width=9)


def _draw_fields(output: Path) -> None:
    import rasterio

    images: list[Image] = []
    titles = []
    for planting in sorted(output.glob("*/*_planting_image_s2.tif"))[5:8]:
        chip = planting.parent
        for season in ("planting", "harvest"):
            [path] = chip.glob(f"*_{season}_image_s2.tif")
            with rasterio.open(path) as file:
                bands = file.read([1, 2, 3]).astype(float)
            images.append(np.clip(np.moveaxis(bands, 0, -1) / 3000, 0, 1) ** 0.8)
            titles.append(season)
        [mask] = chip.glob("*semantic_3*.tif") or chip.glob("*mask*.tif")
        with rasterio.open(mask) as file:
            images.append(matplotlib.colormaps["viridis"](file.read(1) / 2)[..., :3])
        titles.append("field, boundary, background")
    _draw_grid(images, titles, "fields", columns=3, width=7)


def _draw_landcover(output: Path) -> None:
    """Draw two chips in all modalities, on the first of their dates."""
    images: list[Image] = []
    titles = []
    chips = sorted({path.stem.split("_")[1] for path in output.rglob("dem_*.png")})[:2]
    for chip in chips:
        for modality in ("s2l2a", "s1rtc", "lc2l2", "dem", "lulc"):
            path = sorted(output.rglob(f"{modality}_{chip}*.png"))[0]
            images.append(np.asarray(imagecodecs.png_decode(path.read_bytes())))
            titles.append(modality)
    _draw_grid(images, titles, "landcover", columns=5, width=10)


def _draw_methods(folder: Path) -> None:
    """Draw one month by each method of composites."""
    scenes = folder / "series"
    scenes.mkdir()
    write_series(scenes)
    images: list[Image] = []
    for title, method in METHODS.items():
        output = folder / title.replace(" ", "-")
        scenebeam.run(
            catalog=str(scenes / "catalog.json"),
            bbox=SERIES_AREA,
            dates=SERIES_DATES[:7],
            product={
                "kind": "composite",
                "bands": ["red", "green", "blue", "nir"],
                "method": method,
            },
            output=output,
            progress=False,
        )
        [picture] = (output / "report/pictures").glob("*.webp")
        images.append(_read(picture))
    _draw_grid(images, list(METHODS), "composites", columns=4, width=10)


def _draw_report(page: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("Chromium is missing: it takes the picture of a report")
    target = page.parent / "page.png"
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    subprocess.run(
        [browser, *options, "--window-size=1200,1650", f"--screenshot={target}", page.as_uri()],
        check=True,
        capture_output=True,
        timeout=90,
    )
    _write(np.asarray(imagecodecs.png_decode(target.read_bytes()))[..., :3], "report")


def _draw_grid(
    images: Sequence[Image], titles: Sequence[str], name: str, columns: int, width: float
) -> None:
    rows = -(-len(images) // columns)
    tall = max(image.shape[0] / image.shape[1] for image in images)
    size = (width, rows * (width / columns * tall + 0.3))
    figure, axes = pyplot.subplots(rows, columns, figsize=size, dpi=_DPI, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, title in zip(axes.flat, images, titles, strict=False):
        axis.imshow(image, cmap="gray")
        axis.set_title(title, fontsize=9, pad=3)
    figure.tight_layout(pad=0.4)
    figure.canvas.draw()
    drawn = np.asarray(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]
    pyplot.close(figure)
    _write(drawn, name)


def _read(path: Path) -> Image:
    return np.asarray(imagecodecs.webp_decode(path.read_bytes(), hasalpha=True))


def _write(image: Image, name: str) -> None:
    content = imagecodecs.webp_encode(np.ascontiguousarray(image), level=88, lossless=False)
    (IMAGES / f"{name}.webp").write_bytes(content)


if __name__ == "__main__":
    main()
