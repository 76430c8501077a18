"""The section `series` of a request: an output that grows each time the request is run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from scenebeam.request.interval import MAX_DAYS
from scenebeam.request.sections import StrictModel

PERIOD_SETTLES = 60
"""Days after which a period is settled, where the request does not say."""


class Series(StrictModel):
    """What may change in the products of an output that grows."""

    late: Literal["add", "freeze"] = "add"
    """What late scenes do to a finished product: `add` makes it again, `freeze` does not. Scenes
    that are processed again count as late."""
    settled_after: int | None = Field(default=None, ge=0, le=MAX_DAYS)
    """Days after which a product stays as it is. They are counted from the acquisition, or from the
    end of the period. Default: 60 for periods, never for acquisitions."""
    keep_versions: int = Field(default=0, ge=0, le=1000)
    """Earlier versions of each product that are kept, in folders of their own beside it."""


def parse_series(value: Any) -> Any:
    """Accept `series: true` for a series with the default policy, and `false` for none."""
    if value is True:
        return {}
    return None if value is False else value
