"""The part of a request that says what is made: its base class, and the registry of products.

A product is a package with two modules: `request`, which is light and holds its model as REQUEST,
and `product`, which holds its implementation as PRODUCT. Both are imported on first use, so that a
Cloud Function can validate a request without loading NumPy.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from scenebeam.request.sections import Several, StrictModel
from scenebeam.suggestions import suggest

if TYPE_CHECKING:
    from scenebeam.request.run import RunRequest

PRODUCTS: dict[str, str] = {
    "assets": "scenebeam.products.assets",
    "chips": "scenebeam.products.chips",
    "composite": "scenebeam.products.composites",
    "fields": "scenebeam.products.fields",
    "index": "scenebeam.products.indices",
    "landcover": "scenebeam.products.landcover",
    "mosaic": "scenebeam.products.mosaics",
    "stack": "scenebeam.products.stacks",
}
"""`product.kind` → the product's package. A new product is one package and one line here."""

OnMissing = Literal["best-available", "fail", "skip"]
Format = Literal["cog", "zarr", "icechunk"]
StoreFormat = Literal["zarr", "icechunk"]
Values = Literal["harmonized", "raw"]
"""`harmonized`: the provider's radiometric offset is removed. `raw`: numbers as in the files."""
MAX_BANDS = 1000
"""More than any sensor has."""
VISUAL = ("visual_red", "visual_green", "visual_blue")
"""The bands of the true-color image that some providers publish beside the measurements."""


class ProductRequest(StrictModel):
    """The fields of one product. Subclasses add `kind` as a Literal, and their own fields."""

    kind: str
    """The product: `mosaic`, `composite`, `stack`, `index`, `assets`, `chips`, `fields` or
    `landcover`."""

    states_where_and_when: ClassVar[bool] = False
    """Whether its own fields bound the search, so that `area` and `dates` may be left out."""
    uses_dates: ClassVar[bool] = True
    """Whether the `dates` of the request have a meaning for it."""
    can_grow: ClassVar[bool] = False
    """Whether its products can be a series: one acquisition or period does not affect another."""
    repeats_bands: ClassVar[bool] = False
    """Whether one band may be requested under two names, as in an expression."""
    cli_fields: ClassVar[Mapping[str, str]] = {}
    """Further options of its command: option → dotted name of a field outside `product`."""

    @property
    def requested_bands(self) -> Sequence[str]:
        """Bands to read, by any of their names; none: the defaults of the collection."""
        return ()

    @property
    def fixed_bands(self) -> Sequence[str]:
        """Canonical names of bands that are read in place of the requested ones; usually none."""
        return ()

    @property
    def grouping(self) -> Literal["acquisition", "day"]:
        """How scenes are grouped into acquisitions before tasks are planned."""
        return "acquisition"

    @property
    def preferred_resolution(self) -> float | None:
        """Which copy of a band is read where a catalog has several; None: the band's own."""
        return None

    @property
    def store_format(self) -> StoreFormat | None:
        """The Zarr store that its images become variables of; None if each is a file."""
        return None

    @property
    def adjustable_sections(self) -> frozenset[str]:
        """Sections of the request that may change while finished products stay."""
        return frozenset({"dates", "select"})

    @property
    def ignored_fields(self) -> frozenset[str]:
        """Dotted names of fields that have no effect on this request's products."""
        return frozenset()

    def check_request(self, request: RunRequest) -> None:
        """Check the rest of the request against the product.

        Args:
            request: The whole request.

        Raises:
            ValueError: A field does not fit; the message starts with its name.
        """


class BandsRequest(ProductRequest):
    """The request of a product that reads bands by name."""

    bands: Several[str] = Field(min_length=1)
    """Bands by common name or by the sensor's own name, in any case: `red`, `B04`."""

    @property
    def requested_bands(self) -> Sequence[str]:
        return self.bands

    @field_validator("bands")
    @classmethod
    def _unique_bands(cls, value: list[str]) -> list[str]:
        if len(value) > MAX_BANDS:
            raise ValueError(f"{len(value):,} bands are named; the limit is {MAX_BANDS:,}")
        counts = Counter(band.lower() for band in value)
        twice = sorted(band for band, count in counts.items() if count > 1)
        if twice:
            raise ValueError(f"named twice: {', '.join(twice)}")
        return value


class CubeRequest(ProductRequest):
    """The request of a product whose images can be files, or times of one Zarr store."""

    format: Format = "cog"
    """`cog`: a file per image and band; `zarr` or `icechunk`: one store of the run. Files are
    Cloud-Optimized GeoTIFFs. `zarr` is a Zarr store of dimensions (time, y, x), in `cube.zarr`;
    `icechunk` is the same in an Icechunk repository, where a run is one commit. Both stores are
    compressed by blosc and zstd."""

    @model_validator(mode="after")
    def _compressed_as_stores_are(self) -> CubeRequest:
        if self.store_format and getattr(self, "compression", "deflate") != "deflate":
            raise ValueError(
                "product.compression: stores are compressed by blosc and zstd; leave it out"
            )
        return self

    @property
    def store_format(self) -> StoreFormat | None:
        return None if self.format == "cog" else self.format


def request_model(kind: str) -> type[ProductRequest]:
    """Import the request model of a product. Raises KeyError for an unknown kind."""
    model: type[ProductRequest] = importlib.import_module(f"{PRODUCTS[kind]}.request").REQUEST
    return model


def parse_product(value: Any) -> ProductRequest:
    """Validate the product section by the model of its kind.

    Raises:
        ValueError: `kind` is missing or unknown, or (as pydantic's ValidationError) a field is
            wrong.
    """
    if isinstance(value, ProductRequest):
        return value
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if not isinstance(kind, str) or kind not in PRODUCTS:
        if kind is None:
            raise ValueError(f"kind is missing; the known kinds are {', '.join(sorted(PRODUCTS))}")
        raise ValueError(f"unknown kind {kind!r}; {suggest(str(kind), sorted(PRODUCTS))}")
    return request_model(kind).model_validate(value)
