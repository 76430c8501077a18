"""Watch: run a series again and again, on one's own machine."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from itertools import count

from scenebeam.errors import NoScenesError, RequestError, SceneBeamError
from scenebeam.execution.driver import run
from scenebeam.request import RunRequest
from scenebeam.status import RunStatus

log = logging.getLogger(__name__)

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST = 366 * 86_400


def parse_pause(text: str) -> float:
    """Parse a time such as `30m`, `6h` or `1d`.

    Returns:
        Seconds.

    Raises:
        RequestError: It is not such a time, or longer than a year.
    """
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", text.strip())
    if match is None:
        raise RequestError(f"--every {text!r}: write a number and a unit, such as 30m, 6h or 1d")
    seconds = int(match[1]) * _SECONDS[match[2]]
    if not 0 < seconds <= _LONGEST:
        raise RequestError(f"--every {text!r}: it must be longer than 0, and a year at most")
    return float(seconds)


def watch_series(
    request: RunRequest, pause: float, passes: int | None = None
) -> Iterator[RunStatus]:
    """Run a series, wait, and run it again.

    Args:
        request: The request of a series.
        pause: Seconds from the start of a pass to the start of the next.
        passes: How often to run; None: until the process ends.

    Yields:
        The status of each pass that came to its end. What fails is logged.

    Raises:
        RequestError: The request is no series, or the first pass shows that it cannot be run.
    """
    if request.series is None:
        raise RequestError("series: only a series can be watched; set series: true in the request")
    for number in count(1):
        start = time.monotonic()
        try:
            yield run(request)
        except RequestError as error:
            # A catalog may have no scene yet; anything else does not go away by waiting.
            if number == 1 and not isinstance(error, NoScenesError):
                raise
            log.warning("%s", error)
        except SceneBeamError as error:
            log.warning("%s; trying again in %.0f s", error, pause)
        if number == passes:
            return
        time.sleep(max(0.0, pause - (time.monotonic() - start)))
