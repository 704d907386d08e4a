"""Read acceptance counts from what benchmark tools write about the drafts of a run."""

from __future__ import annotations

from perfmodel.acceptance.counts import AcceptanceCounts
from perfmodel.acceptance.logs.lines import counts_of_rows
from perfmodel.files.records import Record

__all__ = ["drafts_of_vllm"]


def drafts_of_vllm(record: Record) -> AcceptanceCounts | None:
    """Return what ``vllm bench serve --save-result`` counted while it ran; None where nothing was drafted.

    Keys as vLLM writes them (github.com/vllm-project/vllm, vllm/benchmarks/serve.py, since 0.15):
    ``spec_decode_num_drafts``, ``_draft_tokens``, ``_accepted_tokens`` and
    ``_per_position_acceptance_rates``, the last one per round.

    Raises
    ------
    SpecError : counts that contradict each other.
    """
    if record.number("spec_decode_num_drafts") is None:
        return None
    rounds, drafted, accepted = (
        record.needed(f"spec_decode_{part}") for part in ("num_drafts", "draft_tokens", "accepted_tokens")
    )
    if not rounds:
        return None
    rates = record.numbers("spec_decode_per_position_acceptance_rates") or []
    if accepted > drafted:
        raise record.refusal("spec_decode_accepted_tokens", f"{accepted:g} accepted of {drafted:g} drafted")
    reached = [round(rate * rounds, 6) for rate in rates]
    if reached and abs(sum(reached) - accepted) > 0.01 * accepted + 1.0:
        problem = f"the rates give {sum(reached):g} accepted tokens, {accepted:g} are stated"
        raise record.refusal("spec_decode_per_position_acceptance_rates", problem)
    longest = float(len(reached) or max(-(-drafted // rounds), 1.0))
    requests = record.number("completed")
    return counts_of_rows("total", [(rounds, drafted, accepted, longest, reached)], requests)
