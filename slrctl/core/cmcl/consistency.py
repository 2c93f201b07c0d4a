"""The consistency term: what the left hand reads in the right must match the way back."""

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# The floor under a weight before its logarithm. A whole disagreement costs ln(1e9) = 20.7.
FLOOR = 1e-9
Divergence = Literal["kl", "symmetric", "js"]


def consistency_loss(
    left_to_right: Float[Tensor, "B H T T"] | Float[Tensor, "B T T"],
    right_to_left: Float[Tensor, "B H T T"] | Float[Tensor, "B T T"],
    left_is_present: Bool[Tensor, "B T"],
    right_is_present: Bool[Tensor, "B T"],
    *,
    temperature: float = 1.0,
    divergence: Divergence = "kl",
) -> Float[Tensor, ""]:
    """KL( A_left->right || A_right->left^T ) of SPEC section 5, in nats.

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
    if divergence not in get_args(Divergence):
        raise ValueError(f"divergence {divergence!r} is not one of {get_args(Divergence)}")
    if not temperature > 0:
        raise ValueError(f"temperature ({temperature}) must be above 0")
    support = right_is_present[:, None, :].expand(-1, left_is_present.shape[1], -1)
    back = mean_over_heads(right_to_left).transpose(1, 2)
    log_p = log_distribution(mean_over_heads(left_to_right), support, temperature)
    log_q = log_distribution(back, support, temperature)
    per_row = row_divergence(log_p, log_q, support, divergence)
    rows = left_is_present & right_is_present.any(-1, keepdim=True)
    per_clip = (per_row * rows).sum(-1) / rows.sum(-1).clamp(min=1)
    return per_clip.sum() / rows.any(-1).sum().clamp(min=1)


def mean_over_heads(weights: Tensor) -> Float[Tensor, "B T T"]:
    weights = weights.to(torch.promote_types(weights.dtype, torch.float32))
    # Not `mean`: the gradient of a sum, the same for all heads, needs no memory for each.
    return weights.sum(1) / weights.shape[1] if weights.ndim == 4 else weights


def log_distribution(
    weights: Float[Tensor, "B T T"], support: Bool[Tensor, "B T T"], temperature: float
) -> Float[Tensor, "B T T"]:
    """Log-probabilities over the support; a huge negative number, not -inf, outside it."""
    logs = weights.clamp(min=FLOOR).log() / temperature
    return logs.masked_fill(~support, torch.finfo(logs.dtype).min / 4).log_softmax(-1)


def row_divergence(
    log_p: Float[Tensor, "B T T"],
    log_q: Float[Tensor, "B T T"],
    support: Bool[Tensor, "B T T"],
    divergence: Divergence,
) -> Float[Tensor, "B T"]:
    if divergence == "kl":
        return _kl(log_p, log_q, support)
    if divergence == "symmetric":
        return (_kl(log_p, log_q, support) + _kl(log_q, log_p, support)) / 2
    middle = torch.logaddexp(log_p, log_q) - torch.log(log_p.new_tensor(2.0))
    return (_kl(log_p, middle, support) + _kl(log_q, middle, support)) / 2


def _kl(
    log_p: Float[Tensor, "B T T"], log_q: Float[Tensor, "B T T"], support: Bool[Tensor, "B T T"]
) -> Float[Tensor, "B T"]:
    difference = torch.where(support, log_p - log_q, 0.0)
    # Never negative in exact arithmetic; rounding alone gets below 0.
    return (log_p.exp() * difference).sum(-1).clamp(min=0.0)
