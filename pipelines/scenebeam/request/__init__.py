"""The request of a run. Light on purpose: a Cloud Function imports this at a cold start."""

from __future__ import annotations

from scenebeam.request.interval import parse_interval
from scenebeam.request.product import ProductRequest, request_model
from scenebeam.request.run import KNOWN_CATALOGS, RunRequest, is_remote, is_url
from scenebeam.request.sections import (
    Area,
    Checks,
    GridRequest,
    Limits,
    PickedScene,
    Runner,
    Select,
    Split,
    TimeSeries,
)

__all__ = [
    "KNOWN_CATALOGS",
    "Area",
    "Checks",
    "GridRequest",
    "Limits",
    "PickedScene",
    "ProductRequest",
    "RunRequest",
    "Runner",
    "Select",
    "Split",
    "TimeSeries",
    "is_remote",
    "is_url",
    "parse_interval",
    "request_model",
]
