"""Dropout with cheap masks on a CPU."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from slrctl.core.model.fast.random_words import draw_masks, keep_mask


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
