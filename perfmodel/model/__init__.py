"""Language models as the performance model sees them: their matrices, attention layers and bytes."""

from perfmodel.model.dtypes import BYTES
from perfmodel.model.layers import AttentionLayers, LinearLayer
from perfmodel.model.spec import ModelSpec

__all__ = ["BYTES", "AttentionLayers", "LinearLayer", "ModelSpec"]
