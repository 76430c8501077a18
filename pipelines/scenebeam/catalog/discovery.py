"""Discovery: what a scene offers, band by band, for programs that go on from there by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scenebeam.catalog.scene import Scene


def discovery(scene: Scene, bands: Sequence[str], item: dict[str, Any] | None) -> dict[str, Any]:
    """A scene with the URLs of `bands`, as JSON: unsigned, and `assets` as the catalogue has them.

    `size_bytes` is what the catalogue says, and an estimate by resolution where it says nothing.
    """
    there = [scene.assets[band] for band in bands if band in scene.assets]
    visual = scene.assets.get("visual_red")
    return {
        "id": scene.id,
        "source": f"{scene.provider}/{scene.collection}",
        "datetime": scene.datetime.isoformat().replace("+00:00", "Z"),
        "cloud_cover": scene.cloud_cover,
        "resolution_m": min((asset.resolution for asset in there), default=None),
        "size_bytes": sum(asset.likely_size for asset in there),
        "url": scene.item_href,
        "bbox": None if scene.footprint is None else list(scene.footprint.bounds),
        "band_urls": {asset.band: asset.href for asset in there},
        "visualization_url": None if visual is None else visual.href,
        "missing_bands": [band for band in bands if band not in scene.assets],
        "assets": (item or {}).get("assets", {}),
    }
