"""Signs of architectures that are not modelled: what each is, the nearest that is, and how far off it is."""

from __future__ import annotations

from dataclasses import dataclass

from perfmodel.model.keys import ConfigKeys

__all__ = ["refuse_unreadable"]


@dataclass(frozen=True)
class _Sign:
    """Keys, or names of a model_type, that mark one architecture.

    `what` it is, and the `remedy`: the nearest that is modelled and what its figures would miss.
    """

    what: str
    remedy: str
    keys: tuple[str, ...] = ()
    types: tuple[str, ...] = ()


_DECODER_OF = "Price a decoder-only model of its decoder's sizes: cross-attention and the encoder are missing"
_RECURRENT = (
    "Nearest is a model whose layers are all linear_attention but one: time per step within a third, and a "
    "cache of one layer where it has none"
)

_SIGNS = (
    _Sign(
        "it is an encoder-decoder", _DECODER_OF,
        keys=("is_encoder_decoder", "encoder_layers", "num_decoder_layers", "num_encoder_layers"),
    ),
    _Sign(
        "it is an encoder: nothing is decoded token by token",
        "Give a decoder; an encoder's one pass costs what a prefill of its length does",
        keys=("type_vocab_size",),
        types=("bert-generation", "modernbert", "nomic_bert", "xlm"),
    ),
    _Sign(
        "it fills in masked tokens by diffusion, several passes over a block",
        "A decoder of its sizes prices one pass over one token; multiply by its passes per token",
        keys=("mask_token_id", "mdm_config"), types=("llada", "llada_moe", "dream", "sdar"),
    ),
    _Sign(
        "some layers attend to image tokens by cross-attention",
        "For text alone, which skips those layers, delete cross_attention_layers and lower "
        "num_hidden_layers by their number: only their weights are missing then",
        keys=("cross_attention_layers",),
    ),
    _Sign(
        "layers of cross-attention to image tokens stand between its own",
        "For text alone delete cross_layer_interval: only the weights of those layers are missing then",
        keys=("cross_layer_interval",),
    ),
    _Sign(
        "its recurrent blocks are gated linear recurrent units (RG-LRU)",
        "Nearest is Mamba: in layer_types linear_attention with Mamba's keys, whose states are larger by "
        "mamba_d_state",
        keys=("lru_width",),
    ),
    _Sign(
        "its layers are RWKV's time mixing", _RECURRENT,
        keys=("rwkv_version", "rescale_every", "decay_low_rank_dim", "time_mix_extra_dim"),
        types=("rwkv", "rwkv5", "rwkv6", "rwkv7"),
    ),
    _Sign("its layers are xLSTM's", _RECURRENT, keys=("mlstm_round_mode", "qk_dim_factor"), types=("xlstm",)),
    _Sign(
        "all of its layers are Mamba: no cache grows, so a KV budget has nothing to choose from", _RECURRENT,
        keys=("state_size", "ssm_cfg"), types=("mamba", "mamba2", "falcon_mamba"),
    ),
    _Sign(
        "its attention layers share one set of weights (Zamba)",
        "Nearest is a hybrid with weights in every attention layer: the cache is right if hybrid counts as "
        "an attention layer of twice the width, parameters are too many by its copies",
        keys=("num_mem_blocks", "use_shared_attention_adapter"), types=("zamba", "zamba2"),
    ),
    _Sign(
        "its second half reads the cache of one layer by gated memory units (SambaY)",
        "Nearest is a hybrid of Mamba and sliding layers with one full layer, half as deep: its cache is "
        "right, its weights are half",
        keys=("mb_per_layer",), types=("phi4flash",),
    ),
    _Sign(
        "its attention heads are experts too",
        "Nearest is plain attention in a model with experts: a tenth too few parameters, and the cache of "
        "num_key_value_heads heads",
        types=("jetmoe",),
    ),
    _Sign(
        "its experts are rows of a table, not matrices",
        "Nearest is the model without is_moe: its cache is right, half of the weights are missing",
        keys=("keep_window_size",), types=("doge",),
    ),
    _Sign(
        "tables of n-grams feed its layers, and an index with a compressed cache chooses what they read",
        "Nearest is qwen3_5_moe with its sizes: the tables, tens of billions of parameters, would be missing",
        keys=("ngram_vocab_size_base", "indexer_compress_ratio"),
    ),
    _Sign(
        "its layers run several times over (a recurrence in depth)",
        "Nearest is a model of as many layers as passes: times are right, parameters are too many",
        keys=("num_layers_per_stack", "mean_recurrence", "num_recurrent_steps"), types=("hrm_text", "huginn"),
    ),
    _Sign(
        "a second decoder makes its audio tokens",
        "Price the config of its text decoder; the second one, a tenth of its weights, would be missing",
        keys=("depth_decoder_config",),
    ),
    _Sign(
        "it is a pipeline of diffusion, not a language model",
        "Give the config.json of its text decoder, if any",
        keys=("_class_name",),
    ),
)  # fmt: skip


def refuse_unreadable(keys: ConfigKeys) -> None:
    """Note a fault for the first sign of an architecture whose bytes are not modelled."""
    entry = keys.find("model_type")
    model_type = str(entry[1]).lower() if entry else ""
    for sign in _SIGNS:
        entries = (keys.find(name) for name in sign.keys)
        marks = [mark for mark in entries if mark and mark[1] not in (False, 0, [], {})]
        if entry and model_type in sign.types:
            marks.append(entry)
        if marks:
            keys.fault(marks[0][0], f"{sign.what}, which is not modelled", sign.remedy)
            keys.raise_faults()
    words = keys.find("vocab_size", "padded_vocab_size", "text_config")
    if keys.find("patch_size") is not None and words is None:
        problem = "it is a vision model: it has no vocabulary"
        keys.fault(keys.place("patch_size"), problem, "Give the config of a language model that uses it")
        keys.raise_faults()
    pairs = (keys.find("moe_num_experts"), keys.find("moe_intermediate_size"))
    experts = next((pair for pair in pairs if pair and isinstance(pair[1], list) and len(pair[1]) == 2), None)
    layers = keys.find("num_hidden_layers")
    if experts and layers and layers[1] != 2:
        keys.fault(
            experts[0],
            "lists experts of text and of images, which is not modelled",
            "For text alone give the first entry of every moe_ list: the others' weights are missing",
        )
        keys.raise_faults()
