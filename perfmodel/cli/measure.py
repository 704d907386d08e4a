"""`draftplan measure`: times of kernels, passes and rounds on this machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from perfmodel.cli.ask.completion import model_names
from perfmodel.cli.ask.device import device_asked, need_torch
from perfmodel.cli.ask.flag import command, flag
from perfmodel.cli.tell.output import note, remark
from perfmodel.cli.tell.progress import share_bar

if TYPE_CHECKING:
    from perfmodel.evidence.machine.points import MachinePoint
    from perfmodel.reference.timing.stopwatch import Machine

__all__ = ["measure"]

LONGEST = 3600.0
"""Most wall time that one run may ask for. [s]"""


@command("measure", 10)
def measure(
    output: str = flag("--output", "-o", "POINTS.csv", required=True,
        help="Where the times go. A file that is there is gone on with: what it has is not timed again."),
    device: str = flag("--device", "cpu|cuda[:N]", default="cpu",
        help="Where to run: one CPU thread, or a GPU."),
    seconds: float = flag("--seconds", "S", default=60.0, min=1.0, max=LONGEST, help="Stop after that many."),
    model: str | None = flag("--model", "NAME|PATH", complete=model_names,
        help="Llama-style model whose shapes are timed, with random weights; a small decoder on a CPU and "
        "llama-3.1-8b on a GPU where absent."),
    layers: int | None = flag("--layers", "N", min=1, help="Layers of a named model to build, else 4."),
    dtype: str | None = flag("--dtype", "fp32|bf16|fp16", help="fp32 on a CPU, bf16 on a GPU where absent."),
) -> None:  # fmt: skip
    """Time linear layers, attention, whole passes and whole rounds on this machine, and write one row each.

    Attention is timed for 1 to 12 query tokens over a long cache, by the fastest kernel that torch offers.
    Every shape is warmed up, shapes take turns, the median counts. On a CPU it is the processor time of one
    thread, so that other jobs on the machine do not count; on a GPU events around CUDA graphs.

    Columns: kind (stream, linear, attention, forward, draft, round), dtype, the sizes that the kind has
    (tokens, n, k, batch, query_tokens, kv_tokens, heads, kv_heads, head_dim, layers, hidden_size, mlp_width,
    vocab_size, strategy, kv_budget, gamma), the attention kernel, seconds (median), low and high (10th and
    90th percentile), samples, clock, and the machine: device, sms, memory_bytes, l2_bytes, torch, date.

    Example: draftplan measure --device cuda -o points.csv && draftplan calibrate points.csv -o my-card.yaml
    """
    need_torch("measure")
    from perfmodel.evidence.machine.points import write_points
    from perfmodel.files.quoting import shell_path
    from perfmodel.reference.timing.bench import Bench
    from perfmodel.reference.timing.machines import bench_decoder, grid_for
    from perfmodel.reference.timing.measure import measure, missing
    from perfmodel.reference.timing.stopwatch import machine_of, one_thread, stopwatch_for
    from perfmodel.reference.timing.subjects import subjects

    where = device_asked(device)
    machine = machine_of(where)
    known = _known(output, machine)
    write_points(output, known)  # a file that cannot be written is better found now
    with one_thread():
        stopwatch = stopwatch_for(where)
        decoder, name = bench_decoder(where, model=model, dtype=dtype, layers=layers)
        bench = Bench(decoder, grid_for(where, decoder), stopwatch, machine.l2_bytes)
        with share_bar("choosing attention kernels") as step:
            bench.choose_kernels()
            wanted = subjects(bench, name)
            points = measure(
                wanted,
                stopwatch=stopwatch,
                machine=machine,
                seconds=seconds,
                known=known,
                on_sweep=lambda timed: write_points(output, timed),
                on_step=lambda share, shapes: step(share, f"{shapes} of {len(wanted)} shapes timed"),
            )
    write_points(output, points)
    left = missing(wanted, points)
    remark(f"wrote {output}: {len(points)} shapes on {machine.device}")
    if left:
        note([f"{left} shapes are not timed yet; run the same command again to go on"])
    remark(f"next: draftplan calibrate {shell_path(output)} -o my-machine.yaml")


def _known(output: str, machine: Machine) -> tuple[MachinePoint, ...]:
    """Return the points of an earlier run. Raises SpecError where they are of another machine."""
    from perfmodel.errors import SpecError
    from perfmodel.evidence.machine.points import read_points

    if not os.path.exists(output):
        return ()
    known = read_points(output)
    others = {point.device for point in known} - {machine.device}
    if others:
        problem = f"it has times of {', '.join(sorted(others))}, this is {machine.device}"
        raise SpecError.single(output, "device", problem, "Name another file")
    return known
