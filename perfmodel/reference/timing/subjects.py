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
from perfmodel.reference.decoder import Decoder
from perfmodel.reference.drafting import drafter_of
from perfmodel.reference.rounds import draft_and_verify
from perfmodel.reference.sequences import Sequences
from perfmodel.reference.timing.attention_kernels import aligned
from perfmodel.reference.timing.bench import Bench, Grid, Job, Subject

__all__ = ["pass_job", "round_job", "subjects"]


def subjects(bench: Bench, dtype: str) -> list[Subject]:
    """Return all that is timed of a decoder, what matters most first."""
    blank = MachinePoint(kind="", dtype=dtype)
    return [
        *_passes(bench, blank),
        *_drafts(bench, blank),
        *_attentions(bench, blank),
        *_linears(bench, blank),
        *_rounds(bench, blank),
        *_streams(bench, blank),
    ]


def _model(bench: Bench, point: MachinePoint) -> MachinePoint:
    sizes = bench.decoder.architecture
    return replace(
        point,
        heads=sizes.heads,
        kv_heads=sizes.kv_heads,
        head_dim=sizes.head_dim,
        layers=bench.decoder.layers,
        hidden_size=sizes.hidden_size,
        mlp_width=sizes.mlp_width,
        vocab_size=sizes.vocab_size,
    )


def _passes(bench: Bench, blank: MachinePoint) -> Iterator[Subject]:
    """Whole passes: a plain step and verifications of every cell, and some of half the layers.

    Passes of one depth alone do not tell what a layer takes from what a pass takes.
    """
    half = bench.decoder.leaving_after(max(1, bench.decoder.layers // 2))
    deep = list(product((bench.decoder,), bench.grid.cells, bench.grid.verify))
    shallow = list(product((half,), bench.grid.cells[:3], (bench.grid.verify[0], bench.grid.verify[-1])))
    for decoder, (batch, context_len), query_tokens in deep + shallow * (half.layers < bench.decoder.layers):
        point = replace(
            _model(bench, blank),
            kind="forward",
            batch=batch,
            query_tokens=query_tokens,
            kv_tokens=context_len + query_tokens,
            layers=decoder.layers,
            kernel=bench.attention.name(query_tokens),
        )
        yield Subject(point, partial(pass_job, bench, batch, context_len, query_tokens, decoder))


def pass_job(
    bench: Bench, batch: int, context_len: int, query_tokens: int, decoder: Decoder | None = None
) -> Job:
    """Return one pass over `query_tokens` tokens of each sequence, after `context_len` entries.

    Parameters
    ----------
    decoder : the bench's own, or a part of it.
    """
    view = bench.cache(batch, context_len).next(query_tokens)
    tokens, runs = _tokens(bench, batch, query_tokens), decoder or bench.decoder
    return Job(lambda: runs.forward(tokens, view))


def _drafts(bench: Bench, blank: MachinePoint) -> Iterator[Subject]:
    """Draft passes over a window, at every batch size."""
    for (batch, context_len), kv_budget in product(_one_context_a_batch(bench.grid), bench.grid.budgets):
        if kv_budget > context_len:
            continue
        point = replace(
            _model(bench, blank),
            kind="draft",
            batch=batch,
            kv_tokens=context_len,
            strategy="streaming_llm",
            kv_budget=kv_budget,
            kernel=bench.attention.name(1),
        )

        def make(batch: int = batch, context_len: int = context_len, kv_budget: int = kv_budget) -> Job:
            sequences = _sequences(bench, batch, context_len)
            made = drafter_of(
                strategies.load("streaming_llm"), bench.decoder, kv_budget=kv_budget, gamma=1, output_len=1
            )
            drafter, rule = made(sequences), Greedy()
            drafter.begin(sequences)
            return Job(lambda: drafter.draft(sequences, 1, rule))

        yield Subject(point, make)


def _rounds(bench: Bench, blank: MachinePoint) -> Iterator[Subject]:
    """Whole rounds, from the draft to the roll-back."""
    for batch, context_len, kv_budget, gamma in bench.grid.rounds:
        point = replace(
            _model(bench, blank),
            kind="round",
            batch=batch,
            kv_tokens=context_len,
            strategy="streaming_llm",
            kv_budget=kv_budget,
            gamma=gamma,
            kernel=bench.attention.name(gamma + 1),
        )

        yield Subject(point, partial(round_job, bench, batch, context_len, kv_budget, gamma))


def round_job(bench: Bench, batch: int, context_len: int, kv_budget: int, gamma: int) -> Job:
    """Return one round with a window of `kv_budget` entries, from the draft to the roll-back."""
    sequences = _sequences(bench, batch, context_len)
    window = strategies.load("streaming_llm")
    made = drafter_of(window, bench.decoder, kv_budget=kv_budget, gamma=gamma, output_len=1)
    drafter, rule = made(sequences), Greedy()
    drafter.begin(sequences)
    begun, everyone = sequences.cache.lens, np.ones(batch, dtype=np.bool_)
    found: list[tuple[Draft, Tensor, Tensor]] = []

    def passes() -> None:
        found[:] = [draft_and_verify(bench.decoder, drafter, sequences, gamma, rule)]

    def roll_back() -> None:
        draft, accepted, token = found[0]
        sequences.append(draft.tokens, accepted, token, everyone)
        drafter.settle(sequences)

    def again() -> None:
        sequences.cache.lens = begun
        drafter.settle(sequences)

    return Job(passes, roll_back, again)


def _attentions(bench: Bench, blank: MachinePoint) -> Iterator[Subject]:
    """Attention of one layer, layer after layer so that no cache holds what is read."""
    sizes, grid = bench.decoder.architecture, bench.grid
    few = tuple(count for count in grid.queries if count in (1, 2, 5, 9))
    for (batch, context_len), query_tokens in product(grid.cells, grid.queries):
        if (batch, context_len) != grid.longest and query_tokens not in few:
            continue
        point = replace(
            blank,
            kind="attention",
            batch=batch,
            query_tokens=query_tokens,
            kv_tokens=context_len,
            heads=sizes.heads,
            kv_heads=sizes.kv_heads,
            head_dim=sizes.head_dim,
            kernel=bench.attention.name(query_tokens),
        )

        def make(batch: int = batch, context_len: int = context_len, query_tokens: int = query_tokens) -> Job:
            cache = bench.cache(batch, context_len)
            keys, values = (part[:, :, :, :context_len] for part in (cache.keys, cache.values))
            query = torch.randn(
                batch, sizes.heads, query_tokens, sizes.head_dim, device=bench.decoder.device
            ).to(bench.decoder.dtype)
            visible = aligned(query_tokens, context_len, bench.decoder.device)

            def one_layer(layer: int) -> object:
                return bench.attention(query, keys[layer], values[layer], visible)

            return _in_turns(one_layer, len(keys), bench)

        yield Subject(point, make)


def _linears(bench: Bench, blank: MachinePoint) -> Iterator[Subject]:
    """The linear layers of the model, layer after layer, and one large product for the peak."""
    spec = bench.decoder.architecture.spec
    shapes = [(layer.n, layer.k) for layer in spec.linears]
    for (n, k), tokens in product(dict.fromkeys(shapes), bench.grid.tokens):
        point = replace(blank, kind="linear", tokens=tokens, n=n, k=k)

        def make(n: int = n, k: int = k, tokens: int = tokens) -> Job:
            weights = bench.matrices(n, k)
            rows = torch.randn(tokens, k, device=bench.decoder.device).to(bench.decoder.dtype)
            return _in_turns(lambda index: F.linear(rows, weights[index]), len(weights), bench)

        yield Subject(point, make)


def _streams(bench: Bench, blank: MachinePoint) -> Iterator[Subject]:
    """One long read, for the bandwidth."""
    count = bench.grid.stream
    point = replace(blank, kind="stream", n=count)

    def make() -> Job:
        values = torch.ones(count, device=bench.decoder.device).to(bench.decoder.dtype)
        return Job(lambda: values.sum())

    yield Subject(point, make)


def _in_turns(run: Callable[[int], object], count: int, bench: Bench) -> Job:
    """Return work that goes through `count` operands so that no cache holds the next one.

    A CUDA graph repeats what it captured, so there all of them are one piece of work.
    """
    if bench.decoder.device.type == "cuda":
        return Job(lambda: [run(index) for index in range(count)], runs=count)
    turn = cycle(range(count))
    return Job(lambda: run(next(turn)))


def _tokens(bench: Bench, batch: int, count: int) -> Tensor:
    vocabulary = bench.decoder.architecture.vocab_size
    return (torch.arange(batch * count, device=bench.decoder.device) % vocabulary).reshape(batch, count)


def _sequences(bench: Bench, batch: int, context_len: int) -> Sequences:
    cache = bench.cache(batch, context_len)
    tokens = _tokens(bench, batch, cache.capacity)
    return Sequences(tokens, np.full(batch, context_len, dtype=np.int64), cache)


def _one_context_a_batch(grid: Grid) -> list[tuple[int, int]]:
    """The longest context of every batch size."""
    found: dict[int, int] = {}
    for batch, context_len in grid.cells:
        found[batch] = max(found.get(batch, 0), context_len)
    return sorted(found.items())
