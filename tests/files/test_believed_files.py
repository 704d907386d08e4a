"""What other people's files say is believed if its numbers can be: laws by kind of file, under damage."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perfmodel.accelerators import CAPACITY, MEMORY_BANDWIDTH, PEAK_FLOPS
from perfmodel.acceptance.file import MeasuredAcceptance, read_acceptance, write_acceptance
from perfmodel.errors import SpecError
from perfmodel.evidence.machine.points import MachinePoint, beyond_known, points_text, read_points
from perfmodel.evidence.published.measurements import Measurement, beyond_its_memory, read_file
from perfmodel.evidence.published.validate import Limit, limits_of
from perfmodel.hardware import HardwareProfile
from perfmodel.model import BYTES
from perfmodel.traffic.trace import Trace, read_trace

YEARS_10 = 3650 * 86400.0


def entry(context_len: float) -> MeasuredAcceptance:
    return MeasuredAcceptance(
        alpha=0.71, alpha_se=0.02, alpha1=0.73, alpha1_se=0.02, alpha2=0.7, alpha2_se=0.03, gamma=3,
        rounds=1000, requests=40, survival=(0.73, 0.52, 0.355), strategy="streaming_llm", kv_budget=512.0,
        context_len=context_len,
    )  # fmt: skip


def acceptance_text(folder: Path) -> str:
    write_acceptance(folder / "whole.json", [entry(8000.0), entry(32000.0)])
    return (folder / "whole.json").read_text()


def machine_text(_: Path) -> str:
    said: dict[str, Any] = {
        "dtype": "fp32", "samples": 9, "clock": "thread", "device": "a machine", "sms": 8,
        "memory_bytes": 64e9,
    }  # fmt: skip
    linear = [
        MachinePoint(kind="linear", tokens=rows, n=768, k=256, seconds=1e-4 * rows, low=9e-5 * rows, **said)
        for rows in (1, 4, 8)
    ]
    shape: dict[str, Any] = {"heads": 4, "kv_heads": 1, "head_dim": 128}
    attention = [
        MachinePoint(kind="attention", batch=2, query_tokens=1, kv_tokens=kv, seconds=1e-3, **shape, **said)
        for kv in (1024, 2048)
    ]
    stream = MachinePoint(kind="stream", n=1 << 20, seconds=4e-4, **said)
    return points_text([stream, *linear, *attention])


HEADER = "hardware,tensor_parallel,target_model,strategy,kv_budget,context_len,batch_size,gamma,step_ms\n"
POINTS = HEADER + "".join(
    f"h100-sxm-80gb,8,llama-3.1-8b,streaming_llm,512,{context},{batch},{gamma},{4 + 9 * (gamma > 0)}.01\n"
    for context in (1000, 16000) for batch in (1, 8) for gamma in (0, 3)
)  # fmt: skip
LIMITS = "scope,measure,statistic,at_least,at_most\nall,gamma,share_within_one,0.9,\nall,draft,bias,,0.05\n"
TRACE = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2023-11-16 18:{k:02d}:03.97,{900 + 37 * k},{13 + k}\n" for k in range(30)
)


def sound_acceptance(entries: tuple[MeasuredAcceptance, ...]) -> None:
    assert len(set(entries)) == len(entries)
    for each in entries:
        assert len(each.survival) in (0, each.gamma)
        assert np.all(np.diff(each.survival, prepend=1.0) <= 0.0)
        assert all(0.0 <= rate <= 1.0 for rate in (each.alpha, each.alpha1, each.alpha2, *each.survival))


def sound_machine(points: tuple[MachinePoint, ...]) -> None:
    assert len({point.device for point in points}) <= 1
    assert len({point.shape for point in points}) == len(points)
    for point in points:
        assert 0.0 < point.seconds <= 1e5
        assert not point.low > point.seconds
        sizes = [point.tokens, point.n, point.k, point.batch, point.kv_tokens, point.heads, point.kv_heads]
        assert all(size is None or size >= 1 for size in sizes)
        assert float(point.n or 0) * (point.k or 1) * BYTES[point.dtype] / point.seconds <= 1e14


def sound_points(rows: tuple[Measurement, ...]) -> None:
    for row in rows:
        assert 0.0 < row.implied_bandwidth <= 1e14
        times = np.array([row.target, row.draft, row.verify, row.round])
        assert np.all((times[~np.isnan(times)] >= 1e-9) & (times[~np.isnan(times)] <= 1000.0))


def sound_limits(limits: tuple[Limit, ...]) -> None:
    for limit in limits:
        assert limit.at_least <= limit.at_most
        told = [end for end in (limit.at_least, limit.at_most) if np.isfinite(end)]
        assert told and min(told) >= 0.0


def sound_trace(trace: Trace) -> None:
    assert np.all(np.diff(trace.arrival, prepend=0.0) >= 0.0)
    assert trace.arrival[-1] <= YEARS_10 * 1.01
    assert min(trace.prompt_tokens.min(), trace.output_tokens.min()) >= 1


READERS: dict[str, tuple[Callable[[Path], str], Callable[[Path], Any], Callable[[Any], None]]] = {
    "acceptance.json": (acceptance_text, read_acceptance, sound_acceptance),
    "machine.csv": (machine_text, read_points, sound_machine),
    "points.csv": (lambda _: POINTS, read_file, sound_points),
    "limits.csv": (lambda _: LIMITS, limits_of, sound_limits),
    "trace.csv": (lambda _: TRACE, read_trace, sound_trace),
}
NUMBERS = (
    "0", "-1", "-0", "1e-300", "1e300", "1e30", "inf", "nan", "NaN", "9" * 5000, "\uff11", "1_0",
    "0.6000.600", ".5", "1:30", "", "true", "[]", "9999-12-31 23:59:59",
)  # fmt: skip


def damaged(text: str, draw: random.Random) -> str:
    number = draw.choice(list(re.finditer(r"(?<![\w.])\d+(\.\d+)?(?![\w.])", text)))
    lines = text.splitlines(keepends=True)
    one, other = draw.randrange(1, len(lines)), draw.randrange(1, len(lines))
    swapped = list(lines)
    swapped[one], swapped[other] = swapped[other], swapped[one]
    return draw.choice(
        [
            text[: number.start()] + draw.choice(NUMBERS) + text[number.end() :],
            text[: number.start()] + draw.choice(NUMBERS) + text[number.end() :],
            "".join([*lines[:one], *lines[one + 1 :]]),
            "".join([*lines[:one], lines[one], *lines[one:]]),
            "".join(swapped),
            text[: draw.randrange(len(text))],
        ]
    )


@pytest.mark.parametrize("name", READERS)
def test_damage_gives_what_can_be_or_a_refusal_that_names_the_file(name: str, tmp_path: Path) -> None:
    whole, read, sound = READERS[name]
    draw, file, text = random.Random(name), tmp_path / name, whole(tmp_path)
    file.write_text(text)
    sound(read(file))
    refused = 0
    for _ in range(200):
        file.write_text(damaged(text, draw))
        try:
            sound(read(file))
        except SpecError as error:
            refused += 1
            files = {fault.file for fault in error.faults}
            assert files == {str(file)}
    assert refused > 40


def faults(read: Callable[[Path], Any], file: Path, text: str) -> str:
    file.write_text(text)
    with pytest.raises(SpecError) as refusal:
        read(file)
    return str(refusal.value)


@pytest.mark.parametrize(
    ("survival", "complaint"),
    [
        ([0.73, 0.355, 0.52], ":14: measured.0.survival: found 0.73, 0.355, 0.52, which rises"),
        ([0.73, 0.52], ":14: measured.0.survival: 2 shares beside gamma 3"),
        ([0.73, 0.52, 0.355, 0.2], ":14: measured.0.survival: 4 shares beside gamma 3"),
    ],
)
def test_a_survival_falls_and_is_told_of_every_position(
    survival: list[float], complaint: str, tmp_path: Path
) -> None:
    document = json.loads(acceptance_text(tmp_path))
    document["measured"][0]["survival"] = survival
    order = sorted(document["measured"][0], key=lambda key: ("trials" in key or "share" in key, 0))
    document["measured"][0] = {key: document["measured"][0][key] for key in order}
    assert complaint in faults(read_acceptance, tmp_path / "a.json", json.dumps(document, indent=1))


def test_an_entry_that_is_there_twice_is_refused_and_not_added_again(tmp_path: Path) -> None:
    document = json.loads(acceptance_text(tmp_path))
    document["measured"].append(document["measured"][0])
    said = faults(read_acceptance, tmp_path / "a.json", json.dumps(document, indent=1))
    assert "measured.2: is the entry measured.0 again" in said
    write_acceptance(tmp_path / "whole.json", [entry(8000.0)], add=True)
    assert len(read_acceptance(tmp_path / "whole.json")) == 2


@pytest.mark.parametrize(
    ("least", "most", "complaint"),
    [
        ("inf", "", ":2: row 1, at_least: found 'inf'. Give a number from 0 to 100"),
        ("", "-1", ":2: row 1, at_most: found '-1'"),
        ("0.5", "0.1", ":2: row 1, at_least: found 0.5 above at_most, 0.1"),
        ("", "", ":2: row 1, at_least: is empty, and at_most is too"),
        ("\uff11", "", ":2: row 1, at_least: found"),
    ],
)
def test_a_limit_is_a_number_that_a_figure_can_keep(
    least: str, most: str, complaint: str, tmp_path: Path
) -> None:
    text = LIMITS.splitlines()[0] + f"\nall,draft,mean_absolute_error,{least},{most}\n"
    assert complaint in faults(limits_of, tmp_path / "limits.csv", text)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (",4,1,128,", ",0,1,128,", "heads: found '0'"),
        (",4,1,128,", ",4,3,128,", "kv_heads: found 3 beside 4 heads"),
        ("0.0004", "4e-9", "seconds: found '4e-9', which makes a memory bandwidth of"),
        ("linear,fp32,8", "linear,fp32,4", ":5: row 4: is the linear row of line 4 again"),
        (",8,6.4e+10", ",1_0,6.4e+10", "sms: found '1_0', which is no whole number"),
    ],
)
def test_a_machine_point_that_cannot_be_is_refused_with_its_line(
    old: str, new: str, complaint: str, tmp_path: Path
) -> None:
    text = machine_text(tmp_path)
    assert old in text
    assert complaint in faults(read_points, tmp_path / "machine.csv", text.replace(old, new, 1))


def test_points_of_two_machines_are_told_apart_by_line(tmp_path: Path) -> None:
    lines = machine_text(tmp_path).splitlines()
    lines[3] = lines[3].replace("a machine", "another")
    said = faults(read_points, tmp_path / "machine.csv", "\n".join(lines))
    assert "machine.csv:4: row 3, device: found 'another', where line 2 has 'a machine'" in said


def test_a_bandwidth_above_any_known_part_is_a_remark_and_above_the_physical_refused(tmp_path: Path) -> None:
    stream = MachinePoint(kind="stream", dtype="fp32", n=1 << 30, seconds=(1 << 32) / 2e13)
    (remark,) = beyond_known([stream])
    assert "a memory bandwidth of 20 TB/s is above that of any known accelerator, 8 TB/s" in remark
    file = tmp_path / "points.csv"
    file.write_text(POINTS.replace("4.01", "0.1"))
    (remark,) = beyond_its_memory(read_file(file))
    assert "4 points read the weights faster than the memory can" in remark
    assert "h100-sxm-80gb has 3.35 TB/s" in remark
    assert "step_ms: the weights of Llama-3.1-8B in this time make a memory bandwidth" in faults(
        read_file, file, POINTS.replace("4.01", "0.01")
    )
    assert "step_ms: found 1e-300" in faults(read_file, file, POINTS.replace("4.01", "1e-300"))


def test_the_known_bounds_are_those_of_the_best_profiles() -> None:
    profiles = [HardwareProfile.load(name) for name in HardwareProfile.available()]
    most = {
        MEMORY_BANDWIDTH: max(float(profile.quantities["memory.bandwidth"].high) for profile in profiles),
        CAPACITY: max(float(profile.quantities["memory.capacity"].high) for profile in profiles),
        PEAK_FLOPS: max(
            float(quantity.high)
            for profile in profiles
            for path, quantity in profile.quantities.items()
            if path.startswith("peak.")
        ),
    }
    for bound, highest in most.items():
        assert highest <= bound.known <= 1.001 * highest
        assert bound.physical > 5.0 * bound.known
    assert not any(profile.beyond_known() for profile in profiles)


@pytest.mark.parametrize(("bandwidth", "refused"), [("20000 GB/s", False), ("200000 GB/s", True)])
def test_a_profile_above_known_parts_is_remarked_on(bandwidth: str, refused: bool, tmp_path: Path) -> None:
    bundled = Path(__file__).parents[2] / "hardware_profiles" / "h100-sxm-80gb.yaml"
    text = re.sub(r"(?m)^(  bandwidth: )\{[^}]*\}", rf"\1{{value: {bandwidth}, source: s, kind: published}}",
                  bundled.read_text(), count=1)  # fmt: skip
    file = tmp_path / bundled.name
    if refused:
        assert "memory.bandwidth.value: found 200000 GB/s" in faults(HardwareProfile.load, file, text)
    else:
        file.write_text(text)
        assert "memory.bandwidth of h100-sxm-80gb: a memory bandwidth of 20 TB/s is above" in " ".join(
            HardwareProfile.load(file).assumed
        )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (TRACE.replace("2023-11-16 18:02:03.97", "-1"), ":4: timestamp: found '-1'"),
        (TRACE.replace("2023-11-16 18:02:03.97", "17"), ":4: timestamp: found '17'"),
        (TRACE.replace("2023-11-16 18:02", "9999-11-16 18:02"), ":4: timestamp: requests arrive over 7,976"),
        ('{"timestamp": NaN, "input_length": 5, "output_length": 1}\n', ":1: timestamp: found NaN"),
    ],
)
def test_arrivals_are_all_dates_or_all_numbers_and_within_ten_years(
    text: str, complaint: str, tmp_path: Path
) -> None:
    assert complaint in faults(read_trace, tmp_path / "trace.csv", text)
