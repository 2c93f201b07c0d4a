"""Dropout with cheap masks on a CPU."""

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from slrctl.core.model.fast.random_words import (
    draw_masks,
    draw_masks_of_weights,
    keep_mask,
    keep_mask_of_weights,
    weights_fit,
)


def dropout(features: Float[Tensor, "*axes D"], rate: float, is_training: bool) -> Tensor:
    """Zero each feature with probability `rate` in training and scale up the others.

    The same distribution as `torch.nn.functional.dropout`, but on a CPU draws come from the
    generator of `scoped_seed`, and masks are those that the fast path applies as it goes. The rate
    is rounded to 1/65536.
    """
    if not is_training or rate == 0:
        return features
    if features.device.type != "cpu":
        return F.dropout(features, rate)
    width = features.shape[-1]
    num_rows = features.numel() // width
    masks = draw_masks(num_rows, width, rate)
    keep = keep_mask(masks, num_rows, width).view(features.shape)
    return features * keep.to(features.dtype).mul_(masks.scale)


def dropout_of_weights(
    weights: Float[Tensor, "B H Q T"],
    rate: float,
    is_training: bool,
    is_attended: Bool[Tensor, "B T"] | None = None,
) -> Float[Tensor, "B H Q T"]:
    """The same for weights of attention, with the masks on a CPU in the order of the fast path.

    There a mask is of the keys that are attended to, which are all of them unless they are given.
    """
    num_clips, num_heads, num_queries, num_keys = weights.shape
    if not is_training or rate == 0 or weights.numel() == 0:
        return weights
    if weights.device.type != "cpu" or not weights_fit(num_keys):
        return dropout(weights, rate, is_training)
    size = num_clips * num_heads, num_queries, num_keys
    masks = draw_masks_of_weights(*size, rate)
    keep = keep_mask_of_weights(masks, *size).view(weights.shape)
    if is_attended is not None:
        row_of_key = (is_attended.expand(num_clips, num_keys).cumsum(-1) - 1).clamp(min=0)
        keep = keep.gather(-1, row_of_key[:, None, None].expand_as(keep))
    return weights * keep.to(weights.dtype).mul_(masks.scale)
