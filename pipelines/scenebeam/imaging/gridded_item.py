"""The metadata of a gridded product: the tags of its COGs, and its STAC item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scenebeam.imaging.gridded_task import GriddedTask, Missing, Output
from scenebeam.imaging.thumbnails import ThumbnailBand, render_thumbnail
from scenebeam.metadata import stac_items
from scenebeam.raster.cog import CogBand, CogProfile
from scenebeam.raster.sample import histogram
from scenebeam.raster.validity import Array
from scenebeam.storage import Store


def cog_profile(task: GriddedTask, output: Output) -> CogProfile:
    """Describe the COG of an output: its grid, dtype, nodata value and tags."""
    return CogProfile.for_grid(
        task.grid.grid,
        output.dtype,
        output.nodata,
        codec=task.codec,
        bands=(CogBand(output.name, output.scale, output.offset),),
        tags={"SCENEBEAM_VALUES": task.values, "SCENEBEAM_ACQUIRED": stac_items.rfc3339(task.when)},
    )


def describe_output(
    task: GriddedTask, output: Output, stored: dict[str, Any], facts: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Describe an output as an asset of a STAC item.

    Args:
        task: The task.
        output: One of its outputs.
        stored: Fields of the asset that its format gives: where the image is.
        facts: For each shard `valid`, the number of its valid pixels, and `missing`, its missing
            scenes with the reasons.

    Returns:
        The asset, with the scenes that are in the image and those that are missing.
    """
    height, width = task.grid.shape
    missing: dict[str, str] = {}
    valid = 0
    for fact in facts:
        missing.update(fact["missing"])
        valid += fact["valid"]
    pixel_size = abs(task.grid.transform[0])
    raster_band = stac_items.raster_band(
        output.dtype.name, output.nodata, output.scale, output.offset, pixel_size
    )
    raster_band["statistics"] = {"valid_percent": round(100 * (valid / (height * width)), 4)}
    asset: dict[str, Any] = {
        **stored,
        "bands": [_describe_band(output)],
        "raster:bands": [raster_band],
        "scenebeam:scenes": [scene for scene in _scenes_of(output) if scene not in missing],
    }
    if missing:
        asset["scenebeam:missing"] = []
        for scene, reason in sorted(missing.items()):
            asset["scenebeam:missing"].append({"scene": scene, "reason": reason})
    return asset


def _describe_band(output: Output) -> dict[str, str]:
    """Describe the band of an output by its name, and by its common name if it has one."""
    described = {"name": output.name}
    common = {band.name for band in output.inputs}
    if len(common) == 1:
        described["eo:common_name"] = common.pop()
    return described


def _scenes_of(output: Output) -> list[str]:
    """Return the ids of the scenes of an output, each once, in order of priority."""
    scenes: dict[str, None] = {}
    for band in output.inputs:
        for source in band.sources:
            scenes[source.scene] = None
    return list(scenes)


def publish_item(
    task: GriddedTask,
    store: Store,
    outputs: Sequence[Output],
    assets: dict[str, dict[str, Any]],
    missing: Missing,
) -> None:
    """Publish the STAC item, when all files that it names are there.

    Args:
        task: The task.
        store: The output, with the published COGs.
        outputs: Its outputs.
        assets: The assets of the item: of each output, and the thumbnail.
        missing: The missing files. The item lists those of bands without an output; assets list
            the others.
    """
    lost = _missing_without_output(task, outputs, missing)
    incomplete = bool(lost) or any("scenebeam:missing" in asset for asset in assets.values())
    properties = {
        **stac_items.grid_properties(task.grid.grid),
        **task.properties,
        "scenebeam:values": task.values,
        "scenebeam:complete": not incomplete,
    }
    if lost:
        properties["scenebeam:missing"] = _list_lost(lost)
    item = stac_items.make_item(
        task.name,
        task.collection,
        task.when,
        stac_items.grid_footprint(task.grid.grid),
        assets,
        [(ref.id, ref.item_href) for ref in task.scenes],
        properties,
    )
    store.write(task.item_path, stac_items.to_bytes(item))


def _missing_without_output(
    task: GriddedTask, outputs: Sequence[Output], missing: Missing
) -> Missing:
    inputs: set[str] = set()
    for output in outputs:
        inputs.update(band.label for band in (*output.inputs, *output.masks))
    lost = {}
    for band in task.bands:
        # Bands that only decide which pixel is taken have no output, and usually lack nothing.
        if band.label not in inputs and missing[band.label]:
            lost[band.label] = missing[band.label]
    return lost


def add_statistics(
    outputs: Sequence[Output], assets: dict[str, dict[str, Any]], previews: Mapping[str, Array]
) -> None:
    """Add statistics and a histogram to the assets of outputs.

    Args:
        outputs: The outputs.
        assets: Name of an output → its asset, which is changed.
        previews: Name of an output → small version of it.
    """
    for output in outputs:
        statistics = histogram(previews[output.name], whole_numbers=output.categorical)
        assets[output.name]["raster:bands"][0] |= statistics


def draw_outputs(outputs: Sequence[Output], previews: Mapping[str, Array]) -> bytes:
    """Draw the thumbnail of a task.

    Args:
        outputs: The outputs.
        previews: Name of an output → small version of it, in numbers of its file.

    Returns:
        The picture as PNG.
    """
    shown = []
    for output in outputs:
        common = {band.name for band in output.inputs}
        # An output of several bands, such as an index, has a name and values of its own.
        shown.append(
            ThumbnailBand(
                name=common.pop() if len(common) == 1 else output.name,
                values=previews[output.name] * output.scale + output.offset,
                is_scaled=output.scale != 1,
                categorical=output.categorical,
                index=output.index,
            )
        )
    return render_thumbnail(shown)


def publish_thumbnail(task: GriddedTask, store: Store, picture: bytes) -> dict[str, Any]:
    """Publish the thumbnail of a task.

    Args:
        task: The task.
        store: The output.
        picture: The thumbnail as PNG.

    Returns:
        The thumbnail, as an asset of a STAC item.
    """
    with store.open_write(task.thumbnail_key) as file:
        file.write(picture)
    return {
        "href": task.href(task.thumbnail_key),
        "type": "image/png",
        "roles": ["thumbnail"],
        "file:size": file.size,
        "file:checksum": file.checksum,
    }


def _list_lost(lost: Missing) -> list[dict[str, str]]:
    listed = []
    for band, scenes in lost.items():
        for scene, reason in scenes.items():
            listed.append({"band": band, "scene": scene, "reason": reason})
    return listed
