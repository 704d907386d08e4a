"""Hostile files are answered in bounded time and memory, measured in a process of its own."""

import json
import subprocess
import sys
import textwrap

import pytest

MB = 1_000_000
MOST_SECONDS, MOST_BYTES = 10.0, 500 * MB
HEAD = "arrival_s,prompt_tokens,output_tokens\n"
KEYS = "".join(f'"{key}":1,' for key in range(500_000))
HOSTILE = {  # reader, start, what is repeated, how often, end, and what is said of it
    "commas": ("trace", "", ",", 100 * MB, "", ":1: the header is far too long"),
    "one line": ("trace", "", "a", 10 * MB, "", ":1: the header is far too long"),
    "a long row": ("trace", HEAD, ",", 10 * MB, "", ":2: has a quote that is not closed"),
    "quotes": ("trace", HEAD, '"1,2,3\n""\n', 20_000, "", "has a quote that is not closed"),
    "empty lines": ("trace", HEAD, "\n", MB + 10, "", "lines are empty"),
    "nested lines": ("trace", '{"a":', "[", 10 * MB, "", "has more than 1,000,000 characters"),
    "yaml nesting": ("yaml", "", "[", 100_000, "", "nested deeper than 24"),
    "yaml braces": ("yaml", "a: ", "{", 100_000, "", "found a list or mapping as a key"),
    "yaml list": ("yaml", "a: [", "1,", 490_000, "]", "more than 100,000 values"),
    "yaml doubles": ("yaml", "", "a:\n", 300_000, "", "the key appears twice"),
    "yaml quote": ("yaml", 'a: "', "b\n", 490_000, "", "not valid YAML"),
    "json nesting": ("model", '{"a":', "[", 16 * MB, "", "values"),
    "less nesting": ("model", '{"a":', "[", 100_000, "", "nested deeper than 24"),
    "json keys": ("model", "{", KEYS, 1, '"a":1}', "more than 400,000 values"),
    "json lists": ("model", '{"a":[', "[],", 5 * MB, "1]}", "values"),
    "json digits": ("model", '{"a":', "9", MB, "}", "a number of absurd length"),
    "plan nesting": ("plan", "", "[", 100_000, "", "nested too deep"),
    "plan lists": ("plan", "[", "1,", 10 * MB, "1]", "far too many values"),
    "one line of log": ("log", "", "draft acceptance ", MB, "", "the file is empty"),
    "lines of log": ("log", "", "x\n", 3 * MB, "", "more than 2,000,000 lines"),
    "log of json": ("log", '{"a":[', "1,", 10 * MB, "1]}", "far too many values"),
    "benchmark": ("benchmark", '{"completed":1,"a":[', "1,", 10 * MB, "1]}", "far too many values"),
    "table": ("limits", "scope,measure,statistic,at_least,at_most\n", "a\n", MB, "", "the header has 5"),
}
MEASURED = """
    import json, sys, time
    from perfmodel.acceptance.logs.reading import read_log as log
    from perfmodel.benchmarks.reading import read_benchmarks as benchmark
    from perfmodel.errors import SpecError
    from perfmodel.evidence.published.validate import limits_of as limits
    from perfmodel.files.document import read_yaml as yaml
    from perfmodel.model import ModelSpec
    from perfmodel.planning.plan import read_plan as plan
    from perfmodel.traffic.trace import read_trace as trace

    model, answers = ModelSpec.load, {}
    for name, (kind, path) in json.loads(sys.argv[1]).items():
        begun, said = time.process_time(), ""
        try:
            globals()[kind](path)
        except SpecError as refusal:
            said = str(refusal)
        status = open("/proc/self/status").read()
        most = int(status.partition("VmHWM:")[2].split()[0]) * 1024
        answers[name] = said[:100_000], time.process_time() - begun, most
    print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What was said of every hostile file, after how many seconds, and the most bytes held until then."""
    folder = tmp_path_factory.mktemp("hostile")
    files = {}
    for name, (kind, start, piece, count, end, _) in HOSTILE.items():
        path = folder / f"{name}.{'yaml' if kind == 'yaml' else 'json'}"
        path.write_text(start + piece * count + end)
        files[name] = kind, str(path)
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEASURED), json.dumps(files)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    for _, path in files.values():
        (folder / path).unlink()
    return json.loads(run.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc for the memory that was held")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_answered_in_bounded_time_and_memory(answers, name):
    said, seconds, most = answers[name]
    assert HOSTILE[name][-1] in said
    assert f"{name}.{'yaml' if HOSTILE[name][0] == 'yaml' else 'json'}" in said, "the file is named"
    assert len(said.splitlines()) <= 201
    assert seconds < MOST_SECONDS
    assert most < MOST_BYTES


def test_an_honest_table_with_a_quoted_cell_of_many_lines_is_still_read():
    from perfmodel.files.csv_rows import read_csv

    table = read_csv(b'a,b\r\n"1\n2\n3",x\r\n4,y', "file")
    assert [row.cells for row in table.rows] == [("1\n2\n3", "x"), ("4", "y")]
    assert [row.line for row in table.rows] == [2, 5]
    assert all(row.fault is None for row in table.rows)


def test_an_honest_list_of_times_is_no_hostile_one():
    from perfmodel.files.json_text import refuse_many

    refuse_many("[" + "0.012345678901234567," * 500_000 + "1]", "file")
