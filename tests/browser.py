"""A real browser without a screen: what a page comes to, and what it looks like. Pictures are kept where TEST_ARTIFACTS says."""

from __future__ import annotations

import os
import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from conftest import lacking

_QUIET = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def _browse(url: str, folder: Path, *options: str) -> str:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        lacking("no browser to open the page with: apt-get install chromium")
    words = [
        browser,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        *_QUIET,
    ]
    command = [*words, f"--user-data-dir={folder}/browser", *options, url]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=90).stdout


def dom(url: str, folder: Path, *options: str) -> str:
    """The page's elements, once its scripts have run."""
    return _browse(url, folder, *options, "--dump-dom")


def screenshot(
    url: str, folder: Path, name: str, size: tuple[int, int], *options: str
) -> tuple[int, tuple[int, int]]:
    """A picture of the page: how many different brightnesses it has, and its width and height."""
    kept = Path(os.environ.get("TEST_ARTIFACTS", folder))
    kept.mkdir(parents=True, exist_ok=True)
    path = kept / f"{name}.png"
    _browse(url, folder, *options, f"--window-size={size[0]},{size[1]}", f"--screenshot={path}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as picture:
            return len(np.unique(picture.read(1))), (picture.width, picture.height)
