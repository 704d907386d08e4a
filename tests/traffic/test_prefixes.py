"""Which prompts begin alike: block ids as they are written, numbers that say whole prefixes, what repeats."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.errors import SpecError
from perfmodel.traffic.prefixes import Prefixes
from perfmodel.traffic.trace import Trace, read_trace


def prefixes_of(requests, block_tokens=16):
    ids = np.array([number for ids in requests for number in ids], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in requests])]).astype(np.int64)
    return Prefixes.of_ids(ids, offsets, block_tokens)


def blocks_of(prefixes, index):
    return prefixes.blocks[prefixes.offsets[index] : prefixes.offsets[index + 1]].tolist()


def read(tmp_path, rows):
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return read_trace(path)


def row(time, tokens, ids, **further):
    return {"timestamp": time, "input_length": tokens, "output_length": 5, "hash_ids": ids} | further


requests = st.lists(st.lists(st.integers(0, 2), max_size=5), min_size=1, max_size=12)


@given(requests)
def test_blocks_have_one_number_exactly_where_all_ids_before_them_are_the_same(requests):
    prefixes = prefixes_of(requests)
    numbers = {}
    for index, ids in enumerate(requests):
        for place, number in enumerate(blocks_of(prefixes, index)):
            assert numbers.setdefault(number, tuple(ids[: place + 1])) == tuple(ids[: place + 1])
    assert len(set(numbers.values())) == len(numbers)


@given(requests, st.integers(1, 4))
def test_what_repeats_is_the_longest_beginning_that_an_earlier_request_had(requests, block_tokens):
    tokens = np.array([max(1, len(ids) * block_tokens) for ids in requests])
    repeated = prefixes_of(requests, block_tokens).repeated(tokens)
    for index, ids in enumerate(requests):
        heads = [
            count
            for earlier in requests[:index]
            for count in range(len(ids) + 1)
            if earlier[:count] == ids[:count] and len(earlier) >= count
        ]
        assert repeated[index] == min(max(heads, default=0) * block_tokens, tokens[index] - 1)


@given(requests, st.data())
def test_some_requests_of_a_trace_have_the_prefixes_they_had(requests, data):
    prefixes = prefixes_of(requests)
    chosen = data.draw(st.lists(st.integers(0, len(requests) - 1), min_size=1))
    taken = prefixes.take(np.array(chosen))
    assert [blocks_of(taken, index) for index in range(len(taken))] == [
        blocks_of(prefixes, index) for index in chosen
    ]
    first = prefixes.first(len(chosen[: len(requests)]))
    assert blocks_of(first, 0) == blocks_of(prefixes, 0)


@pytest.mark.parametrize("offsets", [[], [1, 3], [0, 2], [0, 3, 2, 3]])
def test_offsets_that_cut_nothing_are_refused(offsets):
    with pytest.raises(SpecError, match="offsets"):
        Prefixes(np.arange(3), np.array(offsets, dtype=np.int64), 16)


# Read from files.


def test_mooncakes_ids_stand_for_512_tokens_and_the_last_for_the_rest(tmp_path):
    trace = read(tmp_path, [row(0, 1300, [7, 8, 9]), row(1, 1300, [7, 8, 9]), row(2, 1400, [7, 8, 3])])
    assert trace.prefixes.block_tokens == 512
    assert trace.prefixes.repeated(trace.prompt_tokens).tolist() == [0, 1299, 1024]
    assert trace.repeated_share == pytest.approx((1299 + 1024) / 4000)
    assert any("58% of the prompt tokens repeat" in remark for remark in trace.remarks)


def test_bailians_ids_stand_for_16_tokens(tmp_path):
    chat = {"chat_id": 1, "parent_chat_id": -1, "turn": 1, "type": "text"}
    trace = read(tmp_path, [row(0.5, 40, [1, 2, 3], **chat), row(9.5, 50, [1, 2, 4, 5], **chat)])
    assert trace.prefixes.block_tokens == 16
    assert trace.repeated_share == pytest.approx(32 / 90)


def test_ids_too_many_for_their_prompts_stand_for_fewer_tokens(tmp_path):
    trace = read(tmp_path, [row(0, 640, list(range(10))), row(1, 640, [0, 1, *range(10, 18)])])
    assert trace.prefixes.block_tokens == 64
    assert trace.repeated_share == 128 / 1280
    assert any("64 tokens each" in remark for remark in trace.remarks)


def test_ids_may_be_texts_and_huge_numbers_and_need_not_be_there(tmp_path):
    ids = [["ab12", 2**80], ["ab12", 2**80 + 1], None, "none"]
    trace = read(tmp_path, [row(time, 1024, blocks) for time, blocks in enumerate(ids)])
    assert trace.prefixes.counts.tolist() == [2, 2, 0, 0]
    assert trace.prefixes.repeated(trace.prompt_tokens).tolist() == [0, 512, 0, 0]


def test_prefixes_follow_their_requests_when_these_are_sorted_by_arrival(tmp_path):
    trace = read(tmp_path, [row(9, 1024, [1, 3]), row(0, 1024, [1, 2])])
    assert trace.prefixes.repeated(trace.prompt_tokens).tolist() == [0, 512]


def test_ids_that_cover_little_of_their_prompts_are_told(tmp_path):
    trace = read(tmp_path, [row(0, 51200, [1, 2])])
    assert any("cover 2% of the prompt tokens" in remark for remark in trace.remarks)


def test_ids_in_a_csv_are_not_read_and_people_are_told(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text('timestamp,input_length,output_length,hash_ids\n0,512,5,"[1, 2]"\n')
    trace = read_trace(path)
    assert trace.prefixes is None
    assert any("JSON lines only" in remark for remark in trace.remarks)


def test_faster_and_first_keep_prefixes_and_remarks(tmp_path):
    trace = read(tmp_path, [row(0, 1024, [1, 2]), row(1, 1024, [1, 3]), row(2, 1024, [1, 3])])
    assert trace.faster(2).repeated_share == trace.repeated_share
    assert trace.first(2).repeated_share == 512 / 2048
    assert trace.first(2).remarks == trace.remarks


def test_a_trace_without_ids_repeats_nothing_that_is_known():
    ones = np.ones(2, dtype=np.int64)
    assert Trace("two", np.zeros(2), ones, ones).repeated_share == 0.0
    with pytest.raises(SpecError):
        Trace("two", np.zeros(2), ones, ones, prefixes_of([[1]]))
