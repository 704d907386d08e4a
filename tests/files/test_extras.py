"""A missing extra is offered with the command that installs it where this Python runs."""

import json
import os
import shlex
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from perfmodel.files import extras
from perfmodel.files.extras import install_command, missing_extra, packages_of

ROOT = Path(extras.__file__).parents[2]
CHECKOUT = extras._checkout
REQUIRES = [
    "numpy>=1.26", 'plotly>=5.20; extra == "report"', 'pyarrow>=15; extra == "parquet"',
    "thrift>=0.20 ; extra == 'parquet'", 'dask[distributed]>=2024.5; extra == "cluster"',
    'tomli>=2; python_version < "3.11" and extra == "parquet"',
    'draftplan[cluster,parquet,report]; extra == "all"',
]  # fmt: skip


@pytest.fixture
def place(monkeypatch, tmp_path):
    """A Python in a folder of its own, into which a package index's draftplan was installed, with pip."""
    prefix = tmp_path / "somewhere"
    prefix.mkdir()
    settings = SimpleNamespace(
        prefix=prefix, executable=str(prefix / "bin" / "python"), has_pip=True, on_path=(),
        set=lambda **changes: vars(settings).update(changes),
    )
    monkeypatch.setattr(sys, "prefix", str(prefix))
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    monkeypatch.setattr(sys, "executable", settings.executable)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(extras, "find_spec", lambda _: object() if settings.has_pip else None)
    monkeypatch.setattr(
        extras.shutil, "which", lambda name: str(prefix / "bin" / name) if name in settings.on_path else None
    )
    monkeypatch.setattr(extras.metadata, "requires", lambda _: REQUIRES)
    monkeypatch.setattr(extras, "_checkout", lambda: None)
    return settings


def test_an_environment_is_named_by_its_python_unless_that_is_the_one_typed(place):
    assert install_command("report") == f"{place.executable} -m pip install 'draftplan[report]'"
    place.set(on_path=("python",))
    assert install_command("report") == "python -m pip install 'draftplan[report]'"


def test_on_windows_words_stand_in_double_quotes(place, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    place.set(on_path=("python",))
    assert install_command("report") == 'python -m pip install "draftplan[report]"'


def test_pipx_is_given_the_packages(place):
    place.on_path = ("pipx",)
    (place.prefix / "pipx_metadata.json").write_text("{}")
    assert install_command("report") == "pipx inject somewhere 'plotly>=5.20'"
    named = {"main_package": {"package": "draftplan", "suffix": ""}}
    (place.prefix / "pipx_metadata.json").write_text(json.dumps(named))
    assert install_command("parquet") == "pipx inject draftplan 'pyarrow>=15' 'thrift>=0.20' 'tomli>=2'"


def test_a_tool_of_uv_is_installed_with_the_extra(place):
    (place.prefix / "uv-receipt.toml").write_text("[tool]\n")
    assert install_command("all") == "uv tool install 'draftplan[all]'"


def test_an_environment_of_uv_has_no_pip(place):
    place.set(has_pip=False, on_path=("uv",))
    expected = f"uv pip install --python {place.executable} 'draftplan[fast]'"
    assert install_command("fast") == expected
    place.set(on_path=())
    assert install_command("fast").startswith("pip --python ")
    (place.prefix / "pyvenv.cfg").write_text("home = /usr/bin\nuv = 0.9.1\n")
    assert install_command("fast") == expected


def test_conda_is_asked_where_its_environment_has_no_pip(place):
    (place.prefix / "conda-meta").mkdir()
    assert install_command("report").endswith(" -m pip install 'draftplan[report]'")
    place.set(has_pip=False)
    expected = f"conda install --prefix {place.prefix} -c conda-forge 'plotly>=5.20'"
    assert install_command("report") == expected


def test_a_checkout_stays_one(place, monkeypatch):
    monkeypatch.setattr(extras, "_checkout", CHECKOUT)
    assert shlex.split(install_command("report")) == [
        place.executable, "-m", "pip", "install", "--editable", f"{ROOT}[report]"
    ]  # fmt: skip
    place.set(has_pip=False, on_path=("uv",))
    assert shlex.split(install_command("report"))[-2:] == ["--editable", f"{ROOT}[report]"]


def test_without_metadata_the_extra_stands_for_its_packages(place, monkeypatch):
    def absent(_):
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(extras.metadata, "requires", absent)
    assert packages_of("report") == ["draftplan[report]"]
    assert place.has_pip


@pytest.mark.parametrize(
    ("tools", "begins"),
    [(("pipx", "uv"), "pipx install --force"), (("uv",), "uv tool install --force"), ((), None)],
)
def test_a_python_that_its_distribution_manages_is_left_alone(place, monkeypatch, tmp_path, tools, begins):
    monkeypatch.setattr(sys, "base_prefix", str(place.prefix))
    monkeypatch.setattr(extras.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    (tmp_path / "EXTERNALLY-MANAGED").write_text("[externally-managed]\n")
    place.set(on_path=tools)
    begins = begins or f"{place.executable} -m venv {tmp_path}/.draftplan && {tmp_path}/.draftplan/bin/python"
    command = install_command("report")
    assert command.startswith(begins)
    assert command.endswith("'draftplan[report]'")


def test_what_the_extras_of_an_extra_bring_is_listed_once(place):
    assert place.has_pip
    assert packages_of("all") == [
        "dask[distributed]>=2024.5", "pyarrow>=15", "thrift>=0.20", "tomli>=2", "plotly>=5.20",
    ]  # fmt: skip


def test_the_command_is_one_that_a_shell_takes_and_pip_understands(tmp_path):
    """In a real environment without the package: what is offered is the pip of that environment."""
    venv.create(tmp_path / "here", with_pip=False, symlinks=os.name != "nt")
    python = tmp_path / "here" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    code = "from perfmodel.files.extras import install_command as c; print(c('report'))"
    ran = subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": str(python.parent)},
    )  # fmt: skip
    words = shlex.split(ran.stdout)
    assert str(python.parent) in " ".join(words)
    assert words[-1] == f"{ROOT}[report]"


def test_a_refusal_says_what_needs_what_and_the_command(place):
    place.set(on_path=("python",))
    fault = missing_extra("parquet", "pyarrow", file="a.parquet", what="parquet").faults[0]
    assert str(fault) == (
        "a.parquet: parquet needs pyarrow, which is not installed. "
        "`python -m pip install 'draftplan[parquet]'` installs it."
    )


def test_the_packages_of_every_extra_are_those_of_its_metadata():
    try:
        known = metadata.metadata("draftplan").get_all("Provides-Extra")
    except metadata.PackageNotFoundError:
        pytest.skip("draftplan is not installed here")
    for extra in known or ():
        assert packages_of(extra)
        assert not any(package.startswith("draftplan") for package in packages_of(extra))
