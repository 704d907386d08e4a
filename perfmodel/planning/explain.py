"""Why a configuration was recommended: what bounds it, when it breaks even, what was assumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from perfmodel.acceptance import Acceptance
from perfmodel.deployment import Deployment
from perfmodel.latency import ForwardPass, price_pass
from perfmodel.memory import largest_batch
from perfmodel.speculation import Drafter
from perfmodel.workload import Workload

__all__ = ["CAUSE_WORDS", "assumptions", "inflection_context", "nearest_miss", "reason"]

CAUSE_WORDS = {
    "linear": "the linear layers",
    "attention": "reading the KV cache",
    "communication": "tensor-parallel communication",
    "overhead": "the engine's own overhead",
}
SATURATING_BATCH = 1024.0
"""Batch at which linear layers are compute-bound on every profile: stands for "a large batch". [sequences]"""


def reason(fields: Mapping[str, Any]) -> str:
    """Say why in one sentence that a user can check against the cell's own numbers.

    Parameters
    ----------
    fields : those of a `Cell`, by their names.
    """
    bound = f"mostly {CAUSE_WORDS[fields['bound_by']]}"
    if not fields["gamma"] or fields["break_even_alpha"] is None:
        slower = 1.0 / fields["speedup"] - 1.0
        loaded = f", {slower:.1%} longer with the drafter loaded" if fields["speedup"] < 0.9995 else ""
        return f"a decode step is {bound}{loaded}; no draft pays for itself"
    return (
        f"{bound}; T_D/T_T {fields['draft_ratio']:.2f}, T_V/T_T {fields['verify_ratio']:.2f}; "
        f"{fields['tokens_per_round']:.2f} tokens per round, "
        f"pays above alpha {fields['break_even_alpha']:.2f}"
    )


def inflection_context(deployment: Deployment, *, gamma: int = 3) -> float:
    """Context length beyond which a larger batch makes speculation pay more, not less. [tokens]

    Below it a large batch's verification is bound by the linear layers' compute, which grows with gamma + 1;
    above it by the KV cache, which is read once. It is where both take equally long at a large batch:
    MagicDec (arXiv 2408.11049) section 3.2 calls it the inflection point and gives no closed form. Infinite
    where no context does.

    Parameters
    ----------
    gamma : speculation length of the verification. [tokens]
    """
    contexts = np.geomspace(64, 4_194_304, 2048)
    verification = ForwardPass(batch=SATURATING_BATCH, query_tokens=gamma + 1.0, kv_tokens=contexts)
    step = price_pass(deployment, verification)
    above = np.flatnonzero(np.broadcast_to(step.attention >= step.linear, contexts.shape))
    return float(contexts[above[0]]) if above.size else float("inf")


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
    sentences = []
    for deployment in deployments:
        kernels = deployment.attention_kernels
        used = *(f"attention.{kernel}." for kernel in kernels), f"all_reduce.{engine.all_reduce}"
        for sentence in deployment.hardware.assumed:
            if sentence.startswith(used) or not sentence.startswith(("attention.", "all_reduce.")):
                sentences.append(sentence)
        if len(kernels) > 1:
            sentences.append(
                f"{deployment.hardware.name}: engine {engine.name} does not say which attention kernel runs, "
                f"{' or '.join(kernels)}; prices lie between them: name your engine"
            )
    sentences += [
        f"engine {engine.name}: {path} is assumed ({quantity.source})"
        for path, quantity in engine.quantities.items()
        if quantity.kind == "assumed" and np.any(quantity.high > 0.0) and path != "other_kernel_share"
    ]
    for drafter in drafters if alpha is None else ():
        budget = drafter.strategy.default_budgets[0] if drafter.strategy.default_budgets else np.inf
        acceptance = drafter.acceptance(
            target, context_len=float(max(workload.context_lens)), kv_budget=budget
        )
        if acceptance.kind == "assumed":
            sentences.append(f"{drafter.label}: acceptance is assumed ({acceptance.source})")
    return tuple(dict.fromkeys(sentences))


def nearest_miss(deployments: Sequence[Deployment], workload: Workload, tpot_limit: float | None) -> str:
    """Say what comes closest when nothing is allowed: the largest batch that fits, and the fastest TPOT.

    Parameters
    ----------
    tpot_limit : the limit that was asked for, if any. [s]
    """
    context_len = min(workload.context_lens)
    sentences = []
    for runs in deployments:
        most = largest_batch(
            runs.hardware, runs.model, runs.engine, context_len=float(context_len),
            tensor_parallel=runs.tensor_parallel,
        )  # fmt: skip
        step = price_pass(runs, ForwardPass(batch=1.0, kv_tokens=float(context_len)))
        milliseconds = float(np.asarray(step.total)) * 1e3
        sentences.append(
            f"{runs.tensor_parallel:.0f} x {runs.hardware.name} holds at most batch {int(most)} at context "
            f"{context_len}; plain decoding takes {milliseconds:.2f} ms a token at batch 1"
        )
    if tpot_limit is not None:
        sentences.append(f"the limit asked for is {tpot_limit * 1e3:.2f} ms")
    return "; ".join(sentences)
