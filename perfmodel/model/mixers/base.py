"""What a token mixer has to say: what it stores, which matrices it has, and what a pass launches in it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from perfmodel.files.numbers import Numeric
from perfmodel.model.dtypes import BYTES
from perfmodel.model.launches import Choose, ForwardPass, Recur, Way
from perfmodel.model.linear import Block, LinearLayer, Split

if TYPE_CHECKING:
    from typing_extensions import Self

    from perfmodel.model.families import Family
    from perfmodel.model.keys import ConfigKeys
    from perfmodel.model.layer_kind import LayerKind

__all__ = ["Cache", "Recurrent", "Sizes", "State", "TokenMixer", "matrix"]

MAX_WIDTH = 1_000_000
MAX_TOKENS = 1_000_000_000


@dataclass(frozen=True)
class Sizes:
    """What the layers of a decoder share unless one says otherwise. [1]"""

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    family: Family
    base: str


@dataclass(frozen=True)
class Cache:
    """Entries that a layer keeps of a sequence.

    Parameters
    ----------
    elements : of one entry, over all `kv_heads`. [1]
    kv_heads : heads that GPUs share it by; 1 where every GPU holds all of it. [1]
    window : most entries that it holds, None for one of every token. [tokens]
    tokens_per_entry : tokens that one entry stands for. [tokens]
    """

    elements: int
    kv_heads: int
    window: int | None = None
    tokens_per_entry: int = 1

    def entries(self, context_len: Numeric) -> Numeric:
        """Entries of a sequence of `context_len` tokens. [1]"""
        kept = context_len if self.window is None else np.minimum(context_len, self.window)
        if self.tokens_per_entry == 1:
            return np.asarray(kept)
        entries: Numeric = np.divide(kept, self.tokens_per_entry)
        return entries

    def grows(self, context_len: Numeric) -> Numeric:
        """Entries that one further token adds to a sequence of `context_len` tokens. [1]"""
        grows = np.ones(np.shape(context_len)) if self.window is None else np.less(context_len, self.window)
        entries: Numeric = np.divide(grows, self.tokens_per_entry)
        return entries

    def elements_per_gpu(self, tensor_parallel: Numeric) -> Numeric:
        """Elements of an entry on each of `tensor_parallel` GPUs; beyond `kv_heads` they hold copies. [1]"""
        shared = np.minimum(np.asarray(tensor_parallel, dtype=float), self.kv_heads)
        held: Numeric = self.elements / shared
        return held


@dataclass(frozen=True)
class State:
    """What a layer keeps of a sequence however long it is, which verification cannot take drafts back out of.

    Parameters
    ----------
    elements, dtype : of the recurrent state.
    inputs : the last inputs of its convolutions, in the model's dtype. [1]
    heads : by which GPUs share it. [1]
    kept : whether a verification must keep one for every draft; what only gathers tokens may be undone.
    """

    elements: int
    dtype: str
    inputs: int
    heads: int
    kept: bool = True

    def bytes(self, base_dtype: str) -> float:
        """Bytes of one sequence. [B]"""
        return self.elements * BYTES[self.dtype] + self.inputs * BYTES[base_dtype]


@dataclass(frozen=True, kw_only=True)
class TokenMixer(ABC):
    """The part of a layer in which tokens see one another; ``mixers/<name>.py`` holds one class like this.

    ``words`` are its names in the lists by which configs say what each layer is, ``marks`` the keys of which
    one must be there for the words to mean this mixer. A mixer without marks is meant where no other is.
    """

    words: ClassVar[tuple[str, ...]] = ()
    marks: ClassVar[tuple[str, ...]] = ()
    label: ClassVar[str] = ""

    heads: int

    @classmethod
    @abstractmethod
    def read(cls, keys: ConfigKeys, sizes: Sizes, kind: LayerKind) -> Self:
        """Return the mixer of a layer of that kind as a config describes it; faults are noted in `keys`."""

    @abstractmethod
    def products(self, hidden: int) -> tuple[LinearLayer, ...]:
        """Its matrix products in their order."""

    @abstractmethod
    def ways(self, forward: ForwardPass) -> tuple[Way, ...]:
        """What one pass launches in one layer, by each way there is to compute it."""

    @property
    def caches(self) -> tuple[Cache, ...]:
        """Entries that one layer keeps per token."""
        return ()

    @property
    def state(self) -> State | None:
        """What one layer keeps per sequence."""
        return None

    @property
    def reach(self) -> float:
        """Tokens that a query looks back at most; infinite where it sees the whole context. [tokens]"""
        return np.inf

    def with_cache(self) -> Self:
        """Return the mixer as it is in a layer that keeps a cache of its own."""
        return self

    @property
    def budgeted(self) -> bool:
        """Whether a draft KV budget can choose among its entries."""
        return any(cache.window is None for cache in self.caches)


def matrix(
    name: str,
    n: int,
    k: int,
    split: Split,
    *modules: str,
    vectors: int = 0,
    block: Block = "attention",
    keeps_precision: bool = False,
) -> LinearLayer:
    """Return one matrix product of a layer."""
    return LinearLayer(
        name, n, k, 1, split, block=block, vectors=vectors, modules=modules, keeps_precision=keeps_precision
    )


def with_choice(forward: ForwardPass, way: Way) -> Way:
    """Return a way with what a draft pass launches to choose the entries that it reads."""
    return (*way, Choose(launches=forward.selection_launches)) if forward.chooses else way


def shared_and_alone(forward: ForwardPass, readable: Numeric, most: float) -> list[tuple[Numeric, Numeric]]:
    """Return the ways in which queries may read what an index chose: (queries that share it, sets of them).

    Queries of a verification share neither their choice nor what they read, unless all of at most `most`
    entries is chosen; then a kernel may still take them one by one. Those of a prefill are so many that
    together they choose everything, and share it in L2. [tokens], [1]
    """
    queries = np.asarray(forward.query_tokens, dtype=float)
    if forward.history is not None:
        return [(queries, 1.0)]
    alone = np.asarray(readable) > most
    ways: list[tuple[Numeric, Numeric]] = [(np.where(alone, 1.0, queries), np.where(alone, queries, 1.0))]
    if np.any(queries > 1.0) and not np.all(alone):
        ways.append((1.0, queries))
    return ways


@dataclass(frozen=True, kw_only=True)
class Recurrent(TokenMixer):
    """A mixer that keeps a state instead of a growing cache.

    Parameters
    ----------
    heads : of the state, by which GPUs share it. [1]
    state_dtype : of the state.
    """

    state_dtype: str = "fp32"

    @property
    @abstractmethod
    def state_elements(self) -> int:
        """Elements of the state. [1]"""

    @property
    def kept_inputs(self) -> int:
        """Elements that its convolutions keep. [1]"""
        return 0

    @property
    @abstractmethod
    def row_elements(self) -> int:
        """Elements of a token that go in and come out. [1]"""

    @property
    @abstractmethod
    def step_flops(self) -> float:
        """FLOPs of one token, one after the other. [FLOP]"""

    @property
    def chunk_flops(self) -> float:
        """FLOPs of one token where a chunk of them is computed at once. [FLOP]"""
        return self.step_flops

    tensor_cores: ClassVar[bool] = True

    @property
    def state(self) -> State:
        """The state and what the convolutions keep."""
        return State(self.state_elements, self.state_dtype, self.kept_inputs, self.heads)

    @property
    def reach(self) -> float:
        """It reads no entries."""
        return 0.0

    def ways(self, forward: ForwardPass) -> tuple[Way, ...]:
        """Return one launch: the state is read, advanced by every token, and written.

        A verification leaves ``kept_states`` states for each of its tokens, because a rejected draft cannot
        be taken back out; where none is kept the accepted tokens are computed again.
        """
        queries = np.asarray(forward.query_tokens, dtype=float)
        if forward.history is None:
            verifies = queries > 1.0
            trips = np.where(verifies, forward.state_trips, 0.0)
            writes = np.where(verifies, queries * forward.kept_states + trips, 1.0)
            again = trips * (1.0 - np.asarray(forward.kept_states))
            flops = queries * self.step_flops * (1.0 + again)
            reads = 1.0 + trips
        else:
            reads, writes, flops = np.ones(()), np.ones(()), queries * self.chunk_flops
        launch = Recur(
            heads=self.heads,
            state_bytes=self.state.bytes("bf16"),
            reads=reads,
            writes=writes,
            row_bytes=self.row_elements * BYTES["bf16"],
            query_tokens=queries,
            flops=flops,
            tensor_cores=self.tensor_cores,
        )
        return ((launch,),)
