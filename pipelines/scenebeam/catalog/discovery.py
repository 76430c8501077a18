"""Describe a scene and the URLs of its bands as JSON, for programs that read files themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scenebeam.catalog.scene import Scene


def describe_scene(
    scene: Scene, bands: Sequence[str], item: dict[str, Any] | None
) -> dict[str, Any]:
    """Describe a scene and the URLs of some bands.

    Args:
        scene: The scene.
        bands: Common names of bands.
        item: The STAC item of the scene, if it is known.

    Returns:
        A JSON object. URLs are unsigned. `size_bytes` is the size that the catalog states, or an
        estimate (see `Asset.likely_size`). `assets` are the assets of the item, unchanged.
    """
    present, band_urls, missing = [], {}, []
    for band in bands:
        if band in scene.assets:
            present.append(scene.assets[band])
            band_urls[band] = scene.assets[band].href
        else:
            missing.append(band)
    visual = scene.assets.get("visual_red")
    return {
        "id": scene.id,
        "source": f"{scene.provider}/{scene.collection}",
        "datetime": scene.datetime.isoformat().replace("+00:00", "Z"),
        "cloud_cover": scene.cloud_cover,
        "resolution_m": min((asset.resolution for asset in present), default=None),
        "size_bytes": sum(asset.likely_size for asset in present),
        "url": scene.item_href,
        "bbox": None if scene.footprint is None else list(scene.footprint.bounds),
        "band_urls": band_urls,
        "visualization_url": None if visual is None else visual.href,
        "missing_bands": missing,
        "assets": (item or {}).get("assets", {}),
    }
