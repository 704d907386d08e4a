"""A loaded drafter is not free: plain steps, graphs in pieces and joining prefills are priced."""

import numpy as np
import pytest

import strategies
from perfmodel import Drafter, EngineOverhead, HardwareProfile, ModelSpec, Workload, plan, price_round
from perfmodel.policy import SpeculationPolicy

TARGET = ModelSpec.load("llama-3.1-8b")
HARDWARE = HardwareProfile.load("h100-sxm-80gb")
IDEAL = EngineOverhead.load("ideal")
WINDOW = Drafter(strategies.load("streaming_llm"))
PLACE = {"batch": 16.0, "context_len": 8000.0, "kv_budget": 512.0}


def engine(**figures):
    return IDEAL.with_values(
        {"piecewise_layer" if key == "piecewise" else key: figures[key] for key in figures}
    )


def test_a_plain_step_with_a_drafter_loaded_takes_the_share_longer():
    loaded = price_round(HARDWARE, TARGET, engine(loaded_off=0.2), WINDOW, gamma=0, **PLACE)
    assert loaded.speedup == pytest.approx(1 / 1.2)
    alone = price_round(HARDWARE, TARGET, engine(loaded_off=0.2), None, batch=16.0, context_len=8000.0)
    assert alone.speedup == 1.0


def test_length_zero_is_plain_decoding_where_the_engine_charges_nothing():
    assert price_round(HARDWARE, TARGET, IDEAL, WINDOW, gamma=0, **PLACE).speedup == 1.0


def test_speculated_rounds_do_not_pay_for_steps_that_are_off():
    gammas = np.array([1.0, 4.0])
    free, taxed = (
        price_round(HARDWARE, TARGET, one, WINDOW, gamma=gammas, **PLACE)
        for one in (IDEAL, engine(loaded_off=0.3))
    )
    assert np.allclose(free.round_s, taxed.round_s, rtol=1e-12)


def test_graphs_in_pieces_cost_every_layer_of_every_step():
    gammas = np.array([0.0, 1.0, 4.0])
    free, taxed = (
        price_round(HARDWARE, TARGET, one, WINDOW, gamma=gammas, **PLACE)
        for one in (IDEAL, engine(piecewise=4e-5))
    )
    assert np.allclose(taxed.round_s - free.round_s, 4e-5 * TARGET.num_layers)


def test_they_tax_a_single_stream_more_than_a_batch():
    one = EngineOverhead.load("vllm-v1-h100")
    speedup = price_round(
        HARDWARE,
        TARGET,
        one,
        WINDOW,
        batch=np.array([1.0, 64.0]),
        context_len=4000.0,
        kv_budget=512.0,
        gamma=0,
    ).speedup
    assert speedup[0] < speedup[1] < 1.0


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_discarded_rounds_yield_one_token(share):
    free, cut = (
        price_round(HARDWARE, TARGET, one, WINDOW, gamma=4, alpha=0.8, **PLACE)
        for one in (IDEAL, engine(discarded_rounds=share))
    )
    kept = 1 + (1 - share) * (free.tokens_per_round - 1)
    assert cut.tpot == pytest.approx(free.round_s / kept)


def planned(one, alpha, **options):
    return plan(
        HARDWARE, TARGET, one, Workload([1, 8], [1000, 16000]), drafters=[WINDOW], kv_budgets=[512],
        alpha=alpha, one_deployment=True, **options,
    )  # fmt: skip


def test_a_deployment_that_costs_more_off_than_it_gains_on_is_left_out():
    free, taxed = planned(IDEAL, 0.75), planned(engine(loaded_off=1.5), 0.75)
    assert any(cell.speculates for cell in free.cells)
    assert not all(cell.speculates for cell in free.cells)
    assert not any(cell.speculates for cell in taxed.cells)
    assert all("leave it out" in cell.why for cell in taxed.cells)
    assert all(cell.speedup == 1.0 for cell in taxed.cells)


def test_a_deployment_that_is_kept_prices_its_plain_steps_and_says_so():
    answer = planned(engine(loaded_off=0.03), 0.75)
    off = [cell for cell in answer.cells if not cell.speculates]
    assert off
    assert len(off) < len(answer.cells)
    for cell in off:
        assert cell.speedup == pytest.approx(1 / 1.03)
        assert cell.round_by_gamma_s[0] == pytest.approx(1.03 * cell.baseline_s)
        assert "3.0% longer with the drafter loaded" in cell.why
        assert cell.tpot_low_s <= cell.tpot_s <= cell.tpot_high_s


def test_a_tax_on_plain_steps_never_makes_a_deployment_look_better():
    for alpha in (0.6, 0.75, 0.9):
        free, taxed = planned(IDEAL, alpha, draws=0), planned(engine(loaded_off=0.1), alpha, draws=0)
        for one, other in zip(free.cells, taxed.cells, strict=True):
            assert other.speedup <= one.speedup + 1e-12


def test_the_policy_expects_the_speedup_that_was_planned():
    answer = planned(engine(loaded_off=0.03), 0.75)
    policy = SpeculationPolicy.from_plan(answer, hysteresis=0.0)
    for cell in answer.cells:
        decision = policy.decide(cell.batch_size, cell.batch_size * cell.context_len)
        assert (decision.gamma, decision.expected_speedup) == (cell.gamma, pytest.approx(cell.speedup))
