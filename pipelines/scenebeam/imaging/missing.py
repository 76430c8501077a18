"""Missing files of a gridded task: what can be made without them, and how they are described."""

from __future__ import annotations

from collections.abc import Sequence

from scenebeam.imaging.bands import Band
from scenebeam.imaging.gridded_task import Missing


def describe_missing(missing: Missing) -> str:
    """List the missing files and the reasons: `nir of S2A_…: not found; …`."""
    described = []
    for band, scenes in missing.items():
        described += [f"{band} of {scene}: {reason}" for scene, reason in scenes.items()]
    return "; ".join(described)


def has_usable_source(band: Band, missing: Missing, masks: Sequence[Band] = ()) -> bool:
    """Return whether any scene has both a readable file of a band and its masks.

    Args:
        band: The band of an acquisition.
        missing: The missing files.
        masks: The mask bands of the same acquisition.
    """
    unusable = set(missing[band.label])
    for mask in masks:
        unusable |= set(missing[mask.label])
    return any(source.scene not in unusable for source in band.sources)
