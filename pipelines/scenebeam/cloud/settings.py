"""CloudSettings: what a deployment allows and where it keeps what, read from the environment when it is asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ByteSize, ConfigDict, Field, ValidationError

from scenebeam.errors import RequestError
from scenebeam.request import KNOWN_CATALOGS

_PREFIX = "SCENEBEAM_"
ANY_HOST = "https://"
"""Among `inputs`: any public host."""
Topic = str


class CloudSettings(BaseModel):
    """Each field is the environment variable `SCENEBEAM_` and its name in capitals; lists are separated by commas."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: str
    """Folder or `gs://` prefix under which the functions keep what they know of runs."""
    outputs: tuple[str, ...] = Field(min_length=1)
    """Prefixes below which a run may write."""
    requests: tuple[str, ...] = ()
    """Prefixes below which request files may lie that a message names."""
    catalogs: tuple[str, ...] = tuple(KNOWN_CATALOGS)
    """Catalogues that a run may ask: known names, and URLs, whose prefixes they are then."""
    inputs: tuple[str, ...] = (ANY_HOST,)
    """Prefixes below which other files may lie that a request names, beside `requests`, `outputs` and the URLs of
    `catalogs`. `https://` alone stands for every public host; what is at `gs://` is read with the workers' account,
    so its buckets are named."""
    max_scenes: int = Field(default=10_000, ge=1)
    """No request gets more, whatever its limits say."""
    max_bytes: ByteSize = Field(default=ByteSize(10**12), validate_default=True)
    max_workers: int = Field(default=20, ge=1)
    claim_seconds: float = Field(default=120.0, ge=0)
    """After so long a run that was claimed and not launched is taken for abandoned."""
    status_topic: Topic | None = None
    """`projects/<project>/topics/<topic>`, to which every change of a run is published."""
    progress_topic: Topic | None = None
    """Where a run's workers say that it has got further: `report` listens."""
    dead_letter_topic: Topic | None = None
    """Where messages go that can never start a run."""
    launcher: Literal["dataflow", "local"] = "dataflow"
    project: str = ""
    region: str = ""
    template: str = ""
    """`gs://` path of the Flex Template."""
    image: str = ""
    """Of the workers: the same as the launcher's."""
    temp_location: str = ""
    worker_service_account: str = ""
    subnetwork: str = ""
    machine_type: str = "n2-standard-2"
    dataflow_endpoint: str | None = None
    """Another address of the Dataflow API, over plain HTTP: a stand-in on this machine."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> CloudSettings:
        """Raises RequestError where a variable is missing or makes no sense, and names it."""
        environ = os.environ if environ is None else environ
        found: dict[str, object] = {}
        for name, field in cls.model_fields.items():
            text = environ.get(f"{_PREFIX}{name.upper()}")
            if text is not None:
                listed = str(field.annotation).startswith("tuple")
                found[name] = (
                    tuple(part.strip() for part in text.split(",") if part.strip())
                    if listed
                    else text
                )
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            faults = "; ".join(
                f"{_PREFIX}{str(one['loc'][0]).upper()}: {one['msg']}" for one in error.errors()
            )
            raise RequestError(f"the deployment is not set up: {faults}") from None
