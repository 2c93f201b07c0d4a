"""Dropout with cheap masks on a CPU."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from slrctl.core.model.fast.random_words import MOST_ELEMENTS, keep_scale, mask_blocks


def dropout(
    features: Float[Tensor, " *axes"],
    rate: float,
    is_training: bool,
    *,
    most: int = MOST_ELEMENTS,
) -> Tensor:
    """Zero each feature with probability `rate` in training and scale up the others.

    The same distribution as `torch.nn.functional.dropout`, but on a CPU a mask costs a twentieth of
    a draw from `bernoulli_`, which took 40 % of a training step. The rate is rounded to 1/65536.
    Draws come from the generator of `scoped_seed`, for blocks of rows of at most so many elements.
    """
    if not is_training or rate == 0:
        return features
    if features.device.type != "cpu":
        return F.dropout(features, rate)
    width = features.numel() // len(features)
    num_rows = len(features)
    if width > MOST_ELEMENTS:
        num_rows, width = features.numel() // features.shape[-1], features.shape[-1]
    masks = mask_blocks(num_rows, width, rate, features.dtype, most)
    keep = torch.cat([mask.clone() for _, mask in masks]).view(features.shape)
    return features * keep.to(features.dtype).mul_(keep_scale(rate))
