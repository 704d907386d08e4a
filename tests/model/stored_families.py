"""Matrices of a few published models, under the names that their checkpoints give them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from perfmodel.model.dtypes import BYTES
from perfmodel.model.stored import StoredWeights


class Matrix(NamedTuple):
    """One matrix (or `copies` of it) of a layer; `keeps` marks routers and the head."""

    layer: int | None
    modules: tuple[str, ...]
    elements: int
    copies: int = 1
    keeps: bool = False


def weight_bytes(stored: StoredWeights, matrices: Sequence[Matrix], parameters: int) -> float:
    """Bytes of a model of `parameters` elements: what is none of `matrices` has the base dtype. [B]"""
    total = parameters * BYTES[stored.base]
    for layer, modules, elements, copies, keeps in matrices:
        form = stored.of(layer, modules, keeps_precision=keeps)
        total += elements * copies * (form.element_bytes - BYTES[stored.base])
    return total


def gated(layer: int, around: str, hidden: int, width: int, copies: int = 1) -> Iterator[Matrix]:
    yield Matrix(layer, (f"{around}.gate_proj", f"{around}.up_proj"), 2 * hidden * width, copies)
    yield Matrix(layer, (f"{around}.down_proj",), hidden * width, copies)


def llama(layers: int, hidden: int, kv: int, width: int, vocabulary: int) -> list[Matrix]:
    """Llama 3; the sizes are those of its config.json, `kv` the width of keys."""
    matrices = [Matrix(None, ("lm_head",), vocabulary * hidden, keeps=True)]
    for layer in range(layers):
        heads = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
        matrices.append(Matrix(layer, heads, hidden * (hidden + 2 * kv)))
        matrices.append(Matrix(layer, ("self_attn.o_proj",), hidden * hidden))
        matrices += gated(layer, "mlp", hidden, width)
    return matrices


LLAMA_8B = llama(32, 4096, 1024, 14336, 128256), 8_030_261_248
LLAMA_70B = llama(80, 8192, 1024, 28672, 128256), 70_553_706_496


def deepseek(*, dense: int, experts: int, heads: int, vocabulary: int) -> list[Matrix]:
    """DeepSeek-V3, Kimi-K2: latent attention, the first `dense` layers with an MLP, others with experts."""
    hidden, latent, rope, queries = 7168, 512, 64, 1536
    matrices = [Matrix(None, ("lm_head",), vocabulary * hidden, keeps=True)]
    for layer in range(61):
        matrices += [
            Matrix(layer, ("self_attn.q_a_proj",), hidden * queries),
            Matrix(layer, ("self_attn.q_b_proj",), queries * heads * 192),
            Matrix(layer, ("self_attn.kv_a_proj_with_mqa",), hidden * (latent + rope)),
            Matrix(layer, ("self_attn.kv_b_proj",), latent * heads * 256),
            Matrix(layer, ("self_attn.o_proj",), heads * 128 * hidden),
        ]
        if layer < dense:
            matrices += gated(layer, "mlp", hidden, 18432)
            continue
        matrices.append(Matrix(layer, ("mlp.gate",), experts * hidden, keeps=True))
        matrices += gated(layer, "mlp.experts", hidden, 2048, experts)
        matrices += gated(layer, "mlp.shared_experts", hidden, 2048)
    return matrices


DEEPSEEK_V3 = deepseek(dense=3, experts=256, heads=128, vocabulary=129280), 671_026_419_200
KIMI_K2 = deepseek(dense=1, experts=384, heads=64, vocabulary=163840), 1_026_408_232_448


def nemotron_3_nano() -> list[Matrix]:
    """Nemotron-3-Nano-30B-A3B: one mixer a layer, M Mamba-2, * attention, E experts without a gate."""
    hidden = 2688
    matrices = [Matrix(None, ("lm_head",), 131072 * hidden, keeps=True)]
    for layer, kind in enumerate("MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME"):
        if kind == "M":
            matrices.append(Matrix(layer, ("mixer.in_proj",), hidden * (2 * 4096 + 2 * 8 * 128 + 64)))
            matrices.append(Matrix(layer, ("mixer.out_proj",), hidden * 4096))
        elif kind == "*":
            names = ("mixer.q_proj", "mixer.k_proj", "mixer.v_proj")
            matrices.append(Matrix(layer, names, hidden * (4096 + 2 * 256)))
            matrices.append(Matrix(layer, ("mixer.o_proj",), hidden * 4096))
        else:
            matrices.append(Matrix(layer, ("mixer.gate",), 128 * hidden, keeps=True))
            for around, width, copies in (("mixer.experts", 1856, 128), ("mixer.shared_experts", 3712, 1)):
                matrices.append(Matrix(layer, (f"{around}.up_proj",), hidden * width, copies))
                matrices.append(Matrix(layer, (f"{around}.down_proj",), hidden * width, copies))
    return matrices


NEMOTRON_3_NANO = nemotron_3_nano(), 31_577_940_288


def qwen_3_6() -> list[Matrix]:
    """Qwen3.6-35B-A3B: every fourth layer softmax attention, others gated delta nets; all with experts."""
    hidden = 2048
    matrices = [Matrix(None, ("lm_head",), 248320 * hidden, keeps=True)]
    for layer in range(40):
        if layer % 4 == 3:
            names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
            matrices.append(Matrix(layer, names, hidden * (2 * 4096 + 2 * 512)))
            matrices.append(Matrix(layer, ("self_attn.o_proj",), hidden * 4096))
        else:
            matrices.append(Matrix(layer, ("linear_attn.in_proj_qkv",), hidden * 8192))
            matrices.append(Matrix(layer, ("linear_attn.in_proj_z",), hidden * 4096))
            matrices.append(Matrix(layer, ("linear_attn.in_proj_b", "linear_attn.in_proj_a"), hidden * 64))
            matrices.append(Matrix(layer, ("linear_attn.out_proj",), hidden * 4096))
        matrices.append(Matrix(layer, ("mlp.gate",), 256 * hidden, keeps=True))
        matrices += gated(layer, "mlp.experts", hidden, 512, 256)
        matrices += gated(layer, "mlp.shared_expert", hidden, 512)
        matrices.append(Matrix(layer, ("mlp.shared_expert_gate",), hidden, keeps=True))
    return matrices


QWEN_3_6 = qwen_3_6(), 34_660_610_688


def gpt_oss_120b() -> list[Matrix]:
    """gpt-oss-120b: attention and 128 experts in each of 36 layers; biases are no matrices."""
    hidden, matrices = 2880, [Matrix(None, ("lm_head",), 201088 * 2880, keeps=True)]
    for layer in range(36):
        names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
        matrices.append(Matrix(layer, names, hidden * (4096 + 2 * 512)))
        matrices.append(Matrix(layer, ("self_attn.o_proj",), hidden * 4096))
        matrices.append(Matrix(layer, ("mlp.router",), 128 * hidden, keeps=True))
        matrices.append(Matrix(layer, ("mlp.experts.gate_up_proj",), 2 * hidden * hidden, 128))
        matrices.append(Matrix(layer, ("mlp.experts.down_proj",), hidden * hidden, 128))
    return matrices


GPT_OSS_120B = gpt_oss_120b(), 116_829_156_672
