"""Exports are safe to paste: what came from a plan or a flag arrives byte for byte, or is refused."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml
from hostile import EMPTY, FLAGS, REFUSED, SEEN, UNSEEN, WORDS, leaves, words_of
from random_plans import cell_of, plan_of
from test_export import GAMMAS, HIGH, LOW, stepped
from typer.testing import CliRunner

from perfmodel.cli.app import app
from perfmodel.errors import SpecError, printable
from perfmodel.export import ExportOptions, export, exporters, load
from perfmodel.export.checkpoints import FILL_IN, checkpoint
from perfmodel.files.quoting import decimal, environment, json_text, shell, shell_line, shell_path

MARK, OTHER = "mark/er", "other/model"
EVERY_FORM = [(engine, form) for engine in exporters() for form in load(engine).forms]
SHELL = {
    ("sglang", "flags"), ("llamacpp", "flags"), ("vllm", "scheduler"), ("dynamo", "aiconfigurator"),
}  # fmt: skip
YAML = {("tensorrt_llm", "yaml"), ("dynamo", "aisimulate")}
VARIABLES = {("vllm", "env"), ("llamacpp", "costs")}
"""What is no JSON."""
DRAFTERS = {"vegas": ("streaming_llm", None, 512)} | dict.fromkeys(
    ("vllm", "sglang", "tensorrt_llm"), ("eagle", OTHER, None)
)
FILES = {"llamacpp": "gguf", "openvino": "folder"}
"""Engines that load files: an id of a hub is none."""
HEADER = ("model", "hardware", "engine", "software", "objective")


def planned(exporter, *, draft_model=None, strategy=None, **header):
    """A plan that an engine can run, with values of others in it."""
    usual, model, budget = DRAFTERS.get(exporter, ("full_kv", OTHER, None))
    model = draft_model if draft_model is not None and model else model
    drafter = (usual if strategy is None else strategy, model, budget)
    cells = [
        cell_of(batch, 8000, GAMMAS, baseline=0.01, drafter=drafter, **(HIGH if batch <= 16 else LOW))
        for batch in (1, 16, 64)
    ]
    return plan_of(cells, GAMMAS, **header)


def asked(place, value):
    """What a plan and the options say with a value in a place."""
    if place == "draft_model":
        return {"draft_model": value}, {}
    options = {"draft_path": OTHER}
    if place == "strategy":
        return {"strategy": value}, options | {"method": "draft-other"}
    if place == "header":
        more = {"versions": {value: value}, "request": {"k": value}, "assumed": (value,)}
        return dict.fromkeys(HEADER, value) | more, options
    return {}, options | {place: value}


def texts(place, engine, form, values):
    """What is exported by value, without those that are refused, in words that all can be seen."""
    answers = {}
    for value in values:
        inside, options = asked(place, value)
        plan, refusal = planned(engine, **inside), None
        try:
            answers[value] = export(plan, engine, ExportOptions(form=form, **options)).text
        except SpecError as error:
            refusal = str(error)
        assert refusal is None or (refusal and printable(refusal, keep="\n") == refusal)
    return answers


def read_back(engine, form, lines, folder):
    """The leaves of each text as the engine reads it, and that nothing else was run."""
    if (engine, form) in SHELL:
        for shell in filter(shutil.which, ("bash", "sh")):
            words, left = words_of(lines, folder, shell)
            assert left == []
        return [[leaf for word in each for leaf in leaves(word)] for each in words]
    if (engine, form) in YAML:
        return [leaves(yaml.safe_load(text)) for text in lines]
    if (engine, form) in VARIABLES:
        assert all(shlex.split(text) == [text.strip()] for text in lines)
        return [text.strip().split("=") for text in lines]
    assert all("'" not in text for text in lines)
    assert all(shlex.split(f"'{text.strip()}'") == [text.strip()] for text in lines)
    return [leaves(json.loads(text)) for text in lines]


@pytest.mark.parametrize(("engine", "form"), EVERY_FORM)
@pytest.mark.parametrize("place", ["draft_path", "draft_model", "header"])
def test_a_value_of_others_arrives_byte_for_byte_or_is_refused(place, engine, form, tmp_path):
    unfit = REFUSED if place == "draft_path" else UNSEEN | FLAGS
    seen = [*SEEN.values(), *(f"{word}/{word}" for word in WORDS)]
    plain = texts(place, engine, form, [MARK])[MARK]
    if MARK not in plain and FILL_IN not in plain:
        seen = seen[:6]  # the value is not written at all
    values = [MARK, *seen, *unfit.values()]
    kept = texts(place, engine, form, values)
    plain, *others = read_back(engine, form, list(kept.values()), tmp_path)
    for value, arrived in zip(list(kept)[1:], others, strict=True):
        meant, instead = MARK, value
        if place == "draft_model" and engine in FILES:
            meant, instead = (checkpoint(name, FILES[engine], "")[0] for name in (MARK, value))
            assert re.fullmatch(rf"{FILL_IN}-[A-Za-z0-9.-]*", instead)
        assert arrived == [instead if leaf == meant else leaf for leaf in plain], value
    assert set(kept) >= {MARK, *seen}, "what can be is exported"
    refused = set(values) - set(kept)
    if place == "draft_path":
        assert refused == set(REFUSED.values()), "alike in every form, whether it writes the path or not"
    elif place == "draft_model" and engine in ("vllm", "sglang") and MARK in plain:
        assert refused == set(unfit.values())


@pytest.mark.parametrize(("engine", "form"), EVERY_FORM)
@pytest.mark.parametrize("place", ["method", "strategy", "engine_version"])
def test_a_name_is_letters_and_digits_or_is_refused(place, engine, form, tmp_path):
    mark = "1.3.0" if place == "engine_version" else "draft-mark"
    seen = [SEEN[name] for name in ("spaces", "single quote", "substitution", "glob", "yaml mapping")]
    values = [mark, *WORDS, *seen, "-x", "--a=b", "a\nb", "a\0", "ü", "quantile:nan", "a" * 5000]
    kept = texts(place, engine, form, values)
    costs = form.startswith(("sps", "costs"))
    if place != "strategy" or not (costs or engine in ("neutral", "dynamo")):  # no name of it is used there
        assert set(kept) <= {mark, *WORDS}
    arrived = read_back(engine, form, list(kept.values()), tmp_path)
    for value, each in zip(kept, arrived, strict=True):
        if mark in arrived[0]:
            assert each == [value if leaf == mark else leaf for leaf in arrived[0]]


@pytest.mark.parametrize(
    "options",
    [
        {"collapse": "quantile:nan"}, {"collapse": "quantile:0.5"}, {"max_loss": float("nan")},
        {"max_loss": float("inf")}, {"merge_loss": float("nan")}, {"weights": {8000: float("nan")}},
        {"weights": {8000: float("inf")}}, {"max_loss": -0.1}, {"max_batch": 10**30},
        {"data_parallel": 2**31},
    ],
)  # fmt: skip
@pytest.mark.parametrize(("engine", "form"), EVERY_FORM)
def test_an_option_that_is_no_number_is_refused_by_every_form(engine, form, options):
    with pytest.raises(SpecError, match=r"request: --"):
        export(planned(engine), engine, ExportOptions(form=form, draft_path=MARK, **options))


def test_numbers_are_finite_and_have_no_exponent_where_yaml_or_a_shell_reads_them():
    for value in (1e-7, 0.5, 123456.0, 1e22, 3.0):
        assert float(decimal(value)) == value and "e" not in decimal(value)
        assert isinstance(yaml.safe_load(f"a: {decimal(value)}")["a"], (int, float))
        assert float(decimal(value, 4)) == float(f"{value:.4g}") and "e" not in decimal(value, 4)
    for value in (float("nan"), float("inf")):
        for write in (decimal, lambda number: json_text({"a": number})):
            with pytest.raises(SpecError):
                write(value)
    with pytest.raises(SpecError, match="A: found 'b c'"):
        environment("A", "b c")
    tiny = planned("neutral", request={"k": float("inf")})
    with pytest.raises(SpecError, match="not finite"):
        export(tiny, "neutral")


def test_quotes_in_a_line_of_flags_are_said_with_what_reads_them():
    plain = export(planned("sglang"), "sglang", ExportOptions(draft_path="a/b"))
    quoted = export(planned("sglang"), "sglang", ExportOptions(draft_path="a b/c"))
    assert not any("quotes of a shell" in note for note in plain.notes)
    assert any("quotes of a shell" in note and "eval" in note for note in quoted.notes)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_recipe_with_eval_hands_a_program_on_the_path_what_was_meant(tmp_path):
    stub = tmp_path / "llama-server"
    stub.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    stub.chmod(0o755)
    (tmp_path / "stepped.json").write_text(stepped(("full_kv", "a/b", None)).to_json())
    path = "a'b $(touch x) `touch x`/\\\"*.gguf"
    text = export(planned("llamacpp"), "llamacpp", ExportOptions(draft_path=path)).text
    (tmp_path / "flags").write_text(text)
    ran = subprocess.run(
        ["bash", "-c", 'eval "llama-server -m t.gguf $(cat flags)"'], cwd=tmp_path, capture_output=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, timeout=60, check=True,
    )  # fmt: skip
    words = json.loads(ran.stdout)
    assert words[words.index("--model-draft") + 1] == path and not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["$(touch x)", "a b'c\"", "a\nb", "\x1b[31m", "\u202egpj", "*", "-rf"])
def test_files_may_be_called_anything(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{name}.json").write_text(stepped().to_json())
    arguments = ["export", f"./{name}.json", "--engine", "vllm", "-o", f"./{name}.out"]
    answer = CliRunner().invoke(app, arguments, prog_name="draftplan")
    assert answer.exit_code == 0, answer.output
    assert json.loads((tmp_path / f"{name}.out").read_text())["method"] == "mtp"
    assert printable(answer.stderr, keep="\n") == answer.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"{name}.json", f"{name}.out"])
    missing = CliRunner().invoke(app, ["export", f"./{name}", "--engine", "vllm"], prog_name="draftplan")
    assert missing.exit_code == 2 and printable(missing.stderr, keep="\n") == missing.stderr


@pytest.mark.parametrize("flag", ["--method", "--draft-path", "--engine-version", "--collapse", "--form"])
def test_a_flag_that_is_refused_is_refused_in_one_line(flag, tmp_path):
    (tmp_path / "plan.json").write_text(stepped().to_json())
    for value in (*UNSEEN.values(), *EMPTY.values(), "$(touch x)\n"):
        if "\0" in value or "\ud800" in value:
            continue  # no command can be given it
        arguments = ["export", str(tmp_path / "plan.json"), "--engine", "vllm", flag, value]
        answer = CliRunner().invoke(app, arguments, prog_name="draftplan")
        assert answer.exit_code == 2 and flag in answer.stderr, answer.output
        assert sum(line.startswith("error: ") for line in answer.stderr.splitlines()) == 1


def test_every_word_arrives_at_a_command_as_it_was_or_no_command_can_be_given_it(tmp_path):
    words = [*SEEN.values(), *WORDS, *FLAGS.values(), *UNSEEN.values(), *EMPTY.values(), "=x", "!a'\x1b!"]
    unfit = [word for word in words if "\0" in word or "\ud800" in word]
    for word in unfit:
        with pytest.raises(SpecError, match="no command can be given"):
            shell(word)
    words = [word for word in words if word not in unfit]
    line = shell_line(words)
    assert printable(line) == line
    assert words_of([line], tmp_path) == ([words], [])
    paths, _ = words_of([shell_path("-rf"), shell_path("-"), shell_path("a b")], tmp_path)
    assert paths == [["./-rf"], ["-"], ["a b"]]


@pytest.mark.parametrize("name", [*SEEN.values(), *FLAGS.values(), *list(UNSEEN.values())[:2]])
def test_what_acceptance_fit_says_next_is_quoted(name, tmp_path):
    from perfmodel.cli.tell.acceptance import _next

    place = {"strategy": "eagle", "target_model": name, "draft_model": name}
    says = [*_next(name, None, place), *_next(name, name, place)]
    lines = [each.partition("draftplan ")[2] for each in says if "draftplan " in each]
    (fit, plan), left = words_of(lines, tmp_path)
    file = f"./{name}" if name.startswith("-") else name
    assert fit == ["acceptance", "fit", file, "-o", "acceptance.json"] and left == []
    assert plan == ["plan", "--model", name, "--draft-model", name, "...", "--acceptance", file]


def test_the_remedy_for_several_models_in_a_log_is_quoted():
    from perfmodel.acceptance.logs.samples import Sample, of_one_model

    samples = [Sample(None, "a", {"model_name": name}, [1.0]) for name in ("$(touch x) b", "c")]
    with pytest.raises(SpecError) as refusal:
        of_one_model(samples, "log", None)
    assert "--only '$(touch x) b'" in str(refusal.value)
