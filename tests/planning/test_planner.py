"""The planner: its answer is the best there is, and nothing that is allowed is passed over."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strategies
from perfmodel.acceptance import Acceptance
from perfmodel.engine import EngineOverhead
from perfmodel.errors import InfeasibleError, SpecError
from perfmodel.hardware import HardwareProfile
from perfmodel.memory import largest_batch
from perfmodel.model import ModelSpec
from perfmodel.planning.plan import Cell, Plan
from perfmodel.planning.planner import Constraints, default_drafters, plan
from perfmodel.planning.price import split
from perfmodel.speculation import Drafter, price_round
from perfmodel.workload import Workload

H100, L40S = HardwareProfile.load("h100-sxm-80gb"), HardwareProfile.load("l40s-48gb")
ENGINE = replace(EngineOverhead.load("magicdec-h100"), software="")  # whatever it may run
LLAMA, SMALL = ModelSpec.load("llama-3.1-8b"), ModelSpec.load("llama-3.2-1b")
NAMES = ("streaming_llm", "snapkv", "quest", "layer_skip", "ngram", "eagle")
DRAFTERS = [Drafter(strategies.load(name)) for name in NAMES] + [Drafter(strategies.load("full_kv"), SMALL)]
CALLED = {drafter.label: drafter for drafter in DRAFTERS}

EXACT = Constraints(near_tie=0.0)
workloads = st.builds(
    Workload,
    st.lists(st.integers(1, 300), min_size=1, max_size=2),
    st.lists(st.integers(1000, 150_000), min_size=1, max_size=2),
)
searches = st.fixed_dictionaries(
    {
        "drafters": st.lists(st.sampled_from(list(CALLED)), min_size=1, max_size=3, unique=True).map(
            lambda labels: [CALLED[label] for label in labels]
        ),
        "kv_budgets": st.lists(st.sampled_from([64, 512, 2048, 8192]), min_size=1, max_size=2, unique=True),
        "gammas": st.lists(st.integers(1, 8), min_size=1, max_size=3, unique=True),
        "alpha": st.one_of(st.none(), st.floats(0.3, 1.0)),
    }
)


def recommend(workload: Workload, *, constraints: Constraints = EXACT, **request) -> Plan:
    """A plan for Llama-3.1-8B on one H100, without intervals."""
    return plan(H100, LLAMA, ENGINE, workload, **{"constraints": constraints, "draws": 0, **request})


def brute_force(cell: tuple[int, int], search: dict, tpot: float = np.inf) -> float:
    """Seconds per token of the best allowed configuration, one scalar call of `price_round` at a time."""
    batch, context_len = map(float, cell)
    found = [price_round(H100, LLAMA, ENGINE, None, batch=batch, context_len=context_len)]
    for drafter, gamma in product(search["drafters"], search["gammas"]):
        budgets = search["kv_budgets"] if drafter.strategy.default_budgets else [np.inf]
        found += [
            price_round(
                H100,
                LLAMA,
                ENGINE,
                drafter,
                batch=batch,
                context_len=context_len,
                kv_budget=float(budget),
                gamma=float(gamma),
                alpha=search["alpha"],
            )
            for budget in budgets
        ]
    allowed = [float(one.tpot) for one in found if bool(one.memory.fits) and one.tpot <= tpot]
    return min(allowed, default=np.inf)


def answers(workload: Workload, **request) -> dict[tuple[int, int], Cell]:
    """The recommended cells by batch and context, none where nothing is allowed."""
    try:
        found = recommend(workload, **request)
    except InfeasibleError:
        return {}
    return {(cell.batch_size, cell.context_len): cell for cell in found.cells}


def best_of(workload: Workload, search: dict, tpot: float = np.inf) -> dict[tuple[int, int], float]:
    """Seconds per token of the best allowed configuration of every cell that has one."""
    tried = {
        cell: brute_force(cell, search, tpot) for cell in product(workload.batch_sizes, workload.context_lens)
    }
    return {cell: seconds for cell, seconds in tried.items() if np.isfinite(seconds)}


class TestTheAnswer:
    @settings(max_examples=30)
    @given(workloads, searches)
    def test_it_is_what_trying_every_configuration_finds(self, workload, search):
        found = {cell: answer.tpot_s for cell, answer in answers(workload, **search).items()}
        assert found == pytest.approx(best_of(workload, search), rel=1e-9)

    @settings(max_examples=25)
    @given(workloads, searches, st.sampled_from(list(CALLED)), st.integers(1, 16), st.integers(16, 16384))
    def test_more_to_choose_from_never_makes_it_worse(self, workload, search, label, gamma, budget):
        less = answers(workload, **search)
        further = {"drafters": CALLED[label], "gammas": gamma, "kv_budgets": budget}
        for name, one in further.items():
            more = answers(workload, **{**search, name: [*search[name], one]})
            assert more.keys() == less.keys()
            assert all(more[cell].tpot_s <= less[cell].tpot_s * (1 + 1e-12) for cell in less)

    @settings(max_examples=25)
    @given(workloads, searches)
    def test_not_to_speculate_is_always_an_answer(self, workload, search):
        for cell in answers(workload, **search).values():
            assert cell.speedup >= 1.0
            if not cell.speculates:
                assert (cell.strategy, cell.gamma, cell.speedup) == ("none", 0, 1.0)
                assert cell.tpot_s == cell.baseline_s

    @settings(max_examples=20)
    @given(workloads, searches)
    def test_what_is_reported_is_the_price_of_what_is_recommended(self, workload, search):
        by_name = {each.strategy.name: each for each in search["drafters"]}
        for cell in answers(workload, **search).values():
            again = price_round(
                H100,
                LLAMA,
                ENGINE,
                by_name.get(cell.strategy),
                batch=float(cell.batch_size),
                context_len=float(cell.context_len),
                kv_budget=np.inf if cell.kv_budget is None else float(cell.kv_budget),
                gamma=float(cell.gamma),
                alpha=search["alpha"],
            )
            numbers = (again.tpot, again.speedup, again.round_s, again.draft_s, again.verify.total)
            reported = (cell.tpot_s, cell.speedup, cell.round_s, cell.draft_s, cell.verify_s)
            assert reported == pytest.approx(numbers)
            assert cell.memory_bytes_per_gpu <= again.memory.usable

    def test_a_near_tie_goes_to_the_shorter_draft(self):
        workload = Workload((32, 64, 128), (16000, 32000, 64000))
        exact = recommend(workload, tensor_parallel=8)
        short = recommend(workload, tensor_parallel=8, constraints=Constraints(near_tie=0.05))
        for best, taken in zip(exact.cells, short.cells, strict=True):
            assert taken.tpot_s <= 1.05 * best.tpot_s
        assert sum(cell.gamma for cell in short.cells) < sum(cell.gamma for cell in exact.cells)


class TestWhatIsAllowed:
    @settings(max_examples=25)
    @given(workloads, searches, st.floats(0.002, 0.05))
    def test_a_tpot_limit_is_kept_and_nothing_allowed_is_passed_over(self, workload, search, limit):
        found = answers(workload, constraints=Constraints(tpot=limit, near_tie=0.0), **search)
        assert found.keys() == best_of(workload, search, limit).keys()
        assert all(cell.tpot_s <= limit * (1 + 1e-9) for cell in found.values())

    def test_nothing_feasible_says_what_fell_and_what_comes_closest(self):
        """500 sequences of 64000 entries of 131072 bytes are 4.2 TB: plain decoding and three gammas fall."""
        with pytest.raises(InfeasibleError) as failure:
            recommend(Workload((500,), (64000,)), drafters=DRAFTERS[:1], kv_budgets=[512], gammas=[1, 2, 3])
        most = int(largest_batch(H100, LLAMA, ENGINE, context_len=64000.0))
        assert failure.value.counts == {"does not fit in memory": 4}
        assert f"--batch-size {most} " in failure.value.nearest_miss

    def test_a_limit_that_no_configuration_keeps_says_how_fast_it_gets(self):
        with pytest.raises(InfeasibleError) as failure:
            recommend(Workload((1,), (64000,)), constraints=Constraints(tpot=1e-4))
        assert "misses the TPOT limit" in failure.value.counts
        assert "0.10 ms" in failure.value.nearest_miss

    def test_cells_that_nothing_fits_are_left_out_and_counted(self):
        found = recommend(Workload((1, 5000), (32000,)), drafters=DRAFTERS[:1], gammas=[1])
        assert [cell.batch_size for cell in found.cells] == [1]
        assert found.infeasible["does not fit in memory"] == 1 + len(DRAFTERS[0].strategy.default_budgets)

    def test_where_only_plain_decoding_fits_there_is_no_runner_up(self):
        most = int(largest_batch(H100, LLAMA, ENGINE, context_len=4096.0))
        found = recommend(Workload((most,), (4096,)), drafters=DRAFTERS[:1], kv_budgets=[4096])
        assert (found.cells[0].strategy, found.cells[0].runner_up) == ("none", "")
        assert json.loads(found.to_json())["cells"][0]["runner_up_behind"] == 0.0

    def test_memory_may_be_left_out_of_account(self):
        found = recommend(Workload((5000,), (64000,)), constraints=Constraints(fit_memory=False))
        assert found.cells[0].memory_bytes_per_gpu > H100.memory_capacity

    @pytest.mark.parametrize(
        "wrong",
        [{"objective": "luck"}, {"alpha": 1.5}, {"gammas": [-1]}, {"gammas": [100]}, {"risk": 1.0}],
        ids=str,
    )
    def test_a_wrong_request_is_refused_by_name(self, wrong):
        with pytest.raises(SpecError, match=next(iter(wrong)).rstrip("s")):
            recommend(Workload((1,), (1000,)), **wrong)


class TestSeveralDeployments:
    WORKLOAD = Workload((4,), (32000,))

    def test_the_objective_decides_among_accelerators(self):
        """An L40S costs less by the hour than an H100, and decodes slower."""
        alone = [plan(one, LLAMA, ENGINE, self.WORKLOAD, draws=0).cells[0] for one in (H100, L40S)]
        both = {
            objective: plan([H100, L40S], LLAMA, ENGINE, self.WORKLOAD, objective=objective, draws=0).cells[0]
            for objective in ("throughput", "tpot", "cost", "speedup", None)
        }
        assert all(cell in alone for cell in both.values())
        assert both["tpot"].hardware == both["throughput"].hardware == H100.name
        assert both["cost"].cost_per_million_tokens_usd == min(
            cell.cost_per_million_tokens_usd for cell in alone
        )
        assert both["speedup"] == both[None] == both["tpot"]

    def test_more_gpus_are_faster_and_fewer_are_cheaper(self):
        fast, cheap = (
            recommend(self.WORKLOAD, tensor_parallel=[1, 8], objective=objective).cells[0].tensor_parallel
            for objective in ("tpot", "cost")
        )
        assert (fast, cheap) == (8, 1)

    def test_one_drafter_and_budget_can_be_asked_for_all_cells(self):
        """An engine loads one; every cell then speculates with it or not at all."""
        workload = Workload((1, 16, 64, 256), (2000, 8000, 32000))
        found = recommend(workload, tensor_parallel=8, one_deployment=True)
        used = {(cell.strategy, cell.kv_budget) for cell in found.cells if cell.speculates}
        assert len(used) == 1


class TestWhoDrafts:
    def test_by_default_what_needs_nothing_first(self):
        labels = [drafter.label for drafter in default_drafters(LLAMA, [SMALL])]
        assert labels[:2] == ["snapkv", "streaming_llm"]
        assert "full_kv(Llama-3.2-1B)" in labels
        assert all(not drafter.strategy.needs for drafter in default_drafters(LLAMA))

    def test_the_target_is_no_draft_model_of_its_own(self):
        assert default_drafters(LLAMA, [LLAMA]) == default_drafters(LLAMA)

    def test_a_cautious_plan_drafts_no_more_than_a_bold_one(self):
        workload = Workload((16, 64), (8000, 32000))
        cautious, bold = (recommend(workload, risk=risk, tensor_parallel=8) for risk in (0.1, 0.9))
        drafted = [sum(cell.gamma for cell in each.cells) for each in (cautious, bold)]
        assert drafted[0] < drafted[1]

    def test_measured_acceptance_replaces_the_laws(self):
        workload = Workload((64,), (32000,))
        sure = recommend(workload, tensor_parallel=8, alpha=Acceptance.given(0.95), gammas=range(1, 9))
        poor = recommend(workload, tensor_parallel=8, alpha=0.05, gammas=range(1, 9))
        assert sure.cells[0].gamma > 3
        assert not poor.cells[0].speculates


def split_into(configurations, workload, space, _=None):
    """Split into pieces of so many configurations, whatever is asked for."""
    return split(workload, space, configurations)


@pytest.mark.parametrize("one_deployment", [False, True])
def test_a_plan_in_pieces_is_a_plan_at_once(monkeypatch, one_deployment):
    workload, asked = Workload(range(1, 9), (1000, 9000, 70000)), {"drafters": DRAFTERS, "gammas": (1, 3, 5)}
    whole = recommend(workload, draws=20, one_deployment=one_deployment, **asked)
    for pieces in (1, 100):
        for room in ("answers", "price"):
            monkeypatch.setattr(f"perfmodel.planning.{room}.split", partial(split_into, pieces))
        assert recommend(workload, draws=20, one_deployment=one_deployment, **asked) == whole
