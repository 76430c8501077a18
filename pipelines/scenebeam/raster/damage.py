"""Find damage: does a file that was downloaded contain the image that it should?"""

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
"""Bytes of decoded blocks that are waited for together, while as many more are being read."""
_MAX_LISTED = 12
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
    """Check that the file of a whole scene contains the image that it should.

    Opens the file, compares its dtype, decodes the first and the last block, and checks a sample. A
    scene may be mostly nodata, so only a scene that is all nodata fails.

    Args:
        href: The file.
        band: Index of the band in the file, from 1.
        dtype: NumPy name of the dtype of the collection.
        nodata: Nodata value of the collection; None for that of the file.
        spec: What is known about the numbers of the band.
        checks: Thresholds.
        deep: Whether to decode every block. This takes seconds for a whole Sentinel-2 band.

    Raises:
        CheckError: The file is not a usable image.
        ReadError: The file cannot be read now, but perhaps later.
    """
    try:
        source = open_source(href, band, Budget(private=True))
        try:
            info = source.info
            if info.dtype.name != dtype:
                raise CheckError(f"it holds {info.dtype.name}, but its collection is {dtype}")
            known_nodata = info.nodata if nodata is None else nodata
            sample = sample_source(source, known_nodata, at_full_size=spec.sensor == "sar")
            damage = damage_of(source) if deep else ""
            if damage:
                raise CheckError(f"it is not a usable image: {damage}")
        finally:
            source.close()
    except ReadError as error:
        if not error.permanent:
            raise
        raise CheckError(f"it is not a usable image: {error}") from error
    whole_scene = checks.model_copy(update={"max_nodata_percent": 100.0})
    findings = check_band("", sample, spec, whole_scene)
    errors = [finding.message for finding in findings if finding.level == "error"]
    if errors:
        raise CheckError("; ".join(errors))


def find_damage(href: str, band: int, *, deep: bool = True) -> str:
    """Look for damage in one band of a file.

    Args:
        href: The file.
        band: Index of the band in the file, from 1.
        deep: Whether to decode all of it, instead of both ends and a sample.

    Returns:
        What is wrong with the file; empty if nothing is.

    Raises:
        ReadError: The file cannot be read now, but perhaps later.
    """
    try:
        source = open_source(href, band, Budget(private=True))
        try:
            damage = damage_of(source) if deep else ""
            if not damage:
                # Also notices a file that is cut off after its last block, in its overviews.
                source.sample_overview()
            return damage
        finally:
            source.close()
    except ReadError as error:
        if not error.permanent:
            raise
        return str(error)


def damage_of(source: Source) -> str:
    """Decode every block of an open band.

    Returns:
        Which blocks are damaged, in words; empty if none is.

    Raises:
        ReadError: The file cannot be read now, but perhaps later.
    """
    count, listed, first_error = 0, list[str](), ""
    for (row, column), error in damaged_blocks(source):
        count += 1
        first_error = first_error or str(error)
        if count <= _MAX_LISTED:
            listed.append(f"({row}, {column})")
    if not count:
        return ""
    more = f" and {count - _MAX_LISTED} more" if count > _MAX_LISTED else ""
    rows, columns = _blocks_down_and_across(source)
    return (
        f"{count} of {rows * columns:,} blocks cannot be decoded: "
        f"(row, column) {', '.join(listed)}{more}; fetch the file again ({first_error})"
    )


def damaged_blocks(source: Source) -> Iterator[tuple[Block, ReadError]]:
    """Decode every block of an open band, and yield the damaged ones with their errors.

    Memory is bounded: one batch of blocks is waited for while the next one is read and decoded.

    Raises:
        ReadError: The file cannot be read now, but perhaps later.
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
