"""Identity: which scenes of a collection belong together, by the properties of their items.

Scenes of one *pass* were acquired together. Scenes of one *tile* show the same ground. A tile that
is on two downlinked strips is delivered in *parts*, which complement each other and are all
kept. Of several *processings* of one part, the newest is kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_SEPARATOR = "/"


def _check_groups(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a valid regular expression: {error}") from None
    if not groups:
        raise ValueError(f"{pattern!r} has no group: put what is to be extracted into parentheses")
    return pattern


GroupPattern = Annotated[str, AfterValidator(_check_groups)]
"""A regular expression with at least one group; the groups are extracted."""


class KeyRule(BaseModel):
    """How to read a key from an item: from properties, or from groups of a pattern in them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    properties: tuple[str, ...] = Field(min_length=1)
    """Names of properties, whose values are joined. All must be present; `id` is the item's id."""
    pattern: GroupPattern | None = None
    """Regular expression to search in the joined values; its groups are the key. Default: the
    values are the key.
    """
    order: tuple[str, ...] = ()
    """Values from the oldest to the newest. Any other value is newer than all of them."""

    def key(self, item_id: str, properties: Mapping[str, Any]) -> str | None:
        """Return the key of an item; None if its properties do not define it."""
        values = [item_id if name == "id" else properties.get(name) for name in self.properties]
        if any(value is None or value == "" for value in values):
            return None
        text = _SEPARATOR.join(str(value).strip() for value in values)
        if self.pattern is not None:
            match = _compiled(self.pattern).search(text)
            if match is None:
                return None
            text = _SEPARATOR.join(group or "" for group in match.groups())
        if self.order:
            # Two digits, so that the keys sort as text.
            rank = self.order.index(text) if text in self.order else len(self.order)
            return f"{rank:02d}"
        return text


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


_S2_DATATAKE = r"^G(S2[A-Z])_(\d{8}T\d{6})_(\d{6})"
_S2_PRODUCT = r"^(S2[A-Z])_MSIL\d\w_(\d{8}T\d{6})_"


def _rule(*properties: str, pattern: str | None = None, order: tuple[str, ...] = ()) -> KeyRule:
    return KeyRule(properties=properties, pattern=pattern, order=order)


class Identity(BaseModel):
    """Rules for the keys of a collection's scenes. The first rule that an item satisfies applies.

    The defaults know the properties of Sentinel-1 and 2, Landsat, HLS and MODIS. A record may give
    its own rules.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    acquisition: tuple[KeyRule, ...] = (
        # The baseline at the end of a datatake id changes with each reprocessing, and is left out.
        _rule("s2:datatake_id", pattern=_S2_DATATAKE),
        _rule("eopf:datatake_id", pattern=_S2_DATATAKE),
        _rule("s2:product_uri", pattern=_S2_PRODUCT),
        _rule("sentinel:product_id", pattern=_S2_PRODUCT),
        _rule("s1:datatake_id"),
        _rule("sat:absolute_orbit"),
        _rule("id", pattern=r"^HLS\.([SL]30)\.T\w{5}\.(\d{7}T\d{6})\."),
    )
    """Identifies a pass, together with the platform. Without it, scenes that follow each other
    within minutes form one pass.
    """
    tile: tuple[KeyRule, ...] = (
        _rule("grid:code"),
        _rule("s2:mgrs_tile"),
        _rule("sentinel:utm_zone", "sentinel:latitude_band", "sentinel:grid_square"),
        _rule("landsat:wrs_path", "landsat:wrs_row"),
        _rule("modis:horizontal-tile", "modis:vertical-tile"),
        _rule("s1:slice_number", "s1:total_slices"),
        _rule("id", pattern=r"^HLS\.[SL]30\.T(\w{5})\."),
    )
    """Identifies the ground. Without it, footprints decide."""
    part: tuple[KeyRule, ...] = (
        # The sensing start. The rest of a datastrip id changes with each reprocessing.
        _rule("s2:datastrip_id", pattern=r"_S(\d{8}T\d{6})_"),
    )
    """Identifies the parts of one tile and pass. Without it, footprints decide."""
    processing: tuple[KeyRule, ...] = (
        _rule("landsat:collection_category", order=("RT",)),
        _rule("s2:processing_baseline"),
        _rule("processing:version"),
        _rule("s2:generation_time"),
        _rule("processing:datetime"),
        _rule("created"),
    )
    """Sorts processings from oldest to newest, by all rules that an item satisfies, in this
    order.
    """

    @property
    def property_names(self) -> frozenset[str]:
        """Names of all properties that the rules read."""
        names: set[str] = set()
        for rule in (*self.acquisition, *self.tile, *self.part, *self.processing):
            names.update(rule.properties)
        return frozenset(names)

    def pass_key(self, item_id: str, properties: Mapping[str, Any]) -> str | None:
        """Return the key of an item's pass; None if no rule applies."""
        return _first_key(self.acquisition, item_id, properties)

    def tile_key(self, item_id: str, properties: Mapping[str, Any]) -> str | None:
        """Return the key of an item's tile; None if no rule applies."""
        return _first_key(self.tile, item_id, properties)

    def part_key(self, item_id: str, properties: Mapping[str, Any]) -> str | None:
        """Return the key of the part of its tile that an item is; None if no rule applies."""
        return _first_key(self.part, item_id, properties)

    def processing_key(self, item_id: str, properties: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the sort key of an item's processing, oldest first; ties are broken by the id."""
        return (*(rule.key(item_id, properties) or "" for rule in self.processing), item_id)


KNOWN_SENSORS = Identity()
"""For records without an identity of their own."""


def _first_key(
    rules: tuple[KeyRule, ...], item_id: str, properties: Mapping[str, Any]
) -> str | None:
    for rule in rules:
        key = rule.key(item_id, properties)
        if key is not None:
            return key
    return None
