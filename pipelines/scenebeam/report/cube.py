"""Publish the Zarr store of a run, and describe it in the STAC collection (datacube extension)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Sequence
from typing import Any

from pyproj import CRS

from scenebeam.csvtable import File
from scenebeam.errors import StorageError
from scenebeam.imaging.cube import CubeImage
from scenebeam.imaging.cube_layout import REPOSITORY, ZARR_ROOT
from scenebeam.imaging.writers import icechunk
from scenebeam.imaging.writers.zarr_format import MEDIA_TYPE
from scenebeam.imaging.writers.zarr_store import CubeStore, StoredImage
from scenebeam.metadata import stac_items
from scenebeam.metadata.item_tables import BytesFile
from scenebeam.planning.plan import Plan
from scenebeam.products import product_of
from scenebeam.storage import Store
from scenebeam.tasks import Task

_VERSION_DIGITS = 16
_DATACUBE = "https://stac-extensions.github.io/datacube/v2.2.0/schema.json"


def cube_of(plan: Plan, done: Container[str]) -> CubeStore | None:
    """Return the store of a plan; None if its images are files, or if nothing is made.

    Args:
        plan: The plan.
        done: Ids of finished tasks. Other images have their place along time, but no id.
    """
    product = product_of(plan.request.product.kind)
    grid, cuts = None, (0, 0)
    images: dict[str, CubeImage] = {}
    parts: dict[str, list[Task]] = {}
    undone: set[str] = set()
    for task in plan.tasks:
        if task.cube is None:
            continue
        for part, image in zip(task.cube_parts, product.cube_images(task), strict=True):
            assert part.cube is not None, "a task has a place for each of its images"
            grid, cuts = image.grid, part.cube.cuts
            images[image.id] = image
            parts.setdefault(image.id, []).append(part)
            if task.id not in done:
                undone.add(image.id)
    if grid is None or images.keys() <= undone:
        return None
    stored = []
    for name, image in images.items():
        place = parts[name][0].cube
        assert place is not None
        is_made = name not in undone
        stored.append(
            StoredImage(
                index=place.index,
                id=name if is_made else "",
                when=image.when,
                bands=place.bands,
                properties=image.properties,
                version=_version(parts[name]) if is_made else "",
            )
        )
    return CubeStore(grid.grid, cuts, sorted(stored, key=lambda image: image.index))


def _version(parts: Sequence[Task]) -> str:
    """Return a digest of what an image is made of: of all its shards."""
    digest = hashlib.sha256()
    for part in sorted(parts, key=lambda part: part.id):
        digest.update(part.model_dump_json(exclude={"estimate"}).encode())
    return digest.hexdigest()[:_VERSION_DIGITS]


def publish_cube(cube: CubeStore, plan: Plan, store: Store) -> None:
    """Publish the metadata of a store, and so all that is new in it.

    Args:
        cube: The store.
        plan: The plan.
        store: The output.

    Raises:
        StorageError: It cannot be written.
    """
    if plan.request.product.store_format == "icechunk":
        message = f"{plan.request.run}: {len(cube.images)} times"
        lost = icechunk.commit(store, cube, message)
        if lost:
            paths = [task.item_path for task in plan.tasks if _names(task) & lost]
            store.delete(sorted(set(paths)))
            raise StorageError(
                f"{store.uri_for(REPOSITORY)} lacks the pixels of {', '.join(sorted(lost))}, which "
                "were finished: it was removed or replaced. Run again to make them"
            )
        return
    files, groups = cube.files(), cube.groups()
    store.write_all({f"{ZARR_ROOT}{path}": file for path, file in files.items()})
    # In this order: whoever finds a group finds all that is in it.
    for path, file in groups.items():
        store.write(f"{ZARR_ROOT}{path}", file.to_bytes())


def _names(task: Task) -> set[str]:
    return {part.cube_id for part in task.cube_parts}


def describe_cube(collection: File, cube: CubeStore, plan: Plan) -> File:
    """Add the dimensions and variables of a cube to a STAC collection, and an asset for its store.

    Args:
        collection: The collection, as JSON.
        cube: The store.
        plan: The plan.
    """
    document: dict[str, Any] = json.loads(collection.to_bytes())
    extensions = document.setdefault("stac_extensions", [])
    if _DATACUBE not in extensions:
        extensions.append(_DATACUBE)
    document["cube:dimensions"] = _dimensions(cube)
    document["cube:variables"] = _variables(cube)
    is_icechunk = plan.request.product.store_format == "icechunk"
    folder = REPOSITORY if is_icechunk else ZARR_ROOT.rstrip("/")
    document["assets"]["cube"] = {
        "href": f"./{folder}",
        "type": "application/x-icechunk" if is_icechunk else MEDIA_TYPE,
        "roles": ["data"],
        "title": "All products as one Zarr store of dimensions time, y and x",
    }
    return BytesFile(stac_items.to_bytes(document))


def _dimensions(cube: CubeStore) -> dict[str, Any]:
    code = CRS.from_user_input(cube.grid.crs).to_epsg()
    west, south, east, north = cube.grid.bounds
    times = sorted(image.when for image in cube.images if image.id)
    system = {} if code is None else {"reference_system": code}
    return {
        "time": {
            "type": "temporal",
            "extent": [stac_items.rfc3339(times[0]), stac_items.rfc3339(times[-1])],
            "values": [stac_items.rfc3339(when) for when in times],
        },
        "y": {
            "type": "spatial",
            "axis": "y",
            "extent": [south, north],
            "step": cube.grid.transform.e,
            **system,
        },
        "x": {
            "type": "spatial",
            "axis": "x",
            "extent": [west, east],
            "step": cube.grid.transform.a,
            **system,
        },
    }


def _variables(cube: CubeStore) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    for band in cube.bands:
        variable: dict[str, Any] = {
            "type": "data",
            "dimensions": ["time", "y", "x"],
            "data_type": band.dtype,
            "shape": [cube.length, *cube.layout.shape],
        }
        if band.nodata is not None:
            variable["nodata"] = stac_items.json_nodata(band.nodata)
        if (band.scale, band.offset) != (1, 0):
            variable["unit"] = "1"
        variables[band.name] = variable
    return variables
