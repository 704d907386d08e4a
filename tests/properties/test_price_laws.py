"""Laws of a round over all that is bundled: order, scale, steadiness, axes in any order, and sums."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from questions import MOST_CONTEXT, drafters, engines, models, pricers, profiles, sizes, spread

from perfmodel.files.quantity import Figure, figures_of
from perfmodel.memory import resident_memory
from perfmodel.speculation import price_round

RATES = ("bytes_per_s", "flops")
AXES = ("tensor_parallel", "batch", "context_len", "kv_budget", "gamma")
ROUNDING = 1e-11


def never_below(more, less) -> None:
    """`more` is at least `less`, but for rounding."""
    assert np.all(more >= less * (1.0 - ROUNDING))


def quickened(noun, factor):
    """The accelerator or engine with every rate `factor` times as high and every time as short."""
    values = {}
    for path, declared, value in figures_of(noun):
        dimension = declared.dimension if isinstance(declared, Figure) else "seconds"
        if path.startswith("all_reduce.") and not path.endswith("scale"):
            continue  # a table of times: its scale stands for all of them
        if path.endswith("scale") or dimension == "seconds":
            values[path] = value / factor
        elif dimension in RATES:
            values[path] = value * factor
    return noun.with_values(values)


@given(profiles, models, engines, drafters, sizes)
def test_twice_the_rates_and_half_the_times_are_half_of_every_time(profile, model, engine, drafter, size):
    """Units: nothing that is priced has a time of its own, within a node."""
    size = {**size, "tensor_parallel": min(size["tensor_parallel"], profile.link_gpus)}
    engine = engine.on(profile)
    before = price_round(profile, model, engine, drafter, **size)
    after = price_round(quickened(profile, 2.0), model, quickened(engine, 2.0), drafter, **size)
    for name in ("round_s", "draft_s", "tpot", "overhead"):
        assert_allclose(getattr(after, name), getattr(before, name) / 2.0, rtol=ROUNDING)
    assert_allclose(after.speedup, before.speedup, rtol=ROUNDING)


@given(pricers, sizes, st.floats(1.0, 8.0))
def test_more_of_anything_is_never_faster_nor_smaller(price, size, factor):
    """Sequences, context and length lengthen a round; a budget the draft pass; all of them need memory."""
    before = price(**size)
    for name in ("batch", "context_len", "gamma", "kv_budget"):
        after = price(**{**size, name: np.ceil(size[name] * factor)})
        lengthened = "draft_s" if name == "kv_budget" else "round_s"
        never_below(getattr(after, lengthened), getattr(before, lengthened))
        never_below(after.memory.total, before.memory.total)


def others_of(order, name) -> tuple[int, ...]:
    """The places of all names but one."""
    return tuple(place for place, other in enumerate(order) if other != name)


@given(pricers, sizes)
def test_axes_in_another_order_are_the_same_prices(price, size):
    """Every size beside 1 on an axis of its own, in this order and in the opposite one."""
    grids = [
        price(**{name: np.expand_dims([1.0, size[name]], others_of(order, name)) for name in order})
        for order in (AXES, AXES[::-1])
    ]
    for name in ("tpot", "speedup"):
        forwards, backwards = (np.broadcast_to(getattr(grid, name), (2,) * len(AXES)) for grid in grids)
        assert_allclose(forwards, backwards.transpose(), rtol=ROUNDING)
        assert_allclose(forwards[(1,) * len(AXES)], getattr(price(**size), name), rtol=ROUNDING)


@given(pricers, sizes, st.floats(1.0, 4.0))
def test_a_budget_of_the_whole_context_is_the_price_of_the_whole_cache(price, size, factor):
    whole = price(**{**size, "kv_budget": np.inf}, alpha=0.7)
    covered = price(**{**size, "kv_budget": np.ceil(size["context_len"] * factor)}, alpha=0.7)
    assert_allclose(covered.tpot, whole.tpot, rtol=ROUNDING)
    assert_allclose(covered.memory.total, whole.memory.total, rtol=ROUNDING)


@given(pricers, sizes, st.lists(st.floats(0.0, 1.0), min_size=2, max_size=6).map(sorted))
def test_accepting_more_never_gains_less(price, size, rates):
    speedups = np.broadcast_to(price(**size, alpha=np.array(rates)).speedup, len(rates))
    never_below(speedups[1:], speedups[:-1])


@given(profiles, models, engines, sizes, st.sampled_from([2.0, 4.0, 8.0]))
def test_more_gpus_never_need_more_of_each(profile, model, engine, size, factor):
    names = ("batch", "context_len", "gamma")
    few, many = (
        resident_memory(
            profile, model, engine, tensor_parallel=size["tensor_parallel"] * times,
            **{name: size[name] for name in names},
        ).total
        for times in (1.0, factor)
    )  # fmt: skip
    never_below(few, many)


@given(pricers, sizes, st.floats(1e-4, 0.02))
def test_a_little_more_context_or_batch_is_a_little_slower(price, size, share):
    """No cliffs. A wave, a tile of rows or a block of KV more is a real step, at most twice what a kernel
    took; in a long context there are so many that a fiftieth more of it takes a tenth more time at most."""
    before = price(**size)
    for name in ("batch", "context_len"):
        more = np.ceil(size[name] * (1.0 + share))
        after = price(**{**size, name: more})
        assert after.round_s <= before.round_s * 2.1 * more / size[name]
        if name == "context_len" and size[name] > 4096:
            assert after.baseline.total <= before.baseline.total * 1.1


@given(pricers, sizes, spread(MOST_CONTEXT))
def test_a_round_is_the_sum_of_its_causes(price, size, context):
    priced = price(**{**size, "context_len": context})
    causes = ("linear", "attention", "recurrence", "communication", "overhead")
    total = sum(priced.passes * getattr(priced.draft, name) + getattr(priced.verify, name) for name in causes)
    assert_allclose(total + priced.overhead, priced.round_s, rtol=ROUNDING)
