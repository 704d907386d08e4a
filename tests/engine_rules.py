"""How engines read a schedule: our own statement of their rules, for machines without these engines.

vLLM 0.33.0 (v1/spec_decode/dynamic/utils.py), SGLang 0.5.23 (srt/speculative/adaptive_spec_params.py,
dspark_components/dspark_sps.py, arg_groups/cuda_graph_hook.py), TensorRT-LLM 1.2 to 1.4rc
(draft_len_schedule) and llama.cpp (common/ngram-map.cpp), read on 2026-11-28; the open pull requests vLLM
48944 and SGLang 31716 as they stood in August 2026. test_real_engines.py holds the first two against the
engines' own code.
"""

import json
from bisect import bisect_left, bisect_right
from itertools import pairwise


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


def vllm_graph_lengths(config, max_num_seqs):
    """Lengths for which full decode graphs are captured (v1/worker/gpu/cudagraph_utils.py)."""
    return sorted(set(vllm_lengths(config, max_num_seqs)[1:]))


def vllm_lengths_with_context(config, max_num_seqs):
    """Length as a function of batch and context under pull request 48944, refusals included."""
    if "num_speculative_tokens_per_batch_size" in config:
        raise ValueError("the old name is an alias that warns: speculative_token_schedule is the name")
    if config.get("ctx_agg") not in ("mean", "median", "max"):
        raise ValueError("ctx_agg is mean, median or max")
    entries = config["speculative_token_schedule"]
    if not entries or {len(entry) for entry in entries} != {5}:
        raise ValueError("a non-empty list of entries of five numbers")
    for low, high, near, far, length in entries:
        if min(low, high, near, far) <= 0:
            raise ValueError("ranges must be positive")
        if low > high or near > far or length < 0:
            raise ValueError("ranges that rise, lengths >= 0")
    batches = sorted({(entry[0], entry[1]) for entry in entries})
    contexts = sorted({(entry[2], entry[3]) for entry in entries})
    if batches[0][0] != 1 or any(low <= end for (_, end), (low, _) in pairwise(batches)):
        raise ValueError("batch ranges start at 1 and do not overlap")
    if len(entries) != len(batches) * len(contexts) or len({(e[0], e[2]) for e in entries}) != len(entries):
        raise ValueError("a full grid: every batch range has the same context ranges")
    if contexts[0][0] != 1 or any(low != end + 1 for (_, end), (low, _) in pairwise(contexts)):
        raise ValueError("context ranges start at 1 and follow without gaps")
    most = config["num_speculative_tokens"]
    tables = [
        vllm_lengths(
            {"num_speculative_tokens": most, "num_speculative_tokens_per_batch_size": [
                [low, high, length] for low, high, near, _, length in entries if near == start
            ]},
            max_num_seqs,
        )
        for start, _ in contexts
    ]  # fmt: skip
    starts = [start for start, _ in contexts]
    return lambda batch, context: tables[bisect_right(starts, context) - 1][batch]


SGLANG_CAPTURED = (*range(1, 9), *range(10, 33, 2), *range(40, 65, 4), *range(72, 257, 8))
"""Batch sizes of which SGLang captures graphs under speculation where nothing is said, to 256."""


def sglang_candidates(text, batch, graph_sizes=()):
    """Candidates of a batch: pad to a captured graph size, then the largest key not above."""
    entries = {int(key): entry for key, entry in json.loads(text).items() if key.isdigit()}
    if not entries or any(
        not entry["candidate_steps"] or any(not isinstance(s, int) or s < 0 for s in entry["candidate_steps"])
        for entry in entries.values()
    ):
        raise ValueError("candidate_steps must be a list of non-negative ints")
    sizes = sorted(graph_sizes)
    padded = sizes[bisect_left(sizes, batch)] if sizes and batch <= sizes[-1] else batch
    keys = sorted(entries)
    return entries[keys[max(bisect_right(keys, padded) - 1, 0)]]["candidate_steps"]


def sglang_steps(text, batch, graph_sizes=()):
    """Steps of a pinned adaptive file."""
    (steps,) = set(sglang_candidates(text, batch, graph_sizes))
    return steps


def sglang_steps_with_context(text, batch, context):
    """Steps under pull request 31716: ctx_buckets of the key from 1 without gaps, the last reaches on."""
    entries = {int(key): entry for key, entry in json.loads(text).items() if key.isdigit()}
    buckets = entries[max(key for key in entries if key <= batch)]["ctx_buckets"]
    ranges = sorted(tuple(map(int, key.split("-"))) for key in buckets)
    if ranges[0][0] != 1 or any(low != end + 1 for (_, end), (low, _) in pairwise(ranges)):
        raise ValueError("ctx_buckets start at 1 and follow without gaps")
    low, high = next((pair for pair in ranges if context <= pair[1]), ranges[-1])
    (steps,) = buckets[f"{low}-{high}"]["candidate_steps"]
    return steps


def llamacpp_drafted(flags, following):
    """Tokens drafted of those that follow a match; the types of lookups ignore --spec-draft-n-max."""
    words = flags.split()
    kind = words[words.index("--spec-type") + 1]
    if kind.startswith("draft"):
        return int(words[words.index("--spec-draft-n-max") + 1])
    sizes = {"n": 12, "m": 48}
    for size in sizes:
        if f"--spec-{kind}-size-{size}" in words:
            sizes[size] = int(words[words.index(f"--spec-{kind}-size-{size}") + 1])
    drafted = min(sizes["m"], following)
    return drafted if drafted >= sizes["n"] else 0


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
