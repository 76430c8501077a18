"""Items: read the STAC items of a message, as far as matching and identifying them needs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple

from scenebeam.errors import RequestError

_MAX_ITEMS = 10_000
"""Most items of one message."""
_FUTURE = timedelta(days=1)
"""How far the clock of a catalog may be ahead."""

_LATITUDE_BANDS = "CDEFGHJKLMNPQRSTUVWX"
"""Bands of 8 degrees from 80 degrees south."""

Item = Mapping[str, Any]


class ItemFacts(NamedTuple):
    """What matching needs of an item, read once."""

    collection: str
    when: datetime | None
    box: tuple[float, float, float, float] | None
    """West, south, east, north in degrees."""
    cloud: float | None
    """Percent."""
    platform: str
    tile: str
    """MGRS tile; empty if there is none."""

    @classmethod
    def of(cls, item: Item) -> ItemFacts:
        """Read an item."""
        properties = as_mapping(item.get("properties"))
        cloud = properties.get("eo:cloud_cover")
        code = str(properties.get("grid:code") or properties.get("s2:mgrs_tile") or "")
        return cls(
            collection=str(item.get("collection")),
            when=item_time(item),
            box=item_bbox(item),
            cloud=cloud if isinstance(cloud, int | float) else None,
            platform=str(properties.get("platform") or "").lower(),
            tile=code.removeprefix("MGRS-"),
        )


def item_digest(item: Item) -> str:
    """Identify an item in one of its processings."""
    properties = as_mapping(item.get("properties"))
    names = ("s2:processing_baseline", "processing:version", "s2:generation_time", "created")
    processing = [str(properties.get(name) or "") for name in names]
    text = json.dumps([str(item.get("collection")), str(item.get("id")), *processing])
    return sha256(text.encode("utf-8", "replace")).hexdigest()[:32]


def item_time(item: Item) -> datetime | None:
    """Return the time of an item; None if it has none that can be read."""
    properties = as_mapping(item.get("properties"))
    text = properties.get("datetime") or properties.get("start_datetime")
    try:
        when = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def item_bbox(item: Item) -> tuple[float, float, float, float] | None:
    """Return the bounds of an item in degrees; None if it states none."""
    box = item.get("bbox")
    if isinstance(box, list) and len(box) in (4, 6):
        numbers = [*box[:2], *box[3:5]] if len(box) == 6 else box
        if all(isinstance(number, int | float) and abs(number) <= 360 for number in numbers):
            west, south, east, north = map(float, numbers)
            return west, south, east, north
    geometry = item.get("geometry")
    return bounds_of(geometry) if isinstance(geometry, Mapping) else None


def grid_zone_bounds(tiles: Iterable[str]) -> tuple[float, float, float, float] | None:
    """Return bounds in degrees of the MGRS grid zones of some tiles; None without tiles."""
    boxes = []
    for tile in tiles:
        match = re.fullmatch("([0-9]{1,2})([C-HJ-NP-X])[A-Z]{2}", tile)
        if match is None:
            return None
        west = int(match[1]) * 6 - 186
        south = _LATITUDE_BANDS.index(match[2]) * 8 - 80
        # Some zones of Norway and Svalbard are up to 3 degrees wider, and X is 12 degrees high.
        margin = 3 if match[2] in "VX" else 0
        north = south + (12 if match[2] == "X" else 8)
        boxes.append((max(west - margin, -180), south, min(west + 6 + margin, 180), north))
    if not boxes:
        return None
    wests, souths, easts, norths = zip(*boxes, strict=True)
    return float(min(wests)), float(min(souths)), float(max(easts)), float(max(norths))


def bounds_of(geometry: Mapping[str, Any]) -> tuple[float, float, float, float] | None:
    """Return the bounds of a GeoJSON geometry."""
    points = list(_positions(geometry.get("coordinates")))
    if not points:
        return None
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return min(xs), min(ys), max(xs), max(ys)


def _positions(coordinates: Any) -> Iterator[tuple[float, float]]:
    """Yield all positions of nested coordinates, without recursion."""
    pending = [coordinates]
    while pending:
        current = pending.pop()
        if not isinstance(current, list | tuple):
            continue
        if len(current) >= 2 and all(
            isinstance(value, int | float) and abs(value) <= 360 for value in current[:2]
        ):
            yield float(current[0]), float(current[1])
        else:
            pending.extend(current)


def as_mapping(value: Any) -> Mapping[str, Any]:
    """Return a value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def read_items(content: bytes) -> list[Item] | None:
    """Read the STAC items of a message: one, a FeatureCollection, or an SNS envelope of either.

    Args:
        content: The content of a message.

    Returns:
        The items; None if the message has none, but may be a request.

    Raises:
        RequestError: The message has items that are not valid; a redelivery would not help.
    """
    document = _parse(content)
    for _ in range(3):  # SNS, and Pub/Sub that forwards it, wrap a message in an envelope
        if not isinstance(document, Mapping):
            return None
        inner = document.get("Message") or as_mapping(document.get("message")).get("data")
        if not isinstance(inner, str) or document.get("type") in ("Feature", "FeatureCollection"):
            break
        document = _parse(inner.encode())
    if not isinstance(document, Mapping):
        return None
    if document.get("type") == "Feature":
        features: Any = [document]
    elif document.get("type") == "FeatureCollection":
        features = document.get("features")
    else:
        return None
    if not isinstance(features, list) or len(features) > _MAX_ITEMS:
        raise RequestError(f"features: a list of at most {_MAX_ITEMS:,} items is expected")
    for feature in features:
        _check_item(feature)
    return features


def _parse(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _check_item(feature: Any) -> None:
    """Check what matching reads of an item.

    Raises:
        RequestError: The item is not valid.
    """
    if not isinstance(feature, Mapping) or not isinstance(feature.get("id"), str):
        raise RequestError("a STAC item has an id, which one of the message lacks")
    name = str(feature["id"])[:100]
    if not isinstance(feature.get("collection"), str):
        raise RequestError(f"item {name}: it names no collection")
    if not isinstance(feature.get("assets"), Mapping) or not feature["assets"]:
        raise RequestError(f"item {name}: it has no assets")
    when = item_time(feature)
    if when is None:
        raise RequestError(f"item {name}: it has no datetime that can be read")
    if when > datetime.now(UTC) + _FUTURE:
        raise RequestError(f"item {name}: its datetime is in the future: {when:%Y-%m-%dT%H:%M:%SZ}")
