"""Why a configuration was recommended: what bounds it, when it breaks even, what was assumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from perfmodel.acceptance import Acceptance
from perfmodel.deployment import Deployment
from perfmodel.latency import ForwardPass, price_pass
from perfmodel.latency.all_reduce import nodes_of
from perfmodel.latency.linear import NARROW
from perfmodel.memory import largest_batch
from perfmodel.model import ModelSpec
from perfmodel.planning.fitting import lacking, ways_to_fit
from perfmodel.planning.parallelism import describe_parallelism
from perfmodel.speculation import Drafter, half_way
from perfmodel.workload import Workload

__all__ = ["CAUSE_WORDS", "assumptions", "nearest_miss", "reason"]

CAUSE_WORDS = {
    "linear": "the linear layers",
    "attention": "attention over the KV cache",
    "recurrence": "reading and writing recurrent states",
    "communication": "tensor-parallel communication",
    "overhead": "the engine's own overhead",
}

MOST_MACHINES = 6
"""Machines of which it is said why nothing is feasible. [1]"""
LEAST_SHARE = 0.01
"""Shares of a step below this go without mention. [1]"""
UNSPLIT_TOKENS = 4
"""Tokens of the verification by which kernels that do not split it are told of. [1]"""
LEAST_UNSPLIT = 1.5
"""Plain steps below which such a verification goes without mention. [1]"""
_OF_EXPERTS = ("expert_", "eager_expert_layer", "gemm.tile_switch")
_OF_EXPERTS_DEALT_OUT = ("expert_parallel_layer", "expert_all_to_all")
_OF_NARROW_PRODUCTS = ("quantise",)
_OF_DRAFTS = ("round", "draft_")
_OF_STATES = ("kept_states", "state_trips", "recurrence.")
_OF_NODES = ("link.gpus", "network.")
_OF_LOOKUPS = ("lookup",)
"""Figures of engine and hardware by which nothing is priced without experts, experts dealt out whole, 8-bit
products, drafts, recurrent states, several GPUs or nodes, lookups."""


def reason(fields: Mapping[str, Any], hindrance: str = "") -> str:
    """Say why in one sentence that a user can check against the cell's own numbers.

    Parameters
    ----------
    fields : those of a `Cell`, by their names.
    hindrance : why nothing drafts where it is not the price, such as "no draft fits in memory".
    """
    bound, shares = f"mostly {CAUSE_WORDS[fields['bound_by']]}", _shares(fields)
    if not fields["gamma"] or fields["break_even_alpha"] is None:
        slower = 1.0 / fields["speedup"] - 1.0
        loaded = f", {slower:.1%} longer with the drafter loaded" if fields["speedup"] < 0.9995 else ""
        unasked = "no draft pays for itself" if fields["runner_up"] else "drafts were not asked for"
        why = hindrance or unasked
        if not hindrance and fields["runner_up"] and fields["runner_up_behind"] < 0.0:
            why = f"the best draft would gain {-fields['runner_up_behind']:.1%}, too little to count on"
        taken = f" ({shares})" if shares else ""
        return f"a decode step is {bound}{taken}{loaded}; {why}"
    pays = f"pays above alpha {fields['break_even_alpha']:.2f}"
    if fields["speedup"] < 1.0:  # while the drafter is loaded plain steps are slower still
        pays = f"slower than without a drafter, which {pays}, but faster than plain steps with it loaded"
    taken = f" ({shares} of a plain step)" if shares else ""
    ratio = fields["kept_state_ratio"]
    kept = f" (states kept for drafts {ratio:.0%} of a step)" if ratio >= LEAST_SHARE else ""
    ratios = f"T_D/T_T {fields['draft_ratio']:.2f}, T_V/T_T {fields['verify_ratio']:.2f}{kept}"
    match = fields["match_share"]
    matches = "" if match is None else f", {match:.0%} of them with drafts"
    tokens = f"{fields['tokens_per_round']:.2f} tokens per round{matches}"
    return f"a round is {bound}{taken}; {ratios}; {tokens}, {pays}"


def _shares(fields: Mapping[str, Any]) -> str:
    """Say what shares of a plain step are attention, and recurrent states where there are some."""
    shares = {"attention": fields["cache_share"], "recurrent states": fields["state_share"]}
    words = [f"{name} {share:.0%}" for name, share in shares.items() if share >= LEAST_SHARE]
    return ", ".join(words)


def assumptions(
    deployments: Sequence[Deployment],
    workload: Workload,
    drafters: Sequence[Drafter],
    alpha: float | Acceptance | None,
) -> tuple[str, ...]:
    """Return one sentence per thing that is neither measured nor published and changes the answer.

    Parameters
    ----------
    deployments : what was chosen among; all have one model and one engine.
    drafters : who could draft; their acceptance counts unless `alpha` was given.
    """
    engine, target = deployments[0].engine, deployments[0].model
    models = [target, *(drafter.draft_model for drafter in drafters if drafter.draft_model)]
    applies = {
        _OF_EXPERTS: bool(target.experts),
        _OF_EXPERTS_DEALT_OUT: any(np.any(deployment.expert_parallel) for deployment in deployments),
        _OF_NARROW_PRODUCTS: any(layer.dtype in NARROW for model in models for layer in model.linears),
        _OF_DRAFTS: bool(drafters),
        _OF_STATES: bool(target.state_bytes),
        _OF_LOOKUPS: any(drafter.kind == "none" for drafter in drafters),
    }
    unused = tuple(path for paths, priced in applies.items() if not priced for path in paths)
    sentences = [] if alpha is not None else _trained_lengths(target, workload, drafters)
    for deployment in deployments:
        kernels = deployment.attention_kernels
        nodes = nodes_of(deployment.hardware, deployment.gpus)
        elsewhere = _OF_NODES[int(deployment.gpus > 1) + int(np.any(nodes > 1.0)) :]
        reduces = deployment.hardware.all_reduce_name(deployment.all_reduce)
        used = (
            *(f"attention.{kernel}." for kernel in kernels),
            f"all_reduce.{reduces}.", f"all_reduce.{reduces} ",
        )  # fmt: skip
        for sentence in deployment.hardware.assumed:
            if sentence.startswith(used) or not sentence.startswith(
                ("attention.", "all_reduce.", *elsewhere, *unused)
            ):
                sentences.append(sentence)
        sentences += describe_parallelism(deployment)
        if len(kernels) > 1:
            sentences.append(
                f"{deployment.hardware.name}: engine {engine.name} does not say which attention kernel runs, "
                f"{' or '.join(kernels)}; prices lie between them: name your engine"
            )
        sentences += _unsplit(deployment, workload)
    sentences += [
        f"engine {each.name}: {path} is assumed ({quantity.source})"
        for each in {deployment.engine.name: deployment.engine for deployment in deployments}.values()
        for path, quantity in each.quantities.items()
        if quantity.kind == "assumed" and np.any(quantity.high > 0.0)
        and not path.startswith(("other_kernel_share", *unused))
    ]
    sentences += [
        f"{model.name}: every token is taken to choose its experts uniformly and independently; tokens of "
        "one sequence share experts, so a verification at a small batch costs at most what is priced"
        for model in models
        if any(layer.experts for layer in model.linears)
    ]
    if any(np.any(deployment.expert_parallel) for deployment in deployments):
        sentences.append(
            f"{target.name}: the GPU with most experts to read is the busiest of even draws; popular experts "
            "on one GPU make it busier, which an engine's balancer can mend"
        )
    sentences += [
        f"{drafter.label}: the match share, rounds that draft at all, is assumed: {match.value:g} "
        f"({match.source}); --match-share states it"
        for drafter in drafters
        for match in (drafter.match(target),)
        if match.kind == "assumed"
    ]
    for drafter in drafters if alpha is None else ():
        budget = drafter.strategy.default_budgets[0] if drafter.strategy.default_budgets else np.inf
        acceptance = drafter.acceptance(
            target, context_len=float(max(workload.context_lens)), kv_budget=budget
        )
        if acceptance.kind == "assumed":
            sentences.append(f"{drafter.label}: acceptance is assumed ({acceptance.source})")
    return tuple(dict.fromkeys(sentences))


def _trained_lengths(
    target: ModelSpec, workload: Workload, drafters: Sequence[Drafter]
) -> list[str]:
    """Say of every head that may read more than it was trained to, that this length is assumed."""
    longest = max(workload.context_lens) + workload.output_tokens
    sentences = []
    for drafter in drafters:
        law, reach = drafter.strategy.acceptance, min(longest, drafter.reach(target))
        low, high = (law.trained_length.value * law.trained_range**side for side in (-1, 1))
        if drafter.kind == "head" and drafter.conditions.trained_length is None and low < reach:
            sentences.append(
                f"{drafter.label}: less and less is accepted beyond what it was trained to read, which is "
                f"assumed to be {low:,.0f} to {high:,.0f} tokens: state it with --trained-length"
            )
    return sentences


def _unsplit(deployment: Deployment, workload: Workload) -> Iterator[str]:
    """Say what a verification costs with kernels that split the KV cache for single queries only."""
    batch, context_len = float(min(workload.batch_sizes)), float(max(workload.context_lens))
    engine, hardware = deployment.engine, deployment.hardware
    for kernel in deployment.attention_kernels:
        packs = hardware.attention_kernel(kernel).packs
        if np.all(np.equal(packs, 1.0)):
            continue
        shares = " and shares tiles between heads" if np.all(np.less(packs, 1.0)) else ""
        calling = engine.calling(attention_kernel=kernel, all_reduce=engine.all_reduce)
        runs = replace(deployment, engine=calling)
        plain, verified = (
            price_pass(runs, ForwardPass(batch=batch, query_tokens=tokens, kv_tokens=context_len)).total
            for tokens in (1.0, float(UNSPLIT_TOKENS))
        )
        steps = float(np.median(np.divide(verified, plain)))
        if steps >= LEAST_UNSPLIT:
            yield (
                f"{hardware.name}: attention kernel {kernel} splits the KV cache{shares} for single queries "
                f"only: at batch {batch:,.0f} and context {context_len:,.0f} a verification of "
                f"{UNSPLIT_TOKENS} tokens takes {steps:.1f} plain steps, and pays with more tokens a round "
                "than that"
            )


def nearest_miss(deployments: Sequence[Deployment], workload: Workload, tpot_limit: float | None) -> str:
    """Say what comes closest when nothing is allowed, in sentences with ``; `` between.

    Of what does not fit: what it lacks, and with what it would fit. Of all else the largest batch that fits,
    and the fastest TPOT.

    Parameters
    ----------
    tpot_limit : the limit that was asked for, if any. [s]
    """
    context_len, output_tokens = min(workload.context_lens), workload.output_tokens
    followed = f" and {output_tokens:.0f} output tokens" if output_tokens else ""
    sentences = []
    for runs in deployments[:MOST_MACHINES]:
        sequences = float(min(workload.batch_sizes))
        if lacks := lacking(runs, sequences, float(context_len) + output_tokens):
            ways = ways_to_fit(runs, sequences, float(context_len), float(output_tokens))
            sentences += [lacks, *([f"fits with {' or '.join(ways)}"] if ways else ())]
            continue
        most = largest_batch(
            runs.hardware, runs.model, runs.engine, context_len=float(context_len) + output_tokens,
            tensor_parallel=runs.tensor_parallel, expert_parallel=runs.expert_parallel,
            pipeline_parallel=runs.pipeline_parallel, data_parallel=runs.data_parallel,
        )  # fmt: skip
        batch = min(workload.batch_sizes)
        step = price_pass(
            runs, ForwardPass(batch=float(batch), kv_tokens=half_way(context_len, output_tokens))
        )
        milliseconds = float(np.asarray(step.total)) * 1e3
        sentences.append(
            f"{runs.gpus:.0f} x {runs.hardware.name} holds at most batch {int(most)} at context "
            f"{context_len}{followed}; plain decoding takes {milliseconds:.2f} ms a token at batch {batch}"
        )
    if len(deployments) > MOST_MACHINES:
        sentences.append(f"{len(deployments) - MOST_MACHINES} other machines do not do either")
    if tpot_limit is not None:
        sentences.append(f"the limit asked for is {tpot_limit * 1e3:.2f} ms")
    return "; ".join(sentences)
