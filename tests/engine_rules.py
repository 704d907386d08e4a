"""How engines read a schedule: our own statement of their rules, for machines without these engines.

vLLM 0.33.0 (v1/spec_decode/dynamic/utils.py), SGLang 0.5.23 (srt/speculative/adaptive_spec_params.py,
dspark_components/dspark_sps.py) and TensorRT-LLM 1.4rc (draft_len_schedule), read on 2026-11-21.
test_real_engines.py holds the first two against the engines' own code.
"""

import json
from bisect import bisect_left, bisect_right


def vllm_lengths(config, max_num_seqs):
    """Length per batch size 0..max_num_seqs of a speculative config, refusals included."""
    most = config["num_speculative_tokens"]
    if not isinstance(most, int) or most <= 0:
        raise ValueError("num_speculative_tokens must be > 0")
    if "num_speculative_tokens_per_batch_size" not in config:
        return [most] * (max_num_seqs + 1)
    ranges = config["num_speculative_tokens_per_batch_size"]
    if not ranges or any(len(entry) != 3 for entry in ranges):
        raise ValueError("a non-empty list of entries of three numbers")
    ranges = sorted(ranges)
    end = 0
    for first, last, length in ranges:
        if not 0 < first <= last or length < 0 or first <= end:
            raise ValueError("positive, rising, non-overlapping ranges of lengths >= 0")
        end = last
    if ranges[0][0] != 1:
        raise ValueError("the first range must start at 1")
    table = [0]
    for batch in range(1, max_num_seqs + 1):
        table.append(min(max((entry for entry in ranges if entry[0] <= batch), key=lambda e: e[0])[2], most))
    return table


def vllm_lengths_with_context(config, batch, context):
    """Length under five-number entries (pull request 48944): the one entry that holds both."""
    gammas = [
        entry[4]
        for entry in config["num_speculative_tokens_per_batch_size"]
        if entry[0] <= batch <= entry[1] and entry[2] <= context <= entry[3]
    ]
    assert len(gammas) == 1, "every batch and context has exactly one length"
    return gammas[0]


def sglang_steps(text, batch, graph_sizes=()):
    """Steps of a pinned adaptive file: pad to a captured graph size, then the largest key not above."""
    entries = {int(key): entry for key, entry in json.loads(text).items() if key.isdigit()}
    if not entries or any(
        not entry["candidate_steps"] or any(not isinstance(s, int) or s < 0 for s in entry["candidate_steps"])
        for entry in entries.values()
    ):
        raise ValueError("candidate_steps must be a list of non-negative ints")
    sizes = sorted(graph_sizes)
    padded = sizes[bisect_left(sizes, batch)] if sizes and batch <= sizes[-1] else batch
    keys = sorted(entries)
    (steps,) = set(entries[keys[max(bisect_right(keys, padded) - 1, 0)]]["candidate_steps"])
    return steps


def sglang_step_time(table, batch, tokens):
    """Seconds of one step under either of the two tables."""
    if "bias_seconds" not in table:
        edges = table["sample_batch_tokens"]
        assert edges == sorted(set(edges)) and len(edges) == len(table["sample_steps_per_sec"])
        assert table["max_batch_tokens"] >= edges[-1]
        return 1.0 / table["sample_steps_per_sec"][max(bisect_right(edges, tokens) - 1, 0)]
    assert table["bias_seconds"] > 0
    return (
        table["bias_seconds"]
        + _clamped_line(table["bs_probes"], table["alpha_seconds"], batch)
        + _clamped_line(table["m_probes"], table["theta_seconds"], tokens)
    )


def tensorrt_llm_length(config, batch, semantics="upper"):
    """Draft length of a batch under either meaning of a key, refusals included."""
    most = config["max_draft_len"]
    schedule = config.get("draft_len_schedule")
    if schedule is None:
        return most
    if any(key < 1 or not 0 <= value <= most for key, value in schedule.items()):
        raise ValueError("keys >= 1, values from 0 to max_draft_len")
    if schedule[min(schedule)] != most:
        raise ValueError("the smallest key must map to max_draft_len")
    if semantics == "upper":
        return next((schedule[key] for key in sorted(schedule) if batch <= key), 0)
    if 1 not in schedule:
        raise ValueError("key 1 is mandatory")
    return schedule[max(key for key in schedule if key <= batch)]


def _clamped_line(xs, ys, x):
    assert xs == sorted(set(xs)) and len(xs) == len(ys)
    if x <= xs[0]:
        return ys[0]
    if x >= xs[-1]:
        return ys[-1]
    high = bisect_right(xs, x)
    share = (x - xs[high - 1]) / (xs[high] - xs[high - 1])
    return ys[high - 1] + share * (ys[high] - ys[high - 1])
