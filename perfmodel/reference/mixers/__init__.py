"""Token mixers that the reference decoder runs, one file each."""

from perfmodel.reference.mixers.base import Entry, Mixer
from perfmodel.reference.mixers.chunked import Chunked
from perfmodel.reference.mixers.full_attention import FullAttention
from perfmodel.reference.mixers.gated_delta import GatedDelta
from perfmodel.reference.mixers.kimi_delta import KimiDelta
from perfmodel.reference.mixers.latent import Latent
from perfmodel.reference.mixers.latent_index import LatentIndex
from perfmodel.reference.mixers.lightning import Lightning
from perfmodel.reference.mixers.mamba2 import Mamba2
from perfmodel.reference.mixers.sliding_window import SlidingWindow

__all__ = [
    "Chunked", "Entry", "FullAttention", "GatedDelta", "KimiDelta", "Latent", "LatentIndex", "Lightning",
    "Mamba2", "Mixer", "SlidingWindow",
]  # fmt: skip
