"""Records of STAC collections: one YAML file each, beside this module. Adding a file adds a collection."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import yaml

from scenebeam.collections.record import (
    BandRecord,
    CollectionRecord,
    LandClass,
    RadiometricOffset,
    Resampling,
)

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the compiled one is ten times as fast

__all__ = [
    "BandRecord",
    "CollectionRecord",
    "LandClass",
    "RadiometricOffset",
    "Resampling",
    "known_records",
]


@cache
def known_records() -> tuple[CollectionRecord, ...]:
    """All records that scenebeam ships, sorted by provider and id."""
    found = [
        CollectionRecord.model_validate(yaml.load(file.read_text(encoding="utf-8"), _Loader))
        for file in files(__package__).iterdir()
        if file.name.endswith(".yaml")
    ]
    return tuple(sorted(found, key=lambda record: (record.provider, record.id)))
