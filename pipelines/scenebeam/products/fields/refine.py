"""Refine: what the pixels of a chip say of the scene that was chosen for it."""

from __future__ import annotations

from typing import Any

from scenebeam.products.fields.choose import measure_chip_clouds
from scenebeam.products.fields.make import read_choices
from scenebeam.products.fields.task import FieldsTask
from scenebeam.storage import Store
from scenebeam.transfer.retry import Budget


def measure(task: FieldsTask, store: Store, budget: Budget) -> list[dict[str, Any]]:
    """A row for each chip that a scene was chosen for: percent of cloud, of the scene and of the chip.

    Raises ReadError where a classification may be read later; one that is broken for good is in the row's `error`.
    """
    numbers = {chip.name: number for number, chip in enumerate(task.chips)}
    by_scene: dict[str, list[int]] = {}
    choices = {numbers[one.chip]: one for one in read_choices(task, store) if one.scene is not None}
    for number, choice in choices.items():
        by_scene.setdefault(str(choice.scene), []).append(number)
    rows: dict[int, dict[str, Any]] = {}
    for candidate in task.candidates:
        chips = by_scene.get(candidate.id, [])
        if not chips:
            continue
        told = (
            measure_chip_clouds(task, candidate, chips, budget)
            if candidate.looked_at
            else "the scene has no classification"
        )
        for number in chips:
            rows[number] = {
                "image": task.image_id(task.chips[number]),
                "chip": task.chips[number].name,
                "season": task.step,
                "scene": candidate.id,
                "cloud_cover_scene": candidate.cloud,
                "cloud_cover": None if isinstance(told, str) else told[number].cloud,
                "nodata": None if isinstance(told, str) else told[number].nodata,
                "error": told if isinstance(told, str) else "",
            }
    return [rows[number] for number in sorted(rows)]
