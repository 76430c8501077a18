"""Describe a released chip as a STAC item, with an asset for each of its rasters and thumbnails."""

from __future__ import annotations

from typing import Any

from scenebeam.metadata import stac_items
from scenebeam.products.landcover.chips import Chip
from scenebeam.products.landcover.encoding import cog_bands
from scenebeam.products.landcover.record import FileRecord
from scenebeam.products.landcover.task import Layer


def item_id(chip_id: int) -> str:
    """Return the id of a released chip's item: `chip_000012`."""
    return f"chip_{chip_id:06}"


def chip_item(chip: Chip, chip_id: int, collection: str) -> stac_items.Item:
    """Build the STAC item of a released chip.

    Args:
        chip: The chip.
        chip_id: Its id in the release.
        collection: Id of the collection.

    Returns:
        The item. Its hrefs are relative to the folder of the release, where it is published.
    """
    task = chip.task
    times = sorted(layer.scenes[0].when for layer in (task.dated_layers or task.layers))
    properties: dict[str, Any] = {
        "start_datetime": stac_items.rfc3339(times[0]),
        "end_datetime": stac_items.rfc3339(times[-1]),
        "scenebeam:class": chip.record.land_class,
        "scenebeam:category": chip.land_class.name,
        "scenebeam:color": chip.land_class.color,
        "scenebeam:aoi": task.aoi,
    }
    if chip.split:
        properties["scenebeam:split"] = chip.split
    properties |= stac_items.grid_properties(chip.grid("lulc"))
    item = stac_items.make_item(
        item_id(chip_id),
        collection,
        times[0],
        chip.footprint,
        _assets(chip, chip_id),
        [],
        properties,
    )
    # The links of `make_item` are relative to a folder two levels below the output.
    item["links"] = [*stac_items.collection_links("./"), *_source_links(chip)]
    return item


def _assets(chip: Chip, chip_id: int) -> dict[str, dict[str, Any]]:
    files = chip.record.files
    assets: dict[str, dict[str, Any]] = {}
    for layer in chip.task.layers:
        working, released = layer.working_name(chip.record.chip), layer.release_name(chip_id)
        assets[layer.label] = _raster_asset(
            chip, layer, files[f"{working}.tif"], f"./{released}.tif"
        )
        thumbnail = files.get(f"{working}.png")
        if thumbnail is not None:
            assets[f"{layer.label}_thumbnail"] = {
                "href": f"./{released}.png",
                "type": "image/png",
                "roles": ["thumbnail"],
                **_file_fields(thumbnail),
            }
    return assets


def _raster_asset(chip: Chip, layer: Layer, file: FileRecord, href: str) -> dict[str, Any]:
    recipe = chip.task.recipes[layer.platform]
    bands = cog_bands(layer.scenes[0].bands, recipe)
    grid = stac_items.grid_properties(chip.grid(layer.platform))
    names, raster_bands = [], []
    for band in bands:
        names.append({"name": band.description})
        raster_bands.append(
            stac_items.raster_band(
                recipe.dtype, recipe.nodata, band.scale, band.offset, recipe.resolution
            )
        )
    return {
        "href": href,
        "type": stac_items.COG_TYPE,
        "title": f"{layer.platform} {layer.date}".strip(),
        "roles": ["data", "labels"] if layer.platform == "lulc" else ["data"],
        **_file_fields(file),
        "proj:shape": grid["proj:shape"],
        "proj:transform": grid["proj:transform"],
        "bands": names,
        "raster:bands": raster_bands,
    }


def _source_links(chip: Chip) -> list[dict[str, Any]]:
    """Link each scene that shows the chip, once."""
    hrefs: dict[str, str | None] = {}
    sources: dict[str, None] = {}
    for layer in chip.task.layers:
        hrefs |= {scene.id: scene.item_href for scene in layer.scenes}
        sources |= dict.fromkeys(chip.record.scene_ids(layer))
    links = []
    for scene_id in sources:
        href = hrefs[scene_id] or "../../scenes.parquet"
        links.append({"rel": "derived_from", "href": href, "title": scene_id})
    return links


def _file_fields(file: FileRecord) -> dict[str, Any]:
    return {"file:size": file.size, "file:checksum": file.checksum}
