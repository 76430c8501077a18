"""Intact: does a file that has come hold the image that it should?"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from itertools import islice, product

from scenebeam.errors import CheckError, ReadError
from scenebeam.raster.checks import BandSpec, check_band
from scenebeam.raster.reader import open_source
from scenebeam.raster.sample import sample_source
from scenebeam.raster.source import Block, Source
from scenebeam.raster.validity import Array
from scenebeam.request import Checks
from scenebeam.transfer.retry import Budget

_DECODED_AT_ONCE = 8 * 2**20
"""Bytes of decoded blocks that are waited for together; as many are on their way meanwhile."""
_NAMED = 12
"""Damaged blocks that a message lists."""


def check_file(
    href: str,
    band: int,
    dtype: str,
    nodata: float | None,
    spec: BandSpec,
    checks: Checks,
    *,
    deep: bool = False,
) -> None:
    """Check that a whole scene's file holds the image that it should.

    Opens the file, holds its pixels' type against `dtype`, decodes both ends of `band` (from 1) and
    judges a sample. How much of it is nodata is no fault, unless all of it is.

    Args:
        href: The file.
        band: The band's index in it, from 1.
        dtype: NumPy name of the type that the collection is known for.
        nodata: Nodata value of the collection; None: the file's own.
        spec: What the band's numbers are known to be.
        checks: Thresholds.
        deep: Whether to decode every block, which costs seconds for a whole Sentinel-2 band.

    Raises:
        CheckError: The file is no image that can be used.
        ReadError: The file may be read later.
    """
    try:
        source = open_source(href, band, Budget(private=True))
        try:
            info = source.info
            if info.dtype.name != dtype:
                raise CheckError(
                    f"it holds {info.dtype.name}, and its collection is known for {dtype}"
                )
            known = info.nodata if nodata is None else nodata
            sample = sample_source(source, known, at_full_size=spec.sensor == "sar")
            damage = damage_of(source) if deep else ""
            if damage:
                raise CheckError(f"it is no image that can be used: {damage}")
        finally:
            source.close()
    except ReadError as error:
        if not error.permanent:
            raise
        raise CheckError(f"it is no image that can be used: {error}") from error
    whole = checks.model_copy(update={"max_nodata_percent": 100.0})
    errors = [
        finding.message
        for finding in check_band("", sample, spec, whole)
        if finding.level == "error"
    ]
    if errors:
        raise CheckError("; ".join(errors))


def find_damage(href: str, band: int, *, deep: bool = True) -> str:
    """Look for damage in a file's band.

    Args:
        href: The file.
        band: The band's index in it, from 1.
        deep: Whether to decode all of it, instead of both ends and an overview or some blocks.

    Returns:
        What is wrong with the file; empty where nothing is.

    Raises:
        ReadError: The file may be read later.
    """
    try:
        source = open_source(href, band, Budget(private=True))
        try:
            damage = damage_of(source) if deep else ""
            if not damage:
                source.sample_overview()  # at what lies behind the last block: a file may be cut off there
            return damage
        finally:
            source.close()
    except ReadError as error:
        if not error.permanent:
            raise
        return str(error)


def damage_of(source: Source) -> str:
    """Decode every block of an open band. Returns which of them are damaged; empty where none is.

    Raises ReadError where the file may be read later.
    """
    count, named, first = 0, list[str](), ""
    for (row, column), error in damaged_blocks(source):
        count += 1
        first = first or str(error)
        if count <= _NAMED:
            named.append(f"({row}, {column})")
    if not count:
        return ""
    more = f" and {count - _NAMED} more" if count > _NAMED else ""
    rows, columns = _blocks_down_and_across(source)
    return (
        f"{count} of {rows * columns:,} blocks cannot be decoded: "
        f"(row, column) {', '.join(named)}{more}; fetch the file again ({first})"
    )


def damaged_blocks(source: Source) -> Iterator[tuple[Block, ReadError]]:
    """Decode every block of an open band, and yield those that are damaged, with the reason.

    Memory is bounded: some blocks are waited for while the next ones are read and decoded.
    Raises ReadError where the file may be read later.
    """
    rows, columns = _blocks_down_and_across(source)
    at_once = max(1, _DECODED_AT_ONCE // source.block_bytes)
    blocks = product(range(rows), range(columns))
    waiting: dict[Block, Future[Array]] = {}
    while True:
        coming = source.fetch(list(islice(blocks, at_once)))
        for block, future in waiting.items():
            try:
                future.result()
            except ReadError as error:
                if not error.permanent:
                    raise
                yield block, error
        if not coming:
            return
        waiting = coming


def _blocks_down_and_across(source: Source) -> tuple[int, int]:
    info = source.info
    return -(-info.height // info.block[0]), -(-info.width // info.block[1])
