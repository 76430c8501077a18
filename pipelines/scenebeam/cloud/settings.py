"""CloudSettings: what a deployment allows, and where it keeps its state."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ByteSize, ConfigDict, Field, ValidationError

from scenebeam.errors import RequestError
from scenebeam.request import KNOWN_CATALOGS

_PREFIX = "SCENEBEAM_"
ANY_HOST = "https://"
"""In `inputs`: any public host."""


class CloudSettings(BaseModel):
    """Settings of a deployment.

    Each field is read from the environment variable `SCENEBEAM_` plus its name in upper case.
    Lists are separated by commas.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: str
    """Folder or `gs://` prefix below which the functions keep the state of runs."""
    outputs: tuple[str, ...] = Field(min_length=1)
    """Prefixes below which runs may write."""
    requests: tuple[str, ...] = ()
    """Prefixes below which messages may name request files."""
    catalogs: tuple[str, ...] = tuple(KNOWN_CATALOGS)
    """Catalogs that runs may search: known names, and URLs, which also allow all URLs below."""
    inputs: tuple[str, ...] = (ANY_HOST,)
    """Prefixes below which requests may name other files.

    `requests`, `outputs` and the URLs in `catalogs` are always allowed. `https://` alone allows
    every public host. Buckets must be listed, because workers read them with their own account.
    """
    max_scenes: int = Field(default=10_000, ge=1)
    """Upper bound for the `limits.max_scenes` of requests."""
    max_bytes: ByteSize = Field(default=ByteSize(10**12), validate_default=True)
    """Upper bound for the `limits.max_bytes` of requests."""
    max_workers: int = Field(default=20, ge=1)
    """Upper bound for the `runner.workers` of requests, and the default."""
    accounts: dict[str, str] = {}
    """Credentials of catalogs as JSON: name → `secret:projects/…/secrets/…/versions/…`."""
    max_runs: int = Field(default=10, ge=1)
    """Runs at a time, above which sweeps launch no series."""
    max_monthly_cost: float | None = Field(default=None, ge=0)
    """Budget in USD per calendar month, by the estimates of the plans of runs."""
    debounce_seconds: float = Field(default=600.0, ge=0)
    """How long a series waits for more items before it is launched."""
    check_seconds: float = Field(default=21_600.0, ge=0)
    """Time after which the catalog of a series is asked for items that nobody has announced."""
    lookback_days: int = Field(default=60, ge=1, le=36_500)
    """How many days back it is asked."""
    stale_days: int = Field(default=30, ge=1)
    """Days without a new product after which a sweep logs that a series is stale."""
    claim_seconds: float = Field(default=120.0, ge=0)
    """Age in seconds after which a claim without a job is considered abandoned."""
    status_topic: str | None = None
    """`projects/<project>/topics/<topic>` to which every change of a run's status is published."""
    progress_topic: str | None = None
    """Topic on which workers announce progress; the `report` function subscribes to it."""
    dead_letter_topic: str | None = None
    """Topic to which rejected messages are forwarded."""
    launcher: Literal["dataflow", "local"] = "dataflow"
    project: str = ""
    region: str = ""
    template: str = ""
    """`gs://` URI of the Flex Template."""
    image: str = ""
    """Container image of the workers, the same as the launcher's."""
    temp_location: str = ""
    worker_service_account: str = ""
    subnetwork: str = ""
    machine_type: str = "n2-standard-2"
    dataflow_endpoint: str | None = None
    """Alternative endpoint of the Dataflow API, without authentication, for local tests."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> CloudSettings:
        """Read the settings from environment variables.

        Args:
            environ: The variables; by default those of the process.

        Raises:
            RequestError: Variables are missing or invalid; the message names them.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, object] = {}
        for name, field in cls.model_fields.items():
            text = environ.get(_variable(name))
            if text is None:
                continue
            is_list = str(field.annotation).startswith("tuple")
            is_mapping = str(field.annotation).startswith("dict")
            values[name] = _split(text) if is_list else _mapping(text) if is_mapping else text
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            faults = []
            for fault in error.errors():
                faults.append(f"{_variable(str(fault['loc'][0]))}: {fault['msg']}")
            message = f"the deployment is not configured: {'; '.join(faults)}"
            raise RequestError(message) from None


def _variable(name: str) -> str:
    return f"{_PREFIX}{name.upper()}"


def _mapping(text: str) -> object:
    """Parse JSON; validation reports any other text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
