"""Plans with random cells, for tests of what is made from plans."""

from dataclasses import replace

from hypothesis import strategies as st

from perfmodel.planning.plan import Cell, Plan
from perfmodel.planning.schedule import speedups, tokens_by_gamma


def cell_of(
    batch, context, gammas, *, alpha, baseline, draft, verify, drafter=("mtp", None, None), match_share=None
):
    """One cell of a consistent plan: a round takes ``gamma draft + baseline (1 + gamma verify)``. [s]"""
    schedule = tuple(
        baseline if gamma == 0 else gamma * draft * baseline + baseline * (1.0 + verify * gamma)
        for gamma in gammas
    )
    strategy, draft_model, kv_budget = drafter
    blank = Cell(batch, context, strategy, draft_model, kv_budget, 0, 1.0, 1.0, 1.0, 1.0, "attention")
    priced = replace(
        blank, alpha=alpha, alpha_first=alpha, match_share=match_share, baseline_s=baseline,
        round_by_gamma_s=schedule,
    )  # fmt: skip
    gains = speedups(priced, gammas)
    best = max(range(len(gammas)), key=lambda index: (round(gains[index], 9), -index))
    gamma = gammas[best]
    tokens = tokens_by_gamma(priced, gammas)[best]
    return replace(
        priced,
        gamma=gamma,
        strategy=strategy if gamma else "none",
        draft_model=draft_model if gamma else None,
        kv_budget=kv_budget if gamma else None,
        tokens_per_round=tokens,
        baseline_s=baseline,
        speedup=gains[best],
        tpot_s=baseline / gains[best],
        draft_s=gamma * draft * baseline,
        verify_s=schedule[best] - gamma * draft * baseline,
        round_s=schedule[best],
    )


def plan_of(cells, gammas, **header):
    """A plan of these cells."""
    known = {"model": "m", "hardware": "h", "engine": "e", "tensor_parallel": 1, "objective": "speedup"}
    return Plan(**(known | header), cells=tuple(cells), gammas=tuple(gammas))


@st.composite
def plans(draw, *, most_contexts=3, drafter=("mtp", None, None), must_speculate=True):
    """Plans with up to six batch sizes and `most_contexts` contexts, speculating somewhere if asked."""
    gammas = (0, *sorted(draw(st.sets(st.integers(1, 12), min_size=1, max_size=8))))
    batches = sorted(draw(st.sets(st.integers(1, 300), min_size=1, max_size=6)))
    contexts = sorted(draw(st.sets(st.integers(100, 100_000), min_size=1, max_size=most_contexts)))
    cells = []
    for batch in batches:
        for context in contexts:
            cells.append(
                cell_of(
                    batch,
                    context,
                    gammas,
                    alpha=draw(st.floats(0.05, 0.99)),
                    baseline=draw(st.floats(1e-3, 0.1)),
                    draft=draw(st.floats(0.01, 0.8)),
                    verify=draw(st.floats(0.0, 0.3)),
                    drafter=drafter,
                )
            )
    if must_speculate and not any(cell.speculates for cell in cells):
        first = cells[0]
        cells[0] = cell_of(
            first.batch_size, first.context_len, gammas, alpha=0.9, baseline=0.01, draft=0.05, verify=0.0,
            drafter=drafter,
        )  # fmt: skip
    return plan_of(cells, gammas)
