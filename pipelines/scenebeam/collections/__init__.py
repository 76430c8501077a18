"""Records of STAC collections: one YAML file each, beside this module.

To support another collection, add its file.
"""

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

# The compiled loader is ten times as fast, but not part of every build of PyYAML.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

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
    """Return all records that scenebeam ships, sorted by provider and id."""
    records = []
    for file in files(__package__).iterdir():
        if file.name.endswith(".yaml"):
            document = yaml.load(file.read_text(encoding="utf-8"), _Loader)
            records.append(CollectionRecord.model_validate(document))
    return tuple(sorted(records, key=lambda record: (record.provider, record.id)))
