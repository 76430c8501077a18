from __future__ import annotations

import pytest

from scenebeam.catalog.item_reader import scene_from_item
from scenebeam.collections import CollectionRecord, known_records
from scenebeam.collections.record import RadiometricOffset
from scenebeam.imaging.bands import declared_values

SENTINEL_2 = [
    record
    for record in known_records()
    if record.id.startswith("sentinel-2") and "l2a" in record.id
]
LANDSAT = [record for record in known_records() if record.id == "landsat-c2-l2"]


@pytest.mark.parametrize("record", LANDSAT, ids=lambda r: r.provider)
def test_landsat_has_names_of_its_own(record: CollectionRecord) -> None:
    assert {record.band_name(name) for name in ("nir", "NIR08", "B5", "SR_B5")} == {"nir08"}
    assert record.band_scale_offset("red") == (0.0000275, -0.2)
    assert (record.band_nodata("red"), record.band_nodata("qa_pixel")) == (0, 1)
    assert record.bands["qa_pixel"].categorical
    assert record.signing == {"earth-search": "s3-requester-pays"}.get(
        record.provider, record.provider
    )


@pytest.mark.parametrize("record", SENTINEL_2, ids=lambda r: f"{r.provider}-{r.id}")
def test_a_sensor_name_in_any_case_is_a_band(record: CollectionRecord) -> None:
    assert {record.band_name(name) for name in ("red", "RED", "B04", "b04")} == {"red"}
    assert record.band_name("thermal") is None
    assert record.bands["scl"].categorical
    assert record.band_dtype("scl") == "uint8"
    assert record.band_scale_offset("scl") == (1.0, 0.0)


def test_every_sensor_says_what_it_needs() -> None:
    for record in known_records():
        assert record.required, record.id
        maps = {"elevation", "land_cover"} & record.bands.keys()
        assert record.sensor == (None if maps else "sar" if "vv" in record.bands else "optical")
        # Fmask is a map of classes at DEA, and bits elsewhere.
        maps_of_classes = {"land_cover", "scl"} | ({"fmask"} if record.provider == "dea" else set())
        assert bool(record.classes) == bool(maps_of_classes & record.bands.keys())
        assert (record.unit is not None) == (record.sensor == "sar")
        assert record.default_bands == record.canonical(record.default_bands)
    l1c = of("earth-search", "sentinel-2-l1c")
    assert l1c.default_bands == ["blue", "green", "red", "nir", "swir16", "swir22"]
    assert l1c.band_add_offset("red", {"s2:processing_baseline": "04.00"}) == 1000
    assert of("planetary-computer", "sentinel-1-rtc").default_bands == ["vv", "vh"]


def of(provider: str, collection: str = "sentinel-2-l2a") -> CollectionRecord:
    return next(r for r in known_records() if (r.provider, r.id) == (provider, collection))


@pytest.mark.parametrize(
    ("record", "properties", "add_offset"),
    [
        # One scene as four hosts serve it: the date never decides.
        (
            of("earth-search"),
            {"s2:processing_baseline": "05.11", "earthsearch:boa_offset_applied": True},
            0,
        ),
        (
            of("earth-search"),
            {"s2:processing_baseline": "05.11", "earthsearch:boa_offset_applied": False},
            1000,
        ),
        (
            of("earth-search"),
            {"s2:processing_baseline": "02.14", "earthsearch:boa_offset_applied": False},
            0,
        ),
        (of("earth-search", "sentinel-2-c1-l2a"), {"s2:processing_baseline": "05.11"}, 1000),
        (of("planetary-computer"), {"s2:processing_baseline": "05.11"}, 1000),
        (of("planetary-computer"), {"s2:processing_baseline": "02.12"}, 0),
        (of("cdse"), {"processing:version": "05.12"}, 1000),
    ],
)
def test_the_offset_goes_by_provider_collection_and_item(
    record: CollectionRecord, properties: dict, add_offset: int
) -> None:
    assert record.band_add_offset("red", properties) == add_offset
    assert record.band_add_offset("scl", properties) == 0
    assert record.band_add_offset("visual_red", properties) == 0


@pytest.mark.parametrize(
    "record",
    [record for record in known_records() if record.add_offset is not None],
    ids=lambda r: f"{r.provider}-{r.id}",
)
def test_a_product_id_tells_the_baseline_where_no_item_does(record: CollectionRecord) -> None:
    def product(baseline: str) -> str:
        return f"S2B_MSIL2A_20230202T092109_N{baseline}_R093_T34TFL_20240815T155145"

    found = {
        name: record.file_add_offset("red", product(name), {}) for name in ("0510", "0400", "0301")
    }
    assert found == {"0510": 1000, "0400": 1000, "0301": 0}
    assert record.file_add_offset("red", product("9999"), {}) is None
    assert record.file_add_offset("red", "S2A_34TGL_20230202_0_L2A", {}) is None
    assert record.file_add_offset("red", product("0510"), {"s2:processing_baseline": "02.14"}) == 0
    for band in record.bands:
        if record.bands[band].categorical or not record.bands[band].has_add_offset:
            assert record.file_add_offset(band, "S2A_34TGL_20230202_0_L2A", {}) == 0


@pytest.mark.parametrize(
    ("properties", "known"),
    [
        ({"platform": "sentinel-2a", "s2:processing_baseline": "04.00"}, False),
        ({"constellation": "sentinel-2", "processing:version": "05.11"}, False),
        ({"constellation": "Sentinel-2", "s2:processing_baseline": "05.11"}, False),
        ({"platform": "sentinel-2a", "s2:processing_baseline": "03.01"}, True),
        ({"platform": "landsat-8", "processing:version": "05.11"}, True),
        (
            {"platform": "sentinel-2b", "s2:processing_baseline": "05.11",
             "earthsearch:boa_offset_applied": True},
            True,
        ),
    ],
)  # fmt: skip
def test_a_record_that_says_nothing_of_the_offset_leaves_it_unknown(
    properties: dict, known: bool
) -> None:
    """A record of one's own for Sentinel-2 would give values 1000 too high, called harmonized."""
    bands = {"red": {"asset": "B04", "resolution": 10}, "scl": {"asset": "SCL", "resolution": 20, "categorical": True}}  # fmt: skip
    record = CollectionRecord(id="mine", dtype="uint16", nodata=0, bands=bands)
    item = {
        "id": "S2A_1", "geometry": None,
        "properties": {"datetime": "2023-06-01T09:00:00Z", **properties},
        "assets": {"B04": {"href": "/b04.tif"}, "SCL": {"href": "/scl.tif"}},
    }  # fmt: skip
    scene = scene_from_item(item, record, base="/")
    assert scene.assets["red"].add_offset_known is known
    assert declared_values("harmonized", [scene], ["red"]) == ("harmonized" if known else "unknown")
    assert declared_values("raw", [scene], ["red"]) == "raw"
    assert scene.assets["scl"].add_offset_known
    stated = record.model_copy(
        update={"add_offset": RadiometricOffset(amount=0, applied_when={"s2:processing_baseline": "04.00"})}
    )  # fmt: skip
    assert scene_from_item(item, stated, base="/").assets["red"].add_offset_known


@pytest.mark.parametrize("pattern", ["(", "N\\d{4}"])
def test_an_id_pattern_that_cannot_tell_anything_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="regular expression|no group"):
        RadiometricOffset(amount=1000, applied_when={"x": "1"}, id_pattern=pattern)
