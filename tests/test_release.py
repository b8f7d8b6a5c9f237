"""Wheel and sdist: built, installed without a network into an empty environment, and run."""

import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import jinja2
import numpy
import pytest
import yaml

import openmm_gancl

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*command, **options):
    finished = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def test_the_version_stands_in_one_place():
    """And the citation, which tools read without Python, has the same."""
    assert "version" in PROJECT["dynamic"] and "version" not in PROJECT
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^version: (\S+)$", citation, flags=re.MULTILINE) == [openmm_gancl.__version__]


def test_the_recipe_has_the_dependencies_of_the_package():
    """Each with its least version, by the names that conda-forge has."""
    text = (ROOT / ".ci" / "recipe" / "meta.yaml").read_text()
    recipe = yaml.safe_load(jinja2.Template(text).render(PYTHON="python", python_min="3.11"))
    found = set(recipe["requirements"]["run"]) - {"python >=3.11"}
    names = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
    of_package = [re.fullmatch(r"([\w-]+)(>=\S+)", one).groups() for one in PROJECT["dependencies"]]
    assert found == {f"{names.get(name, name)} {least}" for name, least in of_package}
    assert recipe["package"]["version"] == openmm_gancl.__version__.split(".dev")[0]
    assert PROJECT["scripts"] == dict(entry.split(" = ") for entry in recipe["build"]["entry_points"])


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """By the backend alone, from a copy of what git has, and the wheel from the sdist, as installers do."""
    pytest.importorskip("hatchling", reason="pip install hatchling (extra dev)")
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    tracked = run("git", "ls-files", "-z", cwd=ROOT).split("\0")[:-1]
    for name in tracked:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", dist, cwd=source)
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(source / "unpacked", filter="data")
    (unpacked,) = (source / "unpacked").iterdir()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", dist, cwd=unpacked)
    (wheel,) = dist.glob("*.whl")
    return sdist, wheel


@pytest.mark.slow
def test_what_is_in_them(built):
    sdist, wheel = built
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    needed = {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "docs/conf.py", "tests/conftest.py"}
    assert needed <= names
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"openmm_gancl/systems/alanine_dipeptide_vacuum/card.toml", "openmm_gancl/py.typed"} <= names
    assert not [name for name in names if name.startswith(("tests", "docs", "examples", "systems"))]
    assert wheel.stat().st_size < 2_000_000, wheel.stat().st_size


@pytest.mark.slow
def test_the_wheel_installs_without_a_network_and_runs(built, tmp_path):
    """An empty environment that sees the dependencies of this one, but not this checkout."""
    venv.create(tmp_path / "empty", with_pip=True)
    python = tmp_path / "empty" / "bin" / "python"
    run(python, "-m", "pip", "install", "--no-index", "--no-deps", built[1])
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").strip())
    dependencies = Path(numpy.__file__).parent.parent
    # a line of a .pth file is a folder; its own .pth files, an editable checkout among them, are not read
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    options = {"cwd": tmp_path, "env": {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}}
    where = run(python, "-c", "import openmm_gancl; print(openmm_gancl.__file__)", **options).strip()
    assert Path(where).is_relative_to(site)
    gancl = tmp_path / "empty" / "bin" / "gancl"
    assert openmm_gancl.__version__ in run(gancl, "--version", **options)
    assert "alanine_dipeptide_vacuum" in run(gancl, "systems", **options)
    run(gancl, "run", "double_well_oscillators", "-o", "run", "--preset", "quick", **options)
    assert (tmp_path / "run" / "fes.npz").is_file()
