"""The package: what is in the wheel, how it reads on an index, and that it works where it is installed alone."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import nbformat
import pytest

from scenebeam.extras import MissingExtraError, import_extra

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("/METADATA")]
        return message_from_bytes(archive.read(name))


def test_the_wheel_has_types_records_pages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for name in (
        "py.typed", "collections/earth-search.sentinel-2-l2a.yaml", "report/templates/report.js", "figures/world.json",
        "figures/templates/figure.html", "cloud/pages/runs.html",
    ):  # fmt: skip
        assert f"scenebeam/{name}" in names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"scenebeam"}
    assert wheel.stat().st_size < 2_000_000


def test_the_readme_reads_on_an_index(metadata: Message) -> None:
    text = metadata.get_payload()
    assert isinstance(text, str)
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 20
    assert [link for link in links if not re.match(r"https://|#", link)] == []
    assert any(link.endswith(".webp") and "raw.githubusercontent.com" in link for link in links)
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert {url.partition(",")[0] for url in metadata.get_all("Project-URL", [])} >= {
        "Source",
        "Issues",
        "Documentation",
    }


def test_what_few_need_is_an_extra() -> None:
    core = {re.split(r"[><=\[]", name)[0].lower() for name in PROJECT["dependencies"]}
    assert not core & {
        "rustac",
        "pandas",
        "xarray",
        "odc-geo",
        "botocore",
        "pyogrio",
        "planetary-computer",
    }
    code = "import scenebeam.api, scenebeam.cli, sys; print(sorted({'pandas', 'xarray', 'botocore', 'pyogrio', 'planetary_computer'} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "extra", ["aws", "planetary-computer", "vector", "notebook", "dataflow", "functions"]
)
def test_extras_exist_and_are_described(extra: str) -> None:
    assert PROJECT["optional-dependencies"][extra]
    if extra != "functions":  # for deployments only
        assert f"'.[{extra}]'" in (ROOT / "docs/getting-started.md").read_text()


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert import_extra("json.decoder", "none", "this").JSONDecodeError
    with pytest.raises(
        MissingExtraError,
        match=r"reading this needs the package nothing_of_this_name: .* with its extra 'vector'",
    ):
        import_extra("nothing_of_this_name.raw", "vector", "reading this")
    monkeypatch.setitem(sys.modules, "xarray", None)
    import scenebeam

    with pytest.raises(MissingExtraError, match="with its extra 'zarr'"):
        scenebeam.open("somewhere")


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", sorted((ROOT / "docs/notebooks").glob("*.ipynb")), ids=lambda path: path.stem
)
def test_notebooks_run_and_are_those_of_the_script(path: Path, tmp_path: Path) -> None:
    sys.path.insert(0, str(path.parent))
    try:
        import make  # type: ignore[import-not-found,unused-ignore]
    finally:
        sys.path.pop(0)
    stored = nbformat.read(path, as_version=4)
    fresh = make.build(make.NOTEBOOKS[path.stem])
    assert [cell.source for cell in stored.cells] == [cell.source for cell in fresh.cells]
    make.execute(fresh, tmp_path)
    for cell in fresh.cells:
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr", output


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tutorial_runs_where_the_wheel_is_installed_alone(wheel: Path, tmp_path: Path) -> None:
    """With the extra that the tutorial names, in an environment of its own."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    versions = []
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if re.match(r"[a-z0-9].*==", line):
            versions.append(line.removesuffix("\\").strip())
    (tmp_path / "constraints.txt").write_text("\n".join(versions))
    install = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--constraint",
        str(tmp_path / "constraints.txt"),
    ]
    subprocess.run([*install, f"scenebeam[notebook] @ {wheel.as_uri()}"], check=True, timeout=600)
    blocks = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/tutorial.md").read_text(), flags=re.DOTALL
    )
    (tmp_path / "tutorial.py").write_text("\n".join(blocks))
    (tmp_path / "empty").mkdir()
    done = subprocess.run(
        [python, str(tmp_path / "tutorial.py")], cwd=tmp_path / "empty", capture_output=True, text=True, timeout=200
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "succeeded 2 of 2" in done.stdout
    told = subprocess.run(
        [str(tmp_path / "venv/bin/scenebeam"), "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert PROJECT["version"] in told.stdout
