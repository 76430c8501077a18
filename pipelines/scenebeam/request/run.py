"""RunRequest: everything that a user can request, validated as a whole before anything runs."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime
from typing import Annotated, Any, Generic

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    SerializeAsAny,
    model_validator,
)
from typing_extensions import TypeVar

from scenebeam.collections.record import CollectionRecord
from scenebeam.request.interval import Interval, parse_interval
from scenebeam.request.markers import Marker, Place, marked_fields
from scenebeam.request.product import ProductRequest, parse_product
from scenebeam.request.sections import (
    Area,
    Checks,
    GridRequest,
    Limits,
    Runner,
    Select,
    Several,
    StrictModel,
    TimeSeries,
)
from scenebeam.request.series import Series, parse_series
from scenebeam.suggestions import suggest

KNOWN_CATALOGS = {
    "earth-search": "https://earth-search.aws.element84.com/v1",
    "planetary-computer": "https://planetarycomputer.microsoft.com/api/stac/v1",
    "cdse": "https://stac.dataspace.copernicus.eu/v1",
    "lpdaac": "https://cmr.earthdata.nasa.gov/stac/LPCLOUD",
    "asf": "https://cmr.earthdata.nasa.gov/stac/ASF",
    "dea": "https://explorer.dea.ga.gov.au/stac",
    "deafrica": "https://explorer.digitalearth.africa/stac",
}
_FINGERPRINTED = {"catalog", "collections", "area", "dates", "select", "grid", "product", "checks"}
"""Sections that decide what the products contain."""

ACCOUNTS = (
    "CDSE_ACCESS_TOKEN",
    "CDSE_USERNAME",
    "CDSE_PASSWORD",
    "CDSE_S3_ACCESS_KEY",
    "CDSE_S3_SECRET_KEY",
    "EARTHDATA_TOKEN",
)
"""Names of the credentials that catalogs ask for."""
SecretReference = Annotated[
    str, Field(pattern=r"^secret:projects/[\w.:-]+/secrets/[\w-]+/versions/\w+$", max_length=500)
]
"""Where a secret is; the secret itself never is in a request."""

ProductT_co = TypeVar("ProductT_co", bound=ProductRequest, default=ProductRequest, covariant=True)


def _parse_runner(value: Any) -> Any:
    """Accept `runner: direct` for `runner: {kind: direct}`."""
    return {"kind": value} if isinstance(value, str) else value


def _check_output(output: str) -> str:
    if is_url(output) and not output.startswith(("gs://", "file://")):
        scheme = output.partition("://")[0]
        raise ValueError(f"{scheme}:// is not writable; give a folder, or gs://bucket/prefix")
    return output


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


def _check_accounts(accounts: dict[str, str]) -> dict[str, str]:
    for name in accounts:
        if name not in ACCOUNTS:
            raise ValueError(f"{name!r} is not known; {suggest(name, ACCOUNTS)}")
    return accounts


class RunRequest(StrictModel, Generic[ProductT_co]):
    """One run: scenes of an area and time from a catalog, made into one product.

    In annotations, `RunRequest[MosaicRequest]` is a request for mosaics. At run time there is one
    class; the section `product` is validated by the model of its kind.
    """

    run: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")
    """Name of the run: letters, digits, `-` and `_`."""
    catalog: Annotated[str | list[str] | TimeSeries, Place("read")]
    """Catalog to search: a known name, a URL, a file, or a table of existing files. Known names are
    `earth-search`, `planetary-computer`, `cdse`, `lpdaac`, `asf`, `dea` and `deafrica`. A URL is
    that of a STAC API or of a static catalog. A file is an ItemCollection, an Item,
    stac-geoparquet or a `catalog.json`. A table is given as `{time_series: table.csv, root:
    folder}`. Catalogs of a list back each other: a scene is taken from the first that has it, and
    read from another where its files cannot be read."""
    collections: Several[str | CollectionRecord] = Field(min_length=1)
    """Collection ids (`scenebeam info` lists them), or records given inline."""
    area: Area | None = None
    """The area of interest in one of four forms, in longitude and latitude (WGS 84). Required to
    search an API, unless `select` names the scenes or the product says where they are. Default: all
    that the scenes cover."""
    dates: Annotated[
        Several[Interval],
        BeforeValidator(_as_list, json_schema_input_type=str | int | list[str | int]),
    ] = Field(default=[])
    """A year, month, day or interval, or a list of them; both ends are included. For example:
    `2023`, `2023-02`, `2023-02-01/2023-02-28`; `2023-02-01/..` until today; `last 30 days`. A
    differenced index takes two, before and after.
    Required to search an API, as `area` is. Default: all scenes."""
    select: Select = Select()
    """Which of the scenes that the search finds are used."""
    grid: GridRequest = GridRequest()
    """The output grid of products on one grid; default: derived from the area."""
    product: Annotated[SerializeAsAny[ProductT_co], PlainValidator(parse_product)]
    """What is made of the scenes: a product and its fields."""
    checks: Checks = Checks()
    """Thresholds by which an image is fit to use; `checks: off` accepts any values."""
    series: Annotated[
        Series | None,
        BeforeValidator(parse_series, json_schema_input_type=bool | Series | None),
    ] = None
    """Whether the output grows: `true`, or the policy of what may change. Running the request again
    then searches again and makes what is new, has changed or has failed; the dates may reach
    further each time."""
    output: Annotated[str, AfterValidator(_check_output), Place("write")] = Field(min_length=1)
    """A folder, or `gs://bucket/prefix`; other schemes are rejected."""
    runner: Annotated[
        Runner,
        BeforeValidator(_parse_runner, json_schema_input_type=str | Runner),
        PlainSerializer(lambda runner: runner.model_dump()),
    ] = Runner()
    """Where tasks run: the fields of a runner, or its kind alone, as in `runner: direct`."""
    accounts: Annotated[dict[str, SecretReference], AfterValidator(_check_accounts)] = Field(
        default={}
    )
    """Credentials of catalogs, as references to Google's Secret Manager. For example:
    `{EARTHDATA_TOKEN: secret:projects/p/secrets/earthdata/versions/latest}`. Default: those of the
    environment."""
    limits: Limits = Limits()
    """Ceilings of a run, and of its requests and downloads."""

    @model_validator(mode="after")
    def _check_search_is_bounded(self) -> RunRequest[ProductT_co]:
        scenes_are_listed = self.select.scenes is not None or self.select.table is not None
        bounded = scenes_are_listed or self.product.states_where_and_when
        if any(map(is_remote, self.catalogs)) and not bounded:
            for name in ("area", "dates"):
                if not getattr(self, name):
                    raise ValueError(f"{name} is required to search a STAC API")
        return self

    @model_validator(mode="after")
    def _check_product(self) -> RunRequest[ProductT_co]:
        self.product.check_request(self)
        return self

    @model_validator(mode="after")
    def _check_series(self) -> RunRequest[ProductT_co]:
        if self.series is None:
            return self
        kind = self.product.kind
        if not self.product.can_grow:
            raise ValueError(f"series: a run of kind {kind} makes everything at once; leave it out")
        if self.area is None:
            raise ValueError("series: needs area, because the grid must not depend on the scenes")
        if not self.catalogs:
            raise ValueError("series: a table of files is no catalog that grows; leave it out")
        chosen = self.select.scenes is not None or self.select.table is not None
        if chosen or self.select.mode != "all":
            raise ValueError("series: takes all acquisitions; leave out select.mode and scenes")
        return self

    @model_validator(mode="after")
    def _check_catalogs(self) -> RunRequest[ProductT_co]:
        if isinstance(self.catalog, list):
            if not self.catalog or len(set(self.catalog)) < len(self.catalog):
                raise ValueError("catalog: give one catalog, or a list of different ones")
            if not self.product.can_grow:
                raise ValueError(f"catalog: a run of kind {self.product.kind} takes one catalog")
        return self

    @property
    def catalogs(self) -> list[str]:
        """The catalogs to search, most preferred first; none where a table lists the scenes."""
        if isinstance(self.catalog, str):
            return [self.catalog]
        return self.catalog if isinstance(self.catalog, list) else []

    @property
    def intervals(self) -> list[tuple[datetime, datetime]]:
        """The dates as (first instant, last instant), in the given order."""
        return [parse_interval(text) for text in self.dates]

    def search_key(self) -> dict[str, Any]:
        """The fields that decide what a search returns, as JSON: the key of the search cache."""
        document = self.model_dump(mode="json", include={"catalog", "collections", "area", "dates"})
        scenes = self.select.scenes
        document["scenes"] = None if scenes is None else sorted(scene.id for scene in scenes)
        searched = marked_fields(type(self.product), Marker.SEARCH)
        return {**document, **self.product.model_dump(mode="json", include=searched)}

    def fingerprint(self) -> str:
        """SHA-256 over everything that decides what the products contain, as a hex digest."""
        document = json.dumps(self.fingerprint_fields(), sort_keys=True)
        return hashlib.sha256(document.encode()).hexdigest()

    def fingerprint_fields(self, ignored: frozenset[str] | None = None) -> dict[str, Any]:
        """The fields that decide what the products contain, as JSON.

        Args:
            ignored: Dotted names of fields to leave out; default: those that have no effect on
                this request.
        """
        names = self.product.ignored_fields if ignored is None else ignored
        excluded = marked_fields(type(self.product), Marker.NOT_FINGERPRINTED)
        excluded |= {name.removeprefix("product.") for name in names if name.startswith("product.")}
        document = self.model_dump(
            mode="json", include=_FINGERPRINTED - names, exclude={"product": excluded}
        )
        for collection in document.get("collections", ()):
            if isinstance(collection, dict):
                collection.pop("attribution", None)  # it decides no pixel
        if self.series is not None:
            # How far a series reaches decides no pixel of its products.
            document.pop("dates", None)
            document["series"] = True
        return document

    @property
    def adjustable(self) -> frozenset[str]:
        """Dotted names of fields that decide which products are made, not how they are made."""
        fields = marked_fields(type(self.product), Marker.ADJUSTABLE)
        return self.product.adjustable_sections | {f"product.{name}" for name in fields}


def is_url(text: str) -> bool:
    """Whether `text` is a URL rather than a local path."""
    return re.match(r"^[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def is_remote(catalog: str) -> bool:
    """Whether a catalog is read over the network."""
    return catalog in KNOWN_CATALOGS or is_url(catalog)
