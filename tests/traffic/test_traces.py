"""Requests as they arrive: public forms are read, damaged files refused by line, drawn ones have laws."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.errors import SpecError
from perfmodel.traffic.synthetic import parse_synthetic, synthetic_trace
from perfmodel.traffic.trace import Trace, read_trace

PLAIN = "arrival_s,prompt_tokens,output_tokens\n0,100,10\n1.5,200,20\n"


def written(tmp_path, text, name="trace.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def faults_of(path):
    with pytest.raises(SpecError) as refused:
        read_trace(path)
    assert all(fault.file == str(path) for fault in refused.value.faults)
    return refused.value.faults


# Files in public forms.


def test_the_form_of_the_azure_traces_is_read(tmp_path):
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:03.9799600,4808,10\n"
        "2023-11-16 18:17:04.0319600,110,27\n"
        "2023-11-16 18:17:04,3180,8\n"
    )
    trace = read_trace(written(tmp_path, text, "code.csv"))
    assert trace.name == "code"
    np.testing.assert_allclose(trace.arrival, [0.0, 0.02004, 0.052], atol=1e-6)
    assert trace.prompt_tokens.tolist() == [4808, 3180, 110]
    assert trace.output_tokens.tolist() == [10, 8, 27]


def test_times_with_and_without_a_zone_mean_the_same_instant(tmp_path):
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2024-05-10 00:00:00.009930+00:00,1,1\n"
        "2024-05-10T02:00:01.009930+0200,2,1\n"
        "2024-05-10 00:00:02.00993,3,1\n"
    )
    np.testing.assert_allclose(read_trace(written(tmp_path, text)).arrival, [0.0, 1.0, 2.0], atol=1e-6)


def test_the_form_of_the_mooncake_traces_is_read_in_milliseconds(tmp_path):
    rows = [
        {"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 2353]},
        {"timestamp": 30535, "input_length": 6472, "output_length": 26, "hash_ids": [46, 47]},
    ]
    trace = read_trace(written(tmp_path, "\n".join(map(json.dumps, rows)), "conversation.jsonl"))
    np.testing.assert_allclose(trace.arrival, [0.0, 3.053])
    assert trace.prompt_tokens.tolist() == [6955, 6472]
    assert trace.output_tokens.tolist() == [52, 26]


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        "\ufeff" + PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace(",", " , "),
        PLAIN + "\n\n",
        "Prompt_Tokens,model,OUTPUT_TOKENS,Arrival_s\n200,x,20,1.5\n100,x,10,0\n",
        '{"arrived_at": 1.5, "num_prefill_tokens": 200, "num_decode_tokens": 20}\n\n'
        '{"arrived_at": 0, "num_prefill_tokens": 100, "num_decode_tokens": 10}\n',
    ],
)
def test_plain_traces_are_read_whatever_the_order_of_columns_and_rows(tmp_path, text):
    trace = read_trace(written(tmp_path, text))
    assert (trace.arrival.tolist(), trace.prompt_tokens.tolist()) == ([0.0, 1.5], [100, 200])
    assert trace.output_tokens.tolist() == [10, 20]
    assert (len(trace), trace.longest, trace.qps) == (2, 220, 2 / 1.5)


# Damaged files.


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", 1, "header"),
        ("\n", 1, "header"),
        ("arrival_s,prompt_tokens,output_tokens\n", None, "no requests"),
        ("arrival_s,promt_tokens,output_tokens\n0,1,1\n", 1, "prompt_tokens"),
        ("arrival_s,prompt_tokens,prompt_tokens,output_tokens\n0,1,1,1\n", 1, "twice"),
        (PLAIN + "2,300\n", 4, "2 cells"),
        (PLAIN + "2,300,4,5\n", 4, "4 cells"),
        (PLAIN + "2,,4\n", 4, "prompt_tokens"),
        (PLAIN + "2,0,4\n", 4, "from 1 to"),
        (PLAIN + "2,-4,30\n", 4, "from 1 to"),
        (PLAIN + "2,300.5,4\n", 4, "whole number"),
        (PLAIN + "2,1e9,4\n", 4, "from 1 to"),
        (PLAIN + "2,1_000,4\n", 4, "1_000"),
        (PLAIN + "nan,300,4\n", 4, "nan"),
        (PLAIN + "inf,300,4\n", 4, "inf"),
        (PLAIN + "1e999,300,4\n", 4, "1e999"),
        (PLAIN + "2024-13-45 00:00:00,300,4\n", 4, "2024-13-45"),
        (PLAIN + "yesterday,300,4\n", 4, "yesterday"),
        (PLAIN + '"2,300,4\n', 4, "quote"),
        (PLAIN + "2,3\x0000,4\n", 4, ""),
        (PLAIN.encode() + b"2,\xff,4\n", 4, "UTF-8"),
        ('{"timestamp": 0, "input_length": 5, "output_length": 1}\n{"timestamp": 1\n', 2, "JSON"),
        ('{"timestamp": 0, "input_length": 5, "output_length": 1}\n[1, 2]\n', 2, "not an object"),
        ('{"timestamp": 0, "input_length": 5, "output_length": 1}\n{"timestamp": 1}\n', 2, "input_length"),
        ('{"timestamp": 0, "input_length": 5, "input_length": 6, "output_length": 1}\n', 1, ""),
        ('{"timestamp": NaN, "input_length": 5, "output_length": 1}\n', 1, ""),
        ('{"timestamp": true, "input_length": 5, "output_length": 1}\n', 1, "True"),
        ('{"timestamp": 0, "input_length": "5 tokens", "output_length": 1}\n', 1, "5 tokens"),
        ("{" * 100_000, 1, ""),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(tmp_path, text, line, says):
    found = faults_of(written(tmp_path, text))
    assert found[0].line == line
    assert says in str(found[0])


def test_a_request_longer_than_any_context_is_refused_with_its_line(tmp_path):
    (fault,) = faults_of(written(tmp_path, PLAIN + "2,100000000,1\n"))
    assert (fault.line, fault.field) == (4, "prompt_tokens")


def test_every_fault_is_named_but_no_more_than_twenty(tmp_path):
    assert len(faults_of(written(tmp_path, PLAIN + "x,0,y\n"))) == 3
    assert len(faults_of(written(tmp_path, PLAIN + "2,0,4\n" * 100))) == 20


def test_a_column_that_is_nearly_known_is_guessed(tmp_path):
    (fault,) = faults_of(written(tmp_path, "arrival_s,prompt_token,output_tokens\n0,1,1\n"))
    assert fault.nearest == "prompt_tokens"


@pytest.mark.parametrize(
    ("name", "said"), [("absent.csv", "does not exist"), (".", "a folder"), ("with\0zero", "cannot be read")]
)
def test_what_cannot_be_read_is_refused(tmp_path, name, said):
    with pytest.raises(SpecError, match=said):
        read_trace(f"{tmp_path}/{name}")


@given(st.binary(max_size=60), st.integers(0, len(PLAIN)))
def test_no_damage_ends_in_anything_but_a_trace_or_a_refusal(tmp_path_factory, junk, place):
    path = tmp_path_factory.mktemp("junk") / "trace.csv"
    path.write_bytes(PLAIN.encode()[:place] + junk + PLAIN.encode()[place:])
    try:
        trace = read_trace(path)
    except SpecError:
        return
    assert len(trace) >= 1


# Drawn traces.

drawn = st.fixed_dictionaries(
    {
        "requests": st.integers(1, 300),
        "qps": st.floats(0.01, 1000) | st.just(float("inf")),
        "prompt_tokens": st.floats(1, 1e5),
        "output_tokens": st.floats(1, 1e4),
        "spread": st.floats(0, 2),
        "burstiness": st.floats(0, 50),
        "seed": st.integers(0, 2**32),
    }
)


@given(drawn)
def test_a_drawn_trace_is_a_trace_and_the_same_for_the_same_seed(settings):
    trace, again = synthetic_trace(**settings), synthetic_trace(**settings)
    assert len(trace) == settings["requests"]
    assert trace.arrival[0] == 0.0
    assert np.all(np.diff(trace.arrival) >= 0)
    assert trace.prompt_tokens.min() >= 1
    for column in ("arrival", "prompt_tokens", "output_tokens"):
        assert np.array_equal(getattr(trace, column), getattr(again, column))


@given(st.floats(0.1, 50), st.floats(0.0, 4.0), st.floats(0.0, 0.8), st.integers(0, 9))
def test_a_long_drawn_trace_has_the_means_asked_for(qps, burstiness, spread, seed):
    trace = synthetic_trace(
        requests=20_000,
        qps=qps,
        prompt_tokens=3000,
        output_tokens=200,
        spread=spread,
        burstiness=burstiness,
        seed=seed,
    )
    assert trace.qps == pytest.approx(qps, rel=0.1)
    assert trace.prompt_tokens.mean() == pytest.approx(3000, rel=0.05)
    assert trace.output_tokens.mean() == pytest.approx(200, rel=0.05)
    gaps = np.diff(trace.arrival)
    assert gaps.var() / gaps.mean() ** 2 == pytest.approx(burstiness, rel=0.25, abs=1e-6)


def test_lengths_without_spread_are_equal_and_gaps_without_burstiness_too():
    trace = synthetic_trace(requests=5, qps=2, prompt_tokens=30, output_tokens=7, spread=0, burstiness=0)
    assert trace.prompt_tokens.tolist() == [30] * 5
    np.testing.assert_allclose(trace.arrival, [0, 0.5, 1, 1.5, 2])


def test_a_trace_in_words_means_the_same_as_its_arguments():
    trace = parse_synthetic(" qps=2, prompt=32k,output=500,requests=40,burst=4,spread=.3,seed=7 ")
    same = synthetic_trace(
        requests=40, qps=2, prompt_tokens=32000, output_tokens=500, burstiness=4, spread=0.3, seed=7
    )
    assert np.array_equal(trace.arrival, same.arrival)
    assert np.array_equal(trace.prompt_tokens, same.prompt_tokens)
    assert np.all(parse_synthetic("qps=inf,prompt=1k,output=1").arrival == 0.0)


def test_every_wrong_word_is_named():
    with pytest.raises(SpecError) as refused:
        parse_synthetic("qps=fast,prompts=32k,requests=-1")
    fields = [fault.field for fault in refused.value.faults]
    assert fields == ["qps", "prompts", "requests", "prompt", "output"]
    assert refused.value.faults[1].nearest == "prompt"


@pytest.mark.parametrize(
    "text", ["qps=0,prompt=1,output=1", "qps=1,prompt=0,output=1", "qps=1,prompt=1,output=1,spread=9"]
)
def test_a_drawn_trace_that_cannot_be_is_refused(text):
    with pytest.raises(SpecError, match="out of range"):
        parse_synthetic(text)


# Traces as values.


def test_a_faster_trace_has_the_same_requests_sooner():
    trace = synthetic_trace(requests=50, qps=1, prompt_tokens=100, output_tokens=10)
    assert trace.faster(4).qps == pytest.approx(4 * trace.qps)
    assert np.array_equal(trace.faster(4).prompt_tokens, trace.prompt_tokens)
    assert len(trace.first(7)) == 7


@pytest.mark.parametrize(
    ("arrival", "prompt", "output"),
    [
        ([], [], []),
        ([1, 0], [1, 1], [1, 1]),
        ([-1], [1], [1]),
        ([0], [0], [1]),
        ([0], [1], [0]),
        ([0, 1], [1], [1]),
        ([np.nan], [1], [1]),
    ],
)
def test_arrays_that_are_no_trace_are_refused(arrival, prompt, output):
    with pytest.raises(SpecError, match="order of arrival"):
        Trace(
            "made",
            np.array(arrival, dtype=float),
            np.array(prompt, dtype=np.int64),
            np.array(output, dtype=np.int64),
        )
