"""RunRequest and its parts. Light on purpose: a Cloud Function imports this at a cold start."""

from __future__ import annotations

from scenebeam.request.fields import SEASONS, ChipGrid, FieldsRequest, Season, Split
from scenebeam.request.interval import parse_interval
from scenebeam.request.landcover import LandcoverRequest, Modality, Platform
from scenebeam.request.products import (
    VISUAL,
    AssetsRequest,
    IndexRequest,
    MosaicRequest,
    StackRequest,
)
from scenebeam.request.run import KNOWN_CATALOGS, RunRequest, is_remote, is_url
from scenebeam.request.sections import (
    Area,
    Checks,
    GridRequest,
    Limits,
    PickedScene,
    Runner,
    Select,
    TimeSeries,
)

__all__ = [
    "KNOWN_CATALOGS",
    "SEASONS",
    "VISUAL",
    "Area",
    "AssetsRequest",
    "Checks",
    "ChipGrid",
    "FieldsRequest",
    "GridRequest",
    "IndexRequest",
    "LandcoverRequest",
    "Limits",
    "Modality",
    "MosaicRequest",
    "PickedScene",
    "Platform",
    "RunRequest",
    "Runner",
    "Season",
    "Select",
    "Split",
    "StackRequest",
    "TimeSeries",
    "is_remote",
    "is_url",
    "parse_interval",
]
