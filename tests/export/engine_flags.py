"""Flags of serving engines that the recipes use, as they were read on 2026-11-28.

vLLM 0.33.0 (``vllm serve``), SGLang 0.5.23 (arg_groups/fields), TensorRT-LLM 1.4rc (``trtllm-serve``) and
llama.cpp as shipped with llama-cpp-python 0.3.36 (common/arg.cpp). Where an engine is installed its own help
is asked.
"""

FLAGS = {
    "vllm": {
        "--max-num-seqs", "--speculative-config", "--scheduler-cls", "--tensor-parallel-size",
        "--data-parallel-size", "--enable-expert-parallel",
    },
    "sglang": {
        "--model-path", "--speculative-algorithm", "--speculative-draft-model-path",
        "--speculative-num-steps", "--speculative-eagle-topk", "--speculative-num-draft-tokens",
        "--speculative-adaptive",
        "--speculative-adaptive-config", "--speculative-draft-window-size", "--speculative-draft-sink-size",
        "--speculative-ngram-max-bfs-breadth", "--speculative-dspark-sps-table-path", "--tp-size",
        "--dp-size", "--ep-size", "--enable-dp-attention",
    },
    "trtllm-serve": {"--max_batch_size", "--config"},
    "llama-server": {
        "-m", "--model-draft", "--spec-type", "--spec-draft-n-max", "--spec-draft-n-min", "--metrics",
        "--spec-ngram-simple-size-n", "--spec-ngram-simple-size-m", "--spec-ngram-map-k-size-n",
        "--spec-ngram-map-k-size-m", "--spec-ngram-map-k4v-size-n", "--spec-ngram-map-k4v-size-m",
        "--spec-ngram-mod-n-max", "--spec-ngram-mod-n-min",
    },
}  # fmt: skip
HELP = {
    "vllm": ["vllm", "serve", "--help=all"],
    "sglang": ["python", "-m", "sglang.launch_server", "--help"],
    "trtllm-serve": ["trtllm-serve", "serve", "--help"],
    "llama-server": ["llama-server", "--help"],
}
"""What asks an engine for its flags."""
