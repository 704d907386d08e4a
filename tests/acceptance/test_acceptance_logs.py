"""Every engine's log is read in its own form, and a damaged one is refused with its line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from engine_logs import (
    CSV,
    LLAMACPP_EXAMPLE,
    LLAMACPP_SERVER,
    LLAMACPP_STATISTICS,
    SGLANG_LINE,
    SGLANG_RESPONSE,
    TASK_12,
    VLLM_LINE,
    VLLM_METRICS,
    VLLM_RESPONSE,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.acceptance.counts import AcceptanceCounts
from perfmodel.acceptance.estimate import fit_acceptance
from perfmodel.acceptance.logs import LogFormat, read_log
from perfmodel.errors import SpecError


def read(tmp_path: Path, text: str, format: LogFormat = "auto", gamma: int | None = None) -> AcceptanceCounts:
    file = tmp_path / "engine.log"
    file.write_text(text, encoding="utf-8")
    return read_log(file, format, gamma)


def test_a_metrics_text_of_vllm_gives_the_total_by_position(tmp_path: Path) -> None:
    counts = read(tmp_path, VLLM_METRICS)
    assert counts.unit == "total" and counts.requests == 40.0
    assert counts.rounds.tolist() == [1000.0] and counts.gamma.tolist() == [3.0]
    assert counts.reached is not None and counts.reached.tolist() == [[730.0, 520.0, 355.0]]
    assert counts.tried is not None and counts.tried.tolist() == [[1000.0, 730.0, 520.0]]
    fit = fit_acceptance(counts)
    assert fit.tokens == 2.605
    assert fit.alpha.value == pytest.approx(1605 / 2250)
    assert fit.survival == pytest.approx((0.73, 0.52, 0.355))
    assert fit.first is not None and fit.first.value == 0.73
    assert fit.rest is not None and fit.rest.value == pytest.approx(875 / 1250)


def test_two_scrapes_give_the_window_between_them_and_engines_are_added_up(tmp_path: Path) -> None:
    second = VLLM_METRICS.replace('engine="0"', 'engine="1"')
    later = (
        VLLM_METRICS.replace(" 1000.0", " 1100.0").replace(" 3000.0", " 3300.0").replace(" 1605.0", " 1815.0")
    )
    later = later.replace(" 730.0", " 810.0").replace(" 520.0", " 590.0").replace(" 355.0", " 415.0")
    assert read(tmp_path, VLLM_METRICS + second).rounds.tolist() == [2000.0]
    window = read(tmp_path, VLLM_METRICS + later)
    assert window.unit == "window"
    assert window.reached is not None and window.reached.tolist() == [[80.0, 70.0, 60.0]]
    restarted = read(tmp_path, later + VLLM_METRICS)
    assert restarted.rounds.tolist() == [1000.0]


def test_the_periodic_line_of_vllm_gives_a_window(tmp_path: Path) -> None:
    counts = read(tmp_path, "INFO starting\n" + (VLLM_LINE + "\n") * 3 + "INFO done\n")
    assert counts.unit == "window" and counts.rounds.tolist() == [100.0] * 3
    assert counts.reached is not None and counts.reached[0] == pytest.approx([62.0, 40.0, 24.0])
    nothing = (
        VLLM_LINE.replace("126 tokens", "0 tokens").replace("300 tokens", "0 tokens").replace("42.0%", "nan%")
    )
    nothing = nothing.replace("0.620, 0.400, 0.240", "nan, nan, nan").replace("2.26", "nan")
    assert read(tmp_path, f"{VLLM_LINE}\n{nothing}\n").units == 1


@pytest.mark.parametrize("shape", ["one document", "a list", "one per line", "events"])
def test_responses_of_vllm_give_requests(shape: str, tmp_path: Path) -> None:
    line = json.dumps(VLLM_RESPONSE)
    texts = {
        "one document": json.dumps(VLLM_RESPONSE, indent=2),
        "a list": json.dumps([VLLM_RESPONSE, VLLM_RESPONSE], indent=2),
        "one per line": f"{line}\n{line}\n",
        "events": f'data: {{"choices": []}}\n\ndata: {line}\n\ndata: [DONE]\n',
    }
    counts = read(tmp_path, texts[shape])
    assert counts.unit == "request" and counts.units == (2 if shape in ("a list", "one per line") else 1)
    assert counts.reached is not None and counts.reached[0].tolist() == [4.0, 3.0, 3.0]
    assert counts.tried is not None and counts.tried[0].tolist() == [43.0, 4.0, 3.0]


def test_single_rounds_in_a_response_tell_which_drafts_were_short(tmp_path: Path) -> None:
    figures = {
        "acceptance_histogram": {"0": 1, "1": 1, "3": 1},
        "num_spec_steps": 3,
        "num_accepted_draft_tokens": 4,
        "num_draft_tokens": 7,
        "per_step_accepted": [1, 0, 3],
        "per_step_drafted": [1, 3, 3],
    }
    counts = read(tmp_path, json.dumps(figures))
    assert counts.tried is not None and counts.tried.tolist() == [[3.0, 1.0, 1.0]]
    del figures["per_step_accepted"], figures["per_step_drafted"]
    guessed = read(tmp_path, json.dumps(figures))
    assert guessed.tried is None and guessed.reached is not None


def test_the_decode_line_of_sglang_gives_windows_and_tells_the_drafts(tmp_path: Path) -> None:
    lengths = [2.16, 2.4, 2.31, 1.9, 2.05]
    log = "\n".join(
        SGLANG_LINE.format(running=8, length=length, rate=(length - 1.0) / 3.0) for length in lengths
    )
    counts = read(tmp_path, log)
    assert counts.gamma.tolist() == [3.0] * 5 and counts.reached is None
    fit = fit_acceptance(counts)
    assert fit.tokens == pytest.approx(np.mean(lengths))
    assert 1.0 + sum(fit.survival) == pytest.approx(fit.tokens, rel=1e-6)
    assert any("rounds are estimated" in warning for warning in fit.warnings)
    old = log.replace(", accept rate:", ", something:")
    with pytest.raises(SpecError, match="gamma: the lines do not tell"):
        read(tmp_path, old)
    assert read(tmp_path, old, gamma=3).gamma.tolist() == [3.0] * 5


def test_responses_of_sglang_give_requests_with_or_without_a_histogram(tmp_path: Path) -> None:
    counts = read(tmp_path, json.dumps([SGLANG_RESPONSE] * 3))
    assert counts.units == 3 and counts.gamma.tolist() == [5.0] * 3
    assert counts.reached is not None and counts.reached[0].tolist() == [16.0, 12.0, 8.0, 4.0, 0.0]
    bare = json.loads(json.dumps(SGLANG_RESPONSE))
    del bare["meta_info"]["spec_correct_drafts_histogram"]
    totals = fit_acceptance(read(tmp_path, json.dumps([bare] * 3)))
    assert totals.tokens == 3.0 and totals.method.startswith("tokens per round inverted")


def test_the_summary_of_the_llama_cpp_server_gives_requests(tmp_path: Path) -> None:
    counts = read(tmp_path, LLAMACPP_SERVER)
    assert counts.unit == "request" and counts.units == 2
    assert counts.rounds == pytest.approx([50.0, 20.0])
    assert counts.reached is not None and counts.reached[0] == pytest.approx([41.0, 36.0, 30.0, 25.0])
    older = TASK_12 + "draft acceptance rate = 0.66000 (  132 accepted /   200 generated)\n"
    with pytest.raises(SpecError, match=r"engine\.log:1: gamma: this line, which llama-server"):
        read(tmp_path, older)
    assert read(tmp_path, older, gamma=4).rounds.tolist() == [50.0]


def test_other_summaries_of_llama_cpp_give_totals(tmp_path: Path) -> None:
    total = read(
        tmp_path, LLAMACPP_STATISTICS.replace("354", "100").replace("536", "200") + "\n" + LLAMACPP_STATISTICS
    )
    assert total.unit == "total" and total.rounds.tolist() == [134.0] and total.accepted.tolist() == [354.0]
    example = read(tmp_path, LLAMACPP_EXAMPLE)
    columns = (example.rounds, example.drafted, example.accepted, example.gamma)
    assert [column[0] for column in columns] == [38.0, 240.0, 90.0, 8.0]
    metrics = VLLM_METRICS.replace("vllm:", "llamacpp:").replace('engine="0",model_name="m",', "")
    assert read(tmp_path, metrics).accepted.tolist() == [1605.0]
    timings = {"timings": {"predicted_n": 200, "draft_n": 200, "draft_n_accepted": 132}}
    assert read(tmp_path, json.dumps(timings), gamma=4).rounds.tolist() == [68.0]


def test_a_csv_gives_requests_by_single_rounds(tmp_path: Path) -> None:
    counts = read(tmp_path, CSV)
    assert counts.units == 2 and counts.rounds.tolist() == [3.0, 1.0]
    assert counts.reached is not None and counts.reached.tolist() == [[3, 3, 2, 1], [0, 0, 0, 0]]
    assert counts.tried is not None and counts.tried.tolist() == [[3, 3, 3, 1], [1, 0, 0, 0]]
    shuffled = "\n".join([CSV.splitlines()[0], *reversed(CSV.splitlines()[1:])])
    assert read(tmp_path, shuffled).accepted.sum() == counts.accepted.sum()


@given(
    rounds=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 6), st.integers(0, 6)).filter(
            lambda row: row[2] <= row[1]
        ),
        min_size=1,
        max_size=40,
    )
)
@settings(max_examples=50, deadline=None)
def test_a_csv_counts_what_a_loop_counts(
    rounds: list[tuple[int, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("csv") / "rounds.csv"
    lines = [
        f"{request},{number},{drafted},{accepted}"
        for number, (request, drafted, accepted) in enumerate(rounds)
    ]
    file.write_text("request,round,drafted,accepted\n" + "\n".join(lines) + "\n")
    if not any(drafted for _, drafted, _ in rounds):
        with pytest.raises(SpecError, match="no round with a drafted token"):
            read_log(file)
        return
    counts = read_log(file)
    assert counts.reached is not None and counts.tried is not None and counts.halves is not None
    for k in range(1, counts.reached.shape[1] + 1):
        assert counts.reached[:, k - 1].sum() == sum(accepted >= k for _, _, accepted in rounds)
        assert counts.tried[:, k - 1].sum() == sum(
            drafted >= k and accepted >= k - 1 for _, drafted, accepted in rounds
        )
    assert counts.halves[..., 0].sum() == counts.accepted.sum()
    assert counts.halves[..., 1].sum() == counts.tried.sum()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (f"start\n{VLLM_LINE[:180]}\n", ":2: the line is not whole"),
        (f"start\n{VLLM_LINE.replace('2.26', '2.96')}\n", ":2: mean length 2.96 contradicts"),
        (
            f"{VLLM_LINE}\n{VLLM_LINE.replace('0.400', '0.240').replace('0.240, Avg', '0.400, Avg')}",
            ":2: a later position",
        ),
        (
            VLLM_METRICS.replace(" 730.0", " seven"),
            ":8: found 'vllm:spec_decode_num_accepted_tokens_per_pos_total",
        ),
        (VLLM_METRICS.replace(" 1605.0", " -3"), ":7: found"),
        (VLLM_METRICS.replace(" 1605.0", " 4000.0"), ":3: accepted_tokens: 4000 accepted of 3000"),
        (
            VLLM_METRICS.replace(" 520.0", " 900.0").replace(" 1605.0", " 1985.0"),
            ":3: accepted_tokens_per_pos: a later",
        ),
        ("\n".join(VLLM_METRICS.splitlines()[:5]), ":3: spec_decode_num_draft_tokens: the scrape"),
        (VLLM_METRICS.replace(',position="1"', ""), ":9: a counter per position has no position"),
        (json.dumps(VLLM_RESPONSE)[:-9], ":1: not valid JSON"),
        (
            json.dumps(VLLM_RESPONSE) + "\n" + json.dumps(VLLM_RESPONSE).replace("43", "44"),
            ":2: histogram: holds 43",
        ),
        (json.dumps(VLLM_RESPONSE, indent=1).replace("10,", "11,"), ":12: histogram: does not give the 11"),
        (json.dumps(VLLM_RESPONSE).replace("129", "1.5"), ":1: num_draft_tokens: found '1.5'"),
        (json.dumps(VLLM_RESPONSE).replace("129", "NaN"), ":1: not valid JSON: found NaN"),
        (json.dumps(VLLM_RESPONSE).replace('"num_spec_steps": 43, ', ""), ":1: num_spec_steps: is missing"),
        (json.dumps(SGLANG_RESPONSE).replace("100", "30"), ":1: accepted: 40 accepted of 30"),
        ('{"a": ' * 60 + "1" + "}" * 60, ":1: nested deeper"),
        ('{"a": ' * 100000, ":1: not valid JSON"),
        (SGLANG_LINE.format(running=8, length=2.2, rate=0.4)[:120], ":1: the line is not whole"),
        (SGLANG_LINE.format(running=8, length=0.5, rate=0.4), ":1: found accept len 0.5"),
        (
            LLAMACPP_SERVER.replace("132 accepted", "232 accepted"),
            ":2: the line is not whole, or more tokens",
        ),
        (LLAMACPP_SERVER.replace("/   200 gen", ""), ":2: the line is not whole"),
        (LLAMACPP_STATISTICS.replace("536", "-"), ":1: the statistics are not whole"),
        (LLAMACPP_EXAMPLE.replace("240", "24x"), ":4: n_drafted: found '24x'"),
        (LLAMACPP_EXAMPLE.replace("240", "24"), ":5: the summary that ends here"),
        (CSV.replace("b,0,4,0", "b,0,4,5"), ":4: accepted: found 5 of 4 drafted"),
        (CSV.replace("b,0,4,0", "b,0,4"), ":4: 3 cells where the header has 4"),
        (CSV.replace("a,1,4,2", "a,0,4,2"), ":3: round: round 0 of request 'a' is in line 2"),
        (CSV.replace("a,1,4,2", "a,1,4,-2"), ":3: accepted: found '-2'"),
        (CSV.replace("drafted", "draftd"), ":1: drafted: the column is missing. Did you mean 'draftd'"),
        ("", "the file is empty"),
        ("nothing\nhere\n", "no line is about speculative decoding"),
        ("{}", "no response carries speculation figures"),
        ("request,round,drafted,accepted\n", "no round with a drafted token"),
    ],
)
def test_a_damaged_log_is_refused_with_its_line(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as refused:
        read(tmp_path, text)
    assert complaint in str(refused.value)
    assert "engine.log" in str(refused.value)


def test_all_bad_rows_of_a_csv_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as refused:
        read(tmp_path, CSV.replace("b,0,4,0", "b,0,4,5").replace("a,1,4,2", "a,1,x,2"))
    assert [fault.line for fault in refused.value.faults] == [3, 4]


def test_a_wrong_question_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="Did you mean 'sglang'"):
        read(tmp_path, CSV, "sglan")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="gamma: found 0"):
        read(tmp_path, CSV, gamma=0)
    with pytest.raises(SpecError, match="does not exist"):
        read_log(tmp_path / "absent.log")
    with pytest.raises(SpecError, match="in the form of vllm"):
        read(tmp_path, SGLANG_LINE.format(running=1, length=2.0, rate=0.5), "vllm")
    with pytest.raises(SpecError, match="gamma: 4 is given, the log has 3"):
        read(tmp_path, VLLM_LINE, gamma=4)


@given(
    text=st.text(max_size=200),
    place=st.integers(0, 400),
    sample=st.sampled_from([VLLM_LINE, VLLM_METRICS, LLAMACPP_SERVER, CSV, LLAMACPP_STATISTICS]),
)
@settings(max_examples=60, deadline=None)
def test_whatever_is_written_into_a_log_it_is_read_or_refused(
    text: str, place: int, sample: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("any") / "any.log"
    file.write_bytes((sample[:place] + text + sample[place:]).encode("utf-8", errors="surrogatepass"))
    try:
        fit = fit_acceptance(read_log(file))
    except SpecError:
        return
    assert 0.0 <= fit.alpha.low <= fit.alpha.value <= fit.alpha.high <= 1.0
