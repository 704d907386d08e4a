"""Accelerators and their number as people name them: --hardware, --gpus 8xH200, --tp."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from perfmodel.cli.ask.defaults import by_hand, origin_of
from perfmodel.cli.ask.gpus import is_number
from perfmodel.errors import SpecError

if TYPE_CHECKING:
    from perfmodel.cli.ask.flags import DeploymentFlags
    from perfmodel.cli.ask.reading import Reading

__all__ = ["read_machines"]

FlagsT = TypeVar("FlagsT", bound="DeploymentFlags")
_FORM = "Write --gpus 8xH200, or --hardware h200 --gpus 8"


def read_machines(reading: Reading, flags: FlagsT) -> FlagsT:
    """Return the flags with names alone in `hardware`, and in `tp` the GPUs of a group where any flag counts.

    GPUs that are counted are those of all stages and groups. Of a number that is typed and one from a file
    the first is taken. Faults are kept by `reading`.
    """
    ctx = reading.ctx
    names, numbers = _of_hardware(flags)
    weight, flag = by_hand(ctx, "hardware"), "hardware"
    if origin_of(ctx, "hardware") == "gpus":
        flag = "gpus"
    if flags.gpus is not None and is_number(flags.gpus):
        counts = reading.counts("gpus", flags.gpus, 1) or []
        if numbers and sorted(numbers) != sorted(counts) and weight == by_hand(ctx, "gpus"):
            reading.read("gpus", _refuse_two_numbers, flags.gpus)
        numbers, weight, flag = counts, by_hand(ctx, "gpus"), "gpus"
    elif flags.gpus is not None and flags.gpus.strip() != flags.hardware.strip():
        reading.read("gpus", _refuse_two_names, flags.gpus)
    flags = replace(flags, hardware=",".join(names))
    if not numbers or by_hand(ctx, "tp") > weight:
        return flags
    if len(set(names)) > 1 and len(numbers) > 1:
        reading.read(flag, _refuse_mixed, flags.gpus or flags.hardware)
        return flags
    others = flags.pp * (1 if flags.dp_attention else flags.dp)
    shared = [reading.read(flag, lambda text: _shared(int(text), others), str(gpus)) for gpus in numbers]
    text = ",".join(str(gpus) for gpus in shared if gpus)
    if by_hand(ctx, "tp") == weight and text != flags.tp.strip():
        reading.read("tp", lambda given: _refuse_both(given, flag, text), flags.tp)
        return flags
    return replace(flags, tp=text or flags.tp)


def _of_hardware(flags: DeploymentFlags) -> tuple[list[str], list[int]]:
    """Return the names in --hardware, and the different numbers that stand before or behind them."""
    names: dict[str, None] = {}
    numbers: dict[int, None] = {}
    for part in filter(None, (piece.strip() for piece in flags.hardware.split(","))):
        name, gpus = _counted(part, flags.profiles_path)
        names[name] = None
        numbers[gpus] = None
    return list(names), list(numbers) if any(numbers) else []


def _counted(part: str, profiles_path: str | None) -> tuple[str, int]:
    """Return the name and the number in ``8xH200``; 0 for a name or a file of its own."""
    from perfmodel.accelerators import counted
    from perfmodel.hardware import HardwareProfile

    several = counted(part)
    if several is None:
        return part, 0
    try:
        HardwareProfile.load(part, profiles_path)
    except SpecError:
        if several[1] < 1:
            remedy = "Give at least 1 GPU, as in 4xH100"
            raise SpecError.single("", "--gpus", f"found {part!r}", remedy) from None
        return several
    return part, 0


def _shared(gpus: int, others: int) -> int:
    if gpus < 1 or gpus % others:
        raise SpecError.single(
            "", "", f"found {gpus} GPUs, which {others} stages and groups do not divide",
            f"Give a multiple of {others}: all GPUs are counted",
        )  # fmt: skip
    return gpus // others


def _refuse_both(text: str, flag: str, other: str) -> None:
    raise SpecError.single("", "", f"found {text}, but --{flag} says {other}", "Give one of the two")


def _refuse_mixed(text: str) -> None:
    raise SpecError.single(
        "", "", f"found {text[:60]!r}, different numbers of different accelerators",
        "Plan each alone, or name them with --hardware and their numbers with --tp",
    )  # fmt: skip


def _refuse_two_names(text: str) -> None:
    raise SpecError.single("", "", f"found {text[:60]!r} beside --hardware", _FORM)


def _refuse_two_numbers(text: str) -> None:
    raise SpecError.single("", "", f"found {text[:60]!r} beside another number in --hardware", _FORM)
