"""The temporal extension of consistency: one frame later, attention lies one frame later."""

from jaxtyping import Bool, Float
from torch import Tensor

from slrctl.core.cmcl.consistency import (
    Divergence,
    log_distribution,
    mean_over_heads,
    row_divergence,
)


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
    frames j where the other hand is present in j and in j - 1 (SPEC section 5). A constant lag
    gives 0, and so do uniform maps.

    Args:
        left_to_right: attention weights; heads are averaged first.
        right_to_left: the same, of the other direction.
        left_is_present: whether a frame shows the left hand.
        right_is_present: whether it shows the right one.
        temperature: softens both rows, once.
        divergence: as in `consistency_loss`.

    Returns:
        For each map the mean over clips with two successive rows and a support, then the mean of
        both maps; exactly 0, with a working backward, where no clip has any.
    """
    forth = _one_map(left_to_right, left_is_present, right_is_present, temperature, divergence)
    back = _one_map(right_to_left, right_is_present, left_is_present, temperature, divergence)
    return (forth + back) / 2


def _one_map(
    weights: Float[Tensor, "B H T T"] | Float[Tensor, "B T T"],
    rows_present: Bool[Tensor, "B T"],
    keys_present: Bool[Tensor, "B T"],
    temperature: float,
    divergence: Divergence,
) -> Float[Tensor, ""]:
    weights = mean_over_heads(weights)
    keys = keys_present[:, 1:] & keys_present[:, :-1]
    rows = rows_present[:, 1:] & rows_present[:, :-1] & keys.any(-1, keepdim=True)
    support = keys[:, None, :].expand(-1, rows.shape[1], -1)
    later = log_distribution(weights[:, 1:, 1:], support, temperature)
    moved = log_distribution(weights[:, :-1, :-1], support, temperature)
    per_row = row_divergence(later, moved, support, divergence)
    per_clip = (per_row * rows).sum(-1) / rows.sum(-1).clamp(min=1)
    return per_clip.sum() / rows.any(-1).sum().clamp(min=1)
