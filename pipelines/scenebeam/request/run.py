"""RunRequest: all that a user can ask for, validated whole before anything runs."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, model_validator

from scenebeam.collections.record import CollectionRecord
from scenebeam.request.fields import FieldsRequest
from scenebeam.request.interval import Interval, parse_interval
from scenebeam.request.landcover import LandcoverRequest
from scenebeam.request.products import (
    AssetsRequest,
    IndexRequest,
    MosaicRequest,
    StackRequest,
    check_storage,
)
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

KNOWN_CATALOGS = {
    "earth-search": "https://earth-search.aws.element84.com/v1",
    "planetary-computer": "https://planetarycomputer.microsoft.com/api/stac/v1",
    "cdse": "https://stac.dataspace.copernicus.eu/v1",
}


def _runner(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


def _storable(output: str) -> str:
    if is_url(output) and not output.startswith(("gs://", "file://")):
        scheme = output.partition("://")[0]
        raise ValueError(f"{scheme}:// cannot be written to; give a folder, or gs://bucket/prefix")
    return output


def _listed_intervals(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


class RunRequest(StrictModel):
    """One run: scenes of an area and time from a catalogue, made into one product."""

    run: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")
    catalog: str | TimeSeries
    """A known catalogue, the URL of a STAC API, or a file: ItemCollection, stac-geoparquet, static catalogue."""
    collections: Several[str | CollectionRecord] = Field(min_length=1)
    area: Area | None = None
    """May be left out where `catalog` is a file: then all that its scenes cover."""
    dates: Annotated[Several[Interval], BeforeValidator(_listed_intervals)] = Field(default=[])
    """One or several; of a differenced index the first is before, the second after."""
    select: Select = Select()
    grid: GridRequest = GridRequest()
    product: Annotated[
        MosaicRequest
        | StackRequest
        | IndexRequest
        | AssetsRequest
        | FieldsRequest
        | LandcoverRequest,
        Field(discriminator="kind"),
    ]
    checks: Checks = Checks()
    output: Annotated[str, AfterValidator(_storable)] = Field(min_length=1)
    runner: Annotated[
        Runner, BeforeValidator(_runner), PlainSerializer(lambda r: r.model_dump())
    ] = Runner()
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _bounded_search(self) -> RunRequest:
        picked = self.select.scenes is not None or self.select.table is not None
        # Chips and their seasons bound it, or areas of interest and their periods.
        told = picked or isinstance(self.product, FieldsRequest | LandcoverRequest)
        if isinstance(self.catalog, str) and is_remote(self.catalog) and not told:
            for name in ("area", "dates"):
                if not getattr(self, name):
                    raise ValueError(f"{name} is needed to search a STAC API")
        return self

    @model_validator(mode="after")
    def _product_fits(self) -> RunRequest:
        if isinstance(self.product, AssetsRequest):
            check_storage(self.product, self.output)
        if isinstance(self.product, FieldsRequest) and (self.dates or self.grid != GridRequest()):
            raise ValueError(
                "dates, grid: leave them out; the crop calendar says when, and the chips say where"
            )
        if isinstance(self.product, LandcoverRequest):
            self._check_landcover(self.product)
        if (
            isinstance(self.product, IndexRequest)
            and self.product.formula.differenced
            and len(self.dates) != 2
        ):
            raise ValueError(
                f"dates: {self.product.index} needs two intervals, before and after: [2023-06, 2023-09]"
            )
        return self

    def _check_landcover(self, product: LandcoverRequest) -> None:
        if self.dates or self.area is not None:
            raise ValueError(
                "dates, area: leave them out; product.periods says when, and product.aois says where"
            )
        if self.grid != GridRequest() and (
            self.grid.bounds is None or self.grid.resolution is not None
        ):
            raise ValueError(
                "grid: give crs and bounds, or leave it out; pixels are those of product.*.resolution"
            )
        if product.s2l2a is None and self.grid.bounds is None:
            raise ValueError(
                "grid: without Sentinel-2 there is no tile to lay chips on; give crs and bounds"
            )
        known = [wanted if isinstance(wanted, str) else wanted.id for wanted in self.collections]
        for name, modality in product.modalities.items():
            if modality.collection not in known:
                hint = (
                    ""
                    if name == "lulc"
                    else f", or leave the modality out with product.{name}: null"
                )
                raise ValueError(
                    f"product.{name}.collection: {modality.collection} is not among collections; name it there{hint}"
                )

    @property
    def intervals(self) -> list[tuple[datetime, datetime]]:
        """The dates as instants, in the order given."""
        return [parse_interval(text) for text in self.dates]

    def search_key(self) -> dict[str, Any]:
        """The parts that the catalogue is asked, as JSON."""
        document = self.model_dump(mode="json", include={"catalog", "collections", "area", "dates"})
        scenes = self.select.scenes
        document["scenes"] = None if scenes is None else sorted(scene.id for scene in scenes)
        return {
            **document,
            **self.product.model_dump(mode="json", include=set(self.product.search_fields)),
        }

    def fingerprint(self) -> str:
        """SHA-256 over everything that decides what the products hold (not where or how they are made)."""
        return hashlib.sha256(
            json.dumps(self.fingerprint_fields(), sort_keys=True).encode()
        ).hexdigest()

    def fingerprint_fields(self, ignored_fields: frozenset[str] | None = None) -> dict[str, Any]:
        """The parts that decide what the products hold, as JSON; without `unused`, by default the request's own."""
        parts = {"catalog", "collections", "area", "dates", "select", "grid", "product", "checks"}
        names = {
            name.removeprefix("product.")
            for name in (self.ignored_fields if ignored_fields is None else ignored_fields)
        }
        inside = {"raw_storage_mode", "gcs", "images"} | LandcoverRequest.released | (names - parts)
        return self.model_dump(mode="json", include=parts - names, exclude={"product": inside})

    @property
    def adjustable(self) -> frozenset[str]:
        """Names of what decides which products are made, and nothing of a product that is made either way."""
        product = self.product
        if isinstance(product, AssetsRequest):
            return frozenset(
                {"dates", "select", *(f"product.{name}" for name in product.adjustable)}
            )
        if isinstance(product, FieldsRequest):
            return frozenset({"select", *(f"product.{name}" for name in product.adjustable)})
        if isinstance(product, LandcoverRequest):
            return frozenset()
        differenced = isinstance(product, IndexRequest) and product.formula.differenced
        return frozenset({"select"} if differenced else {"dates", "select"})

    @property
    def ignored_fields(self) -> frozenset[str]:
        """Names of what has no part in the products, whatever it says: of a field request that stops early."""
        product = self.product
        if not isinstance(product, FieldsRequest) or product.images == "download":
            return frozenset()
        if product.images == "select":
            fields = {"bands", "resampling", "values", "compression", "keep_remote_refs"}
            return frozenset({"checks"} | {f"product.{name}" for name in fields})
        fields = FieldsRequest.model_fields.keys() - {"kind", "year", "boundaries", "grid", "chips"}
        return frozenset(
            {"catalog", "collections", "select", "checks"} | {f"product.{name}" for name in fields}
        )


def is_url(text: str) -> bool:
    """Whether `text` names something on the network rather than a local path."""
    return re.match(r"^[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def is_remote(catalog: str) -> bool:
    """Whether a catalogue is asked over the network."""
    return catalog in KNOWN_CATALOGS or is_url(catalog)
