"""What terminals, containers and editors put around the lines of a log changes no count."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from engine_logs import LLAMACPP_SERVER, SGLANG_LINE, VLLM_LINE, VLLM_METRICS

from perfmodel.acceptance.logs import read_log, read_logs
from perfmodel.errors import SpecError

SGLANG = "\n".join(SGLANG_LINE.format(running=8, length=a, rate=(a - 1.0) / 3.0) for a in (2.16, 2.4, 1.9))
LOGS = {"vllm": VLLM_LINE, "metrics": VLLM_METRICS, "sglang": SGLANG, "llamacpp": LLAMACPP_SERVER}


def each(text: str, form: str) -> str:
    return "\n".join(form.replace("LINE", line) for line in text.splitlines())


WRAPPINGS = {
    "windows line ends": lambda text: text.replace("\n", "\r\n").encode(),
    "utf-16 of a shell": lambda text: text.encode("utf-16"),
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "colours": lambda text: each(text, "\x1b[36mLINE\x1b[0m").encode(),
    "docker compose": lambda text: each(text, "vllm-1  | LINE").encode(),
    "kubernetes": lambda text: each(text, "2026-11-20T10:14:22.123456789Z stdout F LINE").encode(),
    "docker's json-file": lambda text: "\n".join(
        json.dumps({"log": line + "\n", "stream": "stderr", "time": "2026-11-20T10:14:22Z"})
        for line in text.splitlines()
    ).encode(),
    "a progress bar before": lambda text: ("Processed prompts:  99%\r" + text).encode(),
    "bytes that are no text": lambda text: b"\xff\xfe\xfa noise\n"[2:] + text.encode() + b"\n\x80\x81\n",
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("engine", LOGS)
def test_a_wrapped_log_is_read_as_the_bare_one(engine: str, wrapping: str, tmp_path: Path) -> None:
    bare, wrapped = tmp_path / "bare.log", tmp_path / "wrapped.log"
    bare.write_text(LOGS[engine], encoding="utf-8")
    wrapped.write_bytes(WRAPPINGS[wrapping](LOGS[engine]))
    expected, counts = read_log(bare), read_log(wrapped)
    assert counts.rounds.tolist() == expected.rounds.tolist()
    assert counts.accepted.tolist() == expected.accepted.tolist()


def test_two_entries_on_one_line_are_two(tmp_path: Path) -> None:
    file = tmp_path / "both.log"
    first, second, *_ = SGLANG.splitlines()
    file.write_text(f"{first}{second}\n", encoding="utf-8")
    assert read_log(file).units == 2
    file.write_text(f"{VLLM_LINE} {VLLM_LINE}\n{VLLM_LINE}\n", encoding="utf-8")
    assert read_log(file).units == 3


def test_the_line_of_a_refusal_is_the_editor_s(tmp_path: Path) -> None:
    file = tmp_path / "progress.log"
    file.write_text(f"10%\r20%\r30%\nstart\x0bed\n{VLLM_LINE[:150]}\n", encoding="utf-8")
    with pytest.raises(SpecError, match=r":3: the line is not whole"):
        read_log(file)


def test_figures_of_two_engines_are_not_mixed(tmp_path: Path) -> None:
    file = tmp_path / "two.log"
    file.write_text(f"{VLLM_LINE}\n{SGLANG}\n", encoding="utf-8")
    with pytest.raises(SpecError, match=r"of sglang and vllm\. Give the one to read: --format sglang"):
        read_log(file)
    assert read_log(file, "sglang").units == 3


def test_nothing_is_chosen_where_there_is_one(tmp_path: Path) -> None:
    file = tmp_path / "engine.log"
    file.write_text(VLLM_LINE, encoding="utf-8")
    with pytest.raises(SpecError, match="names no drafters or models"):
        read_log(file, only="draft-mtp")


def test_scrapes_in_files_of_their_own_are_those_of_one_file(tmp_path):
    """Counters go on from one scrape to the next: nothing is counted twice."""

    def scrape(drafts, accepted):
        return (
            f'vllm:spec_decode_num_drafts_total{{engine="0"}} {drafts}\n'
            f'vllm:spec_decode_num_draft_tokens_total{{engine="0"}} {3 * drafts}\n'
            f'vllm:spec_decode_num_accepted_tokens_total{{engine="0"}} {accepted}\n'
        )

    texts = [scrape(100, 150), scrape(300, 500), scrape(700, 1300)]
    files = [tmp_path / f"{place}.txt" for place in range(3)]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    together = tmp_path / "together.txt"
    together.write_text("".join(texts))
    apart, joined = read_logs(files), read_log(together)
    assert apart.rounds.tolist() == joined.rounds.tolist() == [200, 400]
    assert apart.accepted.tolist() == joined.accepted.tolist() == [350, 800]
    with pytest.raises(SpecError, match="no round"):
        read_logs([files[0], files[0]])
