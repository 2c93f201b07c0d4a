"""The cycle form of consistency: walking to the other hand and back should lead home."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slrctl.core.cmcl.consistency import FLOOR, mean_over_heads


def cycle_loss(
    left_to_right: Float[Tensor, "B H T T"] | Float[Tensor, "B T T"],
    right_to_left: Float[Tensor, "B H T T"] | Float[Tensor, "B T T"],
    left_is_present: Bool[Tensor, "B T"],
    right_is_present: Bool[Tensor, "B T"],
    *,
    window: int = 1,
) -> Float[Tensor, ""]:
    """-log of the probability that left -> right -> left ends near its start (SPEC section 5).

    R = A_lr A_rl holds these walks. Uniform maps cost about log(T / (2 window + 1)), so this form
    cannot be satisfied by attending to nothing. It is 0 for any invertible correspondence, a
    purely positional one included: it does not by itself find the right one.

    Args:
        left_to_right: attention weights; heads are averaged and rows renormalised over the present
            frames first.
        right_to_left: the same, of the other direction.
        left_is_present: frames a walk may start from, where the right hand is present too, and
            those it may end in.
        right_is_present: frames a walk may pass through.
        window: how many frames from its start a walk may end, either way.

    Returns:
        The mean over contributing clips of the mean over starts. A clip with fewer than
        2 window + 2 frames that show both hands contributes nothing; without a contributing clip
        the result is exactly 0, with a working backward.

    Raises:
        ValueError: the window is negative.
    """
    if window < 0:
        raise ValueError(f"window ({window}) must not be negative")
    forth = _renormalised(mean_over_heads(left_to_right), right_is_present)
    back = _renormalised(mean_over_heads(right_to_left), left_is_present)
    frames = torch.arange(forth.shape[-1], device=forth.device)
    is_near = (frames[:, None] - frames).abs() <= window
    home = (forth @ back).masked_fill(~is_near, 0.0).sum(-1)
    starts = left_is_present & right_is_present
    starts = starts & is_cyclic(left_is_present, right_is_present, window)[:, None]
    per_row = -home.clamp(min=FLOOR).log()
    per_clip = (per_row * starts).sum(-1) / starts.sum(-1).clamp(min=1)
    return per_clip.sum() / starts.any(-1).sum().clamp(min=1)


def is_cyclic(
    left_is_present: Bool[Tensor, "B T"], right_is_present: Bool[Tensor, "B T"], window: int = 1
) -> Bool[Tensor, " B"]:
    """Whether enough frames show both hands for coming home to mean anything."""
    return (left_is_present & right_is_present).sum(-1) >= 2 * window + 2


def _renormalised(
    weights: Float[Tensor, "B T T"], keys_present: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T T"]:
    kept = weights.masked_fill(~keys_present[:, None, :], 0.0)
    return kept / kept.sum(-1, keepdim=True).clamp(min=FLOOR)
