"""Fuzz vector files: damaged ones must be refused in words, or read.

    python tests/fuzz_vectors.py --count 2000 --seed 0 --keep /tmp/found

Small files of every format are damaged: bytes are flipped, cut, inserted and repeated, and numbers
are set to what no writer would put there. Each mutant is read in a child process as boundaries, as
areas of interest and as an area. Anything but success or a SceneBeamError is a finding: another
exception, a crash, more than 5 s, more than 1 GiB of memory, and a polygon that is not valid or not
on the Earth.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import random
import shutil
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from fuzzing import Child, run_command
from resident import reset_peak, resident_bytes

SECONDS = 5.0
"""That one file may take."""
LARGEST_GROWTH = 2**30
"""Bytes of memory that one file may take."""
_START_SECONDS = 120.0

Seed = dict[str, bytes]
"""A file and those beside it, by name; the first is the one that is read."""

# ---------------------------------------------------------------------------------------------
# Seeds and mutations


def make_seeds(folder: Path) -> dict[str, Seed]:
    """Write small files of every format. Returns them by name."""
    from vector_files import FORMATS, write_ogr, write_vectors

    hole = shapely.Polygon(
        shapely.box(15, 47, 15.2, 47.2).exterior,
        [shapely.box(15.1, 47.1, 15.15, 47.15).exterior],
    )
    ring = [(179.95, -17.05), (-179.95, -17.05), (-179.95, -16.95), (179.95, -16.95)]
    polygons = [shapely.box(15.03, 47.87, 15.04, 47.88), hole, shapely.Polygon(ring)]
    several = [
        shapely.MultiPolygon(polygons[:2]),
        None,
        shapely.GeometryCollection(polygons),
        shapely.Point(1, 2),
    ]
    seeds = {}
    for suffix in FORMATS:
        seeds[suffix] = _seed(write_vectors(folder / f"plain.{suffix}", polygons, list("abc")))
        seeds[f"mgi.{suffix}"] = _seed(
            write_vectors(folder / f"mgi.{suffix}", polygons, list("abc"), "EPSG:4312"),
        )
        if suffix in ("parquet", "geojson", "geojsonl", "gpkg"):
            path = write_vectors(folder / f"several.{suffix}", several, ["ä", "a", "a", "d"])
            seeds[f"several.{suffix}"] = _seed(path)
    write_ogr(
        folder / "index.fgb",
        polygons * 20,
        list("abc") * 20,
        "EPSG:4326",
        SPATIAL_INDEX="YES",
    )
    seeds["index.fgb"] = _seed(str(folder / "index.fgb"))
    return seeds


def _seed(path: str) -> Seed:
    main = Path(path)
    sidecars = (".shx", ".dbf", ".prj", ".cpg") if main.suffix == ".shp" else ()
    beside = [one for one in map(main.with_suffix, sidecars) if one.exists()]
    return {one.name: one.read_bytes() for one in (main, *beside)}


_ODD = (0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
_DOUBLES = (
    0.0,
    -0.0,
    180.0,
    -180.0,
    360.0,
    90.0,
    1e-320,
    1e300,
    -1e300,
    float("nan"),
    float("inf"),
    -float("inf"),
)
_TEXTS = (
    b"NaN", b"Infinity", b"1e999", b"-1e999", b"null", b"[]", b"{}", b'"x"', b"[" * 3000, b"9" * 5000,
    b"\xff\xfe", b"\xef\xbb\xbf", b"\x1e", b"\0", b"\n", b"1e-400", b"true", b"Polygon",
    b"GeometryCollection", b"EPSG:4312",
)  # fmt: skip


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Damage a file in one to four ways."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        content = rng.choice(
            (_flip, _flip, _flip, _set_number, _set_number, _cut, _insert, _repeat),
        )(content, rng)
    return content


def _place(content: bytes, rng: random.Random) -> int:
    """A place in a file; often in its head or its end, where formats keep their numbers."""
    most = len(content)
    near = min(most, rng.choice((16, 200, most, most)))
    place = rng.randrange(near + 1)
    return place if rng.random() < 0.7 else most - place


def _flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16)) if content else 0):
        place = min(_place(content, rng), len(changed) - 1)
        changed[place] = rng.choice(
            (0, 1, 255, 128, changed[place] ^ (1 << rng.randrange(8)), rng.randrange(256)),
        )
    return bytes(changed)


def _set_number(content: bytes, rng: random.Random) -> bytes:
    order = rng.choice("<>")
    packed = rng.choice((
        struct.pack(f"{order}I", rng.choice(_ODD)),
        struct.pack(f"{order}Q", rng.choice((*_ODD, 2**40, 2**63 - 1, 2**64 - 1))),
        struct.pack(f"{order}d", rng.choice(_DOUBLES)),
        rng.choice(_TEXTS),
    ))  # fmt: skip
    place = _place(content, rng)
    return content[:place] + packed + content[place + len(packed) :]


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: _place(content, rng)]


def _insert(content: bytes, rng: random.Random) -> bytes:
    place, size = _place(content, rng), rng.choice((1, 2, 8, 100, 4096))
    if rng.random() < 0.4:
        return content[:place] + content[place + size :]
    return content[:place] + rng.choice((rng.randbytes(size), rng.choice(_TEXTS))) + content[place:]


def _repeat(content: bytes, rng: random.Random) -> bytes:
    start, end = sorted((_place(content, rng), _place(content, rng)))
    place = _place(content, rng)
    return content[:place] + content[start:end][:4096] * rng.choice((1, 2, 50)) + content[place:]


def mutants(seeds: dict[str, Seed], count: int, seed: int) -> Iterator[tuple[str, Seed]]:
    """Damaged files, and the names of the seeds they were made of."""
    rng = random.Random(seed)
    names = sorted(seeds)
    for _ in range(count):
        name = rng.choice(names)
        files = dict(seeds[name])
        which = next(iter(files)) if rng.random() < 0.5 else rng.choice(list(files))
        files[which] = mutate(files[which], rng)
        if len(files) > 1 and rng.random() < 0.05:
            del files[list(files)[-1]]
        yield name, files


# ---------------------------------------------------------------------------------------------
# The child


def work() -> None:
    """Read names of files from stdin; answer each in a line of JSON."""
    faulthandler.enable()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # nothing else writes between the answers
    import pyogrio.raw  # noqa: F401  # what loading takes is no file's doing
    import pyproj

    pyproj.Transformer.from_crs("EPSG:4312", "EPSG:4326")
    answers.write(json.dumps({"ready": True}) + "\n")
    for line in sys.stdin:
        reset_peak()
        before = resident_bytes("VmRSS")
        faulthandler.dump_traceback_later(SECONDS * 0.9)
        started = time.monotonic()
        problems, read = read_all(json.loads(line))
        faulthandler.cancel_dump_traceback_later()
        answer = {"problems": problems, "read": read, "seconds": time.monotonic() - started}
        answers.write(json.dumps({**answer, "growth": resident_bytes("VmHWM") - before}) + "\n")


def read_all(path: str) -> tuple[list[str], int]:
    """Read a file in every way. Returns tracebacks of what must not be, and how many ways read it."""
    from scenebeam.catalog.area import area_geometry
    from scenebeam.errors import SceneBeamError
    from scenebeam.products.fields.boundaries import Faults, read_fields
    from scenebeam.products.landcover.aois import read_aois
    from scenebeam.products.landcover.request import LandcoverRequest
    from scenebeam.request import Area
    from scenebeam.vectors import read_area

    def fields() -> None:
        for _, polygons in read_fields(path, Faults()):
            check(polygons)

    def aois() -> None:
        found = read_aois(LandcoverRequest(kind="landcover", aois=path))
        check(np.array([aoi.area for aoi in found if aoi.area is not None], object))

    def area() -> None:
        check(np.array([area_geometry(Area(geometry=read_area(path)))], object))

    problems, read = [], 0
    for reader in (fields, aois, area):
        try:
            reader()
            read += 1
        except SceneBeamError:
            pass
        except Exception:
            problems.append(traceback.format_exc())
    return problems, read


def check(polygons: Any) -> None:
    """Refuse polygons that are not valid, have no inside, or are not on the Earth."""
    bounds = shapely.bounds(polygons)
    assert shapely.is_valid(polygons).all(), "not valid"
    assert (shapely.area(polygons) > 0).all(), "no inside"
    assert (abs(bounds) <= (180, 90, 180, 90)).all(), f"outside: {bounds}"


# ---------------------------------------------------------------------------------------------
# The parent


@dataclass
class Summary:
    """What came of a run."""

    count: int = 0
    read: Counter[str] = field(default_factory=Counter)
    """Mutants of each seed that were read in some way."""
    slowest: float = 0.0
    largest_growth: int = 0
    findings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        head = (
            f"{self.count} mutants, {self.read.total()} read; slowest {self.slowest:.2f} s, "
            f"most memory {self.largest_growth / 2**20:.0f} MiB; {len(self.findings)} findings"
        )
        return "\n\n".join([*self.findings, head])


def fuzz(
    count: int,
    seed: int = 0,
    keep: Path | None = None,
    seconds: float = float("inf"),
) -> Summary:
    """Read `count` mutants, or as many as `seconds` allow.

    Args:
        count: How many.
        seed: Of the random numbers: the same seed makes the same mutants.
        keep: A folder for files with findings.
        seconds: When to stop before.

    Returns:
        What came of it.
    """
    summary, started = Summary(), time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "seeds").mkdir()
        seeds = make_seeds(Path(name) / "seeds")
        child: Child | None = None
        for number, (origin, files) in enumerate(mutants(seeds, count, seed)):
            if time.monotonic() - started > seconds:
                break
            child = child or Child(__file__, _START_SECONDS)
            folder = Path(name) / f"mutant_{number}"
            folder.mkdir()
            for one, content in files.items():
                (folder / one).write_bytes(content)
            found, answered = _read_mutant(
                child,
                folder / next(iter(seeds[origin])),
                origin,
                summary,
            )
            if found:
                kept = ""
                if keep is not None:
                    kept = str(shutil.copytree(folder, keep / f"vectors_{seed}_{number}"))
                summary.findings.append(f"{origin} (mutant {number}): {found}\n{kept}")
            shutil.rmtree(folder)
            summary.count += 1
            if not answered:
                child.close()
                child = None
        if child is not None:
            child.close()
    return summary


def _read_mutant(child: Child, path: Path, origin: str, summary: Summary) -> tuple[str, bool]:
    """Have one file read. Returns what must not be, and whether the child still answers."""
    child.ask(str(path))
    answer = child.answer(SECONDS)
    if answer is None:
        code = "no answer" if child.running else f"exit code {child.code}"
        return f"a crash, or more than {SECONDS} s: {code}\n{child.last_words()}", False
    summary.read[origin] += bool(answer["read"])
    summary.slowest = max(summary.slowest, answer["seconds"])
    summary.largest_growth = max(summary.largest_growth, answer["growth"])
    found = list(answer["problems"])
    if answer["growth"] > LARGEST_GROWTH:
        found.append(f"{answer['growth'] / 2**20:,.0f} MiB of memory")
    return "\n".join(found), True


if __name__ == "__main__":
    sys.exit(run_command(__doc__, work, fuzz))
