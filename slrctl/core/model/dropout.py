"""Dropout with cheap masks on a CPU, alone and together with a ReLU."""

from typing import Any

import torch
from jaxtyping import Bool, Float
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
    return features * (_kept(features, rate) * features.new_tensor(_scale(rate)))


def relu_dropout(features: Float[Tensor, "*axes"], rate: float, is_training: bool) -> Tensor:
    """`dropout(relu(features), ...)`, with the same draws, in fewer passes over memory.

    The hidden units of the feed-forward are the largest tensors of a training step, and its time
    is the time to touch them. No mask is kept for the backward pass: a unit lets the gradient
    through exactly where its result is above 0.
    """
    if not is_training or rate == 0 or features.device.type != "cpu":
        return dropout(F.relu(features), rate, is_training)
    result: Tensor = _ReluDropout.apply(features, rate)  # pyright: ignore[reportAssignmentType]
    return result


class _ReluDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, rate: float) -> Tensor:
        result = features.clamp(min=0).mul_(_kept(features, rate)).mul_(_scale(rate))
        ctx.save_for_backward(result)
        ctx.rate = rate
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (result,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradients[0], result, 0).mul_(
            _scale(ctx.rate)
        ), None


def _kept(features: Tensor, rate: float) -> Bool[Tensor, "*axes"]:
    """Draw which elements stay: 16 bits each, four from a random word."""
    count = features.numel()
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    levels = words.view(torch.int16)[:count].view(features.shape)
    return levels >= _threshold(rate) - _LEVELS // 2


def _threshold(rate: float) -> int:
    return round(rate * _LEVELS)


def _scale(rate: float) -> float:
    """What makes up for the dropped share, exactly."""
    return _LEVELS / (_LEVELS - _threshold(rate))
