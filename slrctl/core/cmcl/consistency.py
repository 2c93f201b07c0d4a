"""The consistency term: KL( A_left->right || A_right->left^T ), clip by clip."""

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
    """KL( A_left->right || A_right->left^T ) as `docs/method.md` reads it, in nats.

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

    Raises:
        ValueError: the divergence is not one of the three, or the temperature is not above 0.
    """
    maps = HandMaps.averaged(left_to_right, right_to_left, left_is_present, right_is_present)
    per_clip = consistency_per_clip(maps, temperature, divergence)
    return masked_mean(per_clip, shows_both_hands(left_is_present, right_is_present))
