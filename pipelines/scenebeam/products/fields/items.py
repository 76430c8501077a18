"""Items: a chip's own STAC item, and one for each season's imagery."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from scenebeam.metadata import stac_items
from scenebeam.products.fields.choose import Choice
from scenebeam.products.fields.request import SEASONS
from scenebeam.products.fields.task import Candidate, ChipRef, FieldsTask

FTW = "https://fieldsoftheworld.github.io/ftw-stac-extension/v1.0.0/schema.json"
"""Id of the `ftw` extension, whose schema lies beside this module."""
UP = stac_items.up_links("../")
"""Links of every item to its collection, whose folder is one up."""
_JSON = "application/geo+json"
_OURS = re.compile(
    r"ftw:(calendar_year|stac_host|buffer_days|pixel_check|expansions_performed|cloud_cover_(scene|pixel)_threshold"
    r"|(planting|harvest)_(day|buffer_used|cloud_cover))$"
)
"""What is said of a choice in a chip's properties."""


def ftw_schema() -> dict[str, Any]:
    """The JSON Schema of the `ftw` extension."""
    schema: dict[str, Any] = json.loads(
        files(__package__).joinpath("ftw-schema.json").read_text(encoding="utf-8")
    )
    return schema


def image_item(
    task: FieldsTask,
    chip: ChipRef,
    choice: Choice,
    image: dict[str, Any] | None,
    picture: dict[str, Any] | None,
) -> stac_items.Item:
    """A season's imagery of a chip: the scene's own files and, once there is one, `image`, the chip's own asset."""
    candidates = {candidate.id: candidate for candidate in task.candidates}
    candidate = candidates[str(choice.scene)]
    remote = image is None or task.product.keep_remote_refs
    assets = {
        **(
            {asset.band: _remote(asset.href, asset.media_type) for asset in candidate.bands}
            if remote
            else {}
        ),
        **(
            {_cloud_key(task, a.band): _remote(a.href, a.media_type) for a in candidate.looked_at}
            if remote
            else {}
        ),
        **({} if image is None else {"clipped": image}),
        **({} if picture is None else {"thumbnail": picture}),
    }
    grid = task.grid_of(chip)
    parent = _relative(task.parent_name(chip), chip.name)
    item = stac_items.make_item(
        task.image_id(chip),
        task.dataset,
        candidate.when,
        stac_items.grid_footprint(grid),
        assets,
        [],
        {
            "ftw:season": task.step,
            "ftw:source": task.source,
            "ftw:calendar_year": task.product.year,
            "ftw:scene": candidate.id,
            "scenebeam:chip": chip.name,
            **({} if choice.cloud is None else {"eo:cloud_cover": choice.cloud}),
            **stac_items.grid_properties(grid),
            **_alternatives(choice, candidates),
        },
    )
    item["stac_extensions"] = [*item["stac_extensions"], FTW]
    item["links"] = [
        *UP,
        {"rel": "derived_from", "href": parent, "type": _JSON},
        {"rel": "ftw:parent_chip", "href": parent, "type": _JSON},
        *(
            {"rel": "via", "href": href, "type": _JSON, "title": candidate.id}
            for href in [candidate.item_href]
            if href
        ),
    ]
    return item


def _relative(name: str, folder: str) -> str:
    """An href to a file of the store from one of its folders."""
    path = posixpath.relpath(name, folder or ".")
    return path if path.startswith("../") else f"./{path}"


def _alternatives(choice: Choice, candidates: Mapping[str, Candidate]) -> dict[str, Any]:
    if not choice.alternatives:
        return {}
    others = [candidates[name] for name in choice.alternatives]
    return {
        "ftw:alternatives": [
            {
                "id": one.id,
                "datetime": stac_items.rfc3339(one.when),
                **({"href": one.item_href} if one.item_href else {}),
            }
            for one in others
        ]
    }


def _cloud_key(task: FieldsTask, band: str) -> str:
    return "cloud_probability" if band in task.clouds.probability else band


def _remote(href: str, media_type: str | None) -> dict[str, Any]:
    return {"href": href, **({"type": media_type} if media_type else {}), "roles": ["data"]}


def chip_item(task: FieldsTask, chip: ChipRef, masks: dict[str, dict[str, Any]]) -> stac_items.Item:
    """A chip that the run made: its masks, which split it belongs to, and how much of it is under fields."""
    grid = task.grid_of(chip)
    year = task.product.year
    item = stac_items.make_item(
        chip.name,
        task.dataset,
        stac_items.year_start(year),
        stac_items.grid_footprint(grid),
        masks,
        [],
        {
            "start_datetime": f"{year}-01-01T00:00:00Z",
            "end_datetime": f"{year}-12-31T23:59:59Z",
            "ftw:calendar_year": year,
            "ftw:field_coverage": chip.coverage,
            "ftw:split": chip.split,
            **stac_items.grid_properties(grid),
        },
    )
    item["stac_extensions"] = [*item["stac_extensions"], FTW]
    item["links"] = [*UP]
    return item


def with_seasons(
    task: FieldsTask,
    chip: ChipRef,
    item: stac_items.Item,
    chosen: Mapping[str, Choice],
    images: Mapping[str, stac_items.Item],
) -> stac_items.Item:
    """A chip's item with what was chosen for it, and nothing of what an earlier choice said."""
    product = task.product
    links = [
        link
        for link in item.get("links") or []
        if link.get("rel") not in {f"ftw:{season}" for season in SEASONS}
    ]
    kept = {key: value for key, value in item["properties"].items() if not _OURS.match(key)}
    told: dict[str, Any] = {
        "ftw:calendar_year": product.year,
        "ftw:stac_host": task.stac_host,
        "ftw:cloud_cover_scene_threshold": product.cloud_cover_scene,
        **(
            {"ftw:cloud_cover_pixel_threshold": product.cloud_cover_pixel}
            if product.pixel_check
            else {}
        ),
        "ftw:buffer_days": product.buffer_days,
        "ftw:pixel_check": product.pixel_check,
        "ftw:expansions_performed": max(
            (choice.expansions for choice in chosen.values()), default=0
        ),
    }
    times = sorted(image["properties"]["datetime"] for image in images.values())
    if len(times) == len(SEASONS):
        kept |= {"start_datetime": times[0], "end_datetime": times[-1]}
    for season in SEASONS:
        choice, image = chosen.get(season), images.get(season)
        if choice is None:
            continue
        told[f"ftw:{season}_day"] = choice.day
        if image is None:
            continue
        told[f"ftw:{season}_buffer_used"] = choice.buffer
        cloud = choice.cloud if choice.cloud is not None else choice.cloud_scene
        if cloud is not None:
            told[f"ftw:{season}_cloud_cover"] = cloud
        folder = posixpath.dirname(task.parent_name(chip))
        href = _relative(f"{chip.name}/{image['id']}.json", folder)
        links.append({"rel": f"ftw:{season}", "href": href, "type": _JSON})
    extensions = [*(item.get("stac_extensions") or [])]
    return {
        **item,
        "stac_extensions": extensions if FTW in extensions else [*extensions, FTW],
        "properties": {**kept, **told},
        "links": links,
    }
