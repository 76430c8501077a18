"""Imports run one way only, and heavy or foreign packages stay behind their walls."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pipelines" / "scenebeam"
MODULES = sorted(PACKAGE.rglob("*.py"))

# A room may import itself and the rooms after it.
ROOMS = [
    "cli",
    "sandbox",
    "cloud",
    "beam",
    "lazy",
    "api",
    "cubes",
    "progress",
    "chips",
    "execution",
    "report",
    "planning",
    "products",
    "imaging",
    "metadata",
    "tasks",
    "catalog",
    "raster",
    "storage",
    "requestfile",
    "vectors",
    "transfer",
    "status",
    "request",
    "collections",
    "stac_geoparquet",
    "figures",
    "csvtable",
    "multihash",
    "extras",
    "suggestions",
    "errors",
]
APART = {
    ("catalog", "raster"),
    ("catalog", "storage"),
    ("raster", "storage"),
    ("storage", "transfer"),
}
ONLY = {
    "apache_beam": {
        "beam.py",
        "execution/engine.py",
        "execution/bags.py",
        "execution/beam_pipeline.py",
        "execution/runners/",
    },
    "rasterio": {"raster/", "sandbox/scenes.py"},
    "google.cloud": {"storage/", "cloud/"},
    "google.auth": {
        "storage/",
        "cloud/",
        "transfer/signing/google.py",
        "transfer/signing/accounts.py",
    },
    "tifffile": {"raster/"},
    "imagecodecs": {"raster/"},
}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(dotted: str) -> str | None:
    parts = dotted.split(".")
    return parts[1] if parts[0] == "scenebeam" and len(parts) > 1 and parts[1] in ROOMS else None


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own not in ROOMS:
        return
    for other in filter(None, map(room, imported(path))):
        assert ROOMS.index(other) >= ROOMS.index(own), f"{own} imports {other}"
        assert (own, other) not in APART, f"{own} and {other} do not know each other"


@pytest.mark.parametrize("package", ONLY)
def test_packages_stay_in_their_room(package: str) -> None:
    for path in MODULES:
        name = str(path.relative_to(PACKAGE))
        if any(name.startswith(allowed) for allowed in ONLY[package]):
            continue
        found = {one for one in imported(path) if one == package or one.startswith(f"{package}.")}
        assert not found, f"{name} imports {found}"


@pytest.mark.parametrize("module", ["scenebeam.request", "scenebeam.status"])
def test_light_modules_load_nothing_heavy(module: str) -> None:
    heavy = (
        "numpy rasterio apache_beam pyarrow shapely pyproj pystac google.cloud.storage tifffile odc"
    )
    code = (
        f"import sys, {module}; print([name for name in {heavy.split()!r} if name in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_modules_stay_small() -> None:
    long = {
        path.name: count for path in MODULES if (count := len(path.read_text().splitlines())) > 400
    }
    assert not long, f"a module of more than 400 lines wants to be two: {long}"
