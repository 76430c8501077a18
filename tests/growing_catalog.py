"""A catalog of the sandbox's scenes that a test fills and changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Document = dict[str, Any]


class Catalog:
    """A catalog of the sandbox's scenes that a test fills and changes."""

    def __init__(self, sandbox: Path, folder: Path) -> None:
        self._all = json.loads((sandbox / "items.json").read_text())["features"]
        self.path = folder / "growing.json"
        self.items: dict[str, Document] = {}

    def add(self, *names: str) -> None:
        """Add the items whose ids contain any of some texts."""
        for item in self._all:
            if any(name in item["id"] for name in names):
                self.items[item["id"]] = item
        self.write()

    def remove(self, name: str) -> None:
        self.items = {key: item for key, item in self.items.items() if name not in key}
        self.write()

    def reprocess(self, name: str) -> str:
        """Add a newer processing of an item, with an id and a baseline of its own."""
        [key] = [key for key in self.items if name in key]
        item = json.loads(json.dumps(self.items[key]))
        item["id"] = key.replace("_1_L2A", "_2_L2A")
        item["properties"]["s2:processing_baseline"] = "05.10"
        item["properties"]["s2:sequence"] = "2"
        item["properties"]["created"] = "2030-01-01T00:00:00Z"
        self.items[item["id"]] = item
        self.write()
        return str(item["id"])

    def write(self) -> None:
        features = [self.items[key] for key in sorted(self.items)]
        self.path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
