"""Estimate what a task will read, write and hold in memory, from the headers of a few files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from scenebeam.catalog.scene import Asset
from scenebeam.imaging.estimate import PROCESS_MEMORY
from scenebeam.imaging.probes import ProbeCache
from scenebeam.products.landcover.task import LandcoverTask, Layer
from scenebeam.raster.windows import ROWS_AHEAD
from scenebeam.tasks import Estimate


def estimate_area(
    layers: Sequence[Layer], task: LandcoverTask, square_meters: float, probing: ProbeCache
) -> Estimate:
    """Estimate a task, before it is known how many windows become chips.

    At least, the land-cover map of the area is read, and nothing else. At most, all layers are read
    as a whole, and every class has all the chips it may have.

    Args:
        layers: The layers of the task.
        task: The task, for its recipes, classes and chip size.
        square_meters: The part of the area that the scenes of all layers show.
        probing: Headers of files; one is read for each band.
    """
    # The area is taken for a square: what counts is how many blocks it meets.
    side = square_meters**0.5
    chips = min(int(square_meters / task.side**2), len(task.classes) * task.chips_per_class)
    blocks = least_read = most_read = pixels = raster_bytes = files = 0
    row_bytes = 0
    for layer in layers:
        recipe = task.recipes[layer.platform]
        scene = layer.scenes[0]
        assets = [*scene.bands, scene.mask] if scene.mask else [*scene.bands]
        layer_row_bytes = 0
        for asset in assets:
            known = _in_meters(asset, recipe.resolution)
            fewest, most = probing.blocks(known, side, side)
            probe = probing.of(asset)
            blocks += most
            # This is the upper end of a range, hence twice the average size of a block.
            most_read += int(2 * most * probe.block_bytes) * len(layer.scenes)
            if layer.platform == "lulc":
                least_read += int(fewest * probe.block_bytes)
            height, width = probe.block
            columns = int(side / (known.resolution * width) + 1)
            layer_row_bytes += columns * height * width * np.dtype(asset.dtype).itemsize
        # Layers are read one after another, so the largest determines the memory.
        row_bytes = max(row_bytes, layer_row_bytes)
        layer_pixels = chips * task.chip_side(layer.platform) ** 2 * len(scene.bands)
        pixels += layer_pixels
        raster_bytes += layer_pixels * np.dtype(recipe.dtype).itemsize
        files += len(layer.scenes) * (len(scene.bands) + 1)
    return Estimate(
        blocks=blocks,
        requests=2,
        most_requests=4 * blocks + 3 * files,
        read_bytes=least_read,
        most_read_bytes=most_read,
        most_write_bytes=int(1.5 * raster_bytes),
        pixels=pixels,
        # One row of blocks is kept for the chips across its edge, one is being read, and
        # ROWS_AHEAD are being fetched.
        memory=PROCESS_MEMORY + (2 + ROWS_AHEAD) * row_bytes,
    )


def _in_meters(asset: Asset, resolution: float) -> Asset:
    """Replace a resolution in degrees by that of the rasters, which is close enough here."""
    return asset if asset.resolution > 1 else replace(asset, resolution=resolution)
