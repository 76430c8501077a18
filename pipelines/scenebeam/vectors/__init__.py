"""Vector files: field boundaries and areas of interest, whatever their format, CRS and address."""

from scenebeam.vectors.area import read_area
from scenebeam.vectors.features import Features, Geometries
from scenebeam.vectors.polygons import OUTSIDE, Checked, check_polygons
from scenebeam.vectors.reader import read_features

__all__ = [
    "OUTSIDE",
    "Checked",
    "Features",
    "Geometries",
    "check_polygons",
    "read_area",
    "read_features",
]
