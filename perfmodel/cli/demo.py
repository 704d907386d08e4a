"""`draftplan demo`: measure, calibrate, predict, plan, run and compare, on this machine."""

from __future__ import annotations

from perfmodel.cli.ask.device import device_asked, need_torch
from perfmodel.cli.ask.flag import NO_COLOR, OUTPUT, command, flag
from perfmodel.cli.ask.format import Format, OutputFlags, refuse_csv
from perfmodel.cli.tell.output import remark, tell

__all__ = ["demo"]


@command("demo", 11)
def demo(
    device: str = flag("--device", "cpu|cuda[:N]", default="cpu",
        help="Where to run: one CPU thread, or a GPU."),
    acceptance_rate: float = flag("--acceptance-rate", "ALPHA", default=0.88, min=0.0, max=0.95,
        help="Acceptance to dial, and to plant: chance that a drafted token is accepted."),
    seconds: float = flag("--seconds", "S", default=75.0, min=20.0, max=3600.0,
        help="Seconds that it may take, about."),
    format: Format | None = flag("--format", help="A table, json or yaml."),
    output: str | None = OUTPUT,
    no_color: bool = NO_COLOR,
) -> None:  # fmt: skip
    """Show on this machine that what is planned is what happens: predicted beside measured.

    A small decoder is timed, and a hardware profile and an engine are fitted to the times. For a shape whose
    steps are nearly all reading of the cache a plan is made, and it and its neighbours are run against plain
    decoding: first with random weights and an acceptance that is dialled, then with weights and texts whose
    acceptance is planted. The outputs are compared token for token.
    """
    need_torch("demo")
    from perfmodel.cli.tell.demo import draw_demo, to_dict
    from perfmodel.reference.demo.demo import run_demo

    flags = OutputFlags(format=format, output=output, no_color=no_color)
    refuse_csv(flags)
    outcome = run_demo(device_asked(device), alpha=acceptance_rate, seconds=seconds, say=remark)
    tell(lambda: to_dict(outcome), flags, table=lambda console: draw_demo(console, outcome))
