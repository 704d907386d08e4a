"""Every command of the recipes is run: ours as they stand, an engine's against its help or dated flags."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from engine_flags import FLAGS, HELP
from engine_rules import (
    llamacpp_drafted,
    sglang_candidates,
    tensorrt_llm_length,
    vllm_graph_lengths,
    vllm_lengths,
)
from random_plans import cell_of, plan_of
from recipe_shell import ROUNDS, SGLANG_LOG, Shell, commands_of
from test_export import HIGH, LOW, stepped

from perfmodel.export import ExportOptions, export, exporters, load
from perfmodel.planning.plan import read_plan

RECIPES = Path(__file__).parents[2] / "docs" / "engines"
PAGES = sorted(path.name for path in RECIPES.glob("*.md"))


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """A folder with what the server and the user would have left there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rounds.csv").write_text(ROUNDS)
    (tmp_path / "server.log").write_text(SGLANG_LOG)
    return Shell()


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_recipe_runs(page, shell):
    commands = commands_of((RECIPES / page).read_text())
    assert sum(command.startswith("draftplan plan") for command in commands) >= 1
    for command in commands:
        words = shell.run(command)
        if words is not None:
            accept(words)
            SERVED[program_of(words)](words, shell)
    assert not shell.environment or read_plan(shell.environment["DRAFTPLAN_PLAN"]).cells


def test_what_a_recipe_shows_beside_a_command_is_what_it_answers(shell):
    page = (RECIPES / "dynamo.md").read_text()
    shell.run(commands_of(page)[0])
    shown = re.findall(r"^(draftplan export [^#\n]*\S)\s+# (.+)$", page, re.MULTILINE)
    assert len(shown) == 3
    for command, answer in shown:
        assert yaml.safe_load(shell.answer(command)) == yaml.safe_load(answer)


def program_of(words):
    return "sglang" if words[:3] == ["python", "-m", "sglang.launch_server"] else words[0]


def accept(words):
    """Every flag is one of the engine's, and nothing was left to fill in."""
    program = program_of(words)
    assert not any("FILL-IN" in word for word in words)
    flags = {word.split("=")[0] for word in words if word.startswith("-") and word != "-m"}
    known = flags_of(program)
    assert flags <= known, flags - known


@cache
def flags_of(program):
    """Flags by the engine's own help where it is installed, else those that were read."""
    asked = HELP[program]
    there = importlib.util.find_spec(program) if program == "sglang" else shutil.which(asked[0])
    if not there:
        return FLAGS[program]
    command = [sys.executable, *asked[1:]] if asked[0] == "python" else asked
    text = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False).stdout
    return set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", text))


def value_of(words, flag):
    return words[words.index(flag) + 1]


def vllm_reads(words, shell):
    config = json.loads(value_of(words, "--speculative-config"))
    if "sparse_attn_ratio" in config:
        assert 0.0 < config["sparse_attn_ratio"] <= 1.0
        return
    most = int(value_of(words, "--max-num-seqs"))
    lengths = vllm_lengths(config, most)
    plan = read_plan("plan.json")
    planned = {cell.gamma for cell in plan.cells}
    if "--scheduler-cls" in words:
        assert shell.environment["DRAFTPLAN_PLAN"] == "plan.json"
        assert set(vllm_graph_lengths(config, most)) == planned
        name, _, member = value_of(words, "--scheduler-cls").rpartition(".")
        source = importlib.util.find_spec(name).origin
        assert f"class {member}" in Path(source).read_text()
    else:
        assert set(lengths[1:]) <= set(range(max(planned) + 1))


def sglang_reads(words, _):
    text = Path("adaptive.json").read_text()
    plan = read_plan("plan.json")
    union = {
        steps for entry in json.loads(text).values() for steps in entry["candidate_steps"]
    }
    for cell in plan.cells:
        assert cell.gamma in sglang_candidates(text, cell.batch_size)
    if "--speculative-adaptive" in words:
        assert value_of(words, "--speculative-adaptive-config") == "adaptive.json"
        assert int(value_of(words, "--speculative-num-steps")) in union
    budget = next(cell.kv_budget for cell in plan.cells if cell.speculates)
    assert int(value_of(words, "--speculative-draft-window-size")) == budget == 2048


def tensorrt_llm_reads(words, _):
    text = Path(value_of(words, "--config")).read_text()
    config = yaml.safe_load(text)["speculative_config"]
    for batch in range(1, int(value_of(words, "--max_batch_size")) + 1):
        assert 0 <= tensorrt_llm_length(config, batch, "upper") <= config["max_draft_len"]
    assert "draft_len_schedule" not in config or "# keys are inclusive upper bounds" in text


def llamacpp_reads(words, _):
    plan = read_plan("plan.json")
    assert llamacpp_drafted(" ".join(words), 1000) == plan.cells[0].gamma
    assert "--metrics" in words, "/metrics answers with it alone"


SERVED = {
    "vllm": vllm_reads, "sglang": sglang_reads, "trtllm-serve": tensorrt_llm_reads,
    "llama-server": llamacpp_reads,
}  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
def test_python_of_a_recipe_compiles_and_names_what_there_is(page):
    for block in re.findall(r"```python\n(.*?)```", (RECIPES / page).read_text(), re.DOTALL):
        compile(block, page, "exec")
        for module, names in re.findall(r"from (perfmodel[\w.]*) import ([\w, ]+)", block):
            source = Path(importlib.util.find_spec(module).origin).read_text()
            assert all(name.strip() in source for name in names.split(","))


def test_a_command_with_a_flag_that_an_engine_lacks_is_found():
    with pytest.raises(AssertionError):
        accept(["llama-server", "-m", "x.gguf", "--spec-ngram-size"])
    with pytest.raises(AssertionError):
        accept(["llama-server", "-m", "x.gguf", "--model-draft", "FILL-IN-draft.gguf"])


@pytest.mark.parametrize("drafter", ["mtp", "eagle", "dflash", "ngram", "full_kv", "streaming_llm"])
@pytest.mark.parametrize(("engine", "program"), [("sglang", "sglang"), ("llamacpp", "llama-server")])
def test_every_flag_of_an_export_is_one_of_the_engines(engine, program, drafter):
    draft = "a/b" if drafter in ("full_kv", "streaming_llm") else None
    plan = stepped((drafter, draft, 2048 if drafter in ("mtp", "eagle", "dflash", "streaming_llm") else None))
    words = export(plan, engine, ExportOptions(draft_path="a/b.gguf")).text.split()
    assert {word for word in words if word.startswith("-")} <= FLAGS[program]


@pytest.mark.parametrize("engine", exporters())
def test_every_form_of_an_engine_is_exported(engine):
    drafter = {"vegas": ("streaming_llm", None, 512), "openvino": ("full_kv", "a/b", None),
               "transformers": ("full_kv", "a/b", None)}.get(engine, ("mtp", None, None))  # fmt: skip
    cells = [
        cell_of(batch, context, (0, 1, 3), baseline=0.01, drafter=drafter, **kind)
        for batch in (1, 8)
        for context, kind in ((1000, HIGH), (64000, LOW))
    ]
    for form in load(engine).forms:
        text = export(plan_of(cells, (0, 1, 3)), engine, ExportOptions(form=form)).text
        assert text.endswith("\n") and "None" not in text
