"""Fits the engines that ship to what servers took, and anew without each source."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from perfmodel.evidence.servers.fit import fit_servers
from perfmodel.evidence.servers.presets import write_presets
from perfmodel.evidence.servers.rows import published_servers
from perfmodel.evidence.servers.summary import HELD_OUT, figures_without
from perfmodel.files.writing import write_whole

DATA = Path(__file__).resolve().parents[2] / "data"


def _without(source: str) -> list[dict[str, object]]:
    return figures_without(published_servers(), source)


def main() -> None:
    """Write the presets and the held-out figures: minutes on a few cores."""
    rows = published_servers()
    sources = list(dict.fromkeys(row.source for row in rows))
    with ProcessPoolExecutor() as workers:
        everything = workers.submit(fit_servers, rows)
        held_out = dict(zip(sources, workers.map(_without, sources), strict=True))
        write_whole(DATA / "measurements" / HELD_OUT, json.dumps(held_out, indent=1) + "\n")
        write_presets(everything.result(), DATA / "engines")


if __name__ == "__main__":
    main()
