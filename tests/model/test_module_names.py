"""Names, globs and regular expressions by which a file means modules, and those that are refused."""

from __future__ import annotations

import time

import pytest

from perfmodel.model.module_names import ModuleNames


def names(*patterns: str) -> ModuleNames:
    listed = ModuleNames()
    assert [listed.add(pattern) for pattern in patterns] == [None] * len(patterns)
    return listed


AROUND = ("model.", "model.language_model.", "language_model.model.", "backbone.", "", "llm.model.")


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("name", ["layers.3.mlp", "layers.3.mlp.*", "layers.3.mlp*", "layers.3.mlp.up_proj"])
def test_a_layer_is_known_whatever_the_decoder_is_called(around: str, name: str) -> None:
    listed = names(around + name)
    assert listed.holds(3, "mlp.up_proj")
    assert not listed.holds(13, "mlp.up_proj")
    assert not listed.holds(3, "self_attn.up_proj")
    assert not listed.holds(None, "lm_head")


@pytest.mark.parametrize(
    ("pattern", "layer", "module", "held"),
    [
        ("lm_head", None, "lm_head", True),
        ("language_model.lm_head", None, "lm_head", True),
        ("model.embed_tokens", None, "embed_tokens", True),
        ("re:.*lm_head.*", None, "lm_head", True),
        ("gate", 1, "block_sparse_moe.gate", True),
        ("gate", 1, "mlp.gate_proj", False),
        ("mlp.gate.", 1, "mlp.gate", True),
        ("self_attn", 1, "self_attn.q_proj", True),
        ("model.layers.1", 1, "mlp.up_proj", True),
        ("model.layers.1*", 1, "mlp.up_proj", True),
        ("model.layers.1*", 12, "mlp.up_proj", False),
        ("model.layers.*.self_attn", 7, "self_attn.q_proj", True),
        ("model.layers.*.self_attn", 7, "mlp.up_proj", False),
        ("*.mlp.shared_expert.*", 7, "mlp.shared_expert.up_proj", True),
        ("*.mlp.shared_expert.*", 7, "mlp.experts.up_proj", False),
        ("*layers.0.*", 0, "mlp.up_proj", True),
        ("*self_attn*", 4, "self_attn.o_proj", True),
        ("model.layers.4.mlp.experts.17.up_proj", 4, "mlp.experts.up_proj", True),
        ("model.layers.4.mlp.experts.*.up_proj", 4, "mlp.experts.up_proj", True),
        ("model.layers.4.mlp.experts.17.up_proj", 4, "mlp.experts.down_proj", False),
        (r"re:.*mlp\.experts\.\d+\.up_proj", 4, "mlp.experts.up_proj", True),
        (r"re:model\.layers\.(3|4)\.mlp", 4, "mlp.up_proj", True),
        (r"re:model\.layers\.4\.mlp", 4, "mlp.up_proj", True),
        (r"re:model\.layers\.4\.mlp", 5, "mlp.up_proj", False),
        (r"re:^(?!.*experts).*", 4, "mlp.up_proj", True),
        (r"re:^(?!.*experts).*", 4, "mlp.experts.up_proj", False),
        (r"re:.*mlp\.(gate|up|gate_up|down)_proj.*", 0, "mlp.gate_proj", True),
        (r"re:.*mlp\.(gate|up|gate_up|down)_proj.*", 9, "mlp.experts.gate_proj", False),
        ("re:self_attn", 4, "self_attn.q_proj", False),
        ("model.layers.4.self_attn.qkv_proj", 4, "self_attn.k_proj", True),
        ("model.layers.4.mlp.gate_up_proj", 4, "mlp.up_proj", True),
        ("vision_model.model.layers.4.self_attn.q_proj", 4, "self_attn.q_proj", False),
        ("model.visual*", 4, "mlp.up_proj", False),
        ("mtp.layers.0*", 0, "mlp.up_proj", False),
        ("mtp*", 0, "mlp.up_proj", False),
        ("transformer.h.3.mlp", 3, "mlp.c_fc", True),
    ],
)  # fmt: skip
def test_patterns_mean_what_engines_take_them_for(
    pattern: str, layer: int | None, module: str, held: bool
) -> None:
    assert names(pattern).holds(layer, module) is held


def test_only_a_pattern_that_spells_a_module_out_names_it() -> None:
    assert names("lm_head").holds(None, "lm_head", by_name=True)
    assert names("re:.*lm_head").holds(None, "lm_head", by_name=True)
    assert not names("re:.*").holds(None, "lm_head", by_name=True)
    assert not names("*").holds(None, "lm_head", by_name=True)


@pytest.mark.parametrize(
    "pattern",
    ["re:(a+)+$", "re:(.*)*x", "re:(.|.)*x", "re:" + ".*x" * 20, "re:" + "(.|.)" * 40 + "Z", "re:(a{1,9}){9}",
     "re:" + "a?" * 40 + "b", "re:(", "re:[a", r"re:\1", "x" * 501, "re:" + "." * 501],
)  # fmt: skip
def test_hostile_patterns_are_refused_at_once(pattern: str) -> None:
    start = time.process_time()
    listed = ModuleNames()
    assert listed.add(pattern)
    assert not listed.holds(0, "mlp.up_proj")
    assert time.process_time() - start < 0.5


def test_many_costly_patterns_together_are_refused() -> None:
    listed = ModuleNames()
    problems = [listed.add(rf"re:.*a.*b.*c{number}") for number in range(50)]
    assert problems[0] is None and problems[-1] is not None


def test_globs_of_many_stars_do_not_hang() -> None:
    start = time.process_time()
    assert not names("*a" * 60 + "Z").holds(3, "a" * 60)
    assert time.process_time() - start < 1.0
