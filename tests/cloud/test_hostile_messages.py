"""5,000 messages that nobody in their right mind would send: none crashes, none starts a job, none is wanted again."""

from __future__ import annotations

import base64
import copy
import json
import random
import string
from pathlib import Path
from typing import Any

from test_launch import REQUEST, Desk

from scenebeam.cloud.launch import LaunchHandler
from scenebeam.cloud.messages import FINALIZED, PUBLISHED, Message, read_message
from scenebeam.cloud.runs import Runs
from scenebeam.cloud.settings import CloudSettings
from scenebeam.errors import RequestError
from scenebeam.storage import open_store

MANY = 5000
BOMB = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
)
STRANGE: list[Any] = [
    None, "", 0, -1, 1e308, float("nan"), True, [], {}, [[]], "\x00", "é" * 1000, "../../etc/passwd", "/etc/passwd",
    "file:///etc/passwd", "http://169.254.169.254/computeMetadata/v1/", "http://metadata.google.internal/", "gs://", "gs://b/../../x",
    "s3://x/y", "${jndi:ldap://x}", "<script>alert(1)</script>", "'; drop table runs; --", "A" * 5000, {"a": {"b": {"c": []}}},
    ["x"] * 500, {"$ref": "#"}, "2023-99-99", "-" * 70, "%2e%2e%2f", "\ud800", {"kind": "landcover", "aois": "gs://b/x"},
]  # fmt: skip


def paths(document: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [above] if above else []
    pairs = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document)
        if isinstance(document, list)
        else ()
    )
    return found + [path for key, value in pairs for path in paths(value, (*above, key))]


def spoilt(pick: random.Random) -> bytes:
    """A good request with things in it that do not belong there; its output at least is not allowed."""
    document = json.loads(json.dumps(REQUEST))
    for _ in range(pick.randint(1, 4)):
        *parents, last = pick.choice(paths(document))
        holder = document
        for parent in parents:
            holder = holder[parent]
        holder[last] = copy.deepcopy(pick.choice(STRANGE))
        if not isinstance(document, dict):
            break
    if pick.random() < 0.5:
        document[pick.choice(["output", "catalog"])] = copy.deepcopy(pick.choice(STRANGE))
    else:
        document["output"] = "gs://elsewhere/x"
    return json.dumps(document).encode("utf-8", "surrogatepass")


def noise(pick: random.Random) -> bytes:
    kind = pick.randrange(6)
    if kind == 0:
        return pick.randbytes(pick.randrange(200))
    if kind == 1:
        return BOMB.encode()
    if kind == 2:
        return ("[" * pick.randrange(5000)).encode()
    if kind == 3:
        return ("{a: " * pick.randrange(3000)).encode()
    if kind == 4:
        return "".join(pick.choice(string.printable) for _ in range(pick.randrange(300))).encode()
    return json.dumps(pick.choice(STRANGE)).encode("utf-8", "surrogatepass")


def event(pick: random.Random) -> tuple[str, Any]:
    """Type and data of an event."""
    if pick.random() < 0.1:
        return pick.choice([PUBLISHED, FINALIZED, "x"]), pick.choice(STRANGE)
    if pick.random() < 0.05:
        return FINALIZED, {
            "bucket": pick.choice(STRANGE),
            "name": pick.choice(STRANGE),
            "generation": 1,
        }
    content = spoilt(pick) if pick.random() < 0.7 else noise(pick)
    data: Any = base64.b64encode(content).decode()
    if pick.random() < 0.05:
        data = pick.choice(STRANGE)
    others: list[Any] = [{}, None, "x"]
    attributes = {"request": pick.choice(STRANGE)} if pick.random() < 0.05 else pick.choice(others)
    return PUBLISHED, {
        "message": {
            "data": data,
            "messageId": pick.choice(["1", "../x", None, 7]),
            "attributes": attributes,
        }
    }


def test_hostile_messages_start_nothing(tmp_path: Path) -> None:
    settings = CloudSettings(
        state=str(tmp_path), outputs=("gs://products",), requests=("gs://requests-that-are-not-asked-for",),
        catalogs=("earth-search",), dead_letter_topic="t",
    )  # fmt: skip
    launcher, dead = Desk(), []
    launch = LaunchHandler(
        settings, Runs(open_store(settings.state)), launcher, lambda *words: dead.append(words)
    )
    pick = random.Random(7)
    reasons = set()
    for number in range(MANY):
        kind, data = event(pick)
        try:
            message = read_message(kind, f"e{number}", data)
        except RequestError as error:
            status = launch.reject(Message(f"e{number}"), str(error))
        else:
            status = launch.handle(Message(f"m{number}", message.content, message.reference))
        assert status.state == "rejected", data
        assert 0 < len(status.message) <= 2000
        reasons.add(status.message[:40])
    assert launcher.started == []
    assert len(dead) == MANY
    assert len(reasons) > 40, "they were turned down for many reasons"
    assert {name.split("/")[0] for name in launch.runs.store.list()} == {"rejected"}
