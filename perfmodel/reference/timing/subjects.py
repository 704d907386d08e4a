"""What `measure` times: kernels, whole passes and whole rounds of a decoder, each as a piece of work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import cycle, product

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import strategies
from perfmodel.evidence.machine.points import MachinePoint
from perfmodel.reference.acceptance_rule import Draft, Greedy
from perfmodel.reference.attention import Visible
from perfmodel.reference.decoder import Decoder
from perfmodel.reference.drafters import TokenDrafter
from perfmodel.reference.drafting import drafter_of
from perfmodel.reference.rounds import draft_and_verify
from perfmodel.reference.sequences import Sequences
from perfmodel.reference.timing.bench import Bench, Job, ShapeGrid, Subject

__all__ = ["STRATEGY", "pass_job", "round_job", "subjects"]

STRATEGY = "streaming_llm"
"""Who drafts in the passes and rounds that are timed."""


def subjects(bench: Bench, dtype: str) -> list[Subject]:
    """Return all that is timed of a decoder, what matters most first.

    Parameters
    ----------
    bench : the decoder, and the shapes to time.
    dtype : name of the type that it computes in.
    """
    sizes = bench.decoder.architecture
    blank = MachinePoint(kind="", dtype=dtype)
    layer = replace(blank, heads=sizes.heads, kv_heads=sizes.kv_heads, head_dim=sizes.head_dim)
    model = replace(
        layer, layers=bench.decoder.layers, hidden_size=sizes.hidden_size, mlp_width=sizes.mlp_width,
        vocab_size=sizes.vocab_size,
    )  # fmt: skip
    return [
        *_time_passes(bench, replace(model, kind="forward")),
        *_time_drafts(bench, replace(model, kind="draft", strategy=STRATEGY)),
        *_time_attention(bench, replace(layer, kind="attention")),
        *_time_linears(bench, replace(blank, kind="linear")),
        *_time_rounds(bench, replace(model, kind="round", strategy=STRATEGY)),
        *_time_stream(bench, replace(blank, kind="stream")),
    ]


def _time_passes(bench: Bench, model: MachinePoint) -> Iterator[Subject]:
    """Whole passes: a plain step and verifications of every cell, and some of half the layers.

    Passes of one depth alone do not tell what a layer takes from what a pass takes.
    """
    half = bench.decoder.exit_after(max(1, bench.decoder.layers // 2))
    deep = list(product((bench.decoder,), bench.grid.cells, bench.grid.verify))
    shallow = list(product((half,), bench.grid.cells[:3], (bench.grid.verify[0], bench.grid.verify[-1])))
    for decoder, (batch, context_len), query_tokens in deep + shallow * (half.layers < bench.decoder.layers):
        point = replace(
            model, batch=batch, query_tokens=query_tokens, kv_tokens=context_len + query_tokens,
            layers=decoder.layers, kernel=bench.attention.name(query_tokens),
        )  # fmt: skip
        yield Subject(point, partial(pass_job, bench, batch, context_len, query_tokens, decoder))


def pass_job(
    bench: Bench, batch: int, context_len: int, query_tokens: int, decoder: Decoder | None = None
) -> Job:
    """Return one forward pass.

    Parameters
    ----------
    bench : the caches to run on.
    batch : sequences.
    context_len : entries of each sequence before the pass. [tokens]
    query_tokens : tokens of each sequence that enter.
    decoder : the bench's own where None, or a part of it.
    """
    view = bench.cache(batch, context_len).next(query_tokens)
    tokens, runs = _count_tokens(bench, batch, query_tokens), decoder or bench.decoder
    return Job(lambda: runs.forward(tokens, view))


def _time_drafts(bench: Bench, model: MachinePoint) -> Iterator[Subject]:
    """Draft passes over a window, at every batch size."""
    for (batch, context_len), kv_budget in product(_find_longest_contexts(bench.grid), bench.grid.budgets):
        if kv_budget <= context_len:
            point = replace(
                model, batch=batch, kv_tokens=context_len, kv_budget=kv_budget, kernel=bench.attention.name(1)
            )
            yield Subject(point, partial(_make_draft_job, bench, batch, context_len, kv_budget))


def _make_draft_job(bench: Bench, batch: int, context_len: int, kv_budget: int) -> Job:
    sequences, drafter = _begin_drafting(bench, batch, context_len, kv_budget, gamma=1)
    return Job(lambda: drafter.draft(sequences, 1, Greedy()))


def _time_rounds(bench: Bench, model: MachinePoint) -> Iterator[Subject]:
    """Whole rounds, from the draft to the roll-back."""
    for batch, context_len, kv_budget, gamma in bench.grid.rounds:
        point = replace(
            model, batch=batch, kv_tokens=context_len, kv_budget=kv_budget, gamma=gamma,
            kernel=bench.attention.name(gamma + 1),
        )  # fmt: skip
        yield Subject(point, partial(round_job, bench, batch, context_len, kv_budget, gamma))


def round_job(bench: Bench, batch: int, context_len: int, kv_budget: int, gamma: int) -> Job:
    """Return one round with a window, from the draft to the roll-back.

    Parameters
    ----------
    bench : the caches to run on.
    batch : sequences.
    context_len : entries of each sequence before the round. [tokens]
    kv_budget : entries in the window. [tokens]
    gamma : tokens drafted.
    """
    sequences, drafter = _begin_drafting(bench, batch, context_len, kv_budget, gamma)
    lens = sequences.cache.lens
    verified: list[tuple[Draft, Tensor, Tensor]] = []

    def run_passes() -> None:
        verified[:] = [draft_and_verify(bench.decoder, drafter, sequences, gamma, Greedy())]

    def finish_round() -> None:
        draft, accepted, bonus = verified[0]
        sequences.append(draft.tokens, accepted, bonus)
        drafter.roll_back(sequences)

    def start_over() -> None:
        sequences.cache.lens = lens
        drafter.roll_back(sequences)

    return Job(run_passes, finish_round, start_over)


def _time_attention(bench: Bench, layer: MachinePoint) -> Iterator[Subject]:
    """Attention of one layer, layer after layer so that no cache holds what is read."""
    for cell, query_tokens in product(bench.grid.cells, bench.grid.queries):
        if cell == bench.grid.longest or query_tokens in (1, 2, 5, 9):
            batch, context_len = cell
            point = replace(
                layer, batch=batch, query_tokens=query_tokens, kv_tokens=context_len,
                kernel=bench.attention.name(query_tokens),
            )  # fmt: skip
            yield Subject(point, partial(_make_attention_job, bench, batch, context_len, query_tokens))


def _make_attention_job(bench: Bench, batch: int, context_len: int, query_tokens: int) -> Job:
    cache = bench.cache(batch, context_len)
    keys, values = (entries[:, :, :, :context_len] for entries in (cache.keys, cache.values))
    query = bench.query(batch, query_tokens)
    visible = Visible.of_aligned(query_tokens, context_len, cache.device)

    def read(layer: int) -> Tensor:
        return bench.attention(query, keys[layer], values[layer], visible)

    return _take_turns(read, len(keys), bench)


def _time_linears(bench: Bench, layer: MachinePoint) -> Iterator[Subject]:
    """The linear layers of the model, with weights that no cache holds."""
    shapes = dict.fromkeys((linear.n, linear.k) for linear in bench.decoder.architecture.spec.linears)
    for (n, k), tokens in product(shapes, bench.grid.tokens):
        yield Subject(replace(layer, tokens=tokens, n=n, k=k), partial(_make_linear_job, bench, n, k, tokens))


def _make_linear_job(bench: Bench, n: int, k: int, tokens: int) -> Job:
    weights, rows = bench.matrices(n, k), bench.draw(tokens, k)
    return _take_turns(lambda index: F.linear(rows, weights[index]), len(weights), bench)


def _time_stream(bench: Bench, read: MachinePoint) -> Iterator[Subject]:
    """One long read, for the bandwidth."""

    def make() -> Job:
        values = torch.ones(bench.grid.stream, device=bench.decoder.device).to(bench.decoder.dtype)
        return Job(lambda: values.sum())

    yield Subject(replace(read, n=bench.grid.stream), make)


def _take_turns(run: Callable[[int], object], count: int, bench: Bench) -> Job:
    """Return work that goes through `count` operands so that no cache holds the next one.

    A CUDA graph repeats what it captured, so there all of them are one piece of work.
    """
    if bench.decoder.device.type == "cuda":
        return Job(lambda: [run(index) for index in range(count)], runs=count)
    turn = cycle(range(count))
    return Job(lambda: run(next(turn)))


def _count_tokens(bench: Bench, batch: int, count: int) -> Tensor:
    vocabulary = bench.decoder.architecture.vocab_size
    return (torch.arange(batch * count, device=bench.decoder.device) % vocabulary).reshape(batch, count)


def _begin_drafting(
    bench: Bench, batch: int, context_len: int, kv_budget: int, gamma: int
) -> tuple[Sequences, TokenDrafter]:
    """Return sequences at the end of a context, and a drafter with a window that has taken it in."""
    cache = bench.cache(batch, context_len)
    tokens = _count_tokens(bench, batch, cache.capacity)
    sequences = Sequences(tokens, np.full(batch, context_len, dtype=np.int64), cache)
    strategy = strategies.load(STRATEGY)
    make_drafter = drafter_of(strategy, bench.decoder, kv_budget=kv_budget, gamma=gamma, output_len=1)
    drafter = make_drafter(sequences)
    drafter.begin(sequences)
    return sequences, drafter


def _find_longest_contexts(grid: ShapeGrid) -> list[tuple[int, int]]:
    """Return every batch size with its longest context."""
    return sorted(dict(sorted(grid.cells)).items())
