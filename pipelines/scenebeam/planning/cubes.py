"""Place the images of a run in its Zarr store: which variables it has, and who is where in time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from scenebeam.errors import RequestError
from scenebeam.extras import import_extra
from scenebeam.imaging.cube import CubeImage, common_bands
from scenebeam.imaging.cube_layout import REPOSITORY, STAGED_ROOT, ZARR_ROOT
from scenebeam.imaging.gridded_task import GriddedTask
from scenebeam.imaging.shards import Window
from scenebeam.planning.plan import Plan
from scenebeam.products import product_of
from scenebeam.request import RunRequest
from scenebeam.storage import Store
from scenebeam.tasks import CubeBand, CubeSlice

Cuts = tuple[int, int]


def place_in_cube(plan: Plan, frozen: Plan | None = None) -> Plan:
    """Place the images of a plan along time, if its format is a store.

    An image that the frozen plan has too keeps its place. New ones follow in the order of time.

    Args:
        plan: The plan.
        frozen: The plan in the output; None if there is none, or if all of it is replaced.

    Raises:
        RequestError: The images are no cube, or do not fit into the store that exists, or the
            series keeps versions, which a plain store cannot.
        MissingExtraError: The package of the format is not installed.
    """
    form = plan.request.product.store_format
    if form is None:
        return plan
    series = plan.request.series
    if form == "zarr" and series is not None and series.keep_versions:
        raise RequestError(
            "series.keep_versions: a Zarr store has one version of each image; use product.format: "
            "icechunk, whose history has all of them, or cog"
        )
    if form == "icechunk":
        import_extra("icechunk", "icechunk", "product.format: icechunk")
    product = product_of(plan.request.product.kind)
    found: dict[str, CubeImage] = {}
    by_task: list[list[CubeImage]] = []
    for task in plan.tasks:
        images = list(product.cube_images(task))
        by_task.append(images)
        found.update((image.id, image) for image in images)
    bands = common_bands([*image.bands.values()] for image in found.values())
    before = _slices(frozen)
    cuts = common_cuts(task.window for task in plan.tasks if isinstance(task, GriddedTask))
    if before:
        cuts = _check_fits(before, bands, cuts)
    indices = {name: place.index for name, place in before.items()}
    following = max(indices.values(), default=-1) + 1
    for image in sorted(found.values(), key=lambda image: (image.when, image.id)):
        if image.id not in indices:
            indices[image.id] = following
            following += 1
    tasks = []
    for task, images in zip(plan.tasks, by_task, strict=True):
        slices = {}
        for image in images:
            own = tuple(bands[name] for name in image.bands)
            slices[image.id] = CubeSlice(format=form, index=indices[image.id], bands=own, cuts=cuts)
        tasks.append(task.in_cube(slices))
    placed = replace(plan, tasks=tuple(tasks))
    check_one_grid(placed)
    return placed


def check_no_store(request: RunRequest, store: Store) -> None:
    """Check that an output without a run has no store that a run would write into.

    Args:
        request: The request.
        store: The output.

    Raises:
        RequestError: It has one.
    """
    form = request.product.store_format
    if form is None:
        return
    folder = ZARR_ROOT if form == "zarr" else f"{REPOSITORY}/"
    if store.list(folder):
        raise RequestError(
            f"{store.uri_for(folder)} exists, and no run in {store.uri} has made it: run with "
            "--overwrite to replace it, or choose another output"
        )


def check_one_grid(plan: Plan) -> None:
    """Check that all images of a store are on one grid, those that are kept included.

    Raises:
        RequestError: They are not.
    """
    product = product_of(plan.request.product.kind)
    placed = [task for task in plan.tasks if task.cube is not None]
    grids = {image.grid for task in placed for image in product.cube_images(task)}
    if len(grids) > 1:
        raise RequestError(
            f"product.format: the images are on {len(grids)} grids, and a store has one: give "
            "grid.crs, grid.resolution and grid.bounds"
        )


def retract_store(frozen: Plan, store: Store) -> None:
    """Remove the metadata of a Zarr store that another request replaces, and what it has staged.

    Shards are replaced one by one, and would be read as something that they are not.

    Args:
        frozen: The plan of the store.
        store: The output.
    """
    store.delete(sorted(store.list(STAGED_ROOT)))
    shards: set[str] = set()
    for task in frozen.tasks:
        if task.cube is None or task.cube.format != "zarr":
            return
        shards.update(task.possible_outputs)
    store.delete(sorted(store.list(ZARR_ROOT) - shards))


def _slices(frozen: Plan | None) -> dict[str, CubeSlice]:
    """Return the place of each image of a plan, by the id of the image."""
    slices: dict[str, CubeSlice] = {}
    for task in frozen.tasks if frozen is not None else ():
        for part in task.cube_parts:
            if part.cube is not None:
                slices[part.cube_id] = part.cube
    return slices


def common_cuts(windows: Iterable[Window]) -> Cuts:
    """Return the rows and columns of which all cuts are multiples; 0 along an axis without any.

    Args:
        windows: What the tasks of a run make.
    """
    rows = columns = 0
    for top, _, left, _ in windows:
        rows, columns = math.gcd(rows, top), math.gcd(columns, left)
    return rows, columns


def _check_fits(before: dict[str, CubeSlice], bands: dict[str, CubeBand], cuts: Cuts) -> Cuts:
    """Check that new images fit into a store, and return its cuts.

    Raises:
        RequestError: They do not fit.
    """
    stored: dict[str, CubeBand] = {}
    known_cuts = (0, 0)
    for place in before.values():
        known_cuts = place.cuts
        stored.update((band.name, band) for band in place.bands)
    for name, band in bands.items():
        known = stored.get(name, band)
        if known != band and not _equal_but_dtype(known, band):
            raise RequestError(
                f"product.format: {name} has another nodata value or scale than in the store; "
                "choose another output"
            )
        bands[name] = known
    for new, known_cut in zip(cuts, known_cuts, strict=True):
        if new and (not known_cut or new % known_cut):
            raise RequestError(
                "product.format: the new images are cut into windows that are no shards of the "
                "store; raise limits.memory, or choose another output"
            )
    return known_cuts


def _equal_but_dtype(known: CubeBand, band: CubeBand) -> bool:
    """Whether pixels of a new dtype may fit: each task checks its own when it knows them."""
    return repr(known.model_copy(update={"dtype": band.dtype})) == repr(band)
