"""Items: a released chip as a STAC item, with an asset for each of its rasters and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scenebeam.metadata import stac_items
from scenebeam.products.landcover.chips import Chip
from scenebeam.products.landcover.encoding import cog_bands
from scenebeam.products.landcover.record import MadeFile
from scenebeam.products.landcover.task import Layer


def item_id(chip: Chip) -> str:
    """`chip_000012`."""
    return f"chip_{chip.id:06}"


def chip_item(chip: Chip, collection: str) -> stac_items.Item:
    """The item of a released chip, beside its files."""
    task, made = chip.task, chip.made
    assert chip.id is not None, "it is released"
    assets: dict[str, dict[str, Any]] = {}
    for layer in task.layers:
        name = layer.release_name(chip.id)
        assets[layer.key] = _raster(
            chip, layer, made.files[f"{layer.name(made.chip)}.tif"], f"./{name}.tif"
        )
        picture = made.files.get(f"{layer.name(made.chip)}.png")
        if picture is not None:
            assets[f"{layer.key}_thumbnail"] = {
                "href": f"./{name}.png",
                "type": "image/png",
                "roles": ["thumbnail"],
                **_told(picture),
            }
    times = sorted(layer.scenes[0].when for layer in (task.dated or task.layers))
    item = stac_items.make_item(
        item_id(chip),
        collection,
        times[0],
        chip.footprint,
        assets,
        [],
        {
            "start_datetime": stac_items.rfc3339(times[0]),
            "end_datetime": stac_items.rfc3339(times[-1]),
            "scenebeam:class": made.land_class,
            "scenebeam:category": chip.land_class.name,
            "scenebeam:color": chip.land_class.color,
            "scenebeam:aoi": task.aoi,
            **({"scenebeam:split": chip.split} if chip.split else {}),
            **stac_items.grid_properties(chip.grid("lulc")),
        },
    )
    hrefs = {scene.id: scene.item_href for layer in task.layers for scene in layer.scenes}
    sources = dict.fromkeys(scene for layer in task.layers for scene in made.scene_ids(layer))
    item["links"] = [
        *stac_items.up_links("./"),
        *(
            {"rel": "derived_from", "href": hrefs[one] or "../../scenes.parquet", "title": one}
            for one in sources
        ),
    ]
    return item


def _raster(chip: Chip, layer: Layer, made: MadeFile, href: str) -> dict[str, Any]:
    recipe = chip.task.recipes[layer.platform]
    bands = cog_bands(layer.scenes[0].bands, recipe)
    grid = stac_items.grid_properties(chip.grid(layer.platform))
    return {
        "href": href,
        "type": stac_items.COG_TYPE,
        "title": f"{layer.platform} {layer.date}".strip(),
        "roles": ["data", "labels"] if layer.platform == "lulc" else ["data"],
        **_told(made),
        **{key: grid[key] for key in ("proj:shape", "proj:transform")},
        "bands": [{"name": band.description} for band in bands],
        "raster:bands": [
            stac_items.raster_band(
                recipe.dtype, recipe.nodata, band.scale, band.offset, recipe.resolution
            )
            for band in bands
        ],
    }


def _told(made: MadeFile) -> Mapping[str, Any]:
    return {"file:size": made.size, "file:checksum": made.checksum}
