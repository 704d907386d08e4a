"""A log of 40 requests of 50 rounds whose rates spread by .08 around .8."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulated_logs import rounds_csv


@pytest.fixture
def log(tmp_path: Path) -> Path:
    file = tmp_path / "rounds.csv"
    file.write_text(rounds_csv())
    return file
