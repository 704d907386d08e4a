"""Language models as the performance model sees them: their layers, their matrices and their bytes."""

from perfmodel.model.dtypes import BYTES
from perfmodel.model.heads import DraftHead
from perfmodel.model.launches import ForwardPass
from perfmodel.model.layers import Layer
from perfmodel.model.linear import LinearLayer
from perfmodel.model.mixers import TokenMixer
from perfmodel.model.spec import ModelSpec

__all__ = ["BYTES", "DraftHead", "ForwardPass", "Layer", "LinearLayer", "ModelSpec", "TokenMixer"]
