"""Numbers that show whether CMCL does anything: entropy, spread of features, who contributes."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slrctl.core.clip import ClipBatch


class Contributions(NamedTuple):
    """How many clips of a batch each term is a mean over."""

    consistency: int
    alignment: int


def contributing_clips(batch: ClipBatch) -> Contributions:
    """Consistency needs a frame with each hand, alignment a frame with either."""
    has_left, has_right = batch.left_is_present.any(-1), batch.right_is_present.any(-1)
    return Contributions(int((has_left & has_right).sum()), int((has_left | has_right).sum()))


def entropy_ratio(
    weights: Float[Tensor, "B H T T"],
    rows_count: Bool[Tensor, "B T"],
    keys_count: Bool[Tensor, "B T"],
) -> tuple[float, int]:
    """Attention entropy over that of uniform attention, 0 (one frame) to 1 (uniform).

    Returns:
        The mean over the clips' rows that count, and the number of clips in it. A clip with fewer
        than two keys has no entropy to compare and is left out.
    """
    weights = weights.float()
    entropy = -torch.xlogy(weights, weights).sum(-1).mean(1)  # B T
    num_keys = keys_count.sum(-1)
    rows = rows_count & (num_keys > 1)[:, None]
    uniform = num_keys.clamp(min=2).log()[:, None]
    per_clip = ((entropy / uniform) * rows).sum(-1) / rows.sum(-1).clamp(min=1)
    is_counted = rows.any(-1)
    num_clips = int(is_counted.sum())
    return float(per_clip[is_counted].sum()) / max(num_clips, 1), num_clips


def feature_variance(embedding: Float[Tensor, "N D"]) -> float:
    """Variance over clips, summed over features and divided by the mean squared norm.

    0 where all clips have the same embedding (collapse), up to 1 where they have mean 0.
    """
    power = embedding.square().sum(-1).mean()
    return float(embedding.var(0, correction=0).sum() / power.clamp(min=1e-12))


def effective_rank(embedding: Float[Tensor, "N D"]) -> float:
    """Exp of the entropy of the normalised singular values (Roy and Vetterli 2007), 1 to D."""
    centred = embedding.double() - embedding.double().mean(0)
    values = torch.linalg.svdvals(centred)
    share = values / values.sum().clamp(min=1e-12)
    return float(torch.exp(-torch.xlogy(share, share).sum()))
