"""The service answers what the command line and the library answer, and refuses in words."""

from __future__ import annotations

import csv
import io
import json

import pytest
from typer.testing import CliRunner

pytest.importorskip("fastapi")
pytest.importorskip("plotly")

from explored import QUESTION, client

import perfmodel
from perfmodel.cli.app import app
from perfmodel.cli.plan import PlanFlags
from perfmodel.explore.asked import Flag
from perfmodel.explore.catalogue import POSTED
from perfmodel.explore.forms import PriceAnswer, question_request
from perfmodel.model.files import available_models
from perfmodel.policy import SpeculationPolicy

SERVICE = client()
FLAGS = ["--model", "llama-3.1-8b", "--hardware", "h100-sxm-80gb", "--tp", "8"]
GRID = {**QUESTION, "batch_size": [16, 64], "context": "8k,32k", "one_deployment": True}
GRID_FLAGS = [*FLAGS, "-b", "16,64", "--context", "8k,32k", "--one-deployment"]
CASE = {
    "hardware": "h100-sxm-80gb", "target_model": "llama-3.1-8b", "strategy": "snapkv", "context_len": 32000,
    "batch_size": 64, "gamma": 3, "tensor_parallel": 8, "kv_budget": 512,
}  # fmt: skip


def ask(path, body):
    return SERVICE.post(path, json=body)


def answered(path, body):
    reply = ask(path, body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def refused(path, body, status=422):
    reply = ask(path, body)
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    details = reply.json()
    assert {"type", "title", "status", "detail"} <= set(details)
    assert "Traceback" not in reply.text
    return details


def printed(*arguments):
    result = CliRunner().invoke(app, [*arguments], prog_name="draftplan")
    assert result.exit_code == 0, result.stderr
    return result.stdout


def of(name):
    """The model of that name in the documentation."""
    return SERVICE.get("/openapi.json").json()["components"]["schemas"][name]


# What it answers.


def test_a_plan_is_that_of_the_command_line():
    said = answered("/plan", GRID)
    assert said["plan"] == json.loads(printed("plan", *GRID_FLAGS, "--format", "json"))
    table = " ".join(printed("plan", *GRID_FLAGS).split())
    assert " ".join(said["headline"].split()) in table


def test_the_documentation_names_every_key_of_an_answer():
    said = answered("/plan", GRID)
    assert set(of("PlanAnswer")["properties"]) == set(said)
    assert set(of("Plan")["properties"]) == set(said["plan"])
    assert set(of("Cell")["properties"]) == set(said["plan"]["cells"][0])


def test_every_flag_that_asks_something_is_a_key_in_all_its_spellings():
    known = set(of("Question")["properties"])
    left_out = set(PlanFlags.__dataclass_fields__) - known
    assert left_out == {
        "acceptance", "profiles_path", "config", "output", "format", "no_color", "lossy", "pruned", "served",
        "explain", "quiet", "jobs", "executor", "allow_code", "offline",
    }  # fmt: skip
    spelled = {key: value for key, value in GRID.items() if key not in ("tp", "context")}
    again = answered("/plan", {**spelled, "tensor_parallel_size": 8, "isl": [8000, 32000]})
    assert again == answered("/plan", GRID)


def test_a_flag_is_declared_in_one_place():
    flag = Flag("greeting", ("hello",), str, None, False, "What is said.")
    form = question_request([flag])
    assert form.model_validate({"hello": "you"}).greeting == "you"
    assert form.model_json_schema()["properties"]["greeting"]["description"] == "What is said."


def test_cases_are_priced_as_on_the_command_line(tmp_path):
    file = tmp_path / "cases.csv"
    file.write_text(",".join(CASE) + "\n" + ",".join(map(str, CASE.values())) + "\n")
    [row] = csv.DictReader(io.StringIO(printed("price", str(file))))
    [case] = answered("/price", {"cases": [CASE]})["cases"]
    assert case["speedup"] == float(row["speedup"])
    assert case["fits"] is (row["fits"] == "true")
    assert set(case) <= set(of("PricedCase")["properties"])
    assert PriceAnswer.model_validate({"remarks": [], "cases": [case]})


def test_a_case_that_cannot_be_priced_keeps_its_place_and_says_why():
    first, second = answered("/price", {"cases": [{**CASE, "gamma": 1000}, CASE]})["cases"]
    assert first["speedup"] is None
    assert "gamma" in first["error"]
    assert second["speedup"] > 1.0


def test_a_decision_is_that_of_the_policy_from_a_plan_and_from_its_question(tmp_path):
    plan = answered("/plan", GRID)["plan"]
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan))
    own = SpeculationPolicy.load(file).decide(48, 48 * 20_000)._asdict()
    now = {"batch_size": 48, "kv_tokens": 48 * 20_000}
    assert answered("/decide", {"plan": plan, **now}) == own
    assert answered("/decide", {"question": GRID, **now}) == own
    assert set(of("Decision")["properties"]) == set(own)


def test_decisions_do_not_depend_on_what_was_asked_before():
    now = [{"question": GRID, "batch_size": batch, "kv_tokens": batch * 20_000} for batch in (16, 40, 64)]
    there = [answered("/decide", each) for each in now]
    back = [answered("/decide", each) for each in reversed(now)]
    assert there == back[::-1]


def test_lists_are_those_of_the_command_line():
    for noun in ("models", "hardware", "engines", "strategies"):
        lines = SERVICE.get(f"/{noun}").json()["names"]
        assert lines == json.loads(printed(noun, "list", "--format", "json"))[noun]
    assert [line["name"] for line in SERVICE.get("/models").json()["names"]] == list(available_models())


def test_a_posted_config_is_read_as_the_bundled_one():
    file = perfmodel.__path__[0] + "/data/models/Llama-3.1-8B.json"
    with open(file, encoding="utf-8") as stream:
        config = json.load(stream)
    posted = answered("/plan", {**QUESTION, "model": config})["plan"]
    named = answered("/plan", QUESTION)["plan"]
    assert posted["model"] == POSTED  # acceptance was published of names, so what drafts yield may differ
    for key in ("baseline_s", "cache_share"):
        assert posted["cells"][0][key] == named["cells"][0][key]
    del config["num_attention_heads"]
    details = refused("/plan", {**QUESTION, "model": config})
    assert "num_attention_heads" in details["detail"]


def test_exports_are_those_of_the_command_line_and_refusals_are_words():
    question = {**GRID, "engine": "vllm-h100"}
    said = answered("/export", {"question": question, "format": "vllm"})
    flags = [*GRID_FLAGS, "--engine", "vllm-h100", "--format", "vllm"]
    assert said["text"] == printed("plan", *flags)
    assert said["refusal"] == ""
    said = answered("/export", {"question": {**GRID, "strategy": "snapkv"}, "format": "vllm"})
    assert said["text"] == ""
    assert "vllm cannot run snapkv" in said["refusal"]


def test_a_report_is_the_page_of_the_report():
    reply = ask("/report", GRID)
    assert reply.status_code == 200
    assert "attachment" in reply.headers["content-disposition"]
    assert "Should Llama-3.1-8B speculate" in reply.text
    assert "draftplan report --model llama-3.1-8b" in reply.text


def test_health_and_a_scrape():
    assert SERVICE.get("/health").json()["status"] == "ok"
    before = SERVICE.get("/metrics").text
    ask("/plan", {**QUESTION, "gama": 4})
    after = SERVICE.get("/metrics").text
    name = 'draftplan_http_responses_total{status="422"} '

    def count(text):
        return sum(int(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))

    assert count(after) == count(before) + 1
    assert "# TYPE draftplan_http_seconds_total counter" in after


# What it refuses, and how.


def test_every_wrong_key_is_named_with_its_value_and_what_to_do():
    details = refused("/plan", {**QUESTION, "hardware": "h101-sxm-80gb", "gamma": 900, "strategy": "snapkw"})
    problems = {each["key"]: each for each in details["problems"]}
    assert set(problems) == {"hardware", "strategy", "gamma"}
    assert problems["hardware"]["value"] == "h101-sxm-80gb"
    assert problems["strategy"]["nearest"] == "snapkv"
    assert all(each["problem"] and each["remedy"] for each in problems.values())


def test_an_unknown_and_a_missing_key_are_named():
    asked = {key: value for key, value in QUESTION.items() if key != "model"}
    details = refused("/plan", {**asked, "gama": 3})
    problems = {each["key"]: each for each in details["problems"]}
    assert problems["gama"]["nearest"] == "gamma"
    assert problems["model"]["problem"] == "field required"


def test_where_nothing_is_feasible_the_nearest_miss_is_said():
    details = refused("/plan", {**QUESTION, "batch_size": 100_000})
    assert details["counts"]
    assert details["nearest_miss"]


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd", "../llama", "~/config.json", "https://example.org/x", "meta-llama/Llama-3.1-8B",
        "a\\b", "x.yaml", "x" * 200, "sna\x00p", "file:x.json", ".",
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", ["model", "hardware", "engine", "strategy", "draft_model"])
def test_no_path_address_or_hub_id_is_looked_up(key, name, monkeypatch):
    monkeypatch.setattr("perfmodel.model.files._config_from_hub", None)
    monkeypatch.setattr("perfmodel.model.files._config_on_disk", None)
    details = refused("/plan", {**QUESTION, key: name})
    assert key in [each["key"] for each in details["problems"]]
    column = "target_model" if key == "model" else key
    refused("/price", {"cases": [{**CASE, column: name}]})


def test_a_file_that_is_there_is_no_name(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "config.json", "./mine"):
        details = refused("/plan", {**QUESTION, "model": name})
        assert "mine" not in details["detail"] or "no" in details["detail"]


def test_flags_that_name_files_are_no_keys():
    for key in ("acceptance", "profiles_path", "config", "output"):
        details = refused("/plan", {**QUESTION, key: "/etc/passwd"})
        assert details["problems"][0]["problem"] == "there is no such key"


def test_a_body_that_is_no_json_or_says_a_key_twice_is_refused():
    headers = {"content-type": "application/json"}
    for body, word in ((b"{", "JSON"), (b'{"model":1,"model":2}', "twice"), (b"\xff", "UTF-8"), (b"[1]", "")):
        reply = SERVICE.post("/plan", content=body, headers=headers)
        assert reply.status_code in (400, 422)
        assert word in reply.text


def test_a_decision_wants_a_plan_or_a_question():
    refused("/decide", {"batch_size": 1, "kv_tokens": 1})
    refused("/decide", {"plan": {}, "batch_size": 1, "kv_tokens": 1})
