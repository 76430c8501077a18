"""Intact: does a file that has come hold the image that it should?"""

from __future__ import annotations

from scenebeam.errors import CheckError, ReadError
from scenebeam.raster.checks import BandSpec, judge
from scenebeam.raster.reader import open_source
from scenebeam.raster.validate import sample_source
from scenebeam.request import Checks
from scenebeam.transfer.ranges import Budget


def check_file(href: str, band: int, dtype: str, nodata: float | None, spec: BandSpec, checks: Checks) -> None:
    """Open a file, hold its pixels' type against `dtype`, decode both ends of `band` (from 1), and judge it.

    How much of it is nodata is no fault of a whole scene's file, unless all of it is. Raises CheckError where the file
    is no image that can be used, ReadError where it may be read later.
    """
    try:
        source = open_source(href, band, Budget())
        try:
            info = source.info
            if info.dtype.name != dtype:
                raise CheckError(f"it holds {info.dtype.name}, and its collection is known for {dtype}")
            sample = sample_source(source, spec, info.nodata if nodata is None else nodata)
        finally:
            source.close()
    except ReadError as error:
        if not error.permanent:
            raise
        raise CheckError(f"it is no image that can be used: {error}") from error
    whole = checks.model_copy(update={"max_nodata_percent": 100.0})
    errors = [finding.message for finding in judge("", sample, spec, whole) if finding.level == "error"]
    if errors:
        raise CheckError("; ".join(errors))
