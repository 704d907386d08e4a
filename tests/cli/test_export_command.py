"""`draftplan export`, `plan --format ENGINE`, and the trends of `validate`, from the command line."""

import json
import sys

import pytest
from random_plans import cell_of, plan_of

from perfmodel.cli import main
from perfmodel.export import exporters

GAMMAS = (0, 1, 2, 4)
ASK = [
    "plan",
    "--model",
    "llama-3.1-8b",
    "--hardware",
    "h100-sxm-80gb",
    "--context",
    "4k,16k",
    "-b",
    "1,16,64",
]


@pytest.fixture
def run(capsys, monkeypatch):
    """Run the command line; gives its exit code, stdout and stderr."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["draftplan", *words])
        with pytest.raises(SystemExit) as left:
            main()
        written = capsys.readouterr()
        return left.value.code, written.out, written.err

    return run


@pytest.fixture
def plan_file(tmp_path):
    """A plan that drafts four tokens up to batch 16 and none above."""
    good, bad = {"alpha": 0.9, "draft": 0.05, "verify": 0.0}, {"alpha": 0.1, "draft": 0.5, "verify": 0.2}
    cells = [
        cell_of(batch, context, GAMMAS, baseline=0.01, **(good if batch <= 16 else bad))
        for batch in (1, 16, 64)
        for context in (1000, 8000)
    ]
    path = tmp_path / "plan.json"
    path.write_text(plan_of(cells, GAMMAS).to_json())
    return str(path)


def test_the_result_is_alone_on_stdout_and_remarks_are_on_stderr(run, plan_file):
    code, out, err = run("export", plan_file, "--engine", "vllm")
    assert code == 0
    assert json.loads(out)["num_speculative_tokens_per_batch_size"] == [[1, 31, 4], [32, 64, 0]]
    assert "length 0 is not plain decoding" in err
    assert "0.33.0" in err


def test_options_reach_the_exporter(run, plan_file):
    _, out, _ = run("export", plan_file, "--engine", "vllm", "--max-batch", "512")
    assert json.loads(out)["num_speculative_tokens_per_batch_size"][-1] == [32, 512, 0]
    _, out, _ = run("export", plan_file, "--engine", "sglang", "--form", "adaptive", "--context", "1k")
    assert json.loads(out) == {"1": {"candidate_steps": [4]}, "32": {"candidate_steps": [0]}}
    _, out, _ = run("export", plan_file, "--engine", "tensorrt-llm", "--semantics", "upper")
    assert "draft_len_schedule: {31: 4" in out
    _, out, err = run("export", plan_file, "--engine", "tensorrt-llm", "--semantics", "lower")
    assert "draft_len_schedule" not in out
    assert "not with MTP" in err


def test_weights_are_read_by_context(run, plan_file):
    code, _, _ = run("export", plan_file, "--engine", "neutral", "--weights", "1k=0.7,8k=0.3")
    assert code == 0
    code, _, err = run("export", plan_file, "--engine", "neutral", "--weights", "1k:0.7")
    assert code == 2
    assert "--weights" in err


def test_it_writes_to_a_file(run, plan_file, tmp_path):
    path = tmp_path / "spec.json"
    code, out, _ = run("export", plan_file, "--engine", "vllm", "-o", str(path))
    assert (code, out) == (0, "")
    assert json.loads(path.read_text())["method"] == "mtp"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--engine", "vlm"], "Did you mean 'vllm'"),
        (["--engine", "vllm", "--form", "x"], "choose speculative-config"),
        (["--engine", "transformers"], "cannot run mtp"),
        (["--engine", "vllm", "--context", "long"], "--context: found 'long'"),
        (["--engine", "vllm", "--context", "1:2"], "no planned context lies between 1 and 2"),
        (["--engine", "vllm", "--weights", "7=1"], "--weights: found 7=1"),
    ],
)
def test_what_cannot_be_is_refused_with_code_two(run, plan_file, words, says):
    code, out, err = run("export", plan_file, *words)
    assert (code, out) == (2, "")
    assert says in err


def test_a_file_that_is_no_plan_is_refused(run, tmp_path):
    path = tmp_path / "notes.json"
    path.write_text("{}")
    code, _, err = run("export", str(path), "--engine", "vllm")
    assert code == 2
    assert "notes.json" in err


def test_plan_writes_an_engines_own_words(run):
    code, out, err = run(*ASK, "--strategy", "ngram", "--format", "vllm")
    assert code == 0
    assert json.loads(out)["method"] == "ngram"
    assert "one length per batch" in err


def test_plan_refuses_an_unknown_format_with_the_nearest(run):
    code, _, err = run(*ASK, "--format", "sglan")
    assert code == 2
    assert "Did you mean 'sglang'" in err
    assert all(engine in err for engine in exporters())


def test_a_plan_file_of_the_command_line_can_be_exported(run, tmp_path):
    path = tmp_path / "plan.json"
    run(*ASK, "--strategy", "ngram", "--one-deployment", "--format", "json", "-o", str(path))
    for engine in ("vllm", "sglang", "neutral", "dynamo"):
        assert run("export", str(path), "--engine", engine)[0] == 0


def test_validate_shows_trends_and_where_it_cannot_tell(run):
    code, out, _ = run("validate", "--format", "json")
    assert code in (0, 3)
    verdicts = {trend["verdict"] for trend in json.loads(out)["trends"]}
    assert "cannot tell" in verdicts


def test_an_unknown_engine_is_answered_with_the_known_ones(run, plan_file):
    code, _, err = run("export", plan_file, "--engine", "zzz")
    assert code == 2
    assert f"Known: {', '.join(exporters())}." in err


def test_a_refused_strategy_is_not_suggested_again_but_with_a_draft_model(run, tmp_path):
    path = tmp_path / "plan.json"
    cell = cell_of(1, 1000, GAMMAS, baseline=0.01, alpha=0.9, draft=0.05, verify=0.0)
    text = plan_of([cell], GAMMAS).to_json().replace('"mtp"', '"streaming_llm"')
    path.write_text(text)
    code, _, err = run("export", str(path), "--engine", "vllm")
    assert code == 2
    assert "cannot run streaming_llm" in err
    assert "plan with a --draft-model, with --strategy dflash,eagle,full_kv,mtp,ngram," in err
    assert "Did you mean" not in err


def test_names_that_nobody_knows_are_remarked_and_no_others(tmp_path, run):
    cells = [cell_of(8, 4000, (0, 2), alpha=0.9, baseline=0.01, draft=0.05, verify=0.0)]
    known = {"model": "Llama-3.1-8B", "hardware": "h100-sxm-80gb", "engine": "vllm@0.11.0"}
    told = {}
    for name, header in (("known", known), ("own", {**known, "model": "My-8B", "engine": "mine"})):
        path = tmp_path / f"{name}.json"
        path.write_text(plan_of(cells, (0, 2), **header).to_json())
        code, _, err = run("export", str(path), "--engine", "neutral")
        assert code == 0
        told[name] = err.replace("\n", " ")
    assert "not known here" not in told["known"]
    assert "own.json names what is not known here" in told["own"]
    assert "model 'My-8B', engine 'mine'" in told["own"]
