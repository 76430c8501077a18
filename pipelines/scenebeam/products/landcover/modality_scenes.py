"""Find the scenes of one modality: those that have all its bands, by location."""

from __future__ import annotations

from collections.abc import Sequence

import shapely
from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.bands import records_for
from scenebeam.catalog.scene import Scene
from scenebeam.collections import CollectionRecord
from scenebeam.errors import RequestError
from scenebeam.imaging.refs import SceneFiles, scene_fields
from scenebeam.products.landcover.request import LandcoverRequest, Modality, Platform
from scenebeam.request import RunRequest


class ModalityScenes:
    """The scenes of a modality that have all its bands."""

    def __init__(
        self,
        platform: Platform,
        modality: Modality,
        scenes: Sequence[Scene],
        request: RunRequest[LandcoverRequest],
    ) -> None:
        """Collect the scenes of a modality.

        Args:
            platform: Name of the modality.
            modality: Its section of the request.
            scenes: All scenes of the selection.
            request: The request.

        Raises:
            RequestError: The modality names a band that its collection does not have.
        """
        self._bands = {}
        for record in modality_records(modality, request):
            bands = modality_bands(platform, modality, record)
            self._bands[record.id, record.provider] = bands
        self._complete: list[Scene] = []
        self._incomplete: list[Scene] = []
        for scene in scenes:
            if scene.collection != modality.collection:
                continue
            if not self._band_names(scene) <= scene.assets.keys():
                self._incomplete.append(scene)
            elif not modality.of_platforms or scene.platform in modality.of_platforms:
                self._complete.append(scene)
        # A scene of unknown footprint can be anywhere: the index does not find it, so it is kept
        # apart and added to every result.
        nowhere = shapely.Polygon()
        self._index = shapely.STRtree([scene.footprint or nowhere for scene in self._complete])
        self._without_footprint = {
            index for index, scene in enumerate(self._complete) if scene.footprint is None
        }

    def _band_names(self, scene: Scene) -> set[str]:
        names, mask = self._bands[scene.collection, scene.provider]
        return {*names, mask} if mask else {*names}

    def near(self, area: BaseGeometry) -> list[Scene]:
        """Return the scenes that share ground with an area in degrees, ordered by time and id."""
        indices = {*self._index.query(area, predicate="intersects").tolist()}
        scenes = []
        for index in indices | self._without_footprint:
            scene = self._complete[index]
            # Scenes that only share an edge with the area show nothing of it.
            if scene.footprint is None or not scene.footprint.touches(area):
                scenes.append(scene)
        return sorted(scenes, key=lambda scene: (scene.datetime, scene.id))

    def describe_incomplete(self, area: BaseGeometry) -> str:
        """Describe the scenes near an area that lack bands; empty if there are none."""
        near: list[Scene] = []
        missing: set[str] = set()
        for scene in self._incomplete:
            if scene.footprint is None or scene.footprint.intersects(area):
                near.append(scene)
                missing |= self._band_names(scene) - scene.assets.keys()
        if not near:
            return ""
        return f"{len(near)} scenes of {near[0].collection} lack {', '.join(sorted(missing))}"

    def files(self, scene: Scene) -> SceneFiles:
        """Return the files of a scene as a task stores them."""
        names, mask = self._bands[scene.collection, scene.provider]
        # Layers are dated by the start of the acquisition.
        fields = {**scene_fields(scene), "when": scene.acquired}
        return SceneFiles(
            **fields,
            bands=tuple(scene.assets[name] for name in names),
            mask=scene.assets[mask] if mask else None,
        )


def modality_records(
    modality: Modality, request: RunRequest[LandcoverRequest]
) -> list[CollectionRecord]:
    """Return the records of a modality's collection, one for each provider."""
    return [record for record in records_for(request) if record.id == modality.collection]


def modality_bands(
    platform: Platform, modality: Modality, record: CollectionRecord
) -> tuple[list[str], str | None]:
    """Return the bands of a modality, and its mask, by their names in a collection.

    Args:
        platform: Name of the modality.
        modality: Its section of the request.
        record: The record of its collection.

    Returns:
        (names of the bands, name of the band that shows where the ground is clear). The latter is
        None if the modality needs no mask.

    Raises:
        RequestError: The collection does not have a band, or no band that can be the mask.
    """
    if modality.bands:
        names, unknown = [], []
        for band in modality.bands:
            name = record.band_name(band)
            if name is None:
                unknown.append(band)
            else:
                names.append(name)
        if unknown:
            known = ", ".join(sorted(record.bands))
            raise RequestError(
                f"product.{platform}.bands: {record.id} has no band {', '.join(unknown)}; "
                f"known: {known}"
            )
    else:
        names = record.default_bands
    if modality.kept_classes:
        masks, option, key = list(record.mask_classes), "keep_classes", "mask_classes"
    elif modality.rejected_bits:
        masks, option, key = list(record.mask_bits), "reject", "mask_bits"
    else:
        return names, None
    if not masks:
        raise RequestError(
            f"product.{platform}.{option}: the record of {record.id} names no band in {key}, which "
            f"this needs; add one to an inline record, or set {option} to []"
        )
    return names, masks[0]
