"""Publish the Zarr store of a run, and describe it in the STAC collection (datacube extension)."""

from __future__ import annotations

import json
from collections.abc import Container
from typing import Any

from pyproj import CRS

from scenebeam.csvtable import File
from scenebeam.imaging.cube_layout import REPOSITORY, ZARR_ROOT
from scenebeam.imaging.writers import icechunk
from scenebeam.imaging.writers.zarr_format import MEDIA_TYPE
from scenebeam.imaging.writers.zarr_store import CubeStore, StoredImage
from scenebeam.metadata import stac_items
from scenebeam.metadata.item_tables import BytesFile
from scenebeam.planning.plan import Plan
from scenebeam.products import product_of
from scenebeam.storage import Store

_DATACUBE = "https://stac-extensions.github.io/datacube/v2.2.0/schema.json"


def cube_of(plan: Plan, done: Container[str]) -> CubeStore | None:
    """Return the store of a plan; None if its images are files, or if nothing is made.

    Args:
        plan: The plan.
        done: Ids of finished tasks. Other images have their place along time, but no id.
    """
    images: dict[str, StoredImage] = {}
    product = product_of(plan.request.product.kind)
    grid, cuts = None, (0, 0)
    for task in plan.tasks:
        if task.cube is None:
            continue
        for part, image in zip(task.cube_parts, product.cube_images(task), strict=True):
            assert part.cube is not None, "a task has a place for each of its images"
            grid, cuts = image.grid, part.cube.cuts
            name = image.id if task.id in done else ""
            images[image.id] = StoredImage(
                part.cube.index, name, image.when, part.cube.bands, image.properties
            )
    if grid is None or not any(image.id for image in images.values()):
        return None
    ordered = sorted(images.values(), key=lambda image: image.index)
    attributes = {icechunk.FINGERPRINT: plan.request.fingerprint()}
    return CubeStore(grid.grid, cuts, ordered, attributes)


def publish_cube(cube: CubeStore, plan: Plan, store: Store) -> None:
    """Publish the metadata of a store, and so all that is new in it.

    Args:
        cube: The store.
        plan: The plan.
        store: The output.

    Raises:
        StorageError: It cannot be written.
    """
    files, groups = cube.files(), cube.groups()
    if plan.request.product.store_format == "icechunk":
        message = f"{plan.request.run}: {len(cube.images)} times"
        icechunk.commit(store, {**files, **groups}, message, plan.request.fingerprint())
        return
    store.write_all({f"{ZARR_ROOT}{path}": file for path, file in files.items()})
    # In this order: whoever finds a group finds all that is in it.
    for path, file in groups.items():
        store.write(f"{ZARR_ROOT}{path}", file.to_bytes())


def remove_stale(plan: Plan, cube: CubeStore | None, store: Store) -> None:
    """Remove what an earlier request has left in the store of an output, once all tasks are done.

    Args:
        plan: The plan.
        cube: Its store; None if its images are files.
        store: The output.
    """
    expected: set[str] = set()
    for task in plan.tasks:
        expected.update(task.possible_outputs)
    if cube is not None:
        expected.update(f"{ZARR_ROOT}{path}" for path in (*cube.files(), *cube.groups()))
    store.delete(sorted(store.list(ZARR_ROOT) - expected))


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
