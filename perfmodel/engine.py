"""Serving engines: the seconds that software adds between the kernels, and which kernels it calls."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfmodel import software
from perfmodel.errors import SpecError
from perfmodel.files.catalogue import Catalogue
from perfmodel.files.numbers import Numeric
from perfmodel.files.quantity import figure, text, texts
from perfmodel.files.spec import Spec
from perfmodel.software import Older, Software

if TYPE_CHECKING:
    from perfmodel.hardware import HardwareProfile

__all__ = ["DEFAULT_ENGINE", "EngineOverhead", "Numeric", "json_schema"]

DEFAULT_ENGINE = "generic"
"""The engine whose overheads count where none is named."""

_DIGITS = 9


@dataclass(frozen=True, kw_only=True, eq=False)
class EngineOverhead(Spec):
    """What an engine costs beside its kernels; every figure may be an array. SI units.

    `stated` are figures that a caller set, with their sources, which hold for presets too; `profiles_path` is
    where the engine was looked for, and its presets are; `asked` is the engine that a preset stands for.
    `release` of its software is named by whoever serves an older one, which `on` makes figures of.
    """

    name: str = text("what the user types; the file is called the same")
    description: str = text("one line for people", "")
    aliases: tuple[str, ...] = texts("other names that mean this engine")
    software: str = text("what serves, as `perfmodel.software` names it: what it runs is planned", "")
    presets: tuple[str, ...] = texts("engines that take its place on the accelerators they were fitted to")
    families: tuple[str, ...] = texts("families of accelerators that these figures are for; none: any")
    fitted_to: str = text("how much the figures were fitted to", "")
    asked: str = ""
    release: str = ""
    stated: tuple[tuple[Mapping[str, Numeric], str], ...] = ()
    profiles_path: str | None = None
    forward_s: Numeric = figure("seconds", 0, 0.1, "each forward pass", (0, 3e-4, 1.5e-3), path="forward")
    draft_forward: Numeric = figure(
        "ratio", 0, 1, "share of it that a draft pass takes: 0 where a round is launched at once", (0, 1, 1)
    )
    layer_s: Numeric = figure("seconds", 0, 5e-3, "each layer of a pass", (2e-5, 4e-5, 1e-4), path="layer")
    expert_layer_s: Numeric = figure(
        "seconds", 0, 1e-3, "each layer with experts on top: routing and sorting its tokens", (0, 0, 0),
        path="expert_layer",
    )  # fmt: skip
    expert_parallel_layer_s: Numeric = figure(
        "seconds", 0, 1e-3, "each layer on top whose experts, of more than four bits, are dealt out whole",
        (0, 0, 0), path="expert_parallel_layer",
    )  # fmt: skip
    eager_expert_layer_s: Numeric = figure(
        "seconds", 0, 1e-2, "each layer with experts that is launched outside graphs, as a prefill's are",
        (0, 0, 0), path="eager_expert_layer",
    )  # fmt: skip
    streaming: Numeric = figure(
        "ratio", 0.3, 3, "rate at which weights stream in a step over that of kernel timings", (0.95, 1, 1.2)
    )
    expert_all_to_all: Numeric = figure(
        "count", 0, 1, "1: GPUs that deal out experts send tokens to them and back; 0: each has every token, "
        "and they add up what their experts put out", (0, 0, 0),
    )  # fmt: skip
    quantise_s: Numeric = figure(
        "seconds", 0, 1e-3, "each product with 8-bit weights: quantising what it takes in", (0, 0, 0),
        path="quantise",
    )  # fmt: skip
    row_s: Numeric = figure(
        "seconds", 0, 1e-3, "each sequence of a step: sampling, handing on its token", (0, 0, 0), path="row"
    )
    row_layer_s: Numeric = figure("seconds", 0, 1e-4, "each row and layer", (0, 1e-7, 5e-7), path="row_layer")
    draft_row_layer_s: Numeric = figure(
        "seconds", 0, 1e-4, "each sequence and draft layer on top: upkeep of its cache", (0, 1e-7, 5e-7),
        path="draft_row_layer",
    )  # fmt: skip
    round_s: Numeric = figure("seconds", 0, 0.1, "each draft-verify round", (2e-4, 1e-3, 2e-3), path="round")
    round_row_s: Numeric = figure(
        "seconds", 0, 1e-3, "each round and sequence", (0, 1e-6, 4e-6), path="round_row"
    )
    lookup_s: Numeric = figure(
        "seconds", 0, 0.1, "each round whose drafts the host looks up: the next step waits for it",
        (5e-5, 1e-3, 4.4e-3), path="lookup",
    )  # fmt: skip
    lookup_token_s: Numeric = figure(
        "seconds", 0, 1e-6, "each sequence and token of the text that is searched",
        (2e-10, 1.5e-9, 6e-9), path="lookup_token",
    )  # fmt: skip
    loaded_off: Numeric = figure(
        "ratio", 0, 2, "extra time of a plain step while a drafter is loaded", (0, 0, 0)
    )
    piecewise_layer_s: Numeric = figure(
        "seconds", 0, 1e-3, "each layer while a drafter is loaded: graphs cut in pieces", (0, 0, 0),
        path="piecewise_layer",
    )  # fmt: skip
    discarded_rounds: Numeric = figure(
        "ratio", 0, 1, "share of rounds that joining prefills cut short", (0, 0, 0)
    )
    request_s: Numeric = figure(
        "seconds", 0, 1, "each request at the front end, which takes one at a time: HTTP, tokenising",
        (0, 0, 0), path="request",
    )  # fmt: skip
    request_delay_s: Numeric = figure(
        "seconds", 0, 1, "each request on top, from its client to the scheduler and of its first token back",
        (0, 0, 0), path="request_delay",
    )  # fmt: skip
    kept_states: Numeric = figure(
        "ratio", 0, 1, "recurrent states kept for each drafted token until it is accepted", (1, 1, 1)
    )
    state_trips: Numeric = figure(
        "count", 0, 4, "times that a recurrent state is read and written again after acceptance", (0, 0, 0)
    )
    step_residual: Numeric = figure(
        "ratio", 0, 1, "relative spread of a target pass that the figures leave open", (0.05, 0.1, 0.2)
    )
    expert_residual: Numeric = figure(
        "ratio", 0, 1, "that spread where the target has experts", (0.16, 0.16, 0.16)
    )
    draft_residual: Numeric = figure(
        "ratio", 0, 1, "relative spread of a draft pass that the figures leave open", (0.05, 0.15, 0.3)
    )
    other_kernel_share: Numeric = figure(
        "count", 0, 1, "share of the other attention kernel: 0 the first runs, 1 the other", (0, 0, 0)
    )
    memory_utilization: Numeric = figure("ratio", 0.05, 1, "share of memory it may use", (0.85, 0.9, 0.95))
    fixed_memory: Numeric = figure(
        "bytes", 0, 64e9, "memory of each GPU for context, communication buffers and graphs",
        (0.2 * 2**30, 0.5 * 2**30, 1.8 * 2**30),
    )  # fmt: skip
    repacking: Numeric = figure(
        "ratio", 1, 2, "memory that four-bit weights take over what their checkpoint stores", (1, 1, 1)
    )
    all_reduce: str = text("all-reduce implementation of the hardware profile", "nccl")
    calibrated_on: str = text("hardware profile of the steps that the figures were fitted to", "nothing")
    attention_kernel: str = text("attention kernel of the hardware profile", "generic")
    other_attention_kernel: str = text("kernel that may run instead, where nobody says which does", "")

    def on(self, hardware: HardwareProfile) -> EngineOverhead:
        """Return the preset that stands for this engine on an accelerator, with what a caller has stated.

        Itself where none was fitted on accelerators of that family. What its release spends is on top. Raises
        SpecError where a preset of the engine's file does not exist.
        """
        for preset in (_preset(name, self.profiles_path) for name in self.presets):
            if hardware.family in preset.families:
                for values, source in self.stated:
                    preset = preset.with_values(values, source)
                return replace(preset, asked=self.asked or self.name, release=self.release)._as_released()
        return self._as_released()

    def of_release(self, release: str, hardware: HardwareProfile) -> EngineOverhead:
        """Return the engine on an accelerator as a release of its software has it.

        Figures are those of releases of today. Older ones add what `perfmodel.software.Older` says; a release
        that is empty or no number adds nothing.
        """
        return replace(self, release=release).on(hardware)

    @property
    def older(self) -> tuple[Older, ...]:
        """What the release that was named spends on top."""
        every = self.served_by.older if self.release and self.served_by else ()
        return tuple(older for older in every if older.holds(self.release))

    def _as_released(self) -> EngineOverhead:
        if not self.release:
            return self
        engine = replace(self, asked=self.label, release="", presets=())
        for older in self.older:
            figures = {path: engine.quantities[path] for path in older.more}
            source = f"{older.reason}: {older.source}"
            slower = {path: figures[path].plus(more, source) for path, more in older.more.items()}
            engine = engine.with_quantities(slower, _DIGITS)
        return engine

    @property
    def label(self) -> str:
        """The name that it was asked for by: its own, or the one that it stands for, and its release."""
        return (self.asked or self.name) + (f"@{self.release}" if self.release else "")

    def with_values(
        self, values: Mapping[str, Numeric], source: str = "given by the caller"
    ) -> EngineOverhead:
        """Return the engine with figures replaced, as `Spec.with_values` has it, for its presets too."""
        changed = super().with_values(values, source)
        return replace(changed, stated=(*self.stated, (dict(values), source)))

    def calling(self, *, attention_kernel: str, all_reduce: str) -> EngineOverhead:
        """Return the same engine with kernels that are known to run, by their names in hardware profiles."""
        share = "other_kernel_share"
        return replace(
            self,
            attention_kernel=attention_kernel,
            all_reduce=all_reduce,
            other_attention_kernel="",
            other_kernel_share=0.0,
            presets=(),
            quantities={path: quantity for path, quantity in self.quantities.items() if path != share},
        ).with_defaults()

    @classmethod
    def load(
        cls, name_or_path: str | os.PathLike[str], profiles_path: str | os.PathLike[str] | None = None
    ) -> EngineOverhead:
        """Return the engine that a bundled name, an alias or a path to a YAML file means.

        A release of its software may follow, as in ``vllm@0.11.0``: an older one spends more. Figures that
        the file leaves out take generic defaults, listed in `assumed`. Raises SpecError.
        """
        from perfmodel.files.nouns import noun_from

        name, release = _released(os.fspath(name_or_path))
        document = _catalogue().document(name, profiles_path)
        engine = noun_from(cls, document)
        try:
            served_by = engine.served_by
        except SpecError as unknown:
            raise unknown.located(document.file, document.line(["software"]), "software") from None
        if release and (served_by is None or not served_by.older):
            problem = f"nothing is known of releases of {name[:60]}"
            raise SpecError.single("", "engine", problem, f"Leave @{release[:20]} out")
        folder = None if profiles_path is None else os.fspath(profiles_path)
        return replace(engine, release=release, profiles_path=folder)

    @property
    def served_by(self) -> Software | None:
        """The software that serves, which says what can run; None where any may. Raises SpecError."""
        return software.load(self.software) if self.software else None

    @classmethod
    def available(cls, profiles_path: str | os.PathLike[str] | None = None) -> tuple[str, ...]:
        """Return the names of all engines, sorted."""
        return _catalogue().names(profiles_path)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of an engine file, for editors that complete and check YAML."""
    from perfmodel.files import schema

    return schema.json_schema(EngineOverhead)


def _released(text: str) -> tuple[str, str]:
    """Return the name and the release of ``vllm@0.11.0``; files are called as they like. Raises SpecError."""
    name, at, release = text.rpartition("@")
    if not at or os.path.exists(text):
        return text, ""
    if not release.strip().lstrip("v")[:1].isdigit():
        problem = f"found {text[:60]!r}, where {release[:20]!r} is no release"
        raise SpecError.single("", "engine", problem, f"Write its number, as in {name[:40]}@0.11.0")
    return name, release


@lru_cache(maxsize=64)
def _preset(name: str, profiles_path: str | None) -> EngineOverhead:
    return EngineOverhead.load(name, profiles_path)


@lru_cache(maxsize=1)
def _catalogue() -> Catalogue:
    return Catalogue("engine", Path(__file__).resolve().parent / "data" / "engines", inside="engines")
