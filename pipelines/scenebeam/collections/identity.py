"""Identity: what tells the scenes of a collection apart, by the properties of their items.

Scenes of one *pass* were taken together. Scenes of one *tile* show the same ground. A tile that
lies on two downlinked strips comes in *parts*, which complement each other and are all kept. Of
several *processings* of one part the newest is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_JOINT = "/"


def _check_groups(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    if not groups:
        raise ValueError(f"{pattern!r} has no group: put what is wanted into parentheses")
    return pattern


GroupPattern = Annotated[str, AfterValidator(_check_groups)]
"""A regular expression whose groups are wanted."""


class KeyRule(BaseModel):
    """Where an item says a key: properties whose values are joined, or groups of a pattern in
    them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    properties: tuple[str, ...] = Field(min_length=1)
    """Names of properties that must all be there; `id` is the item's own."""
    pattern: GroupPattern | None = None
    """Regular expression that is searched in their values; its groups are the key. Default: the
    values are.
    """
    order: tuple[str, ...] = ()
    """Values from the oldest kind to the newest; any other value is newer than all of them."""

    def key(self, item_id: str, properties: Mapping[str, Any]) -> str | None:
        """The key of an item; None where it does not say."""
        values = [item_id if name == "id" else properties.get(name) for name in self.properties]
        if any(value is None or value == "" for value in values):
            return None
        text = _JOINT.join(str(value).strip() for value in values)
        if self.pattern is not None:
            match = _compiled(self.pattern).search(text)
            if match is None:
                return None
            text = _JOINT.join(group or "" for group in match.groups())
        if self.order:
            return f"{self.order.index(text) if text in self.order else len(self.order):02d}"
        return text


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


_S2_DATATAKE = r"^G(S2[A-Z])_(\d{8}T\d{6})_(\d{6})"
_S2_PRODUCT = r"^(S2[A-Z])_MSIL\d\w_(\d{8}T\d{6})_"


def _rules(*rules: KeyRule) -> tuple[KeyRule, ...]:
    return rules


def _rule(*properties: str, pattern: str | None = None, order: tuple[str, ...] = ()) -> KeyRule:
    return KeyRule(properties=properties, pattern=pattern, order=order)


class Identity(BaseModel):
    """The keys of a collection's scenes. Each has several rules, of which the first that an item
    answers holds.

    The defaults know the properties of Sentinel-1 and 2, Landsat, HLS and MODIS; a record may give
    its own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    acquisition: tuple[KeyRule, ...] = _rules(
        # The baseline at the end of a datatake id changes with each reprocessing; the datatake does not.
        _rule("s2:datatake_id", pattern=_S2_DATATAKE),
        _rule("eopf:datatake_id", pattern=_S2_DATATAKE),
        _rule("s2:product_uri", pattern=_S2_PRODUCT),
        _rule("sentinel:product_id", pattern=_S2_PRODUCT),
        _rule("s1:datatake_id"),
        _rule("sat:absolute_orbit"),
        _rule("id", pattern=r"^HLS\.([SL]30)\.T\w{5}\.(\d{7}T\d{6})\."),
    )
    """What makes a pass, beside the platform. Without it, scenes that follow each other within
    minutes are one.
    """
    tile: tuple[KeyRule, ...] = _rules(
        _rule("grid:code"),
        _rule("s2:mgrs_tile"),
        _rule("sentinel:utm_zone", "sentinel:latitude_band", "sentinel:grid_square"),
        _rule("landsat:wrs_path", "landsat:wrs_row"),
        _rule("modis:horizontal-tile", "modis:vertical-tile"),
        _rule("s1:slice_number", "s1:total_slices"),
        _rule("id", pattern=r"^HLS\.[SL]30\.T(\w{5})\."),
    )
    """What names the ground. Without it, footprints decide."""
    part: tuple[KeyRule, ...] = _rules(
        # Its sensing start; the rest of a datastrip id changes with each reprocessing.
        _rule("s2:datastrip_id", pattern=r"_S(\d{8}T\d{6})_"),
    )
    """What tells the parts of one tile and pass apart. Without it, footprints decide."""
    processing: tuple[KeyRule, ...] = _rules(
        _rule("landsat:collection_category", order=("RT",)),
        _rule("s2:processing_baseline"),
        _rule("processing:version"),
        _rule("s2:generation_time"),
        _rule("processing:datetime"),
        _rule("created"),
    )
    """What sorts processings from oldest to newest: all rules that an item answers, the first of
    them first.
    """

    @property
    def names(self) -> frozenset[str]:
        """Properties that any rule reads."""
        rules = (*self.acquisition, *self.tile, *self.part, *self.processing)
        return frozenset(name for rule in rules for name in rule.properties)

    def pass_key(self, item_id: str, properties: Mapping[str, Any]) -> str | None:
        """The pass of an item."""
        return _first(self.acquisition, item_id, properties)

    def tile_key(self, item_id: str, properties: Mapping[str, Any]) -> str | None:
        """The tile of an item."""
        return _first(self.tile, item_id, properties)

    def part_key(self, item_id: str, properties: Mapping[str, Any]) -> str | None:
        """The part of its tile that an item is."""
        return _first(self.part, item_id, properties)

    def processed(self, item_id: str, properties: Mapping[str, Any]) -> tuple[str, ...]:
        """Sort key of an item's processing; its id decides last."""
        return (*(rule.key(item_id, properties) or "" for rule in self.processing), item_id)


KNOWN_SENSORS = Identity()
"""For records that give no identity of their own."""


def _first(rules: tuple[KeyRule, ...], item_id: str, properties: Mapping[str, Any]) -> str | None:
    return next((key for rule in rules if (key := rule.key(item_id, properties)) is not None), None)
