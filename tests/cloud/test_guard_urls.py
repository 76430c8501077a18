"""No spelling of a URL leads a message out of what a deployment allows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from test_launch import REQUEST

from scenebeam.cloud.guard import authorize, is_below, normal_below
from scenebeam.cloud.settings import CloudSettings
from scenebeam.cloud.urls import UrlError, is_inside, normalize_url
from scenebeam.errors import RequestError
from scenebeam.products.fields.request import FieldsRequest
from scenebeam.request import RunRequest
from scenebeam.request.markers import places_in
from scenebeam.request.product import PRODUCTS, request_model

STAC = "https://stac.example/v1"
CATALOGS = "gs://catalogs/static"
SETTINGS = CloudSettings(
    state="gs://state",
    outputs=("gs://products/runs",),
    requests=("gs://requests",),
    catalogs=("earth-search", STAC, CATALOGS),
)
FIELDS = {
    "kind": "fields",
    "year": 2024,
    "boundaries": "https://data.example/fields.parquet",
    "crop_calendar": "https://data.example/calendar",
}
LANDCOVER = {"kind": "landcover", "aois": "https://data.example/aois.geojson"}


def asked(**changes: Any) -> dict[str, Any]:
    return {**REQUEST, "output": "gs://products/runs/demo", **changes}


def admitted(**changes: Any) -> Any:
    return authorize(json.dumps(asked(**changes)).encode(), SETTINGS)


def refused(**changes: Any) -> str:
    with pytest.raises(RequestError) as caught:
        admitted(**changes)
    return str(caught.value)


def of_fields(**changes: Any) -> dict[str, Any]:
    """Changes of a request that make it one of field chips."""
    product = {key: value for key, value in {**FIELDS, **changes}.items() if value is not None}
    return {"product": product, "dates": [], "area": None}


ESCAPES = [
    f"{STAC}/../evil/catalog.json",
    f"{STAC}/../../evil-bucket/catalog.json",
    f"{STAC}/a/../../evil/catalog.json",
    f"{STAC}/./../evil",
    f"{STAC}/..",
    f"{STAC}/%2e%2e/evil",
    f"{STAC}/%2E./evil",
    f"{STAC}/%252e%252e/evil",
    f"{STAC}/%25252e%25252e/evil",
    f"{STAC}/%25%32%65%25%32%65/evil",
    f"{STAC}/..%2fevil",
    f"{STAC}/..%5cevil",
    f"{STAC}/..\\evil",
    f"{STAC}\\..\\evil",
    f"{STAC}/..;/evil",
    f"{STAC}/..;x=1/evil",
    f"{STAC}/%c0%ae%c0%ae/evil",
    f"{STAC}/.\t./evil",
    f"{STAC}/.\n./evil",
    f"{STAC}/%0d%0aHost:%20evil",
    f"{STAC}/%zz",
    f"{STAC}/a b",
    f"{STAC}/．．/evil",
    f"{STAC}-evil/catalog.json",
    f"{STAC}.evil/catalog.json",
    f"{STAC}1/catalog.json",
    f"{STAC}/#/../evil",
    "https://stac.example/V1/catalog.json",
    "https://stac.example",
    "https://stac.example/",
    "https://stac.example@evil.example/v1/catalog.json",
    "https://stac.example:443@evil.example/v1/catalog.json",
    "https://user@stac.example/v1/catalog.json",
    "https://user:word@stac.example/v1/catalog.json",
    "https://stac.example%40evil.example/v1/catalog.json",
    "https://evil.example#@stac.example/v1/catalog.json",
    "https://evil.example?@stac.example/v1/catalog.json",
    "https://evil.example\\@stac.example/v1/catalog.json",
    "https://stac.example.evil.example/v1/catalog.json",
    "https://stac.example./v1/catalog.json",
    "https://stac.example../v1/catalog.json",
    "https://.stac.example/v1/catalog.json",
    "https://stac.example:8443/v1/catalog.json",
    "https://stac.example:80/v1/catalog.json",
    "https://stac.example:0/v1/catalog.json",
    "https://stac.example:x/v1/catalog.json",
    "https://stac.example:99999/v1/catalog.json",
    "https://stac.example:443:443/v1/catalog.json",
    "https://stac.exa\u006dple\u3002evil/v1/catalog.json",
    "https://\u017ftac.example/v1/catalog.json",
    "https://[stac.example]/v1/catalog.json",
    "https://[::1/v1/catalog.json",
    "https:///v1/catalog.json",
    "https:////stac.example/v1/catalog.json",
    "http://stac.example/v1/catalog.json",
    "ftp://stac.example/v1/catalog.json",
    "gopher://stac.example/v1",
    " https://stac.example/v1/catalog.json",
    "https://stac.example/v1/catalog.json\n",
    "https:/stac.example/v1/catalog.json",
    "//stac.example/v1/catalog.json",
    "gs://catalogs/static/../evil/catalog.json",
    "gs://catalogs/static/../../evil-bucket/catalog.json",
    "gs://catalogs/static/%2e%2e/evil/catalog.json",
    "gs://catalogs/static\\..\\evil/catalog.json",
    "gs://catalogs/static-evil/catalog.json",
    "gs://catalogs-evil/static/catalog.json",
    "gs://catalogs.evil/static/catalog.json",
    "gs://catalogs@evil/static/catalog.json",
    "gs://catalogs:443/static/catalog.json",
    "gs://catalogs/static/catalog.json#/../x",
    "gs://catalogs/static/catalog.json?x=/../x",
    "gs://catalogs./static/catalog.json",
    "gs://catalogs",
    "s3://catalogs/static/catalog.json",
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "file:/etc/passwd",
]


@pytest.mark.parametrize("catalog", ESCAPES)
def test_a_catalog_outside_the_allowed_prefixes_is_refused_in_every_spelling(catalog: str) -> None:
    told = refused(catalog=catalog)
    assert told.startswith("catalog: "), told
    assert "word" not in told, "passwords are not shown"


@pytest.mark.parametrize(
    ("catalog", "normal"),
    [
        (STAC, STAC),
        (f"{STAC}/", f"{STAC}/"),
        ("HTTPS://STAC.Example/v1/search", f"{STAC}/search"),
        ("https://stac.example:443/v1/search", f"{STAC}/search"),
        ("https://stac.example:/v1/search", f"{STAC}/search"),
        ("https://stac.example/%76%31/se%61rch", f"{STAC}/search"),
        ("https://stac.example/other/../v1/./a/../search", f"{STAC}/search"),
        (f"{STAC}/a%c3%a9%20b", f"{STAC}/a%C3%A9%20b"),
        (f"{STAC}/a/..", f"{STAC}/"),
        (f"{STAC}/search?token=a%2fb", f"{STAC}/search?token=a%2Fb"),
        (f"{STAC}?token=x/../y", f"{STAC}?token=x/../y"),
        ("GS://Catalogs/static/catalog.json", f"{CATALOGS}/catalog.json"),
        ("gs://catalogs/static/..x/catalog.json", f"{CATALOGS}/..x/catalog.json"),
        ("earth-search", "earth-search"),
    ],
)
def test_a_catalog_inside_is_admitted_by_its_normal_form(catalog: str, normal: str) -> None:
    assert admitted(catalog=catalog).catalog == normal


def test_a_catalog_that_is_known_but_not_allowed_is_refused() -> None:
    assert "is not one of earth-search" in refused(catalog="cdse")
    assert "is not one of" in refused(catalog="https://earth-search.aws.element84.com/v1")


@pytest.mark.parametrize("spelling", ["https://STAC.example:443/V1/../v1", f"{STAC}/"])
def test_the_prefix_of_a_deployment_is_normalized_too(spelling: str) -> None:
    settings = SETTINGS.model_copy(update={"catalogs": (spelling,)})
    content = json.dumps(asked(catalog=f"{STAC}/search")).encode()
    assert authorize(content, settings).catalog == f"{STAC}/search"
    with pytest.raises(RequestError, match="is not one of"):
        authorize(json.dumps(asked(catalog=f"{STAC}x/search")).encode(), settings)


OUTSIDE_OUTPUTS = [
    "gs://products/runs",
    "gs://products/runs/",
    "gs://products/runs/../x",
    "gs://products/runs/a/../../x",
    "gs://products/runs/%2e%2e/x",
    "gs://products/runs/%252e%252e/x",
    "gs://products/runs\\..\\x",
    "gs://products/runs-evil/x",
    "gs://products-evil/runs/x",
    "gs://evil@products/runs/x",
    "gs://products:443/runs/x",
    "gs://products./runs/x",
    "gs://products/runs/a b",
    "gs://products/runs/x?y",
    "gs://products/runs/x#y",
    "https://products/runs/x",
    "s3://products/runs/x",
]


@pytest.mark.parametrize("output", OUTSIDE_OUTPUTS)
def test_an_output_outside_the_allowed_prefixes_is_refused(output: str) -> None:
    assert "output: " in refused(output=output)
    assert not is_below(output.rstrip("/"), SETTINGS.outputs)


@pytest.mark.parametrize("bucket", [*OUTSIDE_OUTPUTS, "gs://evil", "gs://requests/x"])
def test_raw_assets_are_written_below_the_outputs_alone(bucket: str) -> None:
    product = {"kind": "assets", "gcs": bucket}
    assert "product.gcs" in refused(product=product)
    inside = admitted(product={**product, "gcs": "gs://products/runs/raw"})
    assert inside.product.gcs == "gs://products/runs/raw"


def test_an_output_is_admitted_by_its_normal_form() -> None:
    assert admitted(output="GS://Products/runs/demo").output == "gs://products/runs/demo"
    assert admitted(output="gs://products/runs/demo/").output == "gs://products/runs/demo/"


def named_places() -> list[tuple[str | None, str]]:
    """(kind of the product, dotted name) of every field that names a place, by the models."""
    found: list[tuple[str | None, str]] = [(None, dotted) for dotted, _ in places_in(RunRequest)]
    for kind in PRODUCTS:
        found += [(kind, dotted) for dotted, _ in places_in(request_model(kind), "product.")]
    return found


def test_every_place_is_known() -> None:
    known = {dotted for _, dotted in named_places()}
    assert known == {
        *("catalog", "catalog.time_series", "catalog.root", "area.geojson", "select.table"),
        *("output", "product.chips", "product.boundaries", "product.crop_calendar"),
        *("product.aois", "product.gcs", "product.mask.path", "product.places"),
        *("product.labels.vector", "product.labels.raster"),
    }


def test_no_file_in_a_list_is_one_of_the_worker() -> None:
    labels = [{"name": "a", "vector": "https://x.org/a.gpkg"}, {"name": "b", "raster": "/etc/x"}]
    product = {"kind": "chips", "places": "https://x.org/p.gpkg", "labels": labels}
    assert "a run in the cloud cannot read local files" in refused(product=product)


@pytest.mark.parametrize(("kind", "dotted"), named_places())
@pytest.mark.parametrize("local", ["/etc/passwd", "x.geojson", "~/x", "file:///etc/x", "file:x"])
def test_no_field_names_a_file_of_the_worker(kind: str | None, dotted: str, local: str) -> None:
    *parents, last = dotted.split(".")
    changes: dict[str, Any] = {} if kind is None else {"product": {"kind": kind}}
    holder = changes
    for parent in parents:
        holder = holder.setdefault(parent, {})
    holder[last] = local
    assert "a run in the cloud cannot read local files" in refused(**changes)


@pytest.mark.parametrize("field", ["boundaries", "crop_calendar", "chips", "aois"])
@pytest.mark.parametrize(
    "place",
    [
        "gs://evil/x",
        "gs://requests-evil/x",
        "gs://requests/../evil/x",
        "gs://requests/%2e%2e/evil/x",
        "gs://requests@evil/x",
        "https://user:word@data.example/x",
        "https://data.example@evil.example/x",
        "https://data.example\\@evil.example/x",
        "https://data.example/%252e%252e/x",
        "https://data.example/..%2fx",
        "https://data.example/x#y",
        "http://data.example/x",
        "http://metadata.google.internal/computeMetadata/v1/",
        "https://metadata.google.internal/computeMetadata/v1/",
        "https://metadata/computeMetadata/v1/",
        "https://localhost/x",
        "https://169.254.169.254/x",
        "https://2852039166/x",
        "https://0xa9fea9fe/x",
        "https://169.254.43518/x",
        "https://0251.0376.0251.0376/x",
        "https://0251.0376.0251.0xfe/x",
        "https://[::1]/x",
        "https://[::ffff:169.254.169.254]/x",
        "s3://bucket/x",
        "ftp://data.example/x",
    ],
)
def test_inputs_lie_where_the_deployment_allows(field: str, place: str) -> None:
    if field == "aois":
        told = refused(product={**LANDCOVER, "aois": place}, dates=[], area=None)
    else:
        instead = {"boundaries": None} if field == "chips" else {}
        told = refused(**of_fields(**{**instead, field: place}))
    assert told.startswith(f"product.{field}: ")
    assert "word" not in told


@pytest.mark.parametrize(
    ("place", "normal"),
    [
        ("https://Data.Example:443/a/../fields.parquet", "https://data.example/fields.parquet"),
        ("https://data.example/x.parquet?sig=a%2bb", "https://data.example/x.parquet?sig=a%2Bb"),
        ("gs://requests/my fields.parquet", "gs://requests/my fields.parquet"),
        ("gs://products/runs/earlier/x.parquet", "gs://products/runs/earlier/x.parquet"),
        (f"{STAC}/fields.parquet", f"{STAC}/fields.parquet"),
    ],
)
def test_inputs_inside_are_admitted_by_their_normal_form(place: str, normal: str) -> None:
    assert admitted(**of_fields(boundaries=place)).product.boundaries == normal


def test_inputs_may_be_narrowed_to_prefixes() -> None:
    settings = SETTINGS.model_copy(update={"inputs": ("gs://fields", "https://data.example/open")})

    def admit_boundaries(place: str) -> str | None:
        content = json.dumps(asked(**of_fields(boundaries=place, crop_calendar="gs://fields/c")))
        return cast(FieldsRequest, authorize(content.encode(), settings).product).boundaries

    assert admit_boundaries("gs://fields/a.parquet") == "gs://fields/a.parquet"
    assert admit_boundaries("https://data.example/open/a.parquet")
    for place in ("https://data.example/closed/a", "https://data.example/open/../closed/a"):
        with pytest.raises(RequestError, match=r"product\.boundaries: .* is not below"):
            admit_boundaries(place)


@pytest.mark.parametrize(
    "line",
    [
        "catalog: !!binary L2V0Yy9wYXNzd2Q=",
        "output: !!binary L2V0Yy9wYXNzd2Q=",
        "area: {geojson: !!binary L2V0Yy9wYXNzd2Q=}",
        "select: {table: !!binary L2V0Yy9wYXNzd2Q=}",
        "product: {kind: landcover, aois: !!binary L2V0Yy9wYXNzd2Q=}",
        "product: {kind: fields, year: 2024, boundaries: !!binary L2V0Yy9wYXNzd2Q=, images: none}",
    ],
)
def test_binary_text_is_no_way_around_the_guard(line: str) -> None:
    field = line.partition(":")[0]
    rest = {key: value for key, value in asked().items() if key != field}
    with pytest.raises(RequestError, match="give text, not binary data"):
        authorize(f"{json.dumps(rest)[:-1]},\n {line}}}".encode(), SETTINGS)


@pytest.mark.parametrize(
    "crs",
    ["/etc/x", "https://evil.example/x.prj", "+proj=longlat +nadgrids=/etc/x", "+init=/etc/x:1"],
)
def test_a_crs_names_no_file(crs: str) -> None:
    assert "grid.crs" in refused(grid={"crs": crs, "resolution": 10})


@pytest.mark.parametrize("crs", ["EPSG:32634", "+proj=utm +zone=34", "+proj=merc +nadgrids=@null"])
def test_a_crs_by_its_code_is_admitted(crs: str) -> None:
    assert admitted(grid={"crs": crs, "resolution": 10}).grid.crs == crs


def test_a_reference_is_opened_by_its_normal_form(tmp_path: Path) -> None:
    assert normal_below("GS://Requests/a.yaml", ("gs://requests",)) == "gs://requests/a.yaml"
    assert normal_below("gs://requests/a.yaml", ("GS://requests/",)) == "gs://requests/a.yaml"
    assert normal_below("gs://requests/../x/a.yaml", ("gs://requests",)) is None
    assert normal_below("gs://requests-evil/a.yaml", ("gs://requests",)) is None
    assert normal_below(f"{tmp_path}/a.yaml", (str(tmp_path),)) == f"{tmp_path}/a.yaml"
    assert normal_below(f"{tmp_path}/../a.yaml", (str(tmp_path),)) is None


SEGMENTS = ["", ".", "..", "a", "v1", "V1", "...", "%2e", ".%2E", "%2e%2e", "..;", "a%20b"]
NASTY = ["%252e%252e", "%2f", "..%5c", "\\", "@", "%00", "%c0%ae", "\t", "\u3002"]
HOSTS = [
    *("stac.example", "STAC.example", "stac.example.", "evil.example", "stac.example:443"),
    *("u@stac.example", "stac.example@evil.example", "stac.example.evil.example"),
    *("stac%2eexample", "stac.example:444", "stac.example:"),
]


def spelled(text: str, choices: list[int]) -> str:
    """Another spelling of a path: some of its characters escaped."""
    found = []
    for at, letter in enumerate(text):
        how = choices[at % len(choices)] if choices and letter != "/" else 0
        found.append((letter, f"%{ord(letter):02x}", f"%{ord(letter):02X}")[how])
    return "".join(found)


def resolved(url: str) -> list[str] | None:
    """Segments below the prefix of what the most lenient reader opens; None where it is outside."""
    rest = url.split("://", 1)[1]
    while (decoded := _once(rest)) != rest:
        rest = decoded
    host, _, path = rest.replace("\\", "/").replace(";", "/").partition("/")
    if host.lower().removesuffix(":443") != "stac.example":
        return None
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in (".", ""):
            kept.append(segment)
    return kept[1:] if kept[:1] == ["v1"] else None


def _once(text: str) -> str:
    return unquote(text, errors="replace")


@given(st.sampled_from(HOSTS), st.lists(st.sampled_from([*SEGMENTS, *NASTY]), max_size=7))
@example("stac.example", ["v1", "..", "evil"])
@example("stac.example", ["v1", "%252e%252e", "evil"])
@example("stac.example", ["v1", "", "..", "..", "evil"])
def test_whatever_is_admitted_stays_inside_for_every_reader(host: str, segments: list[str]) -> None:
    url = f"https://{host}/{'/'.join(segments)}"
    try:
        normal = normalize_url(url)
    except UrlError:
        return
    assert normalize_url(normal) == normal, "the normal form is its own"
    if is_inside(normal, STAC):
        assert resolved(normal) is not None, f"{url} is read as {normal}"
        assert normal.startswith(f"{STAC}/") or normal == STAC


@given(
    st.lists(st.text("abcXYZ019-_~", min_size=1, max_size=5), max_size=5),
    st.lists(st.integers(0, 2), max_size=9),
    st.sampled_from(["https", "HTTPS"]),
    st.sampled_from(["stac.example", "Stac.EXAMPLE", "stac.example:443", "stac.example:"]),
    st.lists(st.sampled_from(["./", "x/../", "%2E/", "y/%2e%2e/"]), max_size=3),
)
def test_every_spelling_of_a_url_inside_has_the_one_normal_form(
    names: list[str], choices: list[int], scheme: str, host: str, detours: list[str]
) -> None:
    path = "/".join(["v1", *names])
    url = f"{scheme}://{host}/{''.join(detours)}{spelled(path, choices)}"
    assert normalize_url(url) == f"https://stac.example/{path}"
    assert is_inside(normalize_url(url), STAC)


@given(
    st.lists(st.integers(0, 2), max_size=9),
    st.integers(1, 4),
    st.lists(st.sampled_from(["a", ".", "b"]), max_size=3),
)
def test_any_spelling_that_climbs_out_is_refused(
    choices: list[int],
    extra: int,
    names: list[str],
) -> None:
    """With at least one `..` more than segments, and `evil` at the end, in any mix of escapes."""
    climb = "/".join(["v1", *names, *([".."] * (len(names) + extra)), "evil"])
    told = refused(catalog=f"https://stac.example/{spelled(climb, choices)}")
    assert "is not one of" in told


def test_a_template_of_masks_stays_a_template() -> None:
    mask = {"path": "gs://requests/masks/{id}.tif", "drop": [1]}
    product = {"kind": "mosaic", "bands": ["red"], "mask": mask}
    request = admitted(product=product)
    assert request.product.model_dump()["mask"]["path"] == mask["path"]
