"""Damaged files, special files and random command lines: none may break the tool or be believed."""

import sys
from pathlib import Path

# The short logs and results that other rooms of the tests keep are the seeds here too.
sys.path += [str(Path(__file__).parents[1] / room) for room in ("acceptance", "benchmarks")]
