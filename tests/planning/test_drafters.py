"""Who drafts, as people write it: strategies in any spelling, draft models, the target itself."""

from __future__ import annotations

import pytest

from perfmodel.errors import SpecError
from perfmodel.planning.drafters import find_drafter, is_self, read_spelling


@pytest.mark.parametrize(
    ("spelled", "name", "drafter"),
    [
        ("streaming_llm", "streaming_llm", None),
        ("StreamingLLM", "streaming_llm", None),
        ("self-spec + StreamingLLM", "streaming_llm", "self"),
        ("Self-Speculation+snapkv", "snapkv", "self"),
        ("standalone small draft + StreamingLLM", "streaming_llm", "draft"),
        ("EAGLE-3", "eagle", None),
        ("quantised KV", "quantized_kv", None),
        ("self-spec (sparse variant not stated)", "streaming_llm", "self"),
        ("standalone draft", "full_kv", "draft"),
    ],
)
def test_strategies_are_known_as_people_spell_them(spelled: str, name: str, drafter: str | None) -> None:
    spelling = read_spelling(spelled)
    assert spelling.strategy is not None
    assert (spelling.strategy.name, spelling.drafter) == (name, drafter)
    assert bool(spelling.remark) == ("not stated" in spelled or spelled == "standalone draft")


@pytest.mark.parametrize("spelled", ["", "none", "AR", "autoregressive", "plain decoding"])
def test_plain_decoding_has_many_names(spelled: str) -> None:
    assert find_drafter(read_spelling(spelled), None) is None


@pytest.mark.parametrize("spelled", ["quest + snapkv", "x", "self-spec + x", "+"])
def test_what_is_no_strategy_is_refused(spelled: str) -> None:
    with pytest.raises(SpecError, match="no strategy called"):
        read_spelling(spelled)


@pytest.mark.parametrize(
    ("draft", "itself"),
    [
        ("", True),
        ("self", True),
        ("Llama-3.1-8B (self)", True),
        ("llama-3.1-8b", True),
        ("llama-3.2-1b", False),
    ],
)
def test_the_target_as_its_own_draft_model(draft: str, itself: bool) -> None:
    assert is_self(draft, "LLaMA-3.1-8B") is itself
