"""Small faults of first contact: refusals in words, names, sizes of what is printed, configurations that stand alone."""

from __future__ import annotations

import csv
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from click.testing import CliRunner

import scenebeam
from scenebeam.cli import main
from scenebeam.errors import CatalogError, RequestError
from scenebeam.execution.driver import run
from scenebeam.imaging.virtual import write_vrts
from scenebeam.planning.search import make_plan
from scenebeam.products import product_of
from scenebeam.raster.checks import BandSpec, check_band
from scenebeam.raster.sample import sample_pieces
from scenebeam.report.facts import Measure, gather
from scenebeam.report.render import _worst
from scenebeam.request import Checks, Limits, RunRequest
from scenebeam.requestfile import load_request
from scenebeam.sandbox.server import Fault, SandboxServer
from scenebeam.storage import open_store

Make = Callable[..., RunRequest]
CONFIG = Path(__file__).parents[2] / "config"


@pytest.mark.parametrize(
    ("status", "hint"), [(401, "account"), (403, "may not search"), (404, "root of the API")]
)
def test_a_catalog_that_refuses_is_told_with_a_hint(
    make_request: Make, server: SandboxServer, status: int, hint: str
) -> None:
    server.faults = [Fault("catalog.json", status=status)]
    with pytest.raises(CatalogError, match=rf"refused the search: status {status}.*{hint}"):
        make_plan(make_request(catalog=f"{server.url}/catalog.json"))


def test_bands_of_an_index_have_their_names_in_its_vrt(make_request: Make, tmp_path: Path) -> None:
    plan = make_plan(make_request(dates="2021", product={"kind": "index", "index": "ndvi"}))
    write_vrts(plan.tasks, tmp_path / "vrt", Limits())
    (path,) = [path for path in (tmp_path / "vrt").glob("*.vrt") if "warped" not in path.name]
    with rasterio.open(path) as file:
        assert set(file.descriptions) == {"nir", "red", "scl"}


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("product.upload_to_gcs", "true", "product.raw_storage_mode"),
        ("product.delete_local_after_upload", "true", "url_to_gcs_drop_local"),
        ("product.gcs_bucket", "b", "product.gcs"),
        ("product.gcs_prefix", "p", "product.gcs"),
    ],
)
def test_keys_of_another_tool_lead_to_ours(
    make_request: Make, tmp_path: Path, key: str, value: str, told: str
) -> None:
    file = tmp_path / "request.json"
    file.write_text(make_request(product={"kind": "assets"}).model_dump_json())
    refused = CliRunner().invoke(main, ["plan", str(file), "--set", f"{key}={value}"])
    assert refused.exit_code == 2
    assert f"say it with {told}" in refused.output or told in refused.output


def test_a_selection_is_printed_in_one_line(make_request: Make) -> None:
    request = make_request()
    selection = scenebeam.select(scenebeam.search(request), request)
    assert len(repr(selection)) < 300
    assert "2 acquisitions, 6 scenes" in repr(selection)


def test_the_cloudiest_are_shown_and_the_least_of_all_else() -> None:
    names = [f"p{number}" for number in range(30)]
    values = [float(number) for number in range(30)]
    assert [name for _, name in _worst(Measure("Cloud", "%", values, names))] == names[:19:-1]
    assert [name for _, name in _worst(Measure("Coverage", "%", values, names))] == names[:10]


def test_types_are_for_others_too() -> None:
    assert files("scenebeam").joinpath("py.typed").is_file()


@pytest.mark.parametrize("path", sorted(CONFIG.glob("*.yaml")), ids=lambda path: path.stem)
def test_configurations_name_files_that_are_here(path: Path) -> None:
    request, _ = load_request(path, overrides={"output": "out"})
    product = yaml.safe_load(path.read_text())["product"]
    for name in ("boundaries", "aois", "chips", "crop_calendar"):
        if product.get(name):
            assert (path.parent / product[name]).exists(), name
    assert request.run


def test_the_example_fields_give_chips(tmp_path: Path) -> None:
    overrides = {"output": str(tmp_path / "out"), "product.images": "none", "runner": "serial"}
    request, _ = load_request(CONFIG / "fields-austria.yaml", overrides=overrides)
    status = run(request)
    assert status.state == "succeeded"
    assert len(list((tmp_path / "out").glob("ftw-*/*_instance.tif"))) > 3


def test_an_optional_band_that_is_missing_is_no_warning(
    make_request: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import json

    catalog = json.loads(Path(str(make_request().catalog)).read_text())
    for feature in catalog["features"]:
        feature["assets"]["nir"]["href"] = str(tmp_path / "gone.tif")
    (tmp_path / "catalog.json").write_text(json.dumps(catalog))
    product = {"kind": "stack", "bands": ["red", "nir"], "required": ["red"], "format": "geotiff"}
    run(make_request(catalog=str(tmp_path / "catalog.json"), product=product))
    assert not [
        record
        for record in caplog.records
        if record.levelname == "WARNING" and "nir" in record.message
    ]


def test_an_unknown_output_scheme_is_refused_in_the_request(make_request: Make) -> None:
    with pytest.raises(RequestError, match="s3:// is not writable"):
        make_request(output="s3://bucket/x")


def test_zero_power_is_no_data() -> None:
    rng = np.random.default_rng(3)
    power = rng.gamma(4, 0.02, (400, 400))
    power[:240] = 0
    spec = BandSpec(sensor="sar", unit="linear")
    sample = sample_pieces([power], None)
    (finding,) = [one for one in check_band("vv", sample, spec, Checks()) if one.check == "nodata"]
    assert "60.0 % is nodata" in finding.message
    assert not [
        one
        for one in check_band("vv", sample_pieces([power[240:]], None), spec, Checks())
        if one.level == "error"
    ]


def test_scenes_of_chips_that_none_is_of_are_not_told_as_taken(fields_request: Make) -> None:
    request = fields_request(**{"product.images": "select"})
    status = run(request)
    store = open_store(request.output)
    facts = gather(status, "items.parquet", product_of("fields").page, store.list(), store)
    with (Path(request.output) / "chips_status.csv").open(newline="") as file:
        used = {row["scene"] for row in csv.DictReader(file)} - {""}
    assert {scene.id for scene in facts.scenes if scene.selected} == used
    assert len(used) < len(facts.scenes)
