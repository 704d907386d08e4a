"""Build the source distribution and the wheel such that two builds of one commit are the same bytes."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("perfmodel", "strategies", "hardware_profiles")
PACKED = (*PACKAGES, "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
EARLIEST = 315_532_800
"""1980-01-01, the first time that a wheel can hold. [s since 1970]"""


def build(root: Path, out: Path, epoch: int) -> tuple[Path, Path]:
    """Write the source distribution and the wheel of a tree into a folder; returns both.

    What they hold depends on the content of the files alone: owners, modes, the umask, the folder and the
    time of the build do not count. The wheel is built from the source distribution: no stale file gets in.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        source, again = place / "source", place / "again"
        for name in _files(root):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, source / name)
        sdist = _repacked(_run(source, place / "sdist", "build_sdist", epoch), out, epoch)
        with tarfile.open(sdist) as archive:
            archive.extractall(again, filter="data")
        (unpacked,) = again.iterdir()
        for path in (unpacked, *unpacked.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        wheel = _run(unpacked, place / "wheel", "build_wheel", epoch)
        return sdist, Path(shutil.copyfile(wheel, out / wheel.name))


def commit_time(root: Path) -> int:
    """The time of the last commit, or what SOURCE_DATE_EPOCH says. [s since 1970]"""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return max(int(given), EARLIEST)
    ran = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=root, capture_output=True, text=True)
    return max(int(ran.stdout), EARLIEST) if ran.returncode == 0 else EARLIEST


def _files(root: Path) -> list[str]:
    """The files of the distribution: those that git knows, or where it has none, all."""
    listed = subprocess.run(["git", "ls-files", "-z", *PACKED], cwd=root, capture_output=True, text=True)
    if listed.returncode == 0 and (root / ".git").exists():
        return sorted(name for name in listed.stdout.split("\0") if name)
    paths = [path for name in PACKED for path in (root / name, *(root / name).rglob("*"))]
    there = (path.relative_to(root) for path in paths if path.is_file())
    return sorted(path.as_posix() for path in there if "__pycache__" not in path.parts)


def _run(source: Path, out: Path, step: str, epoch: int) -> Path:
    out.mkdir()
    code = f"from setuptools import build_meta as b; b.{step}({str(out)!r})"
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "PYTHONHASHSEED": "0"}
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=source, env=environment, capture_output=True, text=True, umask=0o022
    )
    if ran.returncode != 0:
        sys.exit(f"{step}: {ran.stderr.strip()}")
    (built,) = out.iterdir()
    return built


def _repacked(archive: Path, out: Path, epoch: int) -> Path:
    """A tar.gz with its members in order, of nobody, with one time and two modes."""
    packed = io.BytesIO()
    with tarfile.open(archive) as old, tarfile.open(fileobj=packed, mode="w") as new:
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    written = out / archive.name
    written.write_bytes(gzip.compress(packed.getvalue(), 9, mtime=0))
    return written


if __name__ == "__main__":
    for built in build(ROOT, ROOT / "dist", commit_time(ROOT)):
        print(built.relative_to(ROOT))
