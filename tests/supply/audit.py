"""Ask pip-audit for known weaknesses of every pin; exit 0 for none, 1 for some, 3 where it has no answer."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
NONE, SOME, NOT_ASKED = 0, 1, 3


def rounds(text: str) -> list[list[str]]:
    """The pins without their conditions, in lists that name no package twice, as pip-audit wants."""
    versions: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9.-]+)==([^\s;]+)", text, re.MULTILINE):
        versions.setdefault(name, []).append(version)
    deepest = max(map(len, versions.values()), default=0)
    return [[f"{name}=={known[place]}" for name, known in versions.items() if place < len(known)]
            for place in range(deepest)]  # fmt: skip


def main() -> int:
    """Ask once for each list; an answer that is missing is not taken for a good one."""
    weak, asked = [], 0
    for pins in rounds(CONSTRAINTS.read_text(encoding="utf-8")):
        with tempfile.TemporaryDirectory() as scratch:
            listed, answer = Path(scratch, "pins.txt"), Path(scratch, "answer.json")
            listed.write_text("\n".join(pins) + "\n", encoding="utf-8")
            ran = subprocess.run(
                [
                    sys.executable, "-m", "pip_audit", "--requirement", str(listed), "--no-deps",
                    "--disable-pip", "--format", "json", "--output", str(answer), "--progress-spinner", "off",
                ],
                capture_output=True, text=True,
            )  # fmt: skip
            try:
                packages = json.loads(answer.read_text(encoding="utf-8"))["dependencies"]
            except (OSError, ValueError, KeyError):
                lines = ran.stderr.strip().splitlines() or [f"exit {ran.returncode}"]
                print(f"audit: known weaknesses could not be asked for: {lines[-1][:200]}", file=sys.stderr)
                return NOT_ASKED
        asked += len(packages)
        for package in packages:
            if "skip_reason" in package:
                print(f"audit: {package['name']}: {package['skip_reason']}", file=sys.stderr)
                return NOT_ASKED
            for weakness in package["vulns"]:
                mended = ", ".join(weakness["fix_versions"]) or "no version"
                weak.append(f"{package['name']} {package['version']}: {weakness['id']}, mended in {mended}")
    print("\n".join([*weak, f"audit: {asked} pins, {len(weak)} known weaknesses"]))
    return SOME if weak else NONE


if __name__ == "__main__":
    sys.exit(main())
