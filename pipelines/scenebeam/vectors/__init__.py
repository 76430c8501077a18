"""Read vector files: field boundaries and areas of interest in any supported format and CRS."""

from scenebeam.vectors.area import read_area
from scenebeam.vectors.features import Features, Geometries
from scenebeam.vectors.polygons import OUTSIDE, CheckedPolygons, check_polygons
from scenebeam.vectors.reader import read_features

__all__ = [
    "OUTSIDE",
    "CheckedPolygons",
    "Features",
    "Geometries",
    "check_polygons",
    "read_area",
    "read_features",
]
