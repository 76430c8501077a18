"""What we know of one provider's collection: the model of the YAML files beside this module."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from scenebeam.collections.identity import GroupPattern, Identity
from scenebeam.collections.renamed import accept_old_names

Resampling = Literal["nearest", "bilinear", "cubic", "cubic_spline", "lanczos", "average", "mode"]


class BandRecord(BaseModel):
    """One band: where it is in an item, and what its numbers mean."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    asset: str
    """Key of the asset in the item."""
    resolution: float = Field(gt=0)
    """Nominal ground size of a pixel in metres, of files in degrees too."""
    alternate_assets: dict[float, str] = {}
    """Other assets with the same band, by their resolution."""
    band: int = Field(default=1, ge=1)
    """Index of the band inside the asset's file, from 1."""
    alias: list[str] = []
    """Other names a user may type, in any case: the sensor's own name (`B04`)."""
    categorical: bool = False
    """Classes or bit flags: resampled by nearest, never averaged, never shifted."""
    constant_ok: bool = False
    """Whether one number throughout is nothing odd: the sea in an elevation model."""
    has_add_offset: bool = True
    """Whether the collection's `shift` applies to this band (never to a categorical one)."""
    dtype: str | None = None
    nodata: float | None = None
    scale: float | None = None
    offset: float | None = None
    wavelength: float | None = None
    """Centre wavelength in micrometres."""

    @property
    def keys_by_resolution(self) -> dict[float, str]:
        """Every asset that holds the band, its own first."""
        return {self.resolution: self.asset, **self.alternate_assets}

    @model_validator(mode="before")
    @classmethod
    def _accept_other_forms(cls, value: Any) -> Any:
        value = accept_old_names(
            value,
            {"also": "alternate_assets", "uniform": "constant_ok", "shifted": "has_add_offset"},
        )
        if isinstance(value, dict) and isinstance(value.get("alias"), str):
            return {**value, "alias": [value["alias"]]}
        return value


class RadiometricOffset(BaseModel):
    """A constant that some items' digital numbers carry, and how an item tells whether it does.

    Sentinel-2 processing baseline 04.00 added 1000 to every reflectance. Whether a pixel still carries
    it depends on provider, collection and item properties, never on the date alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    amount: int
    applied_when: dict[str, str]
    """Property → lowest value (compared as text) from which the shift was applied by the processor."""
    removed_when: dict[str, bool | str | float] = {}
    """Property → value that says the provider has taken the shift out again."""
    id_pattern: GroupPattern | None = None
    """Regular expression of ids that name the value of `since`: its groups, joined by a dot. Such
    ids are the producer's own, and so are the pixels of their files."""

    @model_validator(mode="before")
    @classmethod
    def _accept_old_names(cls, value: Any) -> Any:
        return accept_old_names(value, {"since": "applied_when", "unless": "removed_when"})

    def carried_by(self, properties: dict[str, Any]) -> bool:
        """Whether an item with these `properties` has pixels that carry the shift."""
        applied = any(
            str(properties.get(key, "")) >= lowest for key, lowest in self.applied_when.items()
        )
        undone = any(
            key in properties and properties[key] == value
            for key, value in self.removed_when.items()
        )
        return applied and not undone

    def is_carried(self, scene_id: str, properties: dict[str, Any]) -> bool | None:
        """Whether the pixels of a scene's files carry the shift, by all that there is beside them.

        Args:
            scene_id: The scene's id, which may name the processing baseline.
            properties: Of its item; empty where there is none.

        Returns:
            What the properties say, else what the id says; None where neither says anything.
        """
        told = {key: value for key, value in properties.items() if value is not None}
        undone = any(told.get(key) == value for key, value in self.removed_when.items())
        if undone or self.applied_when.keys() & told.keys():
            return self.carried_by(told)
        match = re.match(self.id_pattern, scene_id) if self.id_pattern else None
        if match is None:
            return None
        named = ".".join(match.groups(""))
        return any(named >= lowest for lowest in self.applied_when.values())


class LandClass(BaseModel):
    """One class of a map."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    color: str = Field(default="#808080", pattern=r"^#[0-9A-Fa-f]{6}$")
    """As its makers draw it."""


class CollectionRecord(BaseModel):
    """Everything scenebeam knows of one collection at one provider."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    """The collection's id in the STAC catalogue."""
    provider: str = "inline"
    """Catalogue the record holds for: `earth-search`, `planetary-computer`, `cdse`, or `inline`."""
    title: str = ""
    dtype: str
    nodata: float | None = None
    scale: float = 1.0
    offset: float = 0.0
    """Physical value = scale x harmonized number + offset."""
    bands: dict[str, BandRecord] = Field(min_length=1)
    add_offset: RadiometricOffset | None = None
    sensor: Literal["optical", "sar"] | None = None
    """Which checks say whether an image is fit to use; None: neither reflectance nor backscatter."""
    unit: Literal["linear", "db"] | None = None
    """Of a radar's numbers: power, or decibels of it."""
    value_range: tuple[float, float] | None = None
    """Plausible harmonized numbers."""
    required: list[str] = []
    """Bands without which a scene is not analysis-ready."""
    default: list[str] = []
    """Bands that are taken where none are named; default: the required ones."""
    identity: Identity | None = None
    """What makes a pass, a tile, a part of a tile and a processing. Default: what the known sensors' items say."""
    pixel_origin: tuple[float, float] | None = None
    """Where an edge of a pixel lies, east and north, in every file and CRS of the collection: `[15, 15]`
    for Landsat, whose pixels of 30 m have their centers on multiples of 30. Default: a header tells."""
    visual: str | None = None
    """Key of the true-colour asset, whose bands are `visual_red`, `visual_green` and `visual_blue`."""
    mask_classes: dict[str, list[int]] = {}
    """Categorical band → classes that are not clear ground (cloud, shadow, cirrus)."""
    cloud_probability: dict[str, float] = {}
    """Band of cloud probabilities → percent from which a pixel counts as cloud: looked at before `mask_classes`."""
    mask_bits: dict[str, list[int]] = {}
    """Band of bit flags → bits, any of which says that a pixel is not clear ground."""
    classes: dict[int, LandClass] = {}
    """Of a map: what its numbers are."""
    signing: Literal["none", "planetary-computer", "cdse", "s3", "s3-requester-pays"] = "none"
    """How its files are opened: `scenebeam.transfer.signing`."""

    @model_validator(mode="before")
    @classmethod
    def _accept_old_names(cls, value: Any) -> Any:
        return accept_old_names(value, {"shift": "add_offset"})

    @model_validator(mode="after")
    def _lower_case_bands(self) -> CollectionRecord:
        wrong = [name for name in self.bands if name != name.lower()]
        if wrong:
            raise ValueError(f"band names are written in lower case: {', '.join(wrong)}")
        named = {
            *self.required,
            *self.default,
            *self.mask_classes,
            *self.cloud_probability,
            *self.mask_bits,
        }
        unknown = sorted(named - self.bands.keys())
        if unknown:
            raise ValueError(f"named, but not among the bands: {', '.join(unknown)}")
        return self

    @property
    def default_bands(self) -> list[str]:
        """Bands that are taken where none are named."""
        return self.default or self.required or list(self.bands)

    def canonical(self, names: Iterable[str]) -> list[str]:
        """Bands by wavelength, those without one behind them, in the record's order."""
        order = list(self.bands)
        return sorted(
            names,
            key=lambda n: (
                self.bands[n].wavelength is None,
                self.bands[n].wavelength or 0.0,
                order.index(n),
            ),
        )

    def band_name(self, name: str) -> str | None:
        """Our name of a band that a user typed by any of its names in any case; None where unknown."""
        typed = name.lower()
        for known, band in self.bands.items():
            if (
                typed == known
                or typed == band.asset.lower()
                or typed in (a.lower() for a in band.alias)
            ):
                return known
        return None

    def band_sensor(self, name: str) -> Literal["optical", "sar"] | None:
        """Whose checks say whether a band is fit to use: none's where it is no measurement of reflectance or power."""
        band = self.bands[name]
        return None if self.sensor == "optical" and band.wavelength is None else self.sensor

    def may_be_constant(self, name: str) -> bool:
        """Whether one number throughout is nothing odd: classes, and by-products such as aerosol maps."""
        band = self.bands[name]
        derived = (
            self.sensor is not None and self.band_sensor(name) is None and band.asset != self.visual
        )
        return band.categorical or band.constant_ok or derived

    def band_dtype(self, name: str) -> str:
        """NumPy dtype name of a band."""
        return self.bands[name].dtype or self.dtype

    def band_nodata(self, name: str) -> float | None:
        """Nodata value of a band, None where every number is data."""
        own = self.bands[name].nodata
        return self.nodata if own is None else own

    def band_add_offset(self, name: str, properties: dict[str, Any]) -> int:
        """What the pixels of a band carry on top of the harmonized number, for an item's `properties`."""
        band = self.bands[name]
        if self.add_offset is None or band.categorical or not band.has_add_offset:
            return 0
        return self.add_offset.amount if self.add_offset.carried_by(properties) else 0

    def file_add_offset(self, name: str, scene_id: str, properties: dict[str, Any]) -> int | None:
        """What the pixels of a band's file carry on top of the harmonized number.

        Args:
            name: The band.
            scene_id: The id of the scene that the file is of.
            properties: Of the scene's item; empty where there is none.

        Returns:
            The shift; None where the collection has one and nothing says whether the file has it.
        """
        band = self.bands[name]
        if self.add_offset is None or band.categorical or not band.has_add_offset:
            return 0
        carried = self.add_offset.is_carried(scene_id, properties)
        return None if carried is None else self.add_offset.amount * carried

    def band_scaling(self, name: str) -> tuple[float, float]:
        """(scale, offset) of a band; categorical bands are never scaled."""
        band = self.bands[name]
        if band.categorical:
            return 1.0, 0.0
        return (
            self.scale if band.scale is None else band.scale,
            self.offset if band.offset is None else band.offset,
        )
