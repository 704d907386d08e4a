"""Intervals say how sure a price is: they hold it, widen with ignorance, and cover what was published."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import strategies
from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.evidence.published.measurements import load
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.cases import price_cases
from perfmodel.planning.uncertainty import Draws, draw, interval, price_draws
from perfmodel.speculation import Configuration, Drafter, price_round

DATA = Path(__file__).resolve().parents[2]
H100 = HardwareProfile.load("h100-sxm-80gb")
LLAMA = ModelSpec.load("llama-3.1-8b")
SNAPKV = Drafter(strategies.load("snapkv"))
CELL: Configuration = {
    "batch": np.asarray([32.0, 128.0]),
    "context_len": 32_000.0,
    "kv_budget": 2049.0,
    "gamma": 4.0,
}


def worlds(engine: EngineOverhead, seed: int = 0) -> Draws:
    """Possible worlds of eight GPUs under an engine."""
    return draw(Deployment(H100, LLAMA, engine, 8.0), seed=seed)


@pytest.mark.parametrize("engine", ["generic", "magicdec-h100"])
def test_an_interval_holds_the_price(engine: str) -> None:
    overhead = EngineOverhead.load(engine)
    priced = price_round(H100, LLAMA, overhead, SNAPKV, tensor_parallel=8.0, **CELL)
    drawn = price_draws(worlds(overhead), SNAPKV, CELL)
    for sure, unsure in ((priced.tpot, drawn.tpot), (priced.speedup, drawn.speedup)):
        low, high = interval(unsure)
        assert np.all(low < sure)
        assert np.all(sure < high)


def test_the_same_seed_gives_the_same_worlds() -> None:
    engine = EngineOverhead.load("generic")
    first, second, other = (price_draws(worlds(engine, seed), SNAPKV, CELL).tpot for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert np.any(first != other)


def test_plain_decoding_has_speedup_one_in_every_world() -> None:
    drawn = price_draws(worlds(EngineOverhead.load("generic")), None, CELL)
    np.testing.assert_allclose(drawn.speedup, 1.0, rtol=1e-12)


def test_an_engine_calibrated_on_other_hardware_is_less_sure() -> None:
    here = EngineOverhead.load("magicdec-h100")
    elsewhere = replace(here, calibrated_on="a100-sxm-80gb")
    spread = []
    for engine in (here, elsewhere):
        low, high = interval(price_draws(worlds(engine), SNAPKV, CELL).baseline.total)
        spread.append(np.log(high / low))
    assert np.all(spread[1] > spread[0])


def test_where_an_engine_was_calibrated_only_what_its_points_did_not_determine_is_drawn() -> None:
    """The points of vllm-h100 are plain steps: they say nothing of the time of a round."""
    engine = EngineOverhead.load("vllm-h100")
    drawn = worlds(engine).deployment
    assert drawn.hardware is H100
    for path, figure in (("layer", "layer_s"), ("round", "round_s"), ("round_row", "round_row_s")):
        assumed = engine.quantities[path].kind == "assumed"
        assert np.size(getattr(drawn.engine, figure)) == (200 if assumed else 1)


def test_measured_tokens_per_round_leave_no_doubt_about_acceptance() -> None:
    drawn = price_draws(worlds(EngineOverhead.load("generic")), SNAPKV, CELL, tokens_per_round=3.5)
    assert np.unique(drawn.tokens_per_round).tolist() == [3.5]


def test_eighty_percent_intervals_cover_seventy_to_ninety_percent_of_the_published_cells() -> None:
    """MagicDec Tables 1, 3 and 6: target step, draft pass, verification and speedup as printed."""
    tables = ("magicdec-1", "magicdec-3a", "magicdec-3b", "magicdec-3c", "magicdec-6")
    with open(DATA / "perfmodel/data/measurements/magicdec.csv", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["table"] in tables]
    assert len(rows) == len(load(tables))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [*rows[0], "acceptance_rate"], restval="")
    writer.writeheader()
    writer.writerows({**row, "t_target_ms": ""} for row in rows)
    priced = price_cases(stream.getvalue().encode())
    assert not priced.faults
    computed = [dict(zip(priced.columns, row, strict=True)) for row in priced.rows]
    covered: dict[str, list[bool]] = {"t_target": [], "t_draft": [], "t_verify": [], "speedup": []}
    for published, ours in zip(rows, computed, strict=True):
        printed = {
            "t_target": published["t_target_ms"],
            "t_draft": float(published["draft_phase_ms"]) / float(published["gamma"]),
            "t_verify": published["t_verify_ms"],
            "speedup": published["speedup"],
        }
        for name, value in printed.items():
            suffix, rounding = ("", 0.005) if name == "speedup" else ("_ms", 0.0)
            low, high = float(ours[f"{name}_low{suffix}"]), float(ours[f"{name}_high{suffix}"])
            covered[name].append(low - rounding <= float(value) <= high + rounding)
    assert 0.70 <= np.mean(np.concatenate(list(covered.values()))) <= 0.90
    assert 0.70 <= np.mean(covered["speedup"]) <= 0.90
