"""Other forms of consistency: the cycle left -> right -> left, and the temporal extension."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slrctl.core.cmcl.consistency import (
    FLOOR,
    Divergence,
    HandMaps,
    log_distribution,
    masked_mean,
    row_divergence,
)


def has_cycles(
    left_is_present: Bool[Tensor, "B T"], right_is_present: Bool[Tensor, "B T"], window: int = 1
) -> Bool[Tensor, " B"]:
    """Select the clips with enough frames of both hands for a return within the window to count."""
    return (left_is_present & right_is_present).sum(-1) >= 2 * window + 2


def cycle_per_clip(maps: HandMaps, window: int = 1) -> Float[Tensor, " B"]:
    """Return `cycle_loss` of each clip; 0 where too few frames show both hands."""
    if window < 0:
        raise ValueError(f"window ({window}) must not be negative")
    left, right = maps.left_is_present, maps.right_is_present
    walks = _renormalised(maps.left_to_right, right) @ _renormalised(maps.right_to_left, left)
    frames = torch.arange(walks.shape[-1], device=walks.device)
    is_near = (frames[:, None] - frames).abs() <= window
    returned = walks.masked_fill(~is_near, 0.0).sum(-1)
    starts = left & right & has_cycles(left, right, window)[:, None]
    return masked_mean(-returned.clamp(min=FLOOR).log(), starts)


def _renormalised(
    weights: Float[Tensor, "B T T"], keys_present: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T T"]:
    kept = weights.masked_fill(~keys_present[:, None, :], 0.0)
    return kept / kept.sum(-1, keepdim=True).clamp(min=FLOOR)


def cycle_loss(
    left_to_right: Float[Tensor, "B H T T"] | Float[Tensor, "B T T"],
    right_to_left: Float[Tensor, "B H T T"] | Float[Tensor, "B T T"],
    left_is_present: Bool[Tensor, "B T"],
    right_is_present: Bool[Tensor, "B T"],
    *,
    window: int = 1,
) -> Float[Tensor, ""]:
    """-log of the probability that a walk left -> right -> left ends near its start.

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
        window: largest distance, in frames, between the start and the end of a walk.

    Returns:
        The mean over contributing clips of the mean over starts. A clip with fewer than
        2 window + 2 frames that show both hands contributes nothing; without a contributing clip
        the result is exactly 0, with a working backward.

    Raises:
        ValueError: the window is negative.
    """
    maps = HandMaps.averaged(left_to_right, right_to_left, left_is_present, right_is_present)
    is_counted = has_cycles(left_is_present, right_is_present, window)
    return masked_mean(cycle_per_clip(maps, window), is_counted)


def has_successive_frames(
    left_is_present: Bool[Tensor, "B T"], right_is_present: Bool[Tensor, "B T"]
) -> Bool[Tensor, " B"]:
    """Select the clips with two successive frames of each hand."""
    left, right = (seen[:, 1:] & seen[:, :-1] for seen in (left_is_present, right_is_present))
    return left.any(-1) & right.any(-1)


def temporal_per_clip(
    maps: HandMaps, temperature: float, divergence: Divergence
) -> Float[Tensor, " B"]:
    """Return `temporal_loss` of each clip; 0 without two successive frames of each hand."""
    forth = (maps.left_to_right, maps.left_is_present, maps.right_is_present)
    back = (maps.right_to_left, maps.right_is_present, maps.left_is_present)
    per_direction = []
    for weights, rows_present, keys_present in (forth, back):
        keys = keys_present[:, 1:] & keys_present[:, :-1]
        rows = rows_present[:, 1:] & rows_present[:, :-1] & keys.any(-1, keepdim=True)
        later = log_distribution(weights[:, 1:, 1:], keys, temperature)
        moved = log_distribution(weights[:, :-1, :-1], keys, temperature)
        per_direction.append(masked_mean(row_divergence(later, moved, keys, divergence), rows))
    return (per_direction[0] + per_direction[1]) / 2


def temporal_loss(
    left_to_right: Float[Tensor, "B H T T"] | Float[Tensor, "B T T"],
    right_to_left: Float[Tensor, "B H T T"] | Float[Tensor, "B T T"],
    left_is_present: Bool[Tensor, "B T"],
    right_is_present: Bool[Tensor, "B T"],
    *,
    temperature: float = 1.0,
    divergence: Divergence = "kl",
) -> Float[Tensor, ""]:
    """Divergence of row i + 1 from row i moved on by one frame, the mean of both maps.

    Row i + 1 over frames 1.. is compared with row i over frames ..-1, both renormalised over the
    frames j where the other hand is present in j and in j - 1. A constant lag gives 0, and so do
    uniform maps.

    Args:
        left_to_right: attention weights; heads are averaged first.
        right_to_left: the same, of the other direction.
        left_is_present: True where a frame shows the left hand.
        right_is_present: True where it shows the right one.
        temperature: softens both rows, once.
        divergence: as in `consistency_loss`.

    Returns:
        The mean over the clips with two successive frames of each hand; exactly 0, with a working
        backward, where no clip has any.
    """
    maps = HandMaps.averaged(left_to_right, right_to_left, left_is_present, right_is_present)
    per_clip = temporal_per_clip(maps, temperature, divergence)
    return masked_mean(per_clip, has_successive_frames(left_is_present, right_is_present))
