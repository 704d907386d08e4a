"""What is installed: the wheel holds every file of the three packages, and every version string agrees."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

from perfmodel import __version__

ROOT = Path(__file__).parents[1]
PACKAGES = ("perfmodel", "strategies", "hardware_profiles")
SOURCES = (*PACKAGES, "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy, without network."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-c", f"from setuptools import build_meta as b; b.build_wheel({str(out)!r})"]
    ran = subprocess.run(build, cwd=source, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def metadata(wheel):
    """What the wheel says about itself."""
    with zipfile.ZipFile(wheel) as archive:
        return Parser().parsestr(archive.read(f"draftplan-{__version__}.dist-info/METADATA").decode())


def settings():
    """The contents of setup.cfg."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def names_in(requirements):
    """The names of the packages in lines such as `numpy>=1.26`, in the spelling of constraints.txt."""
    found = (re.match(r"[A-Za-z0-9._-]+", line.strip()) for line in requirements.splitlines())
    return {match.group().lower().replace("_", "-") for match in found if match}


def test_the_wheel_holds_every_file_of_the_three_packages_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    there = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == there
    assert "perfmodel/py.typed" in packed


def test_the_wheel_works_from_any_folder_and_finds_its_data(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import perfmodel, strategies as s; from perfmodel import *; print(perfmodel.__file__);"
        "print(len(HardwareProfile.available()), len(ModelSpec.available()), len(EngineOverhead.available()),"
        " len(s.available()))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    place, counts = ran.stdout.splitlines()
    assert Path(place).is_relative_to(tmp_path)
    assert all(int(count) > 0 for count in counts.split())


def test_the_wheel_says_what_setup_cfg_says(metadata, wheel):
    setup = settings()
    assert metadata["Name"] == setup["metadata"]["name"] == "draftplan"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert set(metadata.get_all("Provides-Extra")) == set(setup["options.extras_require"])
    core = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert names_in("\n".join(core)) == names_in(setup["options"]["install_requires"])
    with zipfile.ZipFile(wheel) as archive:
        entries = archive.read(f"draftplan-{__version__}.dist-info/entry_points.txt").decode()
    assert "draftplan = perfmodel.cli:main" in entries
    assert "[vllm.general_plugins]\ndraftplan = perfmodel.integrations.vllm_plugin:register" in entries


def test_every_version_string_agrees(metadata):
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = re.findall(r"^## \[(\d[^\]]*)\] - (\S+)$", changes, re.MULTILINE)
    assert metadata["Version"] == __version__
    assert citation["version"] == __version__
    assert releases[0] == (__version__, str(citation["date-released"]))


def test_every_dependency_but_torch_is_pinned_and_no_index_is_named():
    setup = settings()
    wanted = names_in(setup["options"]["install_requires"])
    for extra, requirements in setup["options.extras_require"].items():
        wanted |= names_in(requirements) if extra != "reference" else set()
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.match(r"[a-z0-9.-]+==\S+( ; .+)?$", line) for line in pins)
    pinned = {line.partition("==")[0] for line in pins}
    assert wanted - {"draftplan"} <= pinned
    assert not {name for name in pinned if name.startswith(("torch", "nvidia", "triton", "cuda"))}
