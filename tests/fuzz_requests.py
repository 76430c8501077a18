"""Fuzz requests and messages: each ends in a result, or in an error that scenebeam raises on purpose.

    python tests/fuzz_requests.py --seconds 60 --seed 0 --keep /tmp/found

Requests of every product are damaged as text (characters flipped, pieces repeated, tokens of YAML and
JSON put in between) and as documents (odd values in any field), and hypothesis makes documents of its
own. They are read as request files, as values of the command line, by the guard of a deployment, and
as messages that start runs; URLs and pages are asked for by odd names. Findings are any exception but
a SceneBeamError, a result that is not what it should be, an input that takes more than 2 s of the
processor, and more than 1 GiB of memory. Any finding makes the exit code 1.
"""

from __future__ import annotations

import argparse
import base64
import copy
import faulthandler
import json
import logging
import random
import string
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, Phase, given
from hypothesis import seed as seeded
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from resident import reset_peak, resident_bytes
from scenebeam.cloud.guard import authorize, normal_below
from scenebeam.cloud.http import HttpRequest
from scenebeam.cloud.launch import LaunchHandler
from scenebeam.cloud.messages import FINALIZED, PUBLISHED, Message, read_message
from scenebeam.cloud.page import handle
from scenebeam.cloud.runs import Runs
from scenebeam.cloud.settings import CloudSettings
from scenebeam.errors import RequestError, SceneBeamError
from scenebeam.request import RunRequest
from scenebeam.requestfile import parse_document, parse_value, validate_request
from scenebeam.storage import open_store

SECONDS = 2.0
"""Of the processor, that one input may take."""
LARGEST_GROWTH = 2**30
"""Bytes of memory that one input may take."""
_HANG_SECONDS = 60.0
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

# ---------------------------------------------------------------------------------------------
# Seeds

_COMMON: dict[str, Any] = {
    "run": "fuzz",
    "catalog": "earth-search",
    "collections": ["sentinel-2-l2a"],
    "area": {"bbox": [23.9, 40.5, 24.1, 40.7]},
    "dates": ["2023-06", "2023-09-01/2023-09-30"],
    "select": {
        "max_cloud_cover": 20,
        "mode": "anchors",
        "anchors": ["2023-06-09"],
        "window_days": 9,
    },
    "grid": {"crs": "EPSG:32634", "resolution": 10, "bounds": [600000, 4490000, 610000, 4500000]},
    "checks": "off",
    "limits": {"max_bytes": "5GB", "retry_wait": 0.5},
    "runner": {"kind": "direct", "workers": 2, "options": {"region": "r", "labels": ["a=b"]}},
    "output": "gs://products/fuzz",
}
_RING = [[23.9, 40.5], [24.1, 40.5], [24.1, 40.7], [23.9, 40.5]]
_RECORD = {
    "id": "landsat-l1",
    "dtype": "uint16",
    "nodata": 0,
    "bands": {"red": {"asset": "B2", "resolution": 30, "alternate_assets": {"60": "B2_60"}}},
}
_FIELDS = {
    "kind": "fields",
    "year": 2024,
    "boundaries": "https://h.example/f.parquet",
    "images": "none",
}
_LANDCOVER = {
    "kind": "landcover",
    "aois": "https://h.example/a.geojson",
    "periods": ["2021-01/2021-03"],
}
_SAMPLED = {"seed": 3, "s2l2a": {"bands": ["blue"]}, "lulc": {"dates": "2021", "classes": [1, 2]}}
_MODALITIES = [
    "sentinel-2-l2a",
    "sentinel-1-rtc",
    "landsat-c2-l2",
    "cop-dem-glo-30",
    "io-lulc-annual-v02",
]
_CHANGES: list[dict[str, Any]] = [
    {"product": {"kind": "mosaic", "bands": ["red", "scl"], "resampling": {"red": "cubic"}}},
    {
        "product": {"kind": "stack", "bands": ["red"], "required": "red,nir"},
        "collections": [_RECORD],
    },
    {"product": {"kind": "index", "expression": "where(nir > 0.5, (nir - red) / (nir + red), -1)"}},
    {"product": {"kind": "index", "index": "dnbr"}, "area": {"mgrs": ["34TFK"]}},
    {"product": {"kind": "assets", "bands": ["B04"], "date_start": "2023", "download_n": 0}},
    {"product": _FIELDS, "dates": [], "grid": {}},
    {
        "product": {**_LANDCOVER, **_SAMPLED},
        "collections": _MODALITIES,
        "dates": [],
        "area": None,
        "grid": {},
    },
    {
        "product": {"kind": "mosaic", "bands": ["red"]},
        "area": {"geometry": {"type": "Polygon", "coordinates": [_RING]}},
    },
    {
        "product": {"kind": "mosaic", "bands": ["red"]},
        "select": {"scenes": [{"id": "S2A", "anchor": "2023-06-09"}]},
    },
]
SEEDS = [{**_COMMON, **change} for change in _CHANGES]
_NAMES = [
    "output",
    "product.bands",
    "dates",
    "run",
    "select.anchors",
    "limits.max_bytes",
    "checks",
    "product.expression",
]
_STRANGE: list[Any] = [
    None, True, False, "", 0, -1, 2**63, -(2**63), 10**30, 10**300, 1e308, -1e308, 1e-320, float("nan"), float("inf"),
    [], {}, [[]], {"": ""}, "\0", "\ud800", "\ud83d\udef0", "é" * 1000, "A" * 150_000, "²", "٣٤TFK", "60CZZ", "99TFK", "on", "No",
    "off", "1_000", "0x10", "0o17", "017", "1:30", "1e3", "1e400", ".nan", "nan", "inf", "9" * 400 + "TB", "1e9EB",
    "9999-12-31", "0001-01-01", "2023/..", "2023-W05", "2023-06-09T25:00", "0001-01-01T00:00:00+14:00", "2024-02-30",
    "-" * 1990 + "red", "red+" * 499 + "red", "(" * 900 + "red" + ")" * 900, "abs(" * 400 + "red" + ")" * 400,
    "9" * 1990 + "*red", "red**9**9**9**9", "1e999*red", "1j*red", "__import__('os')", "red if red else nir", "\\\n", "red.nir",
    "+init=/etc/passwd", "+proj=longlat +nadgrids=/etc/passwd", "file:///etc/passwd", "~nobody-of-that-name/x", "/etc/passwd",
    "gs://products/../x", "gs://products/a/", "gs://products//a", "https://h.example/%2e%2e/%252e", "https://u:p@h.example:99999/#x",
    "http://[::1]/", "https://h.example/" + "a/../" * 5000, "//" * 5000 + "@", ["red"] * 20_000, [f"b{n}" for n in range(20_000)],
    list(range(120_000)), {f"k{n}": n for n in range(11_000)}, {"k" * 2000: 1}, ["2023"] * 3000, [["x"] * 100 for _ in range(100)],
]  # fmt: skip
_TOKENS = [
    "!!int ''", "!!bool maybe", "!!float x", "!!binary L2V0Yw==", "!!python/object/apply:os.system ['x']", "!!set {a}", "!!timestamp 2001-01-01",
    "!!null x", "!!map []", "!!str 5", "! x", "!<tag:yaml.org,2002:int> 5", "&a ", "*a", "<<: ", "? ", "- ", ": ", ", ", "|\n", ">-\n", "%YAML 1.1\n---\n",
    "---\n", "...\n", "\t", "#", "'", '"', "`", "@", "[", "]", "{", "}", "\ufeff", "\0", "\x85", "\u2028", "\ud800", "\\ud83d", '"\\u0000"', "~", "null",
    "yes", "off", "0o17", "0x1F", "017", "1_0", "1:1:1", "1e3", "1e400", ".inf", ".nan", "-.INF", "NaN", "Infinity", "9" * 4400, "1:" * 5000 + "1.5",
    "run: x\n", '"run": 1,', "a: &a [x]\nb: *a\n", "=", "9999-12-31", "0" * 400, "0." + "1" * 5000, "k" * 1100 + ": 1\n",
]  # fmt: skip


def request_texts(pick: random.Random) -> str:
    """A damaged request, as YAML or JSON."""
    document = copy.deepcopy(pick.choice(SEEDS))
    if pick.random() < 0.7:
        spoil(document, pick)
    kind = pick.random()
    if kind < 0.5:
        text = json.dumps(document, ensure_ascii=pick.random() < 0.5, indent=pick.choice([None, 2]))
    else:
        flow = pick.choice([None, True, False])
        text = yaml.dump(_without_surrogates(document), Dumper=_Dumper, default_flow_style=flow)
    return damage(text, pick) if pick.random() < 0.6 else text


def spoil(document: dict[str, Any], pick: random.Random) -> None:
    """Put odd values into fields."""
    for _ in range(pick.randint(1, 3)):
        holder: Any = document
        while True:
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            key = pick.choice(keys) if keys else "x"
            inner = holder[key] if keys else None
            if not keys or not isinstance(inner, dict | list) or pick.random() < 0.3:
                break
            holder = inner
        value = copy.deepcopy(pick.choice(_STRANGE))
        if isinstance(holder, list):
            holder.append(value)
        else:
            holder[pick.choice(["x", "", "area", key]) if pick.random() < 0.1 else key] = value


def damage(text: str, pick: random.Random) -> str:
    """Damage a text in one to four ways."""
    for _ in range(pick.randint(1, 4)):
        start = pick.randrange(len(text) + 1)
        end = min(len(text), start + pick.choice([0, 1, 1, 2, 8, 60]))
        kind = pick.randrange(6)
        if kind == 0:
            text = text[:start] + pick.choice(_TOKENS) + text[start:]
        elif kind == 1:
            text = text[:start] + text[end:]
        elif kind == 2:
            text = text[:start] + text[start:end] * pick.choice([2, 3, 70, 2000]) + text[end:]
        elif kind == 3:
            text = text[:start] + pick.choice(string.printable) + text[end:]
        elif kind == 4:
            text = text[:start] + pick.choice(_TOKENS) * pick.choice([1, 2, 70, 3000]) + text[end:]
        else:
            text = (
                text[:start]
                + pick.choice(["[", "{a: ", "- ", "? ", "[{", '{"a":', "("]) * 3000
                + text[start:]
            )
        text = text[:2_000_000]
    return text


def _without_surrogates(value: Any) -> Any:
    """What YAML can write."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {
            _without_surrogates(key): _without_surrogates(inner) for key, inner in value.items()
        }
    return [_without_surrogates(inner) for inner in value] if isinstance(value, list) else value


_leaf = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(_STRANGE[:60])
)
values = st.recursive(
    _leaf,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
"""Documents of any shape, with any values."""


# ---------------------------------------------------------------------------------------------
# What is asked of each input


class WrongResultError(AssertionError):
    """A result that is not what it should be."""


class _Desk:
    """A launcher that starts nothing."""

    def launch(self, run: str, job_name: str, request_uri: str, request: RunRequest) -> str:
        return f"job-{job_name}"[:60]


class Targets:
    """The doors that requests come in by, over a state of their own."""

    def __init__(self, folder: Path) -> None:
        self.settings = CloudSettings(
            state=str(folder),
            outputs=("gs://products",),
            requests=(str(folder / "requests"),),
            catalogs=("earth-search", "https://h.example"),
            claim_seconds=0,
            dead_letter_topic="dead",
        )
        self.launch = LaunchHandler(
            self.settings, Runs(open_store(str(folder))), _Desk(), self._publish
        )
        self._number = 0

    def _publish(self, topic: str, data: bytes, attributes: dict[str, str]) -> None:
        """As Pub/Sub takes messages."""
        if len(data) > 10_000_000 or any(
            len(value.encode()) > 1024 for value in attributes.values()
        ):
            raise WrongResultError("Pub/Sub does not take such a message")

    def file(self, text: str) -> None:
        """A request file."""
        document = parse_document(text)
        try:
            plain = json.loads(text)
        except (ValueError, RecursionError):
            plain = None
        # NaN is not equal to itself.
        if plain is not None and json.dumps(plain) != json.dumps(document):
            raise WrongResultError("valid JSON is not read as JSON")
        request = validate_request(document)
        again = RunRequest.model_validate_json(request.model_dump_json())
        if (
            "NaN" not in json.dumps(request.model_dump(mode="json"))
            and again.fingerprint() != request.fingerprint()
        ):
            raise WrongResultError("a request that is written and read again is another one")
        _ = request.intervals

    def value(self, text: str) -> None:
        """A value of the command line."""
        for name in _NAMES:
            try:
                document = copy.deepcopy(SEEDS[0])
                first, _, last = name.partition(".")
                if last and not isinstance(document.get(first), dict):
                    document[first] = {}
                (document[first] if last else document)[last or first] = parse_value(text, name)
                validate_request(document)
            except SceneBeamError:
                continue

    def guard(self, text: str) -> None:
        """A message's text before the guard."""
        found = authorize(text.encode("utf-8", "surrogatepass"), self.settings)
        if normal_below(found.output, self.settings.outputs) != found.output.rstrip(
            "/"
        ) + "/" * found.output.endswith("/"):
            raise WrongResultError(f"the output {found.output} is allowed")

    def message(self, text: str) -> None:
        """A message that asks for a run."""
        self._number += 1
        content = text.encode("utf-8", "surrogatepass")
        self.event(
            (
                PUBLISHED,
                {
                    "message": {
                        "data": base64.b64encode(content).decode(),
                        "messageId": str(self._number),
                    }
                },
            )
        )

    def event(self, event: tuple[str, Any]) -> None:
        """An event of any shape: rejected, or it starts a run; and nothing else."""
        kind, data = event
        try:
            message = read_message(kind, f"e{self._number}", data)
        except RequestError as error:
            status = self.launch.reject(Message("e"), str(error))
        else:
            status = self.launch.handle(message)
        if status.state not in ("rejected", "queued"):
            raise WrongResultError(f"a message comes to {status.state}")
        if "bug in scenebeam" in status.message:
            raise WrongResultError(status.message)

    def url(self, text: str) -> None:
        """A URL, brought into its normal form."""
        found = normal_below(text, ("gs://products", "https://h.example/a"))
        if (
            found is not None
            and normal_below(found, ("gs://products", "https://h.example/a")) != found
        ):
            raise WrongResultError("the normal form of a URL has another one")

    def page(self, text: str) -> None:
        """A page that is asked for by odd names."""
        for ask in (
            HttpRequest("GET", "/runs", {"limit": text[:5000]}),
            HttpRequest("GET", "/runs", {"after": text[:5000]}, accept="text/html"),
            HttpRequest("GET", f"/runs/{text[:5000]}", {}),
            HttpRequest("GET", f"/runs/x/pictures/{text[:5000]}", {}, etag=text[:5000]),
            HttpRequest(text[:5000], "/runs", {}),
        ):
            page = handle(ask, self.launch.runs, self.settings)
            if page.status not in (200, 304, 400, 404, 405):
                raise WrongResultError(f"{page.status}")


def odd_event(pick: random.Random) -> tuple[str, Any]:
    """Type and data of an event in which something is odd."""
    text = pick.choice(["{}", '{"request": "gs://requests/x"}', json.dumps(SEEDS[0])])
    data: Any = {
        "message": {
            "data": base64.b64encode(text.encode()).decode(),
            "messageId": pick.choice(_STRANGE),
            "attributes": pick.choice([None, {}, {"request": pick.choice(_STRANGE)}, []]),
        },
        "bucket": pick.choice([*_STRANGE, "b"]),
        "name": pick.choice([*_STRANGE, "x.yaml"]),
        "generation": pick.choice(_STRANGE),
    }
    if pick.random() < 0.5:
        spoil(data, pick)
    return pick.choice([PUBLISHED, PUBLISHED, FINALIZED, "\ud800"]), data


# ---------------------------------------------------------------------------------------------
# Running


@dataclass
class Finding:
    """What must not be."""

    target: str
    what: str
    content: str

    @property
    def key(self) -> str:
        """Findings of one cause have one key."""
        return f"{self.target}: {self.what.splitlines()[-1][:150]}"


@dataclass
class Summary:
    """What came of a run."""

    counts: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    seconds: float = 0.0
    growth: int = 0
    findings: list[Finding] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"{self.counts.total()} inputs in {self.seconds:.0f} s; slowest {self.slowest:.2f} s, "
            f"most memory {self.growth / 2**20:.0f} MiB"
        ]
        lines += [
            f"    {name}: {count}, {self.accepted[name]} accepted"
            for name, count in self.counts.items()
        ]
        for key, number in Counter(one.key for one in self.findings).most_common():
            example = next(one for one in self.findings if one.key == key)
            lines += [f"{number} x {key}", example.what, f"    {example.content[:300]!r}"]
        lines.append(f"{len(self.findings)} findings")
        return "\n".join(lines)


class Fuzzer:
    """Asks the targets, and notes what must not be."""

    def __init__(self, targets: Targets) -> None:
        self.targets, self.summary = targets, Summary()

    def ask(self, name: str, content: Any) -> None:
        """Hand one input to one target."""
        target: Callable[[Any], None] = getattr(self.targets, name)
        reset_peak()
        started, memory, fault = time.process_time(), resident_bytes("VmRSS"), ""
        faulthandler.dump_traceback_later(_HANG_SECONDS, exit=True)
        try:
            target(content)
            self.summary.accepted[name] += 1
        except SceneBeamError:
            pass
        except Exception:
            fault = "".join(traceback.format_exc(limit=-6)).strip()
        faulthandler.cancel_dump_traceback_later()
        took, growth = time.process_time() - started, resident_bytes("VmHWM") - memory
        self.summary.counts[name] += 1
        self.summary.slowest = max(self.summary.slowest, took)
        self.summary.growth = max(self.summary.growth, growth)
        if took > SECONDS:
            self._note(name, f"{took:.1f} s", content)
        if growth > LARGEST_GROWTH:
            self._note(name, f"{growth / 2**20:.0f} MiB of memory", content)
        if fault:
            self._note(name, fault, content)

    def _note(self, name: str, what: str, content: Any) -> None:
        self.summary.findings.append(
            Finding(name, what, content if isinstance(content, str) else repr(content))
        )


def fuzz(seconds: float, seed: int = 0) -> Summary:
    """Fuzz for so long.

    Args:
        seconds: How long.
        seed: Of the random numbers: the same seed makes the same inputs in the same order.

    Returns:
        What came of it.
    """
    started, pick = time.monotonic(), random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        fuzzer, rounds = Fuzzer(Targets(Path(name))), 0
        while time.monotonic() - started < seconds:
            _mutate(fuzzer, pick)
            if rounds % 10 == 0:
                _generate(fuzzer, seed + rounds)
            rounds += 1
    fuzzer.summary.seconds = time.monotonic() - started
    return fuzzer.summary


def _mutate(fuzzer: Fuzzer, pick: random.Random) -> None:
    for _ in range(5):
        text = request_texts(pick)
        fuzzer.ask("file", text)
        fuzzer.ask("guard", text)
        fuzzer.ask("message", text)
        fuzzer.ask("event", odd_event(pick))
        odd = pick.choice(_STRANGE)
        words = (
            odd
            if isinstance(odd, str)
            else str(odd)[:1000]
            if not isinstance(odd, int)
            else "9" * 5000
        )
        fuzzer.ask("value", damage(words, pick) if pick.random() < 0.5 else words)
        fuzzer.ask(
            "url",
            damage(pick.choice(["https://h.example/a/b?c=%20", "gs://products/x/y.tif"]), pick),
        )
        fuzzer.ask("page", words)


def _generate(fuzzer: Fuzzer, seed: int) -> None:
    """Documents of hypothesis's own."""
    quiet = [
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
        HealthCheck.large_base_example,
    ]

    @seeded(seed)
    @hypothesis_settings(
        max_examples=50,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=quiet,
    )
    @given(
        st.sampled_from(SEEDS),
        st.sampled_from(sorted(RunRequest.model_fields)),
        values,
        st.text(max_size=60),
    )
    def check(document: dict[str, Any], name: str, value: Any, text: str) -> None:
        written = json.dumps({**document, name: value})
        fuzzer.ask("file", written)
        fuzzer.ask("guard", written)
        fuzzer.ask("file", text)
        fuzzer.ask("value", text)
        fuzzer.ask("page", text)

    check()


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for inputs with findings")
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    summary = fuzz(asked.seconds, asked.seed)
    print(summary)
    if asked.keep is not None and summary.findings:
        asked.keep.mkdir(parents=True, exist_ok=True)
        for number, one in enumerate(summary.findings):
            (asked.keep / f"{one.target}_{number}.txt").write_bytes(
                one.content.encode("utf-8", "surrogatepass")
            )
    return 1 if summary.findings else 0


if __name__ == "__main__":
    sys.exit(main())
