"""Random llamas of two layers for engines on a processor: a target, the same again, a near one, another."""

import numpy as np

VOCABULARY, WIDTH, FEED_FORWARD, LAYERS, HEADS = 512, 256, 512, 2, 4


def write_gguf(path, seed):
    """Write a model that llama.cpp loads."""
    import gguf

    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(VOCABULARY)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [2, 3, 3, *[6] * 256]
    words = [f"\u2581w{word}" for word in range(VOCABULARY - len(tokens))]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([token.encode() for token in (*tokens, *words)])
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types([*kinds, *[1] * len(words)])
    for name, token in (("unk", 0), ("bos", 1), ("eos", 2)):
        getattr(writer, f"add_{name}_token_id")(token)

    def matrix(name, rows, columns):
        drawn = random.standard_normal((rows, columns)) / np.sqrt(columns)
        writer.add_tensor(name, drawn.astype(np.float32))

    matrix("token_embd.weight", VOCABULARY, WIDTH)
    for layer in range(LAYERS):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(WIDTH, np.float32))
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{layer}.{part}.weight", WIDTH, WIDTH)
        for part in ("ffn_gate", "ffn_up"):
            matrix(f"blk.{layer}.{part}.weight", FEED_FORWARD, WIDTH)
        matrix(f"blk.{layer}.ffn_down.weight", WIDTH, FEED_FORWARD)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    matrix("output.weight", VOCABULARY, WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_checkpoint(folder, seed, noise=0.0):
    """Write a model that transformers and vLLM load, its weights moved by so many of their deviations."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=FEED_FORWARD,
            num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=HEADS,
            max_position_embeddings=2048, initializer_range=0.1,
        )
    )  # fmt: skip
    if noise:
        torch.manual_seed(7)
        for weights in model.parameters():
            weights.data += noise * weights.data.std() * torch.randn_like(weights)
    model.to(torch.float32).save_pretrained(folder)
