"""The record of one provider's collection: the model of the YAML files beside this module."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from scenebeam.collections.identity import GroupPattern, Identity
from scenebeam.collections.renamed import accept_old_names

Resampling = Literal["nearest", "bilinear", "cubic", "cubic_spline", "lanczos", "average", "mode"]


def _same_nan(value: float | None) -> float | None:
    # NaN is equal to itself only as the same object, and plans are compared.
    return math.nan if value is not None and math.isnan(value) else value


Nodata = Annotated[float | None, AfterValidator(_same_nan)]
"""A nodata value. Models that are stored as JSON need `ser_json_inf_nan="strings"`: JSON has no
NaN, and pydantic would store null, which means that there is no nodata value."""


class BandRecord(BaseModel):
    """One band: where an item has it, and what its pixel values mean."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    asset: str
    """Key of the asset in the item."""
    resolution: float = Field(gt=0)
    """Nominal ground size of a pixel in meters, also for files in degrees."""
    alternate_assets: dict[float, str] = {}
    """Other assets with the same band: resolution → key of the asset."""
    band: int = Field(default=1, ge=1)
    """Index of the band inside the asset's file, from 1."""
    alias: list[str] = []
    """Other names of the band, in any case, such as the sensor's own (`B04`)."""
    categorical: bool = False
    """Classes or bit flags: resampled with nearest, never averaged, without offset."""
    constant_ok: bool = False
    """Whether an image of one constant value is valid: the sea in an elevation model."""
    has_add_offset: bool = True
    """Whether the collection's `add_offset` applies to this band (never to categorical bands)."""
    dtype: str | None = None
    nodata: Nodata = None
    scale: float | None = None
    offset: float | None = None
    wavelength: float | None = None
    """Center wavelength in micrometers."""

    @property
    def keys_by_resolution(self) -> dict[float, str]:
        """All assets with the band, by resolution; its main asset comes first."""
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
    """A constant that was added to the pixel values of some items (ESA's BOA_ADD_OFFSET).

    Since processing baseline 04.00, Sentinel-2 reflectances are offset by 1000. Some providers have
    removed the offset again. Whether a file has it is therefore decided by provider, collection and
    item properties, never by the date.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    amount: int
    applied_when: dict[str, str]
    """Property → lowest value, compared as text, from which the processor applies the offset."""
    removed_when: dict[str, bool | str | float] = {}
    """Property → value by which the provider states that it has removed the offset again."""
    id_pattern: GroupPattern | None = None
    """Regular expression of scene ids that contain the value to compare with `applied_when`: its
    groups, joined by a dot. Such ids are the producer's own, and so are the pixels of their files.
    """

    @model_validator(mode="before")
    @classmethod
    def _accept_old_names(cls, value: Any) -> Any:
        return accept_old_names(value, {"since": "applied_when", "unless": "removed_when"})

    def applies_to_item(self, properties: dict[str, Any]) -> bool:
        """Return whether the files of an item have the offset.

        Args:
            properties: Properties of the item.
        """
        applied = any(
            str(properties.get(key, "")) >= lowest for key, lowest in self.applied_when.items()
        )
        return applied and not self._is_removed(properties)

    def applies_to_scene(self, scene_id: str, properties: dict[str, Any]) -> bool | None:
        """Return whether the files of a scene have the offset, by its properties or its id.

        Args:
            scene_id: The scene's id, which may contain the processing baseline.
            properties: Properties of its item; empty if there is no item.

        Returns:
            The answer of the properties, else that of the id; None if neither decides.
        """
        known = {key: value for key, value in properties.items() if value is not None}
        if self._is_removed(known) or self.applied_when.keys() & known.keys():
            return self.applies_to_item(known)
        match = re.match(self.id_pattern, scene_id) if self.id_pattern else None
        if match is None:
            return None
        baseline = ".".join(match.groups(""))
        return any(baseline >= lowest for lowest in self.applied_when.values())

    def _is_removed(self, properties: dict[str, Any]) -> bool:
        for key, value in self.removed_when.items():
            if key in properties and properties[key] == value:
                return True
        return False


_ESA_OFFSET = RadiometricOffset(
    amount=1000,
    applied_when={"s2:processing_baseline": "04.00", "processing:version": "04.00"},
    removed_when={"earthsearch:boa_offset_applied": True},
)
"""The offset of Sentinel-2 as ESA applies it."""


class LandClass(BaseModel):
    """One class of a map."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    color: str = Field(default="#808080", pattern=r"^#[0-9A-Fa-f]{6}$")
    """Color in the official legend."""


class CollectionRecord(BaseModel):
    """One collection at one provider: its bands, pixel values, masks and access."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    """The collection's id in the STAC catalog."""
    provider: str = "inline"
    """The catalog, by its known name; `inline` if a request has the record."""
    title: str = ""
    attribution: str = ""
    """Who to name, and the license, where products of the collection are published."""
    dtype: str
    nodata: Nodata = None
    scale: float = 1.0
    offset: float = 0.0
    """Physical value = scale * harmonized value + offset."""
    bands: dict[str, BandRecord] = Field(min_length=1)
    add_offset: RadiometricOffset | None = None
    """The offset of some items; harmonized value = pixel value - offset."""
    sensor: Literal["optical", "sar"] | None = None
    """Selects the checks of images. None: the values are neither reflectance nor backscatter."""
    unit: Literal["linear", "db"] | None = None
    """Unit of radar backscatter: linear power, or decibels."""
    value_range: tuple[float, float] | None = None
    """Range of plausible harmonized values."""
    required: list[str] = []
    """Bands without which a scene is incomplete."""
    default: list[str] = []
    """Bands to use if a request names none. Default: the required ones."""
    identity: Identity | None = None
    """How passes, tiles, parts of tiles and processings are identified. Default: the rules for
    known sensors.
    """
    pixel_origin: tuple[float, float] | None = None
    """Easting and northing of a pixel edge, the same in every file and CRS of the collection:
    `[15, 15]` for Landsat, whose 30 m pixels have their centers on multiples of 30. Default: read
    from a file's header.
    """
    visual: str | None = None
    """Key of the true-color asset; its bands are `visual_red`, `visual_green` and `visual_blue`."""
    mask_classes: dict[str, list[int]] = {}
    """Categorical band → classes that are not clear ground (cloud, shadow, cirrus)."""
    cloud_probability: dict[str, float] = {}
    """Band of cloud probabilities → percentage from which a pixel is cloudy. Takes precedence over
    `mask_classes`.
    """
    mask_bits: dict[str, list[int]] = {}
    """Band of bit flags → bits, any of which marks a pixel as not clear ground."""
    classes: dict[int, LandClass] = {}
    """Pixel value → class, for maps and for the classification that comes with images."""
    signing: Literal[
        "none", "planetary-computer", "cdse", "earthdata", "s3", "s3-requester-pays"
    ] = "none"
    """How requests for its files are signed: see `scenebeam.transfer.signing`."""

    @model_validator(mode="before")
    @classmethod
    def _accept_old_names(cls, value: Any) -> Any:
        return accept_old_names(value, {"shift": "add_offset"})

    @model_validator(mode="after")
    def _lower_case_bands(self) -> CollectionRecord:
        wrong = [name for name in self.bands if name != name.lower()]
        if wrong:
            raise ValueError(f"band names must be in lower case: {', '.join(wrong)}")
        named = {
            *self.required,
            *self.default,
            *self.mask_classes,
            *self.cloud_probability,
            *self.mask_bits,
        }
        unknown = sorted(named - self.bands.keys())
        if unknown:
            raise ValueError(f"unknown bands: {', '.join(unknown)}; add them to `bands`")
        return self

    @property
    def default_bands(self) -> list[str]:
        """Bands to use if a request names none."""
        return self.default or self.required or list(self.bands)

    def canonical(self, names: Iterable[str]) -> list[str]:
        """Sort bands by wavelength.

        Args:
            names: Names of bands in this record.

        Returns:
            The names; those without a wavelength come last, in the order of the record.
        """
        order = list(self.bands)

        def sort_key(name: str) -> tuple[bool, float, int]:
            wavelength = self.bands[name].wavelength
            return wavelength is None, wavelength or 0.0, order.index(name)

        return sorted(names, key=sort_key)

    def band_name(self, name: str) -> str | None:
        """Return a band's name in this record.

        Args:
            name: Its name here, the key of its asset, or an alias, in any case.

        Returns:
            The name; None if there is no such band.
        """
        typed = name.lower()
        for known, band in self.bands.items():
            aliases = map(str.lower, band.alias)
            if typed in (known, band.asset.lower(), *aliases):
                return known
        return None

    def band_sensor(self, name: str) -> Literal["optical", "sar"] | None:
        """Return which checks apply to a band.

        Args:
            name: The band.

        Returns:
            The kind of its sensor; None if it has neither reflectance nor backscatter.
        """
        band = self.bands[name]
        # Optical by-products, such as aerosol maps, have no wavelength.
        return None if self.sensor == "optical" and band.wavelength is None else self.sensor

    def may_be_constant(self, name: str) -> bool:
        """Return whether an image of one constant value is valid, as for classes and by-products.

        Args:
            name: The band.
        """
        band = self.bands[name]
        is_byproduct = (
            self.sensor is not None and self.band_sensor(name) is None and band.asset != self.visual
        )
        return band.categorical or band.constant_ok or is_byproduct

    def band_dtype(self, name: str) -> str:
        """Return the NumPy dtype name of a band."""
        return self.bands[name].dtype or self.dtype

    def band_nodata(self, name: str) -> float | None:
        """Return the nodata value of a band; None if every value is data."""
        band_nodata = self.bands[name].nodata
        return self.nodata if band_nodata is None else band_nodata

    def band_add_offset(self, name: str, properties: dict[str, Any]) -> int:
        """Return the offset of a band's pixel values in the files of an item.

        Args:
            name: The band.
            properties: Properties of the item.

        Returns:
            The offset; subtract it from a pixel value for the harmonized value.
        """
        offset = self._offset_of(name)
        return offset.amount if offset is not None and offset.applies_to_item(properties) else 0

    def file_add_offset(self, name: str, scene_id: str, properties: dict[str, Any]) -> int | None:
        """Return the offset of a band's pixel values in a file whose item may be missing.

        Args:
            name: The band.
            scene_id: Id of the scene.
            properties: Properties of the scene's item; empty if there is no item.

        Returns:
            The offset; None if it cannot be decided.
        """
        offset = self._offset_of(name)
        if offset is None:
            return 0
        applies = offset.applies_to_scene(scene_id, properties)
        return None if applies is None else offset.amount * applies

    def is_offset_known(self, name: str, properties: dict[str, Any]) -> bool:
        """Return whether it is known which offset a band's pixel values have in an item's files.

        It is not known if the record states no offset, but the item is of Sentinel-2 and of a
        processing baseline that applies one: its provider may have removed it or not.

        Args:
            name: The band.
            properties: Properties of the item.
        """
        band = self.bands[name]
        if self.add_offset is not None or band.categorical or not band.has_add_offset:
            return True
        sensor = str(properties.get("constellation") or properties.get("platform") or "").lower()
        return not sensor.startswith("sentinel-2") or not _ESA_OFFSET.applies_to_item(properties)

    def _offset_of(self, name: str) -> RadiometricOffset | None:
        """Return the offset that a band may have; None for bands that never have one."""
        band = self.bands[name]
        return self.add_offset if band.has_add_offset and not band.categorical else None

    def band_scale_offset(self, name: str) -> tuple[float, float]:
        """Return the scale and offset from harmonized to physical values of a band.

        Args:
            name: The band.

        Returns:
            Scale and offset; 1 and 0 for categorical bands, which are never scaled.
        """
        band = self.bands[name]
        if band.categorical:
            return 1.0, 0.0
        return (
            self.scale if band.scale is None else band.scale,
            self.offset if band.offset is None else band.offset,
        )
