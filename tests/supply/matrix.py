"""Run the tests on every supported Python, each in an environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
PYTEST = os.environ.get("MATRIX_PYTEST", "-n 2 --dist worksteal").split()


def main(versions: list[str]) -> int:
    """Print one line for each Python; 0 when all pass, 1 when one failed or is missing."""
    outcomes = {}
    for version in versions or VERSIONS:
        began = time.monotonic()
        print(f"matrix: Python {version} ...", file=sys.stderr, flush=True)
        outcomes[version] = (tried(version, ROOT / "build" / "matrix" / version), time.monotonic() - began)
    print("| Python | outcome | seconds |\n|---|---|---|")
    for version, (outcome, seconds) in outcomes.items():
        print(f"| {version} | {outcome} | {seconds:.0f} |")
    return 0 if all(outcome.startswith("passed") for outcome, _ in outcomes.values()) else 1


def tried(version: str, place: Path) -> str:
    """Make an environment with everything that the tests need, run them, and say how that went."""
    uv, python = shutil.which("uv"), place / "bin" / "python"
    log = place.with_name(f"{version}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    known = interpreter(version)
    if uv:
        make = [uv, "venv", "--quiet", "--allow-existing", "--python", known or version, str(place)]
        install = [uv, "pip", "install", "--quiet", "--python", str(python)]
    else:
        if known is None:
            return "missing: no such interpreter, and no uv to bring one"
        make = [known, "-m", "venv", str(place)]
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    needs = ["--constraint", "constraints.txt", "--editable", ".[test,cluster,parquet]"]
    with log.open("w", encoding="utf-8") as out:
        if subprocess.run(make, cwd=ROOT, stdout=out, stderr=out).returncode != 0:
            return f"missing: the interpreter cannot be had, see {log.relative_to(ROOT)}"
        if subprocess.run([*install, *needs], cwd=ROOT, stdout=out, stderr=out).returncode != 0:
            return f"failed: its dependencies cannot be installed, see {log.relative_to(ROOT)}"
        ran = subprocess.run([str(python), "-m", "pytest", "-q", *PYTEST], cwd=ROOT, stdout=out, stderr=out)
    last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1].strip("= ")
    return f"{'passed' if ran.returncode == 0 else 'failed'}: {last}"


def interpreter(version: str) -> str | None:
    """A Python of a version that can be started: on PATH, or where pyenv keeps it."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    kept = [str(path) for path in sorted(versions.glob(f"{version}.*/bin/python"))]
    for candidate in (shutil.which(f"python{version}"), *kept):
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
            return candidate
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
