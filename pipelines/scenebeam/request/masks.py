"""The part of a request that says which pixels are clear."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from scenebeam.request.markers import Place
from scenebeam.request.sections import Several, StrictModel

_MAX_METERS = 10_000.0
Meters = Annotated[float, Field(ge=0, le=_MAX_METERS)]


class MaskRequest(StrictModel):
    """Which pixels are masked: by a band, a probability, or a file of one's own per scene.

    Without any of the three, by the classes or bits that the collection's record names.
    """

    band: str | None = None
    """A band of classes or bit flags, such as `scl` or `qa_pixel`."""
    probability: str | None = None
    """A band of probabilities in percent, such as `cloud`; with `above`."""
    path: Annotated[str | None, Place("read")] = None
    """A mask file per scene, with `{id}` for the id of the scene: `masks/{id}.tif`. It may be on
    another grid."""
    keep: Several[int] | None = None
    """Classes of clear ground; all others are masked."""
    drop: Several[int] | None = None
    """Classes that are masked."""
    bits: Several[Annotated[int, Field(ge=0, le=63)]] | None = None
    """Bits, from 0, any of which masks a pixel."""
    above: float | None = Field(default=None, ge=0, le=100)
    """Probability in percent from which a pixel is masked."""
    open: Meters = 0.0
    """Masked specks into which a disk of this radius does not fit count as clear, in meters."""
    erode: Meters = 0.0
    """Meters by which masked areas shrink, after `open`."""
    dilate: Meters = 0.0
    """Meters by which masked areas grow, at last."""

    @model_validator(mode="after")
    def _check_combination(self) -> MaskRequest:
        places = [name for name in ("band", "probability", "path") if getattr(self, name)]
        if len(places) > 1:
            raise ValueError(f"give one of band, probability and path, not {' and '.join(places)}")
        tests = [name for name in ("keep", "drop", "bits", "above") if self._has(name)]
        if not places and tests:
            raise ValueError(f"{tests[0]} needs a band, a probability or a path")
        if places and len(tests) != 1:
            raise ValueError(f"{places[0]} needs one of keep, drop, bits and above")
        if places == ["probability"] and tests != ["above"]:
            raise ValueError("probability needs above, such as {probability: cloud, above: 40}")
        if places == ["band"] and tests == ["above"]:
            raise ValueError("above needs a probability, such as {probability: cloud, above: 40}")
        if self.path is not None and "{id}" not in self.path:
            raise ValueError("path needs {id}, which stands for the id of the scene")
        return self

    def _has(self, name: str) -> bool:
        value = getattr(self, name)
        return bool(value) if isinstance(value, list) else value is not None


Mask = bool | MaskRequest
"""`true`: the classes or bits of the collection's record. `false`: no mask."""
