"""Public traces as people have them: their columns, their units of time, and rows that are left out."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.errors import SpecError
from perfmodel.traffic.trace import read_trace
from perfmodel.traffic.trace_forms import FORMS, read_unit

BURST_GPT = (
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,1,3.2,ChatGPT,472,18,490,Conversation log\n"
    "45,2,5.0,ChatGPT,1087,230,1317,Conversation log\n"
    "118,3,1.1,GPT-4,417,276,693,API log\n"
)
FAILED_CALL = "185,4,0.4,ChatGPT,1360,0,1360,API log\n"
PLAIN = "arrival_s,prompt_tokens,output_tokens\n"


def written(tmp_path, text, name="trace.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def lines(tmp_path, rows):
    return written(tmp_path, "\n".join(map(json.dumps, rows)), "trace.jsonl")


def chats(times, **further):
    return [{"timestamp": time, "input_length": 521, "output_length": 132} | further for time in times]


def said(trace, *words):
    return any(all(word in remark for word in words) for remark in trace.remarks)


# Columns.


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_each_form_is_read_by_its_columns_whatever_stands_beside_them(tmp_path, form):
    names = ["id", form.arrival, "model", form.prompt, form.output, *form.marks]
    rows = [f"{index},{time},m,{100 + index},{10 + index}" for index, time in enumerate((0, 1000, 3000))]
    text = ",".join(names) + "\n" + "\n".join(row + ",0" * len(form.marks) for row in rows) + "\n"
    trace = read_trace(written(tmp_path, text))
    assert trace.prompt_tokens.tolist() == [100, 101, 102]
    assert trace.output_tokens.tolist() == [10, 11, 12]
    assert trace.arrival[-1] == (3000.0 if form.unit else 3.0)


def test_names_of_columns_may_have_spaces_and_capitals_in_json_too(tmp_path):
    rows = [{"Timestamp": 5, "Request tokens": 472, "Response tokens": 18}]
    assert read_trace(lines(tmp_path, rows)).prompt_tokens.tolist() == [472]


def test_the_form_of_burst_gpt_is_read_in_seconds(tmp_path):
    trace = read_trace(written(tmp_path, BURST_GPT))
    assert trace.arrival.tolist() == [0.0, 40.0, 113.0]
    assert trace.output_tokens.tolist() == [18, 230, 276]
    assert trace.remarks == ()


def test_the_form_of_splitwise_sim_is_read(tmp_path):
    text = (
        "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size\n"
        "0,2,0,0.1,1,1024,30\n1,2,0,0.7,1,124,130\n"
    )
    trace = read_trace(written(tmp_path, text))
    np.testing.assert_allclose(trace.arrival, [0.0, 0.6])
    assert trace.prompt_tokens.tolist() == [1024, 124]


def test_a_turn_with_a_delay_arrives_after_the_turn_before_it(tmp_path):
    rows = [
        {"session_id": "a", "timestamp": 1000, "input_length": 300, "output_length": 40},
        {"session_id": "b", "timestamp": 1500, "input_length": 310, "output_length": 40},
        {"session_id": "a", "delay": 2000, "input_length": 150, "output_length": 20},
    ]
    trace = read_trace(lines(tmp_path, rows))
    assert trace.arrival.tolist() == [0.0, 0.5, 2.0]
    assert trace.prompt_tokens.tolist() == [300, 310, 150]
    assert said(trace, "1 turn without", "delays")


def test_a_delay_without_a_turn_before_it_is_no_time(tmp_path):
    rows = [{"session_id": "a", "delay": 2000, "input_length": 150, "output_length": 20}]
    with pytest.raises(SpecError, match="timestamp"):
        read_trace(lines(tmp_path, [*chats([0]), *rows]))


def test_a_delay_without_a_session_follows_nobody(tmp_path):
    late = {"delay": 9, "input_length": 1, "output_length": 1}
    turns = [{"session_id": "a"} | chats([0])[0], *chats([5]), late]
    with pytest.raises(SpecError, match="timestamp"):
        read_trace(lines(tmp_path, turns))


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(
    ("timestamp", "input_length", "output_length", "hash_ids", "session_id", "delay"), ANY)), max_size=5))
def test_no_values_end_in_anything_but_a_trace_or_a_refusal(tmp_path_factory, rows):
    ids = [{"hash_ids": row["hash_ids"]} for row in rows if "hash_ids" in row]
    for written_rows in (rows, [chats([0])[0] | row for row in ids]):
        try:
            trace = read_trace(lines(tmp_path_factory.mktemp("junk"), written_rows))
        except SpecError:
            continue
        assert 0.0 <= trace.repeated_share < 1.0


# Units of time.


@pytest.mark.parametrize("mark", [{"chat_id": 1}, {"parent_chat_id": -1}, {"turn": 1}])
def test_chats_of_bailian_are_in_seconds_even_where_they_are_whole(tmp_path, mark):
    trace = read_trace(lines(tmp_path, chats([0, 60, 300], **mark)))
    assert trace.arrival.tolist() == [0.0, 60.0, 300.0]
    assert not said(trace, "arrival times")


@pytest.mark.parametrize(
    ("times", "unit", "lasts"),
    [
        ([0.5, 61.114, 300.5], "s", 300.0),
        ([0, 3000, 15000], "ms", 15.0),
        ([1_700_000_000, 1_700_000_060], "s", 60.0),
        ([1_700_000_000_000, 1_700_000_060_000], "ms", 60.0),
        ([1_700_000_000_000_000, 1_700_000_060_000_000], "us", 60.0),
        ([1_700_000_000_000_000_000, 1_700_000_060_000_000_000], "ns", 60.0),
    ],
)
def test_where_a_trace_does_not_say_its_unit_numbers_tell_and_people_are_told(tmp_path, times, unit, lasts):
    trace = read_trace(lines(tmp_path, chats(times)))
    assert trace.arrival[-1] == pytest.approx(lasts)
    assert said(trace, f"taken as {unit}", f"{len(times) / lasts:.3g} requests per second", "--time-unit")


@pytest.mark.parametrize(
    ("name", "lasts"), [("timestamp", 90.0), ("timestamp_ms", 0.09), ("arrival_us", 9e-5)]
)
def test_a_name_may_say_the_unit_and_seconds_are_taken_where_nothing_does(tmp_path, name, lasts):
    trace = read_trace(written(tmp_path, f"{name},prompt_tokens,output_tokens\n0,5,5\n90,5,5\n"))
    assert trace.arrival[-1] == pytest.approx(lasts)
    assert said(trace, "taken as s") == (name == "timestamp")


@pytest.mark.parametrize(("unit", "lasts"), [("s", 3000.0), ("ms", 3.0), ("us", 3e-3), ("ns", 3e-6)])
def test_a_unit_that_is_given_rules_over_all_others_but_dates(tmp_path, unit, lasts):
    trace = read_trace(lines(tmp_path, chats([0, 3000], chat_id=1)), unit=unit)
    assert trace.arrival[-1] == pytest.approx(lasts)
    assert trace.remarks == ()
    dates = f"{PLAIN}2024-05-10 00:00:00,1,1\n2024-05-10 00:00:09,1,1\n"
    assert read_trace(written(tmp_path, dates), unit=unit).arrival[-1] == 9.0


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_times_since_1970_tell_their_unit_in_every_form_whose_columns_do_not(tmp_path, form):
    names = ",".join([form.arrival, form.prompt, form.output, *form.marks])
    for scale, unit in ((1, "s"), (10**3, "ms"), (10**6, "us"), (10**9, "ns")):
        times = (1_700_000_000 * scale, 1_700_000_060 * scale)
        rows = [f"{time},100,10" + ",0" * len(form.marks) for time in times]
        file = written(tmp_path, "\n".join([names, *rows]))
        in_its_name = form.arrival.endswith("_s")
        if in_its_name and unit == "ns":
            with pytest.raises(SpecError, match=r":3: .* over 1,901 years, from line 2 .* --time-unit"):
                read_trace(file)
            continue
        trace = read_trace(file)
        assert trace.arrival[-1] == pytest.approx(60.0 * (scale if in_its_name else 1))
        assert said(trace, f"taken as {unit}") == (form.unit is None or (scale > 1 and not in_its_name))


def test_units_are_named_in_letters_or_words():
    assert [read_unit(text) for text in ("s", " MS ", "microseconds", "ns")] == ["s", "ms", "us", "ns"]
    with pytest.raises(SpecError, match="'minutes'"):
        read_unit("minutes")


# Rows that are left out.


def test_failed_calls_are_left_out_and_counted(tmp_path):
    trace = read_trace(written(tmp_path, BURST_GPT + FAILED_CALL))
    assert (len(trace), trace.arrival[-1]) == (3, 113.0)
    assert said(trace, "1 of 4 rows put out nothing")


@pytest.mark.parametrize("output", ["0", "", "0.0", " 0 ", "-1", "None", "null", "NaN", "N/A"])
def test_a_request_without_output_puts_out_nothing_however_it_is_written(tmp_path, output):
    assert len(read_trace(written(tmp_path, f"{PLAIN}0,5,5\n1,5,{output}\n"))) == 1


@pytest.mark.parametrize("row", [{"output_length": 0}, {"output_length": None}, {"output_length": -1}, {}])
def test_nor_does_one_of_json_lines(tmp_path, row):
    silent = {"timestamp": 5, "input_length": 7} | row
    assert len(read_trace(lines(tmp_path, [*chats([0, 10]), silent]))) == 2


def test_a_trace_that_mostly_puts_out_nothing_is_refused(tmp_path):
    half = PLAIN + "0,5,5\n" * 4 + "0,5,0\n" * 4
    assert len(read_trace(written(tmp_path, half))) == 4
    with pytest.raises(SpecError, match="5 of 9 rows put out nothing"):
        read_trace(written(tmp_path, half + "0,5,0\n"))


BROKEN = ["soon,5,5", "1,many,5", "1,-5,5", "1,5,nine", "1,5", "1,5,5,5", '"1,5,5', "1,200000000,5"]


@pytest.mark.parametrize("row", BROKEN)
def test_one_row_of_a_hundred_that_cannot_be_read_is_left_out_and_told(tmp_path, row):
    trace = read_trace(written(tmp_path, PLAIN + "0,5,5\n" * 99 + row + "\n"))
    assert len(trace) == 99
    assert said(trace, "1 of 100 rows cannot be read", ":101")


@pytest.mark.parametrize("row", BROKEN)
def test_more_are_refused_by_line(tmp_path, row):
    with pytest.raises(SpecError) as refused:
        read_trace(written(tmp_path, PLAIN + "0,5,5\n" * 98 + row + "\n"))
    assert refused.value.faults[0].line == 100


def test_a_refusal_of_many_rows_says_how_many(tmp_path):
    with pytest.raises(SpecError, match="300 of 400 rows cannot be read"):
        read_trace(written(tmp_path, PLAIN + "0,5,5\n" * 100 + "0,x,5\n" * 300))


def test_a_damaged_time_does_not_make_times_dates(tmp_path):
    text = "timestamp_ms,prompt_tokens,output_tokens\n" + "".join(f"{ms},5,5\n" for ms in range(0, 1000, 5))
    assert read_trace(written(tmp_path, text + "soon,5,5\n")).arrival[-1] == pytest.approx(0.995)


def test_a_file_that_was_cut_off_is_read_without_its_last_line(tmp_path):
    text = "\n".join(map(json.dumps, chats(range(200))))
    trace = read_trace(written(tmp_path, text[:-20], "cut.jsonl"))
    assert len(trace) == 199
    assert said(trace, "cannot be read", ":200")


LENGTHS = "input_tokens,output_tokens\n100,20\n200,30\n300,0\n"


def test_a_closed_loop_needs_no_times(tmp_path):
    path = written(tmp_path, LENGTHS)
    trace = read_trace(path, timeless=True)
    assert trace.arrival.tolist() == [0.0, 0.0]
    assert trace.prompt_tokens.tolist() == [100, 200]
    assert any("nothing says when requests arrive" in remark for remark in trace.remarks)
    with pytest.raises(SpecError, match="--concurrency N"):
        read_trace(path)


def test_times_that_are_there_are_read_in_a_closed_loop_too(tmp_path):
    path = written(tmp_path, PLAIN + "0,10,5\n4,20,5\n")
    assert read_trace(path, timeless=True).arrival.tolist() == [0.0, 4.0]


def test_turns_that_only_have_delays_follow_their_first(tmp_path):
    turns = [
        {"session_id": name, "input_length": 10, "output_length": 5} | ({"delay": wait} if wait else {})
        for name, wait in (("a", 0), ("b", 0), ("a", 2), ("a", 3))
    ]
    trace = read_trace(lines(tmp_path, turns), timeless=True)
    assert trace.arrival.tolist() == [0.0, 0.0, 2.0, 5.0]
    assert said(trace, "2 turns without a time") and said(trace, "when sessions begin: all at once")
    assert not any("when requests arrive" in remark for remark in trace.remarks)


def test_not_a_number_in_json_is_a_call_that_failed(tmp_path):
    rows = '{"arrival_s": 0, "prompt_tokens": 10, "output_tokens": 5}\n'
    path = written(tmp_path, 2 * rows + rows.replace("5}", "NaN}"), "trace.jsonl")
    trace = read_trace(path)
    assert len(trace) == 2
    assert any("1 of 3 rows put out nothing" in remark for remark in trace.remarks)
