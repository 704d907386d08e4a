"""Ask again and hold the new answers: `python -m golden` in tests/, with names for some of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from golden.capabilities import compare, snapshot
from golden.questions import QUESTIONS, ask, differences

ANSWERS = Path(__file__).with_name("answers.json")
CAPABILITIES = Path(__file__).with_name("capabilities.json")


def write(path: Path, body: object) -> None:
    """Write JSON, one value a line where that is short."""
    path.write_text(json.dumps(body, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")


def main(names: list[str]) -> None:
    """Hold new answers, or with `capabilities` and `compare` what can be called."""
    if names == ["capabilities"]:
        write(CAPABILITIES, snapshot())
        return
    if names == ["compare"]:
        held = json.loads(CAPABILITIES.read_text(encoding="utf-8"))
        for kind, (kept, all_of_them, lost) in compare(held, snapshot()).items():
            print(f"{kind}: {kept} of {all_of_them}; lost: {', '.join(lost) or 'none'}")
        return
    held = json.loads(ANSWERS.read_text(encoding="utf-8")) if ANSWERS.exists() else {}
    for name in names or QUESTIONS:
        answer = ask(name)
        for line in differences(held.get(name), answer) if name in held else ("is new",):
            print(f"{name}: {line}")
        held[name] = answer
    write(ANSWERS, {name: held[name] for name in QUESTIONS})


main(sys.argv[1:])
