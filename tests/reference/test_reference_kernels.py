"""Every attention kernel that is offered gives attention by its definition, and the fastest is chosen."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from timing_helpers import StepClock  # noqa: E402

from perfmodel.reference.attention import Visible, exact, packed  # noqa: E402
from perfmodel.reference.cache import KVCache  # noqa: E402
from perfmodel.reference.rounds import decode, generate  # noqa: E402
from perfmodel.reference.sequences import prefill  # noqa: E402
from perfmodel.reference.timing.attention_kernels import (  # noqa: E402
    OFFERED,
    FastestAttention,
    doubled,
    merged,
    offer_kernels,
)

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")


def shapes(query_tokens, heads=4, kv_heads=2, batch=2, slots=96, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(batch, heads, query_tokens, 16, generator=generator).to(dtype)
    keys, values = (torch.randn(batch, kv_heads, slots, 16, generator=generator).to(dtype) for _ in range(2))
    return query, keys, values, Visible.of_aligned(query_tokens, slots, CPU)


@pytest.mark.parametrize("query_tokens", [1, 2, 7])
@pytest.mark.parametrize("kernel", [packed, doubled, merged])
@pytest.mark.parametrize("heads", [2, 4])
def test_every_kernel_that_runs_here_gives_attention_by_its_definition(kernel, query_tokens, heads):
    given = shapes(query_tokens, heads=heads)
    assert torch.allclose(kernel(*given), exact(*given), atol=1e-5)


def test_a_kernel_that_is_wrong_or_refuses_is_not_offered(monkeypatch):
    def wrong(*given):
        return packed(*given) * 1.5

    def refusing(*_):
        raise RuntimeError("not for this shape")

    kernels = {**OFFERED["cpu"], "wrong": wrong, "refusing": refusing, "merged": merged}
    monkeypatch.setattr("perfmodel.reference.timing.attention_kernels.OFFERED", {"cpu": kernels})
    assert set(offer_kernels(CPU, *shapes(3))) == {"packed", "doubled", "merged"}


def test_the_fastest_kernel_is_chosen_and_ragged_batches_keep_theirs(target, ragged):
    class Slow(StepClock):
        def seconds(self, work, *_):
            return 1.0 if "doubled" not in str(work.__defaults__) else 0.5

    fastest = FastestAttention(Slow())
    assert fastest.name(1) == "packed"
    assert fastest.choose(*shapes(1, heads=2)) == "doubled"
    fastest.apply_to(1, [4])
    assert fastest.name(4) == "doubled"
    plain = generate(target, ragged, 8).tokens
    cache = KVCache(target.architecture, 3, 200, dtype=torch.float64, attention=fastest)
    sequences, logits = prefill(target, ragged, 100, cache)
    assert torch.equal(decode(target, sequences, logits.argmax(-1), 8).tokens, plain)
