"""The infrastructure: formatted, valid, and its own tests; with the real provider, or offline with a stand-in of its schema."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import lacking

pytestmark = pytest.mark.cloud
ROOT = Path(__file__).parents[2]
OFFLINE = ROOT.parent / "shared" / "tools" / "terraform-offline"


@pytest.fixture(scope="module")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A copy of the folder that has been initialised, and the environment to run terraform in."""
    if shutil.which("terraform") is None:
        lacking("terraform is not installed: https://developer.hashicorp.com/terraform/install")
    environ = dict(os.environ)
    if OFFLINE.exists():
        told = subprocess.run([OFFLINE], capture_output=True, text=True, check=True).stdout
        environ |= dict(re.findall(r"export (\w+)=(\S+)", told))
    top = tmp_path_factory.mktemp("infra")
    shutil.copytree(ROOT / "infra", top / "infra", ignore=shutil.ignore_patterns(".terraform*"))
    shutil.copytree(ROOT / "docker", top / "docker")
    init = subprocess.run(
        ["terraform", "init", "-input=false", "-backend=false"],
        cwd=top / "infra",
        env=environ,
        capture_output=True,
        text=True,
    )
    assert init.returncode == 0, init.stderr
    return top / "infra", environ


@pytest.mark.parametrize(
    "words", [("fmt", "-check", "-recursive"), ("validate",), ("test",)], ids=lambda words: words[0]
)
def test_terraform(terraform: tuple[Path, dict[str, str]], words: tuple[str, ...]) -> None:
    folder, environ = terraform
    told = subprocess.run(
        ["terraform", *words], cwd=folder, env=environ, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stdout + told.stderr


def test_the_example_is_a_deployment(terraform: tuple[Path, dict[str, str]]) -> None:
    folder, environ = terraform
    for words in (["init", "-input=false", "-backend=false"], ["validate"]):
        told = subprocess.run(
            ["terraform", *words],
            cwd=folder / "examples" / "team",
            env=environ,
            capture_output=True,
            text=True,
        )
        assert told.returncode == 0, told.stdout + told.stderr


def test_the_functions_get_every_setting_that_they_need(
    terraform: tuple[Path, dict[str, str]],
) -> None:
    from scenebeam.cloud.settings import CloudSettings

    text = (terraform[0] / "functions.tf").read_text()
    given = set(re.findall(r"^\s+SCENEBEAM_(\w+)\s+=", text, re.MULTILINE))
    left_to_defaults = {"CLAIM_SECONDS", "LOOKBACK_DAYS", "LAUNCHER", "DATAFLOW_ENDPOINT"}
    assert given == {name.upper() for name in CloudSettings.model_fields} - left_to_defaults
