"""A slow second price of one draft-verify round: scalars, `math` and the equations alone.

It imports nothing of the product: profiles, engines and models are read as tables of numbers. Written anew
are the round of MagicDec (arXiv 2408.11049, section 3), the roofline of each kernel (Williams et al. 2009),
tokens (Leviathan et al., arXiv 2211.17192), bytes. Models have softmax attention, full or windowed, dense or
with routed experts; drafts are chains. Left out: other token mixers, draft heads, trees, n-grams, skipped
layers, prefill, nodes, pipeline, data and expert parallelism, outputs that follow, hardware without overlap.
"""

from __future__ import annotations

from math import ceil, floor, hypot, inf, log2, prod, sqrt

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "int8": 1, "mxfp8": 33 / 32, "mxfp4": 17 / 32}
BYTES["int4"] = 0.5 + 2.5 / 128  # two bytes of scale and half a byte of zero point to 128 elements
EIGHT_BITS, TILES = ("fp8", "mxfp8", "int8"), ((128, 256), (128, 128), (64, 128), (64, 64), (32, 64))


def tokens_of(rates, match=1.0):
    """Tokens of a round whose i-th draft is accepted with rates[i] once all before it were: 1 + survivals."""
    return 1 + match * sum(prod(rates[: i + 1]) for i in range(len(rates)))


def linear(hw, engine, tokens, n, k, dtype, fraction, products=1):
    """Seconds of `products` products [tokens, k] x [k, n]: a roofline of streamed bytes and padded tiles."""
    g, narrow, rules = hw.gemm, dtype in EIGHT_BITS, hw.gemm.fixed_rules > 0.5
    kind, units = "narrow_" if narrow else "", "fp8" if dtype == "mxfp8" else dtype
    stream = getattr(g, kind + "memory_fraction") * hw.memory_bandwidth * engine.streaming
    rate = getattr(g, kind + "compute_fraction") * hw.peak_flops.get(units, hw.peak_flops["bf16"])
    matrix, flops = BYTES[dtype] * fraction * n * k, 2 * products * tokens * n * k

    def block_depth(filled):
        return min(k, g.k_split * (1 if rules else sqrt(filled)))

    crowd = sqrt(min(tokens / 32, 1)) * matrix / (matrix + hw.l2_bytes)
    moved, blocks = products * (matrix + (1 if narrow else 2) * tokens * (k + n)), products * ceil(n / 64)
    transfer, filled = moved / stream * (1 + g.contention * crowd), min(blocks / hw.sms, 1)
    whole = rules and k <= 2800 * (products * n / 1024) ** 3
    loop = g.k_latency * (k if whole else block_depth(filled)) * (1 - filled)
    memory = hypot(transfer, loop) if rules else (transfer**1.5 + loop**1.5) ** (2 / 3)
    memory, work = memory + g.tile_switch * max(products - 1, 0) * ceil(n / 64) / hw.sms, inf
    for rows, columns in TILES[:4] if rules and tokens > 32 else TILES:
        waves = products * ceil(tokens / rows) * ceil(n / columns) / hw.sms
        filled, turns = min(waves, 1), max(waves, 1)
        turns = ceil(turns) * (1 - g.wave_overlap) + turns * g.wave_overlap
        depth = filled * k + (1 - filled) * block_depth(filled) + 128 + (k + 128) * (turns - 1)
        work = min(work, depth * (rows * columns + g.tile_edge * (rows + columns)))
    busiest = work * 128 * 256 / (128 * 256 + g.tile_edge * (128 + 256))
    compute = (2 * busiest * hw.sms + (1 / getattr(g, kind + "sustained") - 1) * flops) / rate
    return g.t0 + (memory**4 + compute**4) ** 0.25


def attention(hw, f, batch, queries, entries, heads, kv_heads, key, value, dtype, fraction):
    """Seconds of one attention layer, `f` its kernel's figures: a roofline, at least that of one query."""
    group, wide, splits = heads / kv_heads, key + value, f.packs == 1
    slots, blocks = hw.sms * f.ctas_per_sm, max(ceil(entries / f.kv_block), 1)
    stream = (f.narrow_memory_fraction if BYTES[dtype] < 2 else f.memory_fraction) * hw.memory_bandwidth
    of_head = BYTES[dtype] * wide * fraction * batch * entries

    def launch(queries, packed):
        shared = group if packed else 1
        rows, streams = queries * shared, group / shared
        height = f.tile_small if rows <= f.tile_small else f.tile_mid if rows <= f.tile_mid else f.tile_large
        tile = min(height, 32768 / max(value, 1))
        waves = batch * kv_heads * ceil(rows / tile) * streams / slots
        alone = f.ctas_per_sm if waves <= 1 else 1  # a block by itself on its SM has the rate of all slots
        begun = min((waves * alone - floor(waves * alone)) / 0.15, 1)
        walked = max(floor(waves * alone) + begun, 1) / alone
        if packed and (splits or queries == 1) and waves < f.split_below:
            walked = max(waves, 1 / blocks)
        walk = blocks * 2 * f.kv_block * wide / (f.compute_fraction * hw.peak_flops["bf16"] / slots)
        compute, copies = walked * (tile + f.tile_overhead) * walk, ceil(rows / height) * streams
        again = min(max(batch * copies / slots, 1), copies) - 1
        moved = of_head * kv_heads * (1 + again * min(max(of_head / hw.l2_bytes - 0.5, 0), 1))
        memory = (moved + f.row_passes * 2 * batch * heads * wide * queries) / stream
        return f.t0 + f.cta * waves + (memory**4 + compute**4) ** 0.25

    decode, together = launch(1, f.packs > 0.5 or group > 1), launch(queries, f.packs > 0.5)
    return decode if queries == 1 else min(max(together, decode), queries * decode if splits else inf)


def all_reduce(hw, size, gpus, name):
    """Seconds in a node: linear in bytes between measured sizes, log-linear in the octaves of GPUs."""
    if gpus <= 1:
        return 0.0
    table = hw.all_reduce.get(name, hw.all_reduce["nccl"])
    sizes, counts = [*map(float, table.latency.sizes)], [*map(float, table.latency.gpus)]
    i = max((i for i in range(len(sizes) - 1) if size >= sizes[i]), default=0)
    beyond = max(size - sizes[i], 0) / (sizes[i + 1] - sizes[i])
    times = [float(row[i] + (row[i + 1] - row[i]) * beyond) for row in table.latency.seconds]
    j = max((j for j, count in enumerate(counts) if count <= gpus), default=0)
    if gpus <= counts[0] or j == len(counts) - 1:
        return table.scale * times[j] * max(gpus / counts[j], 1) ** table.growth
    share = log2(gpus / counts[j]) / log2(counts[j + 1] / counts[j])
    return table.scale * times[j] ** (1 - share) * times[j + 1] ** share


def share_of(p, gpus):
    """Columns and rows of a product on one GPU: one of them is split, few keys and values are copied."""
    if p.split == "column":
        return (p.n - p.kv_columns) / gpus + p.kv_columns / min(gpus, p.kv_heads), p.k
    return p.n, p.k / gpus if p.split == "row" else p.k


def forward(hw, model, engine, gpus, batch, queries, entries, context, short=(1, 1), drafts=0, chosen=(0, 0)):
    """T = T_linear + T_attention, communication and the engine beside (MagicDec section 3). [s]"""
    rows, total = batch * queries, 0.0
    for p in model.linears:
        (n, k), fraction = share_of(p, gpus), short[0] * (p.element_bytes or BYTES[p.dtype]) / BYTES[p.dtype]
        seconds = 0 if p.experts else linear(hw, engine, rows, n, k, p.dtype, fraction)
        if p.experts:  # a line between whole numbers of distinct experts, and at least those of one token
            visits, missed = rows * p.experts_per_token, (1 - p.experts_per_token / p.experts) ** rows
            distinct, few = p.experts * (1 - missed), max(floor(p.experts * (1 - missed)), 1)
            low, high = (linear(hw, engine, visits / m, n, k, p.dtype, fraction, m) for m in (few, few + 1))
            single = linear(hw, engine, 1, n, k, p.dtype, fraction, p.experts_per_token)
            between = visits * n + (visits * k + rows * n if p.split == "row" else 0)
            seconds = max(low + (distinct - few) * (high - low), single)
            seconds += 2 * between / (hw.gemm.memory_fraction * hw.memory_bandwidth)
        total += p.count * (seconds + (engine.quantise_s if p.dtype in EIGHT_BITS else 0))
    first = hw.attention.get(engine.attention_kernel, next(iter(hw.attention.values())))
    other = hw.attention.get(engine.other_attention_kernel, first)
    for count, m in ((layer.count, m) for layer in model.layers for m in layer.token_mixers):
        window, heads, kv = getattr(m, "window", None), max(m.heads / gpus, 1), max(m.kv_heads / gpus, 1)
        read = entries + chosen[0] if window is None else min(context, window + queries - 1)
        shape = (batch, queries, read, heads, kv, m.head_dim, m.value_dim, model.kv_dtype, short[1])
        one, two = (attention(hw, f, *shape) + (0 if window else f.t0 * chosen[1]) for f in (first, other))
        total += count * one ** (1 - engine.other_kernel_share) * two**engine.other_kernel_share
    nccl = engine.all_reduce.startswith("nccl")
    name = "nccl" if hw.link_kind.lower().startswith("pcie") and not nccl else engine.all_reduce
    total += (model.reductions + 1) * all_reduce(hw, rows * model.hidden_size * 2, gpus, name)
    vocabulary = sum(p.n for p in model.linears if p.name == "lm_head")
    total += all_reduce(hw, rows * vocabulary, gpus, name if nccl else "nccl")  # a gather moves half as much
    routed = sum(layer.count for layer in model.layers if any(p.experts for p in layer.products))
    a_layer = engine.layer_s + engine.row_layer_s * rows + engine.draft_row_layer_s * batch * drafts
    a_pass = engine.forward_s * engine.draft_forward if drafts else engine.forward_s + engine.row_s * batch
    return total + model.reductions / 2 * a_layer + routed * engine.expert_layer_s + a_pass


def weight_bytes(model, engine, gpus):
    base, held = BYTES[model.base_dtype], model.table_bytes
    for p in (p for p in model.linears if model.owns_lm_head or p.name != "lm_head"):
        (n, k), stored = share_of(p, gpus), p.element_bytes or BYTES[p.dtype]
        matrix = n * k * stored * (engine.repacking if stored < 0.75 else 1)
        held += p.count * max(p.experts, 1) * (matrix + p.vectors * base)
    return held + (model.embedding_parameters / gpus + model.other_parameters) * base


def kv_bytes(model, entries, gpus, growing=False):
    held = 0
    for count, m in ((layer.count, m) for layer in model.layers for m in layer.token_mixers):
        kept = min(entries, getattr(m, "window", inf)) if not growing or not hasattr(m, "window") else 0
        held += count * m.owns_cache * m.kv_heads * (m.head_dim + m.value_dim) / min(gpus, m.kv_heads) * kept
    return held * BYTES[model.kv_dtype]


def work_bytes(model, gpus, rows):
    """Hidden states of the widest layer over a chunk of 8192 tokens, and float32 logits of all rows."""
    dense, routed = max((p.n for p in model.linears if p.count > 1), default=model.hidden_size) / gpus, 0
    for p in (p for p in model.linears if p.experts):
        n, k = share_of(p, gpus)
        routed += p.experts_per_token * (n + (k if p.split == "row" else 0))
    wide = max(4 * model.hidden_size + dense, 2 * model.hidden_size + routed)
    return max(rows, 8192) * wide * 2 + rows * model.vocab_size * 4


def drafted(strategy, context, budget, gamma, own):
    """Entries read in the mean draft pass, scored to choose them, held beside; launches; share of 16 bits."""
    earlier, pages, kept = max(gamma - 1, 0) / 2, ceil(context / 16), min(context, budget)
    in_pages = min(context, context - (pages - min(ceil(kept / 16), pages)) * 16)
    return {
        "streaming_llm": (kept + earlier, 0, kept + gamma, 0, 1),
        "full_kv": (context + earlier, 0, context + gamma, 0, 1),
        "quantized_kv": (context + earlier, 0, context + gamma, 0, 4.25 / 16),
        "quest": (in_pages + earlier, context / 16, context / 16 + own * (context + gamma), 2, 1),
    }[strategy]  # fmt: skip


def price(hw, model, engine, strategy, draft, *, batch, context, budget, gamma, gpus, tokens, match=1.0):
    """Seconds, tokens and bytes of a round: (gamma T_D + T_V + engine) / tokens (MagicDec section 3.1)."""
    read, scored, held, launches, bits = drafted(strategy, context, budget, gamma, draft is not None)
    runs, where = draft or model, (engine, gpus, batch)
    short = tuple(min(bits * 2 / BYTES[d], 1) if bits < 1 else 1 for d in (runs.weight_dtype, runs.kv_dtype))
    plain = forward(hw, model, *where, 1, context, context)
    verify = plain + match * (forward(hw, model, *where, gamma + 1, context + gamma, context + gamma) - plain)
    draft_s = forward(hw, runs, *where, 1, read, context, short, 1, (scored, launches))
    pieces = engine.piecewise_layer_s * model.reductions / 2
    a_round = engine.round_s * (1 - (1 - match) ** batch) + engine.round_row_s * match * batch
    seconds = (gamma * draft_s + verify + a_round + pieces) * tokens
    seconds /= 1 + (1 - engine.discarded_rounds) * (tokens - 1)
    if gamma == 0:
        tokens, verify, seconds = 1, plain, plain * (1 + engine.loaded_off) + pieces
    weights, slots = weight_bytes(model, engine, gpus), gamma + 1 if gamma else 0
    copy = weight_bytes(draft, engine, gpus) if draft else weights * short[0] * (bits < 1)
    kv = batch * kv_bytes(model, context + slots, gpus)
    draft_kv = batch * short[1] * kv_bytes(runs, held, gpus, growing=draft is None)
    work = work_bytes(model, gpus, batch * (gamma + 1)) + engine.fixed_memory
    speedup, usable = plain * tokens / seconds, hw.memory_capacity * engine.memory_utilization
    times = {"step": plain, "draft": draft_s, "verify": verify, "tokens": tokens, "round": seconds}
    held = {"kv": kv, "draft_kv": draft_kv, "memory": weights + copy + kv + draft_kv + work}
    return {**times, "speedup": speedup, "weights": weights, **held, "usable": usable}
