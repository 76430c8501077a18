"""Standing requests: series that a deployment keeps up to date.

A request file below `standing/` of a request prefix applies until it is removed. The state bucket
contains, for each of them:

- `series/<id>/request.json`, the authorized request;
- `series/<id>/items/<digest>`, an empty marker for each item that was announced or found, so that
  an item that comes twice starts nothing;
- `pending/<id>`, while scenes wait for a pass;
- `checked/<id>`, written when its catalog was asked.

`series/index.json` has what it takes to match items with all of them in one read. It is derived
from the other files, and replaced with a generation precondition.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from scenebeam.cloud.items import Item, ItemFacts, bounds_of, item_digest
from scenebeam.cloud.swap import update_object
from scenebeam.errors import RequestError
from scenebeam.request import RunRequest, parse_interval
from scenebeam.storage import Store

SERIES, PENDING, CHECKED = "series/", "pending/", "checked/"
STANDING = "standing/"
"""Folder of standing requests below a request prefix."""
_INDEX_KEY = f"{SERIES}index.json"
_CLOCK_KEY = f"{SERIES}clock.json"


class StandingRequest(BaseModel):
    """What is known of a standing request without reading it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    run: str
    source: str
    """URI of its file."""
    output: str
    collections: tuple[str, ...]
    bbox: tuple[float, float, float, float] | None
    """West, south, east, north; None if the area is not known in degrees."""
    tiles: tuple[str, ...] = ()
    """MGRS tiles, if the area is given by them."""
    dates: tuple[str, ...]
    max_cloud_cover: float | None = None
    platforms: tuple[str, ...] = ()
    catalogs: tuple[str, ...] = ()

    @classmethod
    def of(cls, run: str, source: str, request: RunRequest) -> StandingRequest:
        """Describe an authorized request."""
        area = request.area
        bbox = None
        if area is not None and area.bbox is not None:
            bbox = area.bbox
        elif area is not None and area.geometry is not None:
            bbox = bounds_of(area.geometry)
        collections = []
        for collection in request.collections:
            collections.append(collection if isinstance(collection, str) else collection.id)
        return cls(
            id=run,
            run=request.run,
            source=source,
            output=request.output,
            collections=tuple(collections),
            bbox=bbox,
            tiles=tuple(area.mgrs or ()) if area is not None else (),
            dates=tuple(request.dates),
            max_cloud_cover=request.select.max_cloud_cover,
            platforms=tuple(name.lower() for name in request.select.platform or ()),
            catalogs=tuple(request.catalogs),
        )

    def matches(self, item: ItemFacts, intervals: Sequence[tuple[datetime, datetime]]) -> bool:
        """Whether an item may be a scene of the series. Selection decides in the end.

        Args:
            item: What is known of a STAC item.
            intervals: The dates of the request.
        """
        if item.collection not in self.collections or not self._is_near(item):
            return False
        when = item.when
        if when is None or (intervals and not any(a <= when <= b for a, b in intervals)):
            return False
        if self.max_cloud_cover is not None and (item.cloud or 0) > self.max_cloud_cover:
            return False
        return not (self.platforms and item.platform and item.platform not in self.platforms)

    def _is_near(self, item: ItemFacts) -> bool:
        if self.tiles and item.tile:
            return item.tile in self.tiles
        box = item.box
        if self.bbox is None or box is None:
            return True  # not known: a pass will find out
        # A box across the antimeridian has its west east of its east.
        south, north = max(self.bbox[1], box[1]), min(self.bbox[3], box[3])
        if south > north:
            return False
        return any(
            max(a_west, b_west) <= min(a_east, b_east)
            for a_west, a_east in _longitudes(self.bbox)
            for b_west, b_east in _longitudes(box)
        )


def _longitudes(box: Sequence[float]) -> list[tuple[float, float]]:
    west, east = box[0], box[2]
    return [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]


_Change = Callable[[Sequence[StandingRequest]], Sequence[StandingRequest]]


class Mark(NamedTuple):
    """A series waits for a pass."""

    age: float
    """Seconds since it was marked."""
    version: str
    """Tells one mark from the next."""


class StandingRequests:
    """The standing requests of a deployment, in its state bucket or folder."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def list(self) -> list[StandingRequest]:
        """List all standing requests, sorted by id."""
        content = self.store.read(_INDEX_KEY)
        return [] if content is None else _parse_index(content)

    def get(self, series: str) -> StandingRequest | None:
        """Return one standing request; None if there is none of the id."""
        return next((one for one in self.list() if one.id == series), None)

    def request(self, series: str) -> bytes | None:
        """Read the authorized request of a series."""
        return self.store.read(f"{SERIES}{series}/request.json")

    def add(self, run: str, source: str, request: RunRequest) -> StandingRequest:
        """Add a standing request, or replace the one of the same file.

        Raises:
            RequestError: Another file stands for the same output.
        """
        added = StandingRequest.of(run, source, request)

        def change(known: Sequence[StandingRequest]) -> Sequence[StandingRequest]:
            others = [one for one in known if one.source != source]
            for one in others:
                if one.output.rstrip("/") == added.output.rstrip("/"):
                    raise RequestError(
                        f"output: {added.output} belongs to the standing request {one.source}; "
                        "choose another output, or remove that file"
                    )
            return [*others, added]

        self._update(change)
        content = (request.model_dump_json(indent=2) + "\n").encode()
        self.store.write(f"{SERIES}{run}/request.json", content)
        self.mark_pending(run)
        return added

    def remove(self, sources: Iterable[str]) -> None:
        """Remove the standing requests of files that are gone. Their products stay."""
        gone = set(sources)
        self._update(lambda known: [one for one in known if one.source not in gone])

    def _update(
        self, change: Callable[[Sequence[StandingRequest]], Sequence[StandingRequest]]
    ) -> None:
        def change_content(content: bytes | None) -> bytes:
            known = [] if content is None else _parse_index(content)
            changed = sorted(change(known), key=lambda one: one.id)
            documents = [one.model_dump(mode="json") for one in changed]
            return (json.dumps(documents) + "\n").encode()

        update_object(self.store, _INDEX_KEY, change_content)

    def announce(self, items: Iterable[Item]) -> dict[str, int]:
        """Note items for all series that they match.

        Args:
            items: STAC items; those that are no scene of any series are ignored.

        Returns:
            Id of a series → number of items that are new to it.
        """
        standing = self.list()
        intervals = {one.id: [parse_interval(text) for text in one.dates] for one in standing}
        by_collection: dict[str, list[StandingRequest]] = {}
        for one in standing:
            for collection in one.collections:
                by_collection.setdefault(collection, []).append(one)
        matching: dict[str, list[Item]] = {}
        for item in items:
            facts = ItemFacts.of(item)
            for one in by_collection.get(facts.collection, ()):
                if one.matches(facts, intervals[one.id]):
                    matching.setdefault(one.id, []).append(item)
        new = {series: self._note_all(series, found) for series, found in matching.items()}
        return {series: count for series, count in new.items() if count}

    def find_new(self, standing: StandingRequest, items: Iterable[Item]) -> int:
        """Note items of a catalog that match a series. Returns how many were not known."""
        intervals = [parse_interval(text) for text in standing.dates]
        matching = (item for item in items if standing.matches(ItemFacts.of(item), intervals))
        return self._note_all(standing.id, matching)

    def _note_all(self, series: str, items: Iterable[Item]) -> int:
        """Note items, and ask for a pass if one is new.

        The mark comes before the second item is noted: a function that ends in between must not
        leave items that look known, and no pass that makes them.
        """
        count = 0
        for item in items:
            if self._is_noted(series, item):
                continue
            if not count:
                self.mark_pending(series)
            count += self.note(series, item)
        return count

    def _is_noted(self, series: str, item: Item) -> bool:
        return self.store.size(f"{SERIES}{series}/items/{item_digest(item)}") is not None

    def note(self, series: str, item: Item) -> bool:
        """Note one item for a series. Returns whether it was not known in this processing."""
        return self.store.create(f"{SERIES}{series}/items/{item_digest(item)}", b"")

    def mark_pending(self, series: str) -> None:
        """Ask for a pass of a series."""
        # Created once, not written again: the pass is due some time after the first of many items.
        self.store.create(f"{PENDING}{series}", b"")

    def pending(self) -> dict[str, Mark]:
        """List the series that wait for a pass, by id."""
        marks = {}
        for series, (age, modified) in self._ages(PENDING).items():
            marks[series] = Mark(age, _mark_version(modified))
        return marks

    def start_pass(self, series: str, mark: Mark) -> bool:
        """Remove the mark of a series that is about to be passed over.

        Returns:
            Whether it was there. A sweep that runs at the same time may have removed it; the next
            mark is that of items which its pass may not find.
        """
        key = f"{PENDING}{series}"
        modified = self.store.modified(key)
        if modified is None or _mark_version(modified) != mark.version:
            return False
        self.store.delete([key])
        return True

    def checks(self) -> dict[str, float]:
        """Seconds since the catalog was last asked, by the id of the series."""
        return {series: age for series, (age, _) in self._ages(CHECKED).items()}

    def mark_checked(self, series: str) -> None:
        """Note that the catalog has been asked about a series."""
        self.store.write(f"{CHECKED}{series}", b"")

    def _ages(self, prefix: str) -> dict[str, tuple[float, float]]:
        """Id of a series → the age of its object in seconds, and when that was written.

        An age is the difference of two timestamps of the store, so no clock matters.
        """
        modified = self.store.list_modified(prefix)
        if not modified:
            return {}
        self.store.write(_CLOCK_KEY, b"")
        present = self.store.modified(_CLOCK_KEY) or 0.0
        return {key.removeprefix(prefix): (present - time, time) for key, time in modified.items()}


def _mark_version(modified: float) -> str:
    return f"{modified:.6f}"


def _parse_index(content: bytes) -> list[StandingRequest]:
    return [StandingRequest.model_validate(document) for document in json.loads(content)]


def is_standing(uri: str) -> bool:
    """Whether a request file is a standing request."""
    return re.search(rf"/{STANDING}[^/]+\.(?:ya?ml|json)$", uri) is not None
