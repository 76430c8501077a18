"""Intact: does a file that has come hold the image that it should?"""

from __future__ import annotations

from scenebeam.errors import CheckError, ReadError
from scenebeam.raster.reader import open_source
from scenebeam.transfer.ranges import Budget


def check_file(href: str, band: int, dtype: str, budget: Budget) -> None:
    """Open a file, hold its pixels' type against `dtype`, and decode the first and the last block of `band` (from 1).

    Raises CheckError where the file is no image that can be used, ReadError where it may be read later.
    """
    try:
        source = open_source(href, band, budget)
        try:
            info = source.info
            if info.dtype.name != dtype:
                raise CheckError(f"it holds {info.dtype.name}, and its collection is known for {dtype}")
            last = ((info.height - 1) // info.block[0], (info.width - 1) // info.block[1])
            for block in source.fetch({(0, 0), last}).values():
                block.result()
        finally:
            source.close()
    except ReadError as error:
        if not error.permanent:
            raise
        raise CheckError(f"it is no image that can be used: {error}") from error
