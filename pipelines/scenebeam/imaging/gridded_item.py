"""What is said of a gridded product: the tags of its COGs, and its STAC item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scenebeam.imaging.gridded_task import GriddedTask, Missing, Output
from scenebeam.imaging.thumbnails import THUMBNAIL, read_previews, render_png
from scenebeam.metadata import stac_items
from scenebeam.raster.cog import CogBand, CogProfile
from scenebeam.raster.sample import histogram
from scenebeam.storage import AtomicFile, Store


def cog_profile(task: GriddedTask, output: Output) -> CogProfile:
    """Describe the COG of an output: its grid, numbers and tags."""
    return CogProfile.for_grid(
        task.grid.grid,
        output.dtype,
        output.nodata,
        codec=task.codec,
        bands=(CogBand(output.name, output.scale, output.offset),),
        tags={"SCENEBEAM_VALUES": task.values, "SCENEBEAM_ACQUIRED": stac_items.rfc3339(task.when)},
    )


def describe_output(
    task: GriddedTask, output: Output, file: AtomicFile, facts: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Describe the COG of an output as an asset of a STAC item.

    Args:
        task: What was made.
        output: One of its outputs.
        file: The COG, published.
        facts: Valid pixels and missing scenes of each shard of it.

    Returns:
        The asset; it lists the scenes that are in it, and those that are missing.
    """
    height, width = task.grid.shape
    missing: dict[str, str] = {}
    for fact in facts:
        missing.update(fact["missing"])
    valid = sum(fact["valid"] for fact in facts) / (height * width)
    scenes = dict.fromkeys(source.scene for band in output.inputs for source in band.sources)
    return {
        "href": f"./{output.name}.tif",
        "type": stac_items.COG_TYPE,
        "roles": ["data"],
        "file:size": file.size,
        "file:checksum": file.checksum,
        "bands": [_described(output)],
        "raster:bands": [
            {
                **stac_items.raster_band(
                    output.dtype.name,
                    output.nodata,
                    output.scale,
                    output.offset,
                    abs(task.grid.transform[0]),
                ),
                "statistics": {"valid_percent": round(100 * valid, 4)},
            }
        ],
        "scenebeam:scenes": [scene for scene in scenes if scene not in missing],
        **(
            {"scenebeam:missing": [{"scene": s, "reason": missing[s]} for s in sorted(missing)]}
            if missing
            else {}
        ),
    }


def _described(output: Output) -> dict[str, str]:
    """The band of an output: by the name that the request has for it, and the common one."""
    common = {band.name for band in output.inputs}
    return {"name": output.name, **({"eo:common_name": common.pop()} if len(common) == 1 else {})}


def publish_item(
    task: GriddedTask,
    store: Store,
    outputs: Sequence[Output],
    assets: dict[str, dict[str, Any]],
    missing: Missing,
) -> None:
    """Publish the thumbnail and, last of all, the item.

    Args:
        task: What was made.
        store: Where its images are.
        outputs: Its outputs.
        assets: What the item says of them, by name.
        missing: By band, the scenes that lack it; the item lists them where no output is made of
            the band.
    """
    inputs = {band.label for output in outputs for band in output.inputs}
    lost = {band.label: missing[band.label] for band in task.bands if band.label not in inputs}
    incomplete = bool(lost) or any("scenebeam:missing" in asset for asset in assets.values())
    pictures = read_previews(store, {name: (task.output_key(name), 1) for name in assets})
    for output in outputs:
        assets[output.name]["raster:bands"][0] |= histogram(
            pictures[output.name], whole_numbers=output.categorical
        )
    shown = {
        output.name: pictures[output.name] for output in outputs if not output.categorical
    } or pictures
    with store.open_write(task.thumbnail_key) as file:
        file.write(render_png(shown))
    assets["thumbnail"] = {
        "href": f"./{THUMBNAIL}",
        "type": "image/png",
        "roles": ["thumbnail"],
        "file:size": file.size,
        "file:checksum": file.checksum,
    }
    item = stac_items.make_item(
        task.name,
        task.collection,
        task.when,
        stac_items.grid_footprint(task.grid.grid),
        assets,
        [(ref.id, ref.item_href) for ref in task.scenes],
        {
            **stac_items.grid_properties(task.grid.grid),
            **task.properties,
            "scenebeam:values": task.values,
            "scenebeam:complete": not incomplete,
            **({"scenebeam:missing": _list_lost(lost)} if lost else {}),
        },
    )
    store.write(task.item_path, stac_items.to_bytes(item))


def _list_lost(lost: Missing) -> list[dict[str, str]]:
    listed = []
    for band, scenes in lost.items():
        for scene, reason in scenes.items():
            listed.append({"band": band, "scene": scene, "reason": reason})
    return listed
