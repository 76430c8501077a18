"""Measure how cloudy the chosen scenes are over the chips: the report of `fields refine`."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from scenebeam.errors import RequestError
from scenebeam.imaging.chip_clouds import SceneClouds, measure_chip_clouds
from scenebeam.imaging.chip_scenes import ChipScene
from scenebeam.metadata import stac_items
from scenebeam.products.fields.make import read_choices
from scenebeam.products.fields.task import CELLS, FieldsTask
from scenebeam.storage import Store
from scenebeam.tasks import Task
from scenebeam.transfer.retry import Budget

CLOUD_REPORT = "cloud-report.json"
_CONCURRENT_CELLS = 2


def measure_clouds(tasks: Iterable[Task], store: Store, most: float) -> dict[str, Any]:
    """Measure the clouds of every chosen scene over its chip, and write the report.

    Each block of a classification is read once.

    Args:
        tasks: The tasks of a run of field chips.
        store: The output of the run.
        most: Cloud cover of a chip in percent above which its image is listed.

    Returns:
        The report, as it is written to `cloud-report.json`. A classification that can never be read
        is listed under `unchecked`.

    Raises:
        RequestError: No scene has been selected yet.
        ReadError: A classification cannot be read at the moment, and a later attempt may succeed.
    """
    existing = store.list(CELLS)
    selected: list[FieldsTask] = []
    for task in tasks:
        if isinstance(task, FieldsTask) and task.step != "masks" and task.record_key in existing:
            selected.append(task)
    if not selected:
        raise RequestError(
            f"{store.uri}: no scenes have been selected; begin with `scenebeam fields select`"
        )
    rows: list[dict[str, Any]] = []
    with ThreadPoolExecutor(_CONCURRENT_CELLS) as threads:
        for cell_rows in threads.map(lambda task: _measure_cell(task, store), selected):
            rows += cell_rows
    above, unchecked = [], {}
    for row in rows:
        if row["cloud_cover"] is not None and row["cloud_cover"] > most:
            above.append(row["image"])
        if row["error"]:
            unchecked[row["image"]] = row["error"]
    document = {
        "operation": "refine-cloud-cover",
        "cloud_cover_pixel": most,
        "total_processed": len(rows),
        "above_threshold": above,
        "unchecked": unchecked,
        "images": rows,
    }
    store.write(CLOUD_REPORT, stac_items.to_bytes(document))
    return document


def _measure_cell(task: FieldsTask, store: Store) -> list[dict[str, Any]]:
    """Return a row for each chip of a task that has a scene, in the order of the task."""
    budget = Budget(private=True)
    numbers = {chip.name: number for number, chip in enumerate(task.chips)}
    by_scene: dict[str, list[int]] = {}
    for choice in read_choices(task, store):
        if choice.scene is not None:
            by_scene.setdefault(choice.scene, []).append(numbers[choice.chip])
    rows: dict[int, dict[str, Any]] = {}
    for candidate in task.candidates:
        members = by_scene.get(candidate.id)
        if not members:
            continue
        if candidate.looked_at:
            clouds = measure_chip_clouds(candidate, task.grids_of(members), task.clouds, budget)
        else:
            clouds = SceneClouds(error="the scene has no classification")
        for number in members:
            rows[number] = _row(task, number, candidate, clouds)
    return [rows[number] for number in sorted(rows)]


def _row(
    task: FieldsTask, number: int, candidate: ChipScene, clouds: SceneClouds
) -> dict[str, Any]:
    chip = task.chips[number]
    measured = clouds.chips.get(number)
    return {
        "image": task.image_id(chip),
        "chip": chip.name,
        "season": task.step,
        "scene": candidate.id,
        "cloud_cover_scene": candidate.cloud,
        "cloud_cover": None if measured is None else measured.cloud,
        "nodata": None if measured is None else measured.nodata,
        "error": clouds.error,
    }
