"""The images' recipes: linted, locked, and with all in them that is imported."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scenebeam.cloud.settings import CloudSettings

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", path.read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", ["worker", "functions"])
def test_hadolint_finds_nothing(name: str) -> None:
    told = subprocess.run(
        [BIN / "hadolint", ROOT / f"docker/{name}.Dockerfile"], capture_output=True, text=True
    )
    assert (told.returncode, told.stdout) == (0, "")


def test_the_workers_beam_is_the_one_that_is_installed() -> None:
    image = re.search(
        r"apache/beam_python3.11_sdk:(\S+) AS", (ROOT / "docker/worker.Dockerfile").read_text()
    )
    assert image is not None
    assert image[1] == pins(ROOT / "docker/worker.lock")["apache-beam"]


@pytest.mark.parametrize("path", ["docker/worker.lock", "functions/requirements.lock"])
def test_images_hold_the_versions_that_are_tested(path: str) -> None:
    tested = pins(ROOT / "requirements.lock")
    assert {name: tested.get(name) for name in pins(ROOT / path)} == pins(ROOT / path)
    assert "index-url" not in (ROOT / path).read_text()


def test_functions_import_nothing_that_their_image_has_not() -> None:
    """Each module that is loaded, up to the clients that a first event loads, belongs to a locked distribution."""
    code = """
import importlib.metadata as m, json, sys
sys.path.insert(0, 'functions')
import main
import scenebeam.storage.gcs, scenebeam.cloud.launchers, scenebeam.cloud.jobs, scenebeam.cloud.topics
import google.cloud.dataflow_v1beta3
owners = m.packages_distributions()
tops = {name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)
print(json.dumps(sorted({d for top in tops for d in owners.get(top, [])})))
"""
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = {name.lower().replace("_", "-") for name in json.loads(told.stdout)}
    assert {"google-cloud-storage", "google-cloud-pubsub", "google-cloud-dataflow-client"} <= loaded
    assert not loaded & {
        "apache-beam",
        "numpy",
        "rasterio",
        "shapely",
        "pyarrow",
        "pyproj",
        "odc-geo",
    }


def test_the_template_asks_for_a_request_in_a_bucket() -> None:
    parameter, *others = json.loads((ROOT / "docker/metadata.json").read_text())["parameters"]
    assert parameter["name"] == "request"
    assert {one["name"]: one["isOptional"] for one in others} == {
        "run": True,
        "progress_topic": True,
    }
    assert re.match(parameter["regexes"][0], "gs://state/runs/x/request.json")
    assert not re.match(parameter["regexes"][0], "/etc/passwd")


def test_the_cloud_of_containers_is_set_up_as_the_functions_want_it() -> None:
    document = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
    services = document["services"]
    settings = [
        CloudSettings.from_environment(services[target]["environment"])
        for target in ("launch", "report", "status")
    ]
    assert settings[0] == settings[1] == settings[2]
    known = {f"SCENEBEAM_{name.upper()}" for name in CloudSettings.model_fields}
    for name, service in services.items():
        given = {one for one in service.get("environment", {}) if one.startswith("SCENEBEAM_")}
        assert given <= known, name
        assert set(service.get("depends_on", [])) <= set(services)
        for volume in service.get("volumes", []):
            assert (ROOT / "docker" / volume.split(":")[0]).is_dir()
        for word in service.get("entrypoint", []):
            assert not word.startswith("/tests/") or (ROOT / word[1:]).is_file()
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file()
