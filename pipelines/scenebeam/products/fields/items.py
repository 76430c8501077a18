"""STAC items of field chips: one for each chip, and one for its imagery in each season."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from scenebeam.catalog.scene import Asset
from scenebeam.imaging.chip_scenes import ChipScene
from scenebeam.metadata import stac_items
from scenebeam.products.fields.choose import Choice
from scenebeam.products.fields.request import SEASONS
from scenebeam.products.fields.task import ChipRef, FieldsTask

FTW = "https://fieldsoftheworld.github.io/ftw-stac-extension/v1.0.0/schema.json"
"""Id of the `ftw` extension. Its schema is the file `ftw-schema.json` in this package."""
UP = stac_items.collection_links("../")
"""Links of every item to its collection, which is in the parent folder."""
_ITEM_TYPE = "application/geo+json"
_CHOICE_PROPERTIES = re.compile(
    r"ftw:(calendar_year|stac_host|buffer_days|pixel_check|expansions_performed"
    r"|cloud_cover_(scene|pixel)_threshold"
    r"|(planting|harvest)_(day|buffer_used|cloud_cover))$"
)
"""Properties of a chip that describe the selection of its scenes."""


def ftw_schema() -> dict[str, Any]:
    """Return the JSON Schema of the `ftw` extension."""
    text = files(__package__).joinpath("ftw-schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def image_item(
    task: FieldsTask,
    chip: ChipRef,
    choice: Choice,
    image: dict[str, Any] | None,
    thumbnail: dict[str, Any] | None,
) -> stac_items.Item:
    """Make the item of a season's imagery of a chip.

    Args:
        task: The task of the season.
        chip: The chip.
        choice: The scene that was chosen for it.
        image: Asset of the chip's own image; None if only its scene has been selected.
        thumbnail: Asset of the image's thumbnail, if there is one.

    Returns:
        The item. The scene's own files are among its assets if there is no image yet, or if the
        request keeps remote references.
    """
    candidates = {candidate.id: candidate for candidate in task.candidates}
    candidate = candidates[str(choice.scene)]
    assets: dict[str, dict[str, Any]] = {}
    if image is None or task.product.keep_remote_refs:
        assets = _remote_assets(task, candidate)
    if image is not None:
        assets["clipped"] = image
    if thumbnail is not None:
        assets["thumbnail"] = thumbnail

    grid = task.grid_of(chip)
    properties: dict[str, Any] = {
        "ftw:season": task.step,
        "ftw:source": task.source,
        "ftw:calendar_year": task.product.year,
        "ftw:scene": candidate.id,
        "scenebeam:chip": chip.name,
    }
    if choice.cloud is not None:
        properties["eo:cloud_cover"] = choice.cloud
    properties |= stac_items.grid_properties(grid)
    if choice.alternatives:
        others = [candidates[scene] for scene in choice.alternatives]
        properties["ftw:alternatives"] = [_alternative(other) for other in others]

    item = stac_items.make_item(
        task.image_id(chip),
        task.dataset,
        candidate.when,
        stac_items.grid_footprint(grid),
        assets,
        [],
        properties,
    )
    item["stac_extensions"] = [*item["stac_extensions"], FTW]
    item["links"] = _image_links(task, chip, candidate)
    return item


def _image_links(task: FieldsTask, chip: ChipRef, candidate: ChipScene) -> list[dict[str, Any]]:
    """Return links to the collection, to the item of the chip, and to that of the scene."""
    parent = _relative_href(task.parent_key(chip), chip.name)
    links = [
        *UP,
        {"rel": "derived_from", "href": parent, "type": _ITEM_TYPE},
        {"rel": "ftw:parent_chip", "href": parent, "type": _ITEM_TYPE},
    ]
    if candidate.item_href:
        via = {"rel": "via", "href": candidate.item_href, "type": _ITEM_TYPE}
        links.append({**via, "title": candidate.id})
    return links


def _remote_assets(task: FieldsTask, candidate: ChipScene) -> dict[str, dict[str, Any]]:
    """Return assets for the scene's own files: the bands, and those that show clouds."""
    assets: dict[str, dict[str, Any]] = {}
    for asset in candidate.bands:
        assets[asset.band] = _remote_asset(asset)
    for asset in candidate.looked_at:
        is_probability = asset.band in task.clouds.probability
        assets["cloud_probability" if is_probability else asset.band] = _remote_asset(asset)
    return assets


def _remote_asset(asset: Asset) -> dict[str, Any]:
    remote: dict[str, Any] = {"href": asset.href}
    if asset.media_type:
        remote["type"] = asset.media_type
    remote["roles"] = ["data"]
    return remote


def _alternative(candidate: ChipScene) -> dict[str, Any]:
    alternative = {"id": candidate.id, "datetime": stac_items.rfc3339(candidate.when)}
    if candidate.item_href:
        alternative["href"] = candidate.item_href
    return alternative


def _relative_href(key: str, folder: str) -> str:
    """Return the href of a file of the store from an item in one of its folders."""
    path = posixpath.relpath(key, folder or ".")
    return path if path.startswith("../") else f"./{path}"


def chip_item(task: FieldsTask, chip: ChipRef, masks: dict[str, dict[str, Any]]) -> stac_items.Item:
    """Make the item of a chip that the run has made.

    Args:
        task: A task of the chip's cell.
        chip: The chip, with its split and coverage.
        masks: Assets of its masks.
    """
    grid = task.grid_of(chip)
    year = task.product.year
    properties = {
        "start_datetime": f"{year}-01-01T00:00:00Z",
        "end_datetime": f"{year}-12-31T23:59:59Z",
        "ftw:calendar_year": year,
        "ftw:field_coverage": chip.coverage,
        "ftw:split": chip.split,
        **stac_items.grid_properties(grid),
    }
    item = stac_items.make_item(
        chip.name,
        task.dataset,
        stac_items.year_start(year),
        stac_items.grid_footprint(grid),
        masks,
        [],
        properties,
    )
    item["stac_extensions"] = [*item["stac_extensions"], FTW]
    item["links"] = [*UP]
    return item


def with_seasons(
    task: FieldsTask,
    chip: ChipRef,
    item: stac_items.Item,
    choices: Mapping[str, Choice],
    images: Mapping[str, stac_items.Item],
) -> stac_items.Item:
    """Update a chip's item with the selection of its scenes.

    Whatever an earlier selection has written to it is replaced; nothing else changes.

    Args:
        task: A task of the chip's cell.
        chip: The chip.
        item: Its item, made by `chip_item` or read from an existing catalog.
        choices: Season → choice.
        images: Season → item of its imagery, for seasons with a scene.

    Returns:
        A new item.
    """
    extensions = list(item.get("stac_extensions") or [])
    if FTW not in extensions:
        extensions.append(FTW)
    # Drop the links and properties of an earlier selection, also of a season without a scene now.
    season_rels = {f"ftw:{season}" for season in SEASONS}
    links = [link for link in item.get("links") or [] if link.get("rel") not in season_rels]
    folder = posixpath.dirname(task.parent_key(chip))
    for season in SEASONS:
        if season in choices and season in images:
            href = _relative_href(f"{chip.name}/{images[season]['id']}.json", folder)
            links.append({"rel": f"ftw:{season}", "href": href, "type": _ITEM_TYPE})

    properties: dict[str, Any] = {}
    for key, value in item["properties"].items():
        if not _CHOICE_PROPERTIES.match(key):
            properties[key] = value
    # Only with both seasons is it known which period the chip shows.
    times = sorted(image["properties"]["datetime"] for image in images.values())
    if len(times) == len(SEASONS):
        properties |= {"start_datetime": times[0], "end_datetime": times[-1]}
    properties |= _selection_properties(task, choices)
    for season in SEASONS:
        if season in choices:
            has_image = season in images
            properties |= _season_properties(season, choices[season], has_image=has_image)
    return {**item, "stac_extensions": extensions, "properties": properties, "links": links}


def _selection_properties(task: FieldsTask, choices: Mapping[str, Choice]) -> dict[str, Any]:
    """Return the properties that state the thresholds, and how far they had to be relaxed."""
    product = task.product
    properties: dict[str, Any] = {
        "ftw:calendar_year": product.year,
        "ftw:stac_host": task.stac_host,
        "ftw:cloud_cover_scene_threshold": product.cloud_cover_scene,
    }
    if product.pixel_check:
        properties["ftw:cloud_cover_pixel_threshold"] = product.cloud_cover_pixel
    expansions = (choice.expansions for choice in choices.values())
    properties["ftw:buffer_days"] = product.buffer_days
    properties["ftw:pixel_check"] = product.pixel_check
    properties["ftw:expansions_performed"] = max(expansions, default=0)
    return properties


def _season_properties(season: str, choice: Choice, *, has_image: bool) -> dict[str, Any]:
    """Return the properties that state the choice of one season."""
    properties: dict[str, Any] = {f"ftw:{season}_day": choice.day}
    if has_image:
        properties[f"ftw:{season}_buffer_used"] = choice.buffer
        cloud = choice.cloud if choice.cloud is not None else choice.cloud_scene
        if cloud is not None:
            properties[f"ftw:{season}_cloud_cover"] = cloud
    return properties
