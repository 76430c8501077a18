"""Catalogs that back each other: one scene at several hosts is one scene.

A scene is the same whatever its host if platform, tile, time of sensing and processing baseline are
the same. The first catalog that has it serves it; the others are its alternates, which a task reads
where a file of the first cannot be read. Each asset keeps the rules of its own provider.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from scenebeam.catalog.parts import is_same_part
from scenebeam.catalog.scene import Scene
from scenebeam.csvtable import Table

HOST = "scenebeam:catalog"
"""Member of an item of a search of several catalogs: the catalog that it was found in."""
COMPLETENESS_FILE = "catalog_completeness.csv"
_S2_PRODUCT = re.compile(r"S2[A-Z]_MSIL\d\w_.*_(\d{8}T\d{6})(?:\.SAFE)?$")
_BASELINES = ("s2:processing_baseline", "processing:version")
_PUBLISHED = ("published", "created")
_COLUMNS = ("acquired", "platform", "tile", "baseline", "catalog", "scene", "published", "since")


def merge_hosts(scenes: Iterable[Scene], catalogs: Sequence[str]) -> list[Scene]:
    """Merge the scenes of several catalogs.

    Args:
        scenes: Scenes whose `host` is one of the catalogs.
        catalogs: The catalogs, most preferred first.

    Returns:
        Each scene once, of the first catalog that has it, with the others as its alternates. Their
        keys are those that all providers share, so that duplicates are found among all of them.
    """
    ranks = {catalog: rank for rank, catalog in enumerate(catalogs)}
    groups: dict[str, list[list[Scene]]] = {}
    merged = []
    newest_first = sorted(scenes, key=lambda one: (one.processed, one.id), reverse=True)
    for scene in sorted(newest_first, key=lambda one: ranks[one.host]):
        identity = _identity(scene)
        if identity is None:
            merged.append(scene)  # without a tile, only its own catalog knows it
            continue
        copies = groups.setdefault(identity, [])
        group = next((group for group in copies if _is_copy(scene, group)), None)
        if group is None:
            copies.append([scene])
        else:
            group.append(scene)
    for identity, copies in groups.items():
        # The parts of a tile, and its processings of one baseline: oldest first, so that a newer
        # one has another number.
        for number, (first, *others) in enumerate(reversed(copies)):
            keyed = _with_common_keys(first, f"{identity}/{_product_time(first) or number}")
            merged.append(replace(keyed, alternates=tuple(others)))
    return sorted(merged, key=lambda one: (one.acquired, one.id))


def _is_copy(scene: Scene, group: Sequence[Scene]) -> bool:
    is_new = all(scene.host != other.host for other in group)
    return is_new and is_same_part(scene, group[0])


def _identity(scene: Scene) -> str | None:
    ground = scene.tile or scene.wrs
    if ground is None or scene.platform is None:
        return None
    baseline = _baseline(scene)
    return f"{scene.platform}/{ground}/{scene.acquired:%Y%m%dT%H%M%S}/{baseline}"


def _baseline(scene: Scene) -> str:
    return next((str(scene.properties[key]) for key in _BASELINES if key in scene.properties), "")


def _product_time(scene: Scene) -> str:
    """Return the time in the name of a Sentinel-2 product; empty for other scenes.

    It tells the products of one baseline apart, and is the same at all hosts.
    """
    for name in (str(scene.properties.get("s2:product_uri", "")), scene.id):
        match = _S2_PRODUCT.match(name)
        if match is not None:
            return match[1]
    return ""


def _with_common_keys(scene: Scene, identity: str) -> Scene:
    return replace(
        scene,
        identity=identity,
        tile_key=scene.tile or scene.wrs,
        pass_key=f"{scene.platform}/{scene.acquired:%Y%m%dT%H%M%S}",
        processed=(_baseline(scene), *scene.processed),
    )


def completeness_table(
    scenes: Iterable[Scene],
    catalogs: Sequence[str],
    before: Iterable[Mapping[str, str]],
    now: datetime,
) -> Table:
    """List which catalog has which scene, and which lacks it.

    Args:
        scenes: Scenes as `merge_hosts` returns them.
        catalogs: The catalogs.
        before: Rows of the table that was written before.
        now: The current time.

    Returns:
        A row per scene and catalog. `scene` is empty where the catalog lacks it, `published` is
        when the catalog says that it was, and `since` when this was first seen.
    """
    known = {}
    for row in before:
        known[row["acquired"], row["tile"], row["baseline"], row["catalog"], row["scene"]] = row[
            "since"
        ]
    rows: list[dict[str, Any]] = []
    for scene in scenes:
        found = {one.host: one for one in (scene, *scene.alternates)}
        for catalog in catalogs:
            own = found.get(catalog)
            properties = own.properties if own is not None else {}
            row = {
                "acquired": f"{scene.acquired:%Y-%m-%dT%H:%M:%SZ}",
                "platform": scene.platform or "",
                "tile": scene.tile or scene.wrs or "",
                "baseline": _baseline(scene),
                "catalog": catalog,
                "scene": own.id if own is not None else "",
                "published": next(
                    (str(properties[key]) for key in _PUBLISHED if key in properties), ""
                ),
            }
            key = (row["acquired"], row["tile"], row["baseline"], catalog, row["scene"])
            rows.append({**row, "since": known.get(key, f"{now:%Y-%m-%dT%H:%M:%SZ}")})
    return Table(_COLUMNS, rows)
