"""Take the place where it was made out of a bill of materials, so that it is the same wherever that is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def placeless(bill: dict[str, Any]) -> dict[str, Any]:
    """Return a CycloneDX bill without references to files of the machine that made it."""
    for component in bill.get("components", []):
        references = component.get("externalReferences", [])
        kept = [reference for reference in references if not reference.get("url", "").startswith("file:")]
        if len(kept) < len(references):
            component["externalReferences"] = kept
    return bill


if __name__ == "__main__":
    path = Path(sys.argv[1])
    text = json.dumps(placeless(json.loads(path.read_text(encoding="utf-8"))), indent=2, sort_keys=True)
    path.write_text(f"{text}\n", encoding="utf-8")
