"""Dropout with cheap masks on a CPU."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

_LEVELS = 2**16


def dropout(features: Float[Tensor, "*axes"], rate: float, is_training: bool) -> Tensor:
    """Zero each feature with probability `rate` in training and scale up the others.

    The same distribution as `torch.nn.functional.dropout`, but on a CPU a mask costs 16 random
    bits an element instead of a draw from `bernoulli_`, which took 40 % of a training step. The
    rate is rounded to 1/65536. Draws come from torch's global generator: see `scoped_seed`.
    """
    if not is_training or rate == 0:
        return features
    if features.device.type != "cpu":
        return F.dropout(features, rate)
    count = features.numel()
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    levels = words.view(torch.int16)[:count].view(features.shape)
    threshold = round(rate * _LEVELS)
    kept = levels >= threshold - _LEVELS // 2
    return features * (kept * features.new_tensor(_LEVELS / (_LEVELS - threshold)))
