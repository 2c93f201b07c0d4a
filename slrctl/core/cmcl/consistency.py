"""The consistency term: KL( A_left->right || A_right->left^T ), a cycle, a temporal extension.

`docs/method.md` defines the three. Each has a function of clips, which the training calls, and its
mean over the clips that contribute, which is public.
"""

from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# The floor under a weight before its logarithm. A whole disagreement costs ln(1e9) = 20.7.
FLOOR = 1e-9
Divergence = Literal["kl", "symmetric", "js"]


def masked_mean(
    values: Float[Tensor, "*S N"], is_counted: Bool[Tensor, "*S N"]
) -> Float[Tensor, "*S"]:
    """Mean of the last axis over its counted entries; exactly 0, with a gradient, without any."""
    return (values * is_counted).sum(-1) / is_counted.sum(-1).clamp(min=1)


def mean_over_heads(
    weights: Float[Tensor, "B H T T"] | Float[Tensor, "B T T"],
) -> Float[Tensor, "B T T"]:
    """Average the heads, where there are any, in at least float32."""
    weights = weights.to(torch.promote_types(weights.dtype, torch.float32))
    # Not `mean`: the gradient of a sum, the same for all heads, needs no memory for each.
    return weights.sum(1) / weights.shape[1] if weights.ndim == 4 else weights


def log_distribution(
    weights: Float[Tensor, "B I J"], support: Bool[Tensor, "B J"], temperature: float
) -> Float[Tensor, "B I J"]:
    """Log-probabilities over the support; a huge negative number, not -inf, outside it."""
    logs = weights.clamp(min=FLOOR).log() / temperature
    outside = torch.finfo(logs.dtype).min / 4
    return logs.masked_fill(~support[:, None, :], outside).log_softmax(-1)


def row_divergence(
    log_p: Float[Tensor, "B I J"],
    log_q: Float[Tensor, "B I J"],
    support: Bool[Tensor, "B J"],
    divergence: Divergence,
) -> Float[Tensor, "B I"]:
    """Compare the rows of two maps of log-probabilities."""
    if divergence == "kl":
        return _kl(log_p, log_q, support)
    if divergence == "symmetric":
        return (_kl(log_p, log_q, support) + _kl(log_q, log_p, support)) / 2
    middle = torch.logaddexp(log_p, log_q) - torch.log(log_p.new_tensor(2.0))
    return (_kl(log_p, middle, support) + _kl(log_q, middle, support)) / 2


def _kl(
    log_p: Float[Tensor, "B I J"], log_q: Float[Tensor, "B I J"], support: Bool[Tensor, "B J"]
) -> Float[Tensor, "B I"]:
    difference = (log_p - log_q).masked_fill(~support[:, None, :], 0.0)
    # Never negative in exact arithmetic; rounding alone gets below 0.
    return (log_p.exp() * difference).sum(-1).clamp(min=0.0)


class HandMaps(NamedTuple):
    """The two attention maps between the hands, and the frames that show each hand."""

    left_to_right: Float[Tensor, "B T T"]
    right_to_left: Float[Tensor, "B T T"]
    left_is_present: Bool[Tensor, "B T"]
    right_is_present: Bool[Tensor, "B T"]

    @classmethod
    def averaged(
        cls, left_to_right: Tensor, right_to_left: Tensor, left: Tensor, right: Tensor
    ) -> "HandMaps":
        """Average the heads of both maps."""
        return cls(mean_over_heads(left_to_right), mean_over_heads(right_to_left), left, right)


def shows_both_hands(
    left_is_present: Bool[Tensor, "B T"], right_is_present: Bool[Tensor, "B T"]
) -> Bool[Tensor, " B"]:
    """Select the clips with a frame of each hand, not necessarily the same one."""
    return left_is_present.any(-1) & right_is_present.any(-1)


def consistency_per_clip(
    maps: HandMaps, temperature: float, divergence: Divergence
) -> Float[Tensor, " B"]:
    """Return `consistency_loss` of each clip; 0 where it does not show both hands."""
    if divergence not in get_args(Divergence):
        raise ValueError(f"divergence {divergence!r} is not one of {get_args(Divergence)}")
    if not temperature > 0:
        raise ValueError(f"temperature ({temperature}) must be above 0")
    support = maps.right_is_present
    log_p = log_distribution(maps.left_to_right, support, temperature)
    log_q = log_distribution(maps.right_to_left.mT, support, temperature)
    per_row = row_divergence(log_p, log_q, support, divergence)
    return masked_mean(per_row, maps.left_is_present & support.any(-1, keepdim=True))


def consistency_loss(
    left_to_right: Float[Tensor, "B H T T"] | Float[Tensor, "B T T"],
    right_to_left: Float[Tensor, "B H T T"] | Float[Tensor, "B T T"],
    left_is_present: Bool[Tensor, "B T"],
    right_is_present: Bool[Tensor, "B T"],
    *,
    temperature: float = 1.0,
    divergence: Divergence = "kl",
) -> Float[Tensor, ""]:
    """KL( A_left->right || A_right->left^T ), in nats.

    Row i of the left-to-right map is a distribution over the right hand's frames j. The reverse
    map read backwards, `right_to_left[j, i]` renormalised over j, gives the other one. Both are
    softened by the temperature, once. Uniform maps give 0 as well: see the attention entropy.

    Args:
        left_to_right: attention weights, rows summing to 1; heads are averaged first.
        right_to_left: the same, of the other direction.
        left_is_present: rows that count.
        right_is_present: the support of the distributions.
        temperature: above 1 softens, below 1 sharpens.
        divergence: `kl`, `symmetric` (half the sum of both directions) or `js`.

    Returns:
        The mean over contributing clips of the mean over rows; exactly 0, with a working backward,
        where no clip has both hands.
    """
    maps = HandMaps.averaged(left_to_right, right_to_left, left_is_present, right_is_present)
    per_clip = consistency_per_clip(maps, temperature, divergence)
    return masked_mean(per_clip, shows_both_hands(left_is_present, right_is_present))


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

    A walk starts from a frame that shows both hands, and ends within `window` frames of it or not.
    A clip with fewer than 2 window + 2 such frames contributes nothing; without a contributing
    clip the result is exactly 0, with a working backward.
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

    Temperature and divergence are those of `consistency_loss`. Without a clip that shows two
    successive frames of each hand the result is exactly 0, with a working backward.
    """
    maps = HandMaps.averaged(left_to_right, right_to_left, left_is_present, right_is_present)
    per_clip = temporal_per_clip(maps, temperature, divergence)
    return masked_mean(per_clip, has_successive_frames(left_is_present, right_is_present))
