"""Write today's answers and figures into README and docs: ``python -m pages [--check] [PAGE...]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pages.reading import PAGES, name_of
from pages.running import DiffersError, Page, record


def main() -> int:
    """Go through the pages; 1 where one differs and is only checked, or cannot be renewed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*", type=Path, help="all of them where absent")
    parser.add_argument("--check", action="store_true", help="say which differ, and change nothing")
    asked = parser.parse_args()
    failed = 0
    for page in [path.resolve() for path in asked.pages] or PAGES:
        try:
            if asked.check:
                Page(page.read_text(encoding="utf-8")).run()
            elif record(page):
                print(f"renewed {name_of(page)}")
        except (DiffersError, AssertionError) as difference:
            failed = 1
            print(f"{name_of(page)}: {difference}", file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main())
